"""Observations y = A x + noise: linear operators with adjoint and singular values, and the density of what was seen.

    A = inpaint(mask)                            # or another one of gen_diffusion.imaging and gen_diffusion.tomography
    obs = observe(A, x, Gaussian(0.1))           # an A(x) with noise
    x0 = pigdm(denoiser, obs, noise, sigmas)     # draws of x given y: gen_diffusion.posterior

Operators map batches, (n, *shape_in) to (n, *shape_out). An observation is one `y` of shape `shape_out`, the same for
the whole batch, or one for each sample. Complex data are pairs of real numbers; a standard deviation of noise is that
of each real number, hence of the real and of the imaginary part.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_diffusion.noise import randn_like
from gen_diffusion.view import spread

Map = Callable[[Tensor], Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class SVD:
    """A = U diag(s) V^T without the null space: U and V have one orthonormal column for each s > 0."""

    s: Float[Tensor, "r"]
    U: Map  # (n, r) -> (n, *shape_out)
    Ut: Map  # (n, *shape_out) -> (n, r)
    V: Map  # (n, r) -> (n, *shape_in)
    Vt: Map  # (n, *shape_in) -> (n, r)


@dataclass(frozen=True)
class Linear:
    """A linear operator on batches: `A(x)`, its transpose `A.T(y)`, its pseudo-inverse `A.pinv(y)`, products `A @ B`.

    Args:
        forward: (n, *shape_in) -> (n, *shape_out).
        adjoint: its transpose, (n, *shape_out) -> (n, *shape_in).
        shape_in, shape_out: of one sample.
        svd: singular values and vectors where they are cheap; `decomposed` computes those of any small operator.
    """

    forward: Map
    adjoint: Map
    shape_in: Shape
    shape_out: Shape
    svd: SVD | None = None

    def __call__(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        return self.forward(_checked(x, self.shape_in))

    @property
    def T(self) -> "Linear":
        """The transpose."""
        svd = self.svd and SVD(self.svd.s, self.svd.V, self.svd.Vt, self.svd.U, self.svd.Ut)
        return Linear(self.adjoint, self.forward, self.shape_out, self.shape_in, svd)

    def __matmul__(self, other: "Linear") -> "Linear":
        """A @ B maps x to A(B(x)); `decomposed` gives it singular values."""
        if other.shape_out != self.shape_in:
            raise ValueError(f"in A @ B, B has to map to {self.shape_in}, which A takes; it maps to {other.shape_out}")
        return Linear(
            lambda x: self.forward(other.forward(x)),
            lambda y: other.adjoint(self.adjoint(y)),
            other.shape_in,
            self.shape_out,
        )

    def gain(self, b: Float[Tensor, "n ..."], ratio: float | Tensor) -> Float[Tensor, "n ..."]:
        """A^T (A A^T + ratio I)^-1 b, the Kalman gain for x ~ N(m, k I) and b = y - A m, where y has the noise ratio k.

        Args:
            ratio: variance of the noise over that of x, one for all or one for each sample; 0 is the pseudo-inverse.
        """
        b, ratio = _checked(b, self.shape_out), torch.as_tensor(ratio).to(b)
        if self.svd is None:
            normal = lambda x: self.adjoint(self.forward(x)) + spread(ratio, x) * x
            return conjugate_gradients(normal, self.adjoint(b))
        z, s = self.svd.Ut(b), self.svd.s.to(b)
        return self.svd.V(z * s / (s**2 + spread(ratio, z)))

    def pinv(self, y: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The smallest x among those whose A x comes nearest to y."""
        return self.gain(y, 0.0)

    def dense(self) -> Float[Tensor, "m d"]:
        """The matrix, in double precision, by the images of the unit vectors."""
        d = math.prod(self.shape_in)
        units = torch.eye(d, dtype=torch.float64).reshape(d, *self.shape_in)
        return self.forward(units).reshape(d, math.prod(self.shape_out)).T

    def norm(self, iterations: int = 100) -> float:
        """The largest singular value, where it is not known by power iteration from a fixed start."""
        if self.svd:
            return float(self.svd.s.max()) if len(self.svd.s) else 0.0
        x = torch.randn(1, *self.shape_in, generator=Generator().manual_seed(0), dtype=torch.float64)
        for _ in range(iterations):
            x = self.adjoint(self.forward(x / x.norm().clamp_min(1e-300)))
        return float(x.norm().sqrt())


