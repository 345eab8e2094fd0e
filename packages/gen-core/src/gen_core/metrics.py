"""Sample quality: how far one set of samples is from another, seen through any features.

A metric is a function `(a, b) -> float` of two sets with one sample per row. Rows of more than one axis (images) are
flattened, everything is computed in float64 on the device of `a`, and the sets may differ in size.

    a, b = features(real), features(fake)         # any network, or the raw pixels: Features
    print(kid(a, b), prdc(a, b).recall)
    print(bootstrap(frechet, a, b))               # gen_core.intervals: 0.07745 [0.05278, 0.1021] at n=898

`frechet` and the Wasserstein distances are biased upwards, the more the smaller n, so they compare only at equal n;
`kid` and `mmd` are unbiased. The training set itself scores best in all of them: report `memorisation` beside them.

[Heusel17] GANs trained by a two time-scale update rule converge to a local Nash equilibrium, arXiv:1706.08500.
[Binkowski18] Demystifying MMD GANs, arXiv:1801.01401.
[Gretton12] A kernel two-sample test, JMLR 13:723.
[Bonneel15] Sliced and Radon Wasserstein barycenters of measures, J. Math. Imaging Vis. 51:22.
[Kynkaanniemi19] Improved precision and recall metric for assessing generative models, arXiv:1904.06991.
[Naeem20] Reliable fidelity and diversity metrics for generative models, arXiv:2002.09797.
[Xu18] An empirical study on evaluation metrics of generative adversarial networks, arXiv:1806.07755.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gen_core.distances import distance_blocks, manifolds, nearest, radii, row_blocks, same_set, squared_distances

Features = Callable[[Tensor], Tensor]  # samples (n, ...) -> features (n, d)
Kernel = Callable[[Tensor, Tensor], Tensor]  # (n, d), (m, d) -> k(x_i, y_j) of shape (n, m)


def frechet(a: Float[Tensor, "n ..."], b: Float[Tensor, "m ..."]) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), the squared W_2 of two Gaussians ([Heusel17] eq. 6).

    With S_a = R_a' R_a, where R_a are the centred samples over (n - 1)^(1/2) or the smaller R of their QR, the square
    roots of the eigenvalues of S_a S_b are the singular values of R_a R_b': never complex or negative, and exact to
    rounding even for singular covariances.

    >>> x = torch.tensor([[-1.0], [1.0]])  # variance 2
    >>> round(frechet(x, 3 * x + 1), 9)  # 1^2 + (3 - 1)^2 * 2
    9.0
    """
    a, b = _pair(a, b)
    mu_a, mu_b = a.mean(0), b.mean(0)
    r_a, r_b = _root(a - mu_a), _root(b - mu_b)
    root = torch.linalg.svdvals(r_a @ r_b.T)
    return ((mu_a - mu_b).square().sum() + r_a.square().sum() + r_b.square().sum() - 2 * root.sum()).item()


def _root(centred: Float[Tensor, "n d"]) -> Float[Tensor, "rows d"]:
    """R with R' R = S, in as few rows as samples and features allow."""
    n, d = centred.shape
    return (torch.linalg.qr(centred, mode="r").R if n > d else centred) / math.sqrt(n - 1)


def kid(a: Float[Tensor, "n ..."], b: Float[Tensor, "m ..."]) -> float:
    """Kernel inception distance: `mmd` with k(x, y) = (x.y/d + 1)^3 ([Binkowski18] section 4)."""
    return mmd(a, b, lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3)


def mmd(a: Float[Tensor, "n ..."], b: Float[Tensor, "m ..."], kernel: Kernel | None = None) -> float:
    """Squared maximum mean discrepancy, unbiased and so at times negative ([Gretton12] eq. 3).

    Args:
        kernel: symmetric and positive definite; None is `gaussian(median_distance(a, b))`.
    """
    a, b = _pair(a, b)
    kernel = kernel or gaussian(median_distance(a, b))
    n, m = len(a), len(b)
    within = _total(kernel, a, a) / (n * (n - 1)) + _total(kernel, b, b) / (m * (m - 1))
    return (within - 2 * _total(kernel, a, b) / (n * m)).item()


