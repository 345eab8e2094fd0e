"""Densities of an observation given which of `k` components or states it is of, with their M-steps.

    emission.log_prob(x)            # (n, d) -> (n, k)
    sums = emission.sums(x, w)      # weighted by the posterior w (n, k)
    emission.fit(sums)              # the emission whose expected log-likelihood under w is largest

`Gaussians` for real data, `Categoricals` for one label per row, `Poissons` for counts; a class with these methods is
another one.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_latent.distributions import LOG_2PI, randn
from gen_latent.regression import Sums, at_least, cholesky

Covariance = Literal["full", "diagonal", "spherical", "tied"]


@runtime_checkable
class Emission(Protocol):
    """`k` densities of an observation (d,)."""

    @property
    def k(self) -> int: ...

    def log_prob(self, x: Tensor) -> Tensor: ...

    def sums(self, x: Tensor, w: Tensor) -> Any: ...

    def expected_log_prob(self, sums: Any) -> Tensor: ...

    def fit(self, sums: Any) -> "Emission": ...

    def sample(self, which: Tensor, generator: Generator | None = None) -> Tensor: ...


class GaussianSums(NamedTuple):
    """Weighted products of the residuals from the means `origin`: a regression on 1 for each component."""

    origin: Tensor
    sums: Sums


@dataclass(frozen=True)
class Gaussians:
    """N(mean_k, cov_k).

    Args:
        mean: (k, d)
        cov: (k, d, d)
        covariance: "full"; "diagonal"; "spherical", one variance for all dimensions; "tied", one matrix for all.
        floor: the smallest variance in any direction that `fit` gives, so that no component can shrink to a point.
    """

    mean: Tensor
    cov: Tensor
    covariance: Covariance = "full"
    floor: float = 1e-6

    @property
    def k(self) -> int:
        return len(self.mean)

    @property
    def at_floor(self) -> Tensor:
        """(k,): whether a component has a variance that the floor holds up."""
        return torch.linalg.eigvalsh(self.cov)[:, 0] <= self.floor * (1 + 1e-9)

    @classmethod
    def start(
        cls, x: Float[Tensor, "n d"], k: int, *, covariance: Covariance = "full", floor: float = 1e-6, generator=None
    ) -> "Gaussians":
        """Means on `k` different points of the data, and the covariance of all data for each.

        Raises:
            ValueError: if the data have fewer than `k` different points.
        """
        x = x.double()
        points = x.unique(dim=0)
        if not 1 <= k <= len(points):
            raise ValueError(f"{k} components need as many different points, and the data have {len(points)}")
        mean = points[torch.randperm(len(points), generator=generator)[:k].to(x.device)]
        each = cls(mean, at_least(torch.atleast_2d(x.T.cov(correction=0)), floor).expand(k, -1, -1), covariance, floor)
        return replace(each, cov=each._shaped(each.cov, x.new_ones(k)))

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        roots = cholesky(self.cov, "the covariance of a component")
        eye = torch.eye(x.shape[-1]).to(x)
        whiten = torch.linalg.solve_triangular(roots, eye.expand_as(roots), upper=False)
        log_det = roots.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        distance = [((x - mean) @ w.mT).square().sum(-1) for mean, w in zip(self.mean, whiten, strict=True)]
        return -0.5 * (torch.stack(distance, -1) + x.shape[-1] * LOG_2PI) - log_det

    def sums(self, x: Float[Tensor, "n d"], w: Float[Tensor, "n k"]) -> "GaussianSums":
        residuals = [x - mean for mean in self.mean]
        yy = torch.stack([(w[:, i, None] * r).mT @ r for i, r in enumerate(residuals)])
        yx = torch.stack([w[:, i] @ r for i, r in enumerate(residuals)])[..., None]
        count = w.sum(0)
        return GaussianSums(self.mean, Sums(count, yy, yx, count[:, None, None]))

    def expected_log_prob(self, sums: "GaussianSums") -> Tensor:
        return sums.sums.log_prob((self.mean - sums.origin)[..., None], self.cov).sum()

    def fit(self, sums: "GaussianSums") -> "Gaussians":
        _, s = sums
        shift = s.weight(torch.zeros_like(s.yx), torch.ones(1, dtype=torch.bool))
        cov = at_least(self._shaped(s.cov(shift, self.cov), s.n), self.floor)
        return replace(self, mean=sums.origin + shift[..., 0], cov=cov)

    def _shaped(self, cov: Float[Tensor, "k d d"], count: Float[Tensor, "k"]) -> Float[Tensor, "k d d"]:
        """The covariances of the largest likelihood that `covariance` allows, from those of each component."""
        eye = torch.eye(cov.shape[-1]).to(cov)
        diagonal = cov.diagonal(dim1=-2, dim2=-1)
        if self.covariance == "diagonal":
            return diagonal.diag_embed()
        if self.covariance == "spherical":
            return diagonal.mean(-1)[:, None, None] * eye
        if self.covariance == "tied":
            return (torch.einsum("k,kij->ij", count / count.sum(), cov)).expand_as(cov)
        return cov

    def sample(self, which: Tensor, generator: Generator | None = None) -> Tensor:
        z = randn((*which.shape, self.mean.shape[1]), self.mean, generator)
        return self.mean[which] + (cholesky(self.cov, "the covariance of a component")[which] @ z[..., None])[..., 0]


@dataclass(frozen=True)
class Categoricals:
    """Labels 0..v-1, one per row.

    Args:
        prob: (k, v), rows that sum to 1; zeros are allowed and stay.
    """

    prob: Tensor

    @property
    def k(self) -> int:
        return len(self.prob)

    @classmethod
    def start(cls, k: int, v: int, generator: Generator | None = None) -> "Categoricals":
        """Random probabilities, between half and one and a half of uniform before they are normalised."""
        prob = 0.5 + torch.rand(k, v, dtype=torch.float64, generator=generator)
        return cls(prob / prob.sum(1, keepdim=True))

    def log_prob(self, x: Float[Tensor, "n 1"]) -> Float[Tensor, "n k"]:
        label, v = x[:, 0].long(), self.prob.shape[1]
        if ((label != x[:, 0]) | (label < 0) | (label >= v)).any():
            raise ValueError(f"labels are whole numbers from 0 to {v - 1}, got {x.min():g} to {x.max():g}")
        return self.prob.log().T[label]

    def sums(self, x: Float[Tensor, "n 1"], w: Float[Tensor, "n k"]) -> Float[Tensor, "k v"]:
        """Expected counts of each label."""
        return torch.nn.functional.one_hot(x[:, 0].long(), self.prob.shape[1]).to(w).mT.matmul(w).mT

    def expected_log_prob(self, sums: Float[Tensor, "k v"]) -> Tensor:
        return torch.xlogy(sums, self.prob).sum()

    def fit(self, sums: Float[Tensor, "k v"]) -> "Categoricals":
        return Categoricals(shares(sums, self.prob))

    def sample(self, which: Tensor, generator: Generator | None = None) -> Tensor:
        flat = draw(self.prob[which.flatten()], generator)
        return flat.reshape(*which.shape, 1).double()


@dataclass(frozen=True)
class Poissons:
    """Counts, independent in each dimension.

    Args:
        rate: (k, d), above 0.
        floor: the smallest rate that `fit` gives.
    """

    rate: Tensor
    floor: float = 1e-6

    @property
    def k(self) -> int:
        return len(self.rate)

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        if (x < 0).any() or (x != x.round()).any():
            raise ValueError(f"counts are whole numbers from 0, got {x.min():g} to {x.max():g}")
        return x @ self.rate.log().T - self.rate.sum(1) - (x + 1).lgamma().sum(1, keepdim=True)

    def sums(self, x: Float[Tensor, "n d"], w: Float[Tensor, "n k"]) -> tuple[Tensor, Tensor, Tensor]:
        """Expected number of rows, sum of counts, and sum of ln(count!) of each component."""
        return w.sum(0), w.T @ x, w.sum(1) @ (x + 1).lgamma().sum(1)

    def expected_log_prob(self, sums: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        n, total, constant = sums
        return (total * self.rate.log() - n[:, None] * self.rate).sum() - constant

    def fit(self, sums: tuple[Tensor, Tensor, Tensor]) -> "Poissons":
        n, total, _ = sums
        rate = torch.where(n[:, None] > 0, total / n[:, None], self.rate)
        return replace(self, rate=rate.clamp_min(self.floor))

    def sample(self, which: Tensor, generator: Generator | None = None) -> Tensor:
        return torch.poisson(self.rate[which], generator=generator)


def shares(counts: Float[Tensor, "... v"], old: Float[Tensor, "... v"]) -> Float[Tensor, "... v"]:
    """Counts as probabilities; `old` where there are none, since any are then as likely."""
    total = counts.sum(-1, keepdim=True)
    return torch.where(total > 0, counts / total, old)


def draw(prob: Float[Tensor, "n v"], generator: Generator | None = None) -> Tensor:
    """One index per row."""
    return torch.multinomial(prob, 1, replacement=True, generator=generator)[:, 0]