def matrix(A: Float[Tensor, "m d"], shape_in: Shape | None = None, shape_out: Shape | None = None) -> Linear:
    """Any matrix as an operator on vectors, or on samples of the given shapes, with its singular values.

    >>> A = matrix(torch.tensor([[3.0, 4.0]]))
    >>> A(torch.ones(1, 2)).tolist(), A.T(torch.ones(1, 1)).tolist(), A.svd.s.tolist()
    ([[7.0]], [[3.0, 4.0]], [5.0])
    """
    shape_in, shape_out = shape_in or (A.shape[1],), shape_out or (A.shape[0],)
    if A.shape != (math.prod(shape_out), math.prod(shape_in)):
        raise ValueError(f"a matrix of shape {tuple(A.shape)} does not map {shape_in} to {shape_out}")
    U, s, Vt = torch.linalg.svd(A.double(), full_matrices=False)
    U, s, Vt = U[:, _positive(s)], s[_positive(s)], Vt[_positive(s)]
    svd = SVD(s, _times(U, shape_out), _times(U.T), _times(Vt.T, shape_in), _times(Vt))
    return Linear(_times(A, shape_out), _times(A.T, shape_in), shape_in, shape_out, svd)


def decomposed(A: Linear) -> Linear:
    """`A` with the singular values of its dense matrix: for products, and samples of up to some thousand numbers."""
    return A if A.svd else replace(A, svd=matrix(A.dense(), A.shape_in, A.shape_out).svd)


@dataclass(frozen=True)
class Gaussian:
    """y = A x + sigma n. `sigma` is the standard deviation of each real number; 0 is an exact observation."""

    sigma: float

    def __post_init__(self):
        if not 0 <= self.sigma < math.inf:
            raise ValueError(f"sigma is the standard deviation of noise, 0 or above and finite; got {self.sigma}")

    def log_prob(self, y: Tensor, mean: Float[Tensor, "n ..."]) -> Float[Tensor, "n"]:
        """ln p(y | A x = mean) in nats."""
        if self.sigma == 0:
            raise ValueError("an observation without noise has no density; give Gaussian a small sigma above 0")
        z = ((y - mean) / self.sigma).flatten(1)
        return -0.5 * z.square().sum(1) - z.shape[1] * math.log(self.sigma * math.sqrt(2 * math.pi))

    def distance(self, y: Tensor, mean: Float[Tensor, "n ..."]) -> Float[Tensor, "n"]:
        """|y - mean| for each sample."""
        return torch.linalg.vector_norm((y - mean).flatten(1), dim=1)

    def draw(self, mean: Float[Tensor, "n ..."], generator: Generator | None = None) -> Float[Tensor, "n ..."]:
        """An observation of each mean."""
        return mean + self.sigma * randn_like(mean, generator)


@dataclass(frozen=True)
class Poisson:
    """y ~ Poisson(rate (A x + background)): counts. `rate` is how many a unit of A x brings on average."""

    rate: float
    background: float = 0.0

    def __post_init__(self):
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate is the count that a unit of A x brings, above 0 and finite; got {self.rate}")

    def log_prob(self, y: Tensor, mean: Float[Tensor, "n ..."]) -> Float[Tensor, "n"]:
        """ln P(y | A x = mean); minus infinity where a mean count is below 0, or 0 for a count above it."""
        counts = self.rate * (mean + self.background)
        each = torch.xlogy(y, counts.clamp_min(0)) - counts - torch.lgamma(y + 1)
        return torch.where(counts < 0, -math.inf, each).flatten(1).sum(1)

    def distance(self, y: Tensor, mean: Float[Tensor, "n ..."]) -> Float[Tensor, "n"]:
        """|(y - counts) / sqrt(2 y)|, with at least one count in the root (Chung et al. 2023, arXiv:2209.14687)."""
        counts = self.rate * (mean + self.background)
        return torch.linalg.vector_norm(((y - counts) / (2 * y.clamp_min(1)).sqrt()).flatten(1), dim=1)

    def draw(self, mean: Float[Tensor, "n ..."], generator: Generator | None = None) -> Float[Tensor, "n ..."]:
        """Counts of each mean."""
        counts = self.rate * (mean + self.background)
        if (counts < 0).any():
            raise ValueError(f"a count has no negative mean, got {counts.min():.3g}; raise the background")
        return torch.poisson(counts.to(generator.device) if generator else counts, generator).to(mean)


