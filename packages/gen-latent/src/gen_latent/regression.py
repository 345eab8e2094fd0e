"""Linear-Gaussian regression from its sufficient sums: the M-step of every Gaussian model here.

y | x ~ N(W x, C), where y and x may be hidden: only expectations of their products enter.

    sums = Sums(n, yy, yx, xx)                       # E[sum of 1], E[sum of y y'], E[sum of y x'], E[sum of x x']
    w = sums.weight(w, free); c = sums.cov(w, c)     # what maximises ...
    sums.log_prob(w, c)                              # ... the expected log-likelihood

A mean is the regression on the constant 1; factor loadings are regressed on factors, the next state on the last one.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gen_latent.distributions import LOG_2PI


class Sums(NamedTuple):
    """Expected products, summed over samples; leading dimensions are a batch of regressions."""

    n: Tensor
    """(...)"""
    yy: Tensor
    """(..., p, p)"""
    yx: Tensor
    """(..., p, q)"""
    xx: Tensor
    """(..., q, q)"""

    def scatter(self, w: Float[Tensor, "... p q"]) -> Float[Tensor, "... p p"]:
        """Expected sum of (y - W x)(y - W x)'."""
        cross = w @ self.yx.mT
        return symmetric(self.yy - cross - cross.mT + w @ self.xx @ w.mT)

    def log_prob(self, w: Float[Tensor, "... p q"], cov: Float[Tensor, "... p p"]) -> Float[Tensor, "..."]:
        """Expected sum of ln N(y; W x, C), on the support of C where C is singular."""
        root, info = torch.linalg.cholesky_ex(cov)
        if info.any():
            values = torch.linalg.eigvalsh(cov)
            values = values[values > 1e-12 * values[..., -1:]]
            log_det, rank = values.log().sum(), len(values)
        else:
            log_det, rank = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1), cov.shape[-1]
        spread = right_divide(self.scatter(w), cov).diagonal(dim1=-2, dim2=-1).sum(-1)
        return -0.5 * (self.n * (rank * LOG_2PI + log_det) + spread)

    def weight(self, w: Float[Tensor, "... p q"], free: Bool[Tensor, "q"]) -> Float[Tensor, "... p q"]:
        """W of the largest likelihood, where only the columns in `free` may differ from `w`."""
        if not free.any():
            return w
        target = self.yx[..., free] - w[..., ~free] @ self.xx[..., ~free, :][..., free]
        best = w.clone()
        best[..., free] = right_divide(target, self.xx[..., free, :][..., free])
        return torch.where(self.n[..., None, None] > 0, best, w)

    def cov(self, w: Float[Tensor, "... p q"], old: Float[Tensor, "... p p"]) -> Float[Tensor, "... p p"]:
        """C of the largest likelihood given W; `old` where there are no samples."""
        n = self.n[..., None, None]
        return torch.where(n > 0, self.scatter(w) / n.clamp_min(torch.finfo(n.dtype).tiny), old)


def symmetric(c: Float[Tensor, "... n n"]) -> Float[Tensor, "... n n"]:
    """The symmetric part."""
    return (c + c.mT) / 2


def cholesky(c: Float[Tensor, "... n n"], what: str) -> Float[Tensor, "... n n"]:
    """Lower Cholesky factor.

    Raises:
        ValueError: that `what` is not positive definite.
    """
    root, info = torch.linalg.cholesky_ex(c)
    if info.any() or c.isnan().any():
        raise ValueError(f"{what} is not positive definite; add some variance to its diagonal, or set a floor")
    return root


def right_divide(a: Float[Tensor, "... p n"], s: Float[Tensor, "... n n"]) -> Float[Tensor, "... p n"]:
    """A S^-1 for a covariance S, by the pseudo-inverse where S is singular."""
    root, info = torch.linalg.cholesky_ex(s)
    if info.any():
        return a @ torch.linalg.pinv(s, hermitian=True)
    return torch.cholesky_solve(a.mT, root).mT


def at_least(c: Float[Tensor, "... n n"], floor: float) -> Float[Tensor, "... n n"]:
    """Raise eigenvalues below `floor` to it.

    Of all covariances with no smaller eigenvalue this has the largest Gaussian likelihood, so EM stays exact.
    """
    if floor == 0:
        return c
    values, vectors = torch.linalg.eigh(c)
    clipped = symmetric(vectors * values.clamp_min(floor)[..., None, :] @ vectors.mT)
    return torch.where((values[..., 0] < floor)[..., None, None], clipped, c)
