"""Squared distances between all samples of two sets, and what follows from them alone.

    pooled = torch.cat([real, fake])
    d2 = squared_distances(pooled, pooled)        # once; those of any subset are entries of it
    real_fake = d2[: len(real), len(real) :]
    frechet_distance(d2, len(real))

|x - y|^2 = |x|^2 - 2 x.y + |y|^2 is one matrix product, many times faster than differences, but loses digits where x
and y are near one another and far from the mean. Those pairs are computed again from differences, so every entry has a
relative error below TIE / 10 and a copy is at distance 0 exactly. Two squares within TIE of one another count as equal.

Counts of neighbours take their matrices in blocks of rows, `(index of the first row, rows)`, so that sets whose matrix
would not fit in memory can be measured too; `[(0, d2)]` is a matrix in one block.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 2**19  # entries of a matrix that exist at once: 4 MiB of float64, which a cache holds
CANCELS = 1e-4  # |x - y|^2 / (|x|^2 + |y|^2) below which the product has lost four digits or more
TIE = 1e-10  # relative difference of two squares that count as equal

Blocks = Iterable[tuple[int, Float[Tensor, "rows m"]]]


def row_blocks(x: Float[Tensor, "n d"], width: int) -> Iterator[tuple[int, Float[Tensor, "rows d"]]]:
    """(index of the first row, rows) of `x`, so few at a time that a matrix of them and `width` columns fits BLOCK."""
    rows = max(1, BLOCK // width)
    return ((i, x[i : i + rows]) for i in range(0, len(x), rows))


def distance_blocks(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Iterator[tuple[int, Float[Tensor, "rows m"]]]:
    """Blocks of |a_i - b_j|^2, in float64."""
    mean = b.mean(0)
    a, b = a - mean, b - mean
    b_norm = b.square().sum(1)
    for i, rows in row_blocks(a, len(b)):
        norm = rows.square().sum(1, keepdim=True)
        d2 = torch.addmm(b_norm, rows, b.T, alpha=-2).add_(norm)
        _repair(d2, rows, b, (d2 <= CANCELS * (norm + b_norm)).nonzero())
        yield i, d2


def squared_distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """The whole matrix of |a_i - b_j|^2, in float64."""
    return torch.cat([d2 for _, d2 in distance_blocks(a, b)])


def _repair(d2: Float[Tensor, "n m"], a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], pairs: Tensor) -> None:
    """Compute the entries `pairs` of `d2` from differences."""
    for some in pairs.split(max(1, BLOCK // a.shape[1])):
        i, j = some.T
        d2[i, j] = (a[i] - b[j]).square().sum(1)


def radii(own: Blocks, k: int) -> Float[Tensor, "n"]:
    """Squared distance of each sample to its k-th neighbour; the first of the k + 1 nearest is the sample itself."""
    return torch.cat([d2.topk(k + 1, largest=False).values[:, -1] for _, d2 in own])


def nearest(cross: Blocks) -> Float[Tensor, "n"]:
    """Squared distance of each sample to the nearest of the other set."""
    return torch.cat([d2.amin(1) for _, d2 in cross])


def manifolds(
    real_radii: Float[Tensor, "n"], fake_radii: Float[Tensor, "m"], cross: Blocks, k: int
) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage, of open balls (`gen_core.metrics.PRDC`)."""
    real_radii, fake_radii = (r * (1 - TIE) for r in (real_radii, fake_radii))  # on the edge is outside
    balls, recalled, covered = torch.zeros_like(fake_radii), [], []
    for i, d2 in cross:
        inside = d2 < real_radii[i : i + len(d2), None]
        balls += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((d2 < fake_radii).any(1))
    recall, coverage = (torch.cat(hits).double().mean().item() for hits in (recalled, covered))
    return (balls > 0).double().mean().item(), recall, balls.mean().item() / k, coverage


def same_set(pooled: Blocks, n: int) -> tuple[float, float]:
    """Shares of the first `n` samples, and of the others, whose nearest other sample is of their own set.

    Ties count in parts. The diagonals of the blocks are overwritten.
    """
    right = []
    for i, d2 in pooled:
        d2.diagonal(i).fill_(math.inf)
        ties = d2 <= d2.amin(1, keepdim=True) * (1 + TIE)
        first = ties[:, :n].sum(1).double() / ties.sum(1)
        is_first = torch.arange(i, i + len(d2), device=d2.device) < n
        right.append(torch.where(is_first, first, 1 - first))
    both = torch.cat(right)
    return both[:n].mean().item(), both[n:].mean().item()


def frechet_distance(pooled: Float[Tensor, "p p"], n: int) -> float:
    """`gen_core.metrics.frechet` of the first `n` samples and the others, for fewer samples than features.

    Centred on both sides, -d2 / 2 between the sets is the product A B' of their centred samples, whose singular values
    are those of (S_a S_b)^(1/2) but for the factor; the means of d2 give the traces and the distance of the means.
    """
    aa, ab, bb = _quarters(pooled, n)
    m = len(bb)
    centred = ab - ab.mean(0) - ab.mean(1, keepdim=True) + ab.mean()
    root = torch.linalg.svdvals(centred).sum() / (2 * math.sqrt((n - 1) * (m - 1)))
    half_a, half_b = aa.mean() / 2, bb.mean() / 2  # variances with 1/n, summed over features
    means = ab.mean() - half_a - half_b
    return (means + half_a * n / (n - 1) + half_b * m / (m - 1) - 2 * root).item()


def kernel_distance(pooled: Float[Tensor, "p p"], norms: Float[Tensor, "p"], n: int, d: int) -> float:
    """`gen_core.metrics.kid` of the first `n` samples and the others, whose squared norms are `norms`."""
    products = (norms[:, None] + norms - pooled) / 2
    aa, ab, bb = _quarters((products / d + 1) ** 3, n)
    apart = lambda k: (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))
    return (apart(aa) + apart(bb) - 2 * ab.mean()).item()


def _quarters(pooled: Float[Tensor, "p p"], n: int) -> tuple[Tensor, Tensor, Tensor]:
    return pooled[:n, :n], pooled[:n, n:], pooled[n:, n:]