@dataclass(frozen=True)
class Observation:
    """What was seen: `y` of A(x), with noise. `log_prob(x)` is ln p(y | x) in nats, one for each sample.

    Args:
        A: a `Linear`, or any differentiable function of a batch.
        y: of shape `A.shape_out`; or (n, *A.shape_out) with one observation for each sample of a batch of n.

    Raises:
        ValueError: if y has another shape, or values that are not finite.
    """

    A: Linear | Map
    y: Float[Tensor, "..."]
    noise: Gaussian | Poisson

    def __post_init__(self):
        if isinstance(self.A, Linear) and tuple(self.y.shape)[-len(self.A.shape_out) :] != self.A.shape_out:
            raise ValueError(f"the operator gives y of shape {self.A.shape_out}, got {tuple(self.y.shape)}")
        if not self.y.isfinite().all():
            raise ValueError("y has values that are not finite; leave those measurements out of the operator")

    def log_prob(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n"]:
        """ln p(y | x) in nats."""
        return self.noise.log_prob(self.y.to(x), self.A(x))


def observe(
    A: Linear | Map, x: Float[Tensor, "*shape"], noise: Gaussian | Poisson, generator: Generator | None = None
) -> Observation:
    """An observation of one x, without batch dimension, with noise drawn by `generator`.

    >>> observe(matrix(torch.tensor([[1.0, 1.0]])), torch.tensor([2.0, 3.0]), Gaussian(0.0)).y
    tensor([5.])
    """
    return Observation(A, noise.draw(A(x[None]), generator)[0], noise)


def conjugate_gradients(
    normal: Map, b: Float[Tensor, "n ..."], iterations: int = 1000, tolerance: float | None = None
) -> Float[Tensor, "n ..."]:
    """x with normal(x) = b for a symmetric positive semi-definite map and b in its range, each sample by itself.

    A sample stops where its residual is below `tolerance` of |b|, some tens of roundings by default.
    """
    dot = lambda u, v: (u * v).flatten(1).sum(1)
    tolerance = tolerance or 30 * torch.finfo(b.dtype).eps
    x, r, p = torch.zeros_like(b), b, b
    rr, least = dot(r, r), tolerance**2 * dot(b, b)
    for _ in range(iterations):
        if not (active := rr > least).any():
            break
        Ap = normal(p)
        step = torch.where(active, rr / dot(p, Ap).where(active, 1.0), 0.0)
        x, r = x + spread(step, x) * p, r - spread(step, x) * Ap
        rr, last = torch.where(active, dot(r, r), rr), rr
        p = r + spread(torch.where(active, rr / last.where(active, 1.0), 0.0), x) * p
    return x


def _times(M: Float[Tensor, "a b"], shape: Shape = (-1,)) -> Map:
    """x -> M x on flattened samples, shaped again."""
    return lambda x: (x.flatten(1) @ M.T.to(x)).reshape(len(x), *shape)


def _positive(s: Float[Tensor, "r"]) -> Tensor:
    """Singular values that are not rounding errors of 0."""
    return s > 1e-10 * s.max() if len(s) else s > 0


def _checked(x: Tensor, shape: Shape) -> Tensor:
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"the operator takes a batch (n, {', '.join(map(str, shape))}), got {tuple(x.shape)}")
    return x
