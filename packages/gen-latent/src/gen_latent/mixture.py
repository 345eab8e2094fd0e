"""Mixtures, probabilistic PCA and factor analysis, fitted by `fit_em`; float64.

    mixture = MixtureModel.start(Gaussians.start(x, 3))
    fit = em(mixture, x)
    fit.model.log_prob(x), fit.model.posterior(x), fit.model.sample(10)

    factors = fit_em(FactorAnalysis.start(x, 2), x).model
    plane = ppca(x, 2)                    # the closed form of FactorAnalysis.start(x, 2, isotropic=True)

[Rubin82] EM algorithms for ML factor analysis.
[Tipping99] Probabilistic principal component analysis, JRSS B 61(3).
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_latent.distributions import LOG_2PI, randn
from gen_latent.emissions import Emission, draw, shares
from gen_latent.regression import Sums, cholesky


class MixtureStatistics(NamedTuple):
    """Expected number of points of each component, and the sums of their density."""

    n: Tensor
    sums: Any
    log_likelihood: Tensor
    """ln p(data)."""


@dataclass(frozen=True)
class MixtureModel:
    """p(x) = sum_k weight_k p(x | k).

    Args:
        weight: (k,), sums to 1.
        emission: the densities p(x | k): `Gaussians`, `Categoricals`, `Poissons`.
    """

    weight: Tensor
    emission: Emission

    @classmethod
    def start(cls, emission: Emission) -> "MixtureModel":
        """Equal weights."""
        return cls(torch.full((emission.k,), 1 / emission.k, dtype=torch.float64), emission)

    def _joint(self, x: Any) -> Float[Tensor, "n k"]:
        return self.weight.log() + self.emission.log_prob(table(x))

    def log_prob(self, x: Any) -> Float[Tensor, "n"]:
        """ln p(x), in nats."""
        return self._joint(x).logsumexp(1)

    def posterior(self, x: Any) -> Float[Tensor, "n k"]:
        """p(k | x)."""
        return self._joint(x).softmax(1)

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n d"]:
        return self.emission.sample(draw(self.weight.expand(n, -1), generator), generator)

    def expect(self, data: Any) -> MixtureStatistics:
        """Posterior of the components, as weights of the data."""
        x = table(data)
        joint = self._joint(x)
        total = joint.logsumexp(1)
        w = (joint - total[:, None]).exp()
        return MixtureStatistics(w.sum(0), self.emission.sums(x, w), total.sum())

    def expected_log_prob(self, statistics: MixtureStatistics) -> Tensor:
        """Q: expected ln p(x, k) of the data."""
        return torch.xlogy(statistics.n, self.weight).sum() + self.emission.expected_log_prob(statistics.sums)

    def maximise(self, statistics: MixtureStatistics) -> "MixtureModel":
        """Share of each component, and its density fitted to the weighted data."""
        return MixtureModel(shares(statistics.n, self.weight), self.emission.fit(statistics.sums))


class FactorStatistics(NamedTuple):
    """Expected products of the regression of the data on [factors, 1], and of the factors on 1."""

    data: Sums
    factors: Sums
    log_likelihood: Tensor
    """ln p(data)."""


@dataclass(frozen=True)
class FactorAnalysis:
    """x = W z + mean + noise, z ~ N(0, I), noise ~ N(0, diag(noise)).

    Args:
        mean: (d,)
        loadings: W, (d, q)
        noise: variances, (d,)
        isotropic: one variance for all dimensions: probabilistic PCA.
        floor: the smallest variance that EM gives; without one the density of a constant dimension is not bounded.
    """

    mean: Tensor
    loadings: Tensor
    noise: Tensor
    isotropic: bool = False
    floor: float = 1e-6

    @classmethod
    def start(
        cls,
        x: Any,
        q: int,
        *,
        isotropic: bool = False,
        floor: float = 1e-6,
        generator: Generator | None = None,
    ) -> "FactorAnalysis":
        """Random loadings of the size of the data's deviations, and half the variance as noise.

        Raises:
            ValueError: unless 1 <= q < dimensions, and there are 2 points.
        """
        x = _factors_fit(x, q)
        variance = x.var(0, correction=0).clamp_min(floor)
        noise = variance.mean().expand_as(variance) if isotropic else variance
        w = randn((x.shape[1], q), x, generator) * (variance / (2 * q)).sqrt()[:, None]
        return cls(x.mean(0), w, (noise / 2).clamp_min(floor), isotropic, floor)

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Of the data: W W' + diag(noise)."""
        return self.loadings @ self.loadings.mT + self.noise.diag()

    def log_prob(self, x: Any) -> Float[Tensor, "n"]:
        """ln p(x), in nats, with inverses of q x q matrices only."""
        r, precision = table(x) - self.mean, 1 / self.noise
        root, _ = self._inner()
        z = torch.linalg.solve_triangular(root, (r * precision @ self.loadings).mT, upper=False)
        distance = (r.square() @ precision) - z.square().sum(0)
        log_det = self.noise.log().sum() + 2 * root.diagonal().log().sum()
        return -0.5 * (distance + log_det + len(self.mean) * LOG_2PI)

    def posterior(self, x: Any) -> tuple[Float[Tensor, "n q"], Float[Tensor, "q q"]]:
        """Means of the factors, and their covariance, which is the same for all x ([Rubin82])."""
        cov = self._inner()[1]
        return (table(x) - self.mean) / self.noise @ self.loadings @ cov, cov

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n d"]:
        d, q = self.loadings.shape
        z, e = randn((n, q), self.mean, generator), randn((n, d), self.mean, generator)
        return self.mean + z @ self.loadings.mT + e * self.noise.sqrt()

    def _inner(self) -> tuple[Tensor, Tensor]:
        """Cholesky factor of I + W' noise^-1 W, and its inverse: the posterior covariance."""
        eye = torch.eye(self.loadings.shape[1]).to(self.loadings)
        root = cholesky(eye + self.loadings.mT @ (self.loadings / self.noise[:, None]), "the precision of the factors")
        return root, torch.cholesky_solve(eye, root)

    def expect(self, data: Any) -> FactorStatistics:
        """Expected products of data and factors."""
        x = table(data)
        z, cov = self.posterior(x)
        n = x.new_tensor(len(x))
        zz = z.mT @ z + n * cov
        z1 = torch.cat([z, torch.ones_like(z[:, :1])], 1)
        xx = torch.cat([torch.cat([zz, z.sum(0)[:, None]], 1), (z1.sum(0))[None]])
        factors = Sums(n, zz, z.sum(0)[:, None], n[None, None])
        return FactorStatistics(Sums(n, x.mT @ x, x.mT @ z1, xx), factors, self.log_prob(x).sum())

    def expected_log_prob(self, statistics: FactorStatistics) -> Tensor:
        """Q: expected ln p(x, z) of the data."""
        w, z = torch.cat([self.loadings, self.mean[:, None]], 1), statistics.factors
        standard = z.log_prob(torch.zeros_like(z.yx), torch.eye(len(z.yy)).to(z.yy))
        return statistics.data.log_prob(w, self.noise.diag()) + standard

    def maximise(self, statistics: FactorStatistics) -> "FactorAnalysis":
        """Loadings and mean by regression on the factors, noise by its residuals."""
        s = statistics.data
        w = s.weight(torch.zeros_like(s.yx), torch.ones(s.yx.shape[-1], dtype=torch.bool))
        noise = s.scatter(w).diagonal() / s.n
        noise = noise.mean().expand_as(noise) if self.isotropic else noise
        return replace(self, mean=w[:, -1], loadings=w[:, :-1], noise=noise.clamp_min(self.floor))