def _total(kernel: Kernel, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Sum of k(x_i, y_j) over all pairs, but over i != j within one set (`x is y`)."""
    sums = []
    for i, rows in row_blocks(x, len(y)):
        k = kernel(rows, y)
        sums.append(k.sum() - k.diagonal(i).sum() if x is y else k.sum())
    return torch.stack(sums).sum()


def gaussian(bandwidth: int | float) -> Kernel:
    """k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2))."""
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be above 0, got {bandwidth}; pass one if most samples coincide")
    return lambda x, y: torch.exp(-torch.cdist(x, y).square() / (2 * bandwidth**2))


def median_distance(a: Float[Tensor, "n ..."], b: Float[Tensor, "m ..."], limit: int = 2000) -> float:
    """Median distance within the pooled samples ([Gretton12] section 8), of which `limit` at even steps are used."""
    pooled = torch.cat(_pair(a, b))
    return torch.pdist(pooled[:: math.ceil(len(pooled) / limit)]).median().item()


def sliced_wasserstein(
    a: Float[Tensor, "a ..."],
    b: Float[Tensor, "b ..."],
    n: int = 500,
    *,
    generator: torch.Generator | None = None,
    p: int | float = 2,
) -> float:
    """(mean of W_p(u.a, u.b)^p over n random unit vectors u)^(1/p) ([Bonneel15]).

    Each slice is exact, for unequal sizes too; with one feature the result is W_p itself.
    """
    a, b = _pair(a, b, least=1)
    u = torch.randn(a.shape[1], n, dtype=torch.float64, device=_device(generator), generator=generator).to(a.device)
    slices = torch.cat([_quantile_cost(a @ v, b @ v, p) for v in (u / u.norm(dim=0)).split(64, dim=1)])
    return slices.mean().item() ** (1 / p)


def _quantile_cost(a: Float[Tensor, "n s"], b: Float[Tensor, "m s"], p: int | float) -> Float[Tensor, "s"]:
    """Per column, W_p^p = the integral of |A(q) - B(q)|^p over (0, 1), of quantiles that step every 1/n and 1/m."""
    n, m = len(a), len(b)
    steps = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique().to(a.device)  # q in 1/(n m)
    width = steps.diff(prepend=steps.new_zeros(1)).double() / (n * m)
    gap = a.sort(dim=0).values[(steps - 1) // m] - b.sort(dim=0).values[(steps - 1) // n]
    return width @ gap.abs() ** p


def wasserstein(a: Float[Tensor, "n ..."], b: Float[Tensor, "m ..."], p: int | float = 2) -> float:
    """W_p = (min over permutations s of mean_i |a_i - b_s(i)|^p)^(1/p); exact, in n^3 time and n^2 memory.

    Raises:
        ValueError: unless n = m, where an optimal plan is a permutation.
    """
    a, b = _pair(a, b, least=1)
    if len(a) != len(b):
        raise ValueError(
            f"wasserstein matches samples one to one but got {len(a)} and {len(b)}; "
            "drop some of the larger set or use sliced_wasserstein"
        )
    cost = (squared_distances(a, b) ** (p / 2)).cpu().numpy()
    return float(cost[linear_sum_assignment(cost)].mean()) ** (1 / p)


class PRDC(NamedTuple):
    """Fidelity (precision, density) and diversity (recall, coverage); all near 1 for two samples of one distribution.

    precision: share of fakes inside the real manifold, the union of balls from each real sample to its k-th neighbour.
    recall: share of real samples inside the manifold of the fakes.
    density: mean number of real balls that a fake lies in, over k; may exceed 1.
    coverage: share of real balls that hold a fake.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Float[Tensor, "n ..."], fake: Float[Tensor, "m ..."], k: int = 5) -> PRDC:
    """Precision and recall ([Kynkaanniemi19] eq. 2), density and coverage ([Naeem20] section 3).

    Balls are open, as in the reference code of [Naeem20], and a sample is not its own neighbour.
    """
    if k < 1:
        raise ValueError(f"k counts neighbours and must be at least 1, got {k}")
    real, fake = _pair(real, fake, least=k + 1)
    real_radii, fake_radii = (radii(distance_blocks(x, x), k) for x in (real, fake))
    return PRDC(*manifolds(real_radii, fake_radii, distance_blocks(real, fake), k))


def memorisation(fake: Float[Tensor, "n ..."], train: Float[Tensor, "m ..."], test: Float[Tensor, "l ..."]) -> float:
    """Median distance of a fake to its nearest training sample, over that to its nearest test sample.

    About 1 for fresh samples and 0 for copies. `train` and `test` should be of one size: among more samples the
    nearest is nearer by chance.
    """
    to_train, to_test = (nearest(distance_blocks(*_pair(fake, x, least=1))).sqrt() for x in (train, test))
    return (to_train.quantile(0.5) / to_test.quantile(0.5)).item()


class NearestNeighbour(NamedTuple):
    """Shares of each set's samples whose nearest other sample is of the same set.

    Both are .5 for two sets of one distribution, 1 for disjoint ones and 0 for copies. A sampler that spreads too far
    has one near 0 and the other near 1, so their mean says nothing: `distance` does not let them cancel.
    """

    a: float
    b: float

    @property
    def distance(self) -> float:
        """.5 plus the mean of |share - .5|: .5 is ideal, 1 is worst."""
        return 0.5 + (abs(self.a - 0.5) + abs(self.b - 0.5)) / 2


def nearest_neighbour(a: Float[Tensor, "n ..."], b: Float[Tensor, "m ..."]) -> NearestNeighbour:
    """The two-sample test by nearest neighbours ([Xu18]); ties count in parts.

    Raises:
        ValueError: for sets of different size, of which the larger is nearer by chance.
    """
    a, b = _pair(a, b)
    if len(a) != len(b):
        raise ValueError(
            f"nearest_neighbour compares as many samples of both sets, got {len(a)} and {len(b)}; drop some"
        )
    pooled = torch.cat([a, b])
    return NearestNeighbour(*same_set(distance_blocks(pooled, pooled), len(a)))


def _pair(a: Tensor, b: Tensor, least: int = 2) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Both sets as float64 rows on the device of `a` (the CPU for MPS, which has no float64), checked."""
    device = "cpu" if a.device.type == "mps" else a.device
    a, b = (x.detach().to(device).double().reshape(len(x), math.prod(x.shape[1:])) for x in (a, b))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"sets have {a.shape[1]} and {b.shape[1]} features; use the same Features for both")
    for name, x in (("first", a), ("second", b)):
        if len(x) < least:
            raise ValueError(f"the {name} set has {len(x)} samples but at least {least} are needed; add samples")
        if broken := len(x) - int(x.isfinite().all(1).sum()):
            raise ValueError(f"{broken} samples of the {name} set are not finite; drop them or mend the model")
    return a, b


def _device(generator: torch.Generator | None) -> torch.device | None:
    return generator.device if generator else None