def ppca(x: Any, q: int, floor: float = 1e-6) -> FactorAnalysis:
    """Probabilistic PCA of the largest likelihood, in closed form ([Tipping99] eq. 7 and 8).

    Raises:
        ValueError: unless 1 <= q < dimensions, and there are 2 points.
    """
    x = _factors_fit(x, q)
    values, vectors = torch.linalg.eigh(torch.atleast_2d(x.mT.cov(correction=0)))
    noise = values[:-q].mean().clamp_min(floor)
    loadings = vectors[:, -q:].flip(1) * (values[-q:].flip(0) - noise).clamp_min(0).sqrt()
    return FactorAnalysis(x.mean(0), loadings, noise.expand(len(values)), True, floor)


def table(x: Any) -> Float[Tensor, "n d"]:
    """Data in float64, (n,) as (n, 1).

    Raises:
        ValueError: unless they are a table of finite numbers with at least one row.
    """
    x = torch.as_tensor(x).double()
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or not len(x) or not x.isfinite().all():
        raise ValueError(
            f"data are a table (n, d) of finite numbers, got the shape {tuple(x.shape)}; drop rows with NaN"
        )
    return x


def _factors_fit(x: Any, q: int) -> Float[Tensor, "n d"]:
    x = table(x)
    if len(x) < 2 or not 1 <= q < x.shape[1]:
        raise ValueError(f"factors need 2 points and 1 <= q < dimensions, got {tuple(x.shape)} and q={q}")
    return x
