"""MCGDiff: particles whose observed coordinates are drawn towards y, for linear observations with Gaussian noise.

    particles = smc(mcgdiff(denoiser, obs, sigmas), 1000, generator=generator)

Along the singular vectors of A, coordinate i is seen as y_i = z_i + l_i n with l_i = noise / s_i: as if the forward
process had been at y_i at the level l_i. So each observed coordinate is conditioned to pass through y_i at that level,
and is free below it. Above it, a Gaussian guess of where the path will be weighs the particles, and its product with
the chain's kernel moves them. No gradient of the denoiser is needed.

Deviations from the paper: l_i need not be a level of the grid, for the step across it is split there, with the same
estimate x0; and with a finite `sigma_data` the guess knows the spread of the data, where the paper's does not.

[Cardoso23] Monte Carlo guided diffusion for Bayesian linear inverse problems, arXiv:2308.07983.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gen_diffusion.denoise import Denoiser
from gen_diffusion.operators import SVD, Observation
from gen_diffusion.smc import Noise, State, Weighed
from gen_diffusion.twisted import Coordinates, Denoise, bridge, checked_levels, extrapolation


@dataclass(frozen=True)
class Leg:
    """Coordinates z ~ N(mean, variance) at some level, and a guess y ~ N(a z, v) from there: products of Gaussians."""

    mean: Float[Tensor, "n r"]
    variance: Float[Tensor, "r"]
    y: Float[Tensor, "r"]
    a: Float[Tensor, "r"]
    v: Float[Tensor, "r"]

    def log_prob(self) -> Float[Tensor, "n r"]:
        """ln p(y) of each coordinate."""
        return log_normal(self.y - self.a * self.mean, self.a**2 * self.variance + self.v)

    def draw(self, noise: Float[Tensor, "n r"]) -> Float[Tensor, "n r"]:
        """z given y: y itself where v = 0 and a = 1."""
        total = self.a**2 * self.variance + self.v
        mean = self.mean + self.a * self.variance / total * (self.y - self.a * self.mean)
        return mean + (self.variance * self.v / total).sqrt() * noise


@dataclass(frozen=True)
class MCGDiff:
    """The chain of `mcgdiff` as a `FeynmanKac` model; its state is x, its estimate x0, and that of the level before."""

    denoise: Denoise
    svd: SVD
    y: Float[Tensor, "r"]
    levels: Float[Tensor, "r"]  # l_i
    constant: float  # ln p(y) less that of the coordinates
    sigmas: Float[Tensor, "levels"]
    shape: tuple[int, ...]
    eta: int | float
    order: int
    sigma_data: float
    kappa: int | float
    steps: int

    def initial(self, n: int, noise: Noise) -> Tensor:
        return self.sigmas[0] * noise(self.y.new_empty(n, *self.shape))

    def begin(self, x: Tensor) -> Weighed:
        """White noise is turned into draws of noise given the guess of y."""
        sigma, z = self.sigmas[0], self.svd.Vt(x)
        there = sigma * torch.ones_like(self.y)
        start = Leg(torch.zeros_like(z), there**2, self.y, *self._guess(there))
        x = x + self.svd.V(torch.where(self._ahead(0), start.draw(z / sigma), z) - z)
        first = torch.where(self._ahead(0), start.log_prob(), log_normal(self.y, self.levels**2)).sum(1)
        x0 = self.denoise(x, sigma)
        return (x, x0, x0), first + self.constant + self._log_weight(0, x, x0, x0)

    def move(self, step: int, state: State, noise: Noise) -> Weighed:
        x, x0, last = state
        sigma_next, ahead, estimate = self.sigmas[step + 1], self._ahead(step), self._estimate(step, x0, last)
        keep, std = bridge(self.sigmas[step], sigma_next, self.eta)
        moved = estimate + keep * (x - estimate) + std * noise(x)
        z, z0 = self.svd.Vt(moved), self.svd.Vt(estimate)
        there, leg = self._leg(step, self.svd.Vt(x), z0)
        seen = leg.draw(noise(z))
        if sigma_next > 0:  # from where y was met, on to the next level
            keep, std = bridge(there, sigma_next, self.eta)
            seen = z0 + keep * (seen - z0) + std * noise(z)
        moved = moved + self.svd.V(torch.where(ahead, seen - z, 0))
        if sigma_next == 0:
            return moved, torch.zeros_like(moved.flatten(1)[:, 0])
        x0_next = self.denoise(moved, sigma_next)
        return (moved, x0_next, x0), self._log_weight(step + 1, moved, x0_next, x0)

    def _ahead(self, step: int) -> Bool[Tensor, "r"]:
        """Coordinates that have yet to pass through y."""
        return self.levels < self.sigmas[step]

    def _estimate(self, step: int, x0: Tensor, last: Tensor) -> Tensor:
        return x0 + extrapolation(self.sigmas, step, self.order) * (x0 - last)

    def _guess(self, sigma: Float[Tensor, "r"]) -> tuple[Tensor, Tensor]:
        """(a, v) with y ~ N(a z, v) for z at each level, if the data are N(0, sigma_data^2)."""
        if math.isinf(self.sigma_data):
            return torch.ones_like(sigma), sigma**2 - self.levels**2
        a = (self.sigma_data**2 + self.levels**2) / (self.sigma_data**2 + sigma**2)
        return a, a * (sigma**2 - self.levels**2)

    def _leg(self, step: int, z: Float[Tensor, "n r"], z0: Float[Tensor, "n r"]) -> tuple[Tensor, Leg]:
        """The move of the observed coordinates as far as y, or the next level, and the level where it ends."""
        sigma, sigma_next = self.sigmas[step], self.sigmas[step + 1]
        if sigma_next == 0:
            last = self.kappa * sigma * torch.ones_like(self.y)
            return sigma_next, Leg(z0, last**2, self.y, torch.ones_like(last), self.levels**2)
        there = self.levels.clamp(float(sigma_next), float(sigma))
        keep, std = bridge(sigma, there, self.eta)
        return there, Leg(z0 + keep * (z - z0), std**2, self.y, *self._guess(there))

    def _log_weight(self, step: int, x: Tensor, x0: Tensor, last: Tensor) -> Float[Tensor, "n"]:
        """ln of the guess after the coming move over the guess before it."""
        z = self.svd.Vt(x)
        _, leg = self._leg(step, z, self.svd.Vt(self._estimate(step, x0, last)))
        a, v = self._guess(self.sigmas[step] * torch.ones_like(self.y))
        before = log_normal(self.y - a * z, v)
        return torch.where(self._ahead(step), leg.log_prob() - before, 0).sum(1)


def mcgdiff(
    denoiser: Denoiser,
    obs: Observation,
    sigmas: Float[Tensor, "levels"],
    *,
    eta: int | float = 1.0,
    order: int = 1,
    sigma_data: float = math.inf,
    kappa: int | float = 1.0,
    **cond: Any,
) -> MCGDiff:
    """The model for `smc` ([Cardoso23] algorithm 1 and section 3, for noisy observations).

    Args:
        sigmas: decreasing levels, the last one 0. One call of the denoiser for each of the others.
        eta: share of fresh noise of the chain, above 0 and at most 1.
        order: 2 extrapolates the estimates as `dpmpp_2m_sde` does.
        sigma_data: standard deviation of the data about 0 that the guess takes into account; infinite in the paper.
        kappa: noise of the last step in observed coordinates, in last levels: the estimate there is uncertain by that.
        cond: conditions of the denoiser, with a row for each particle, equal within a run.
    """
    if not 0 < eta <= 1 or order not in (1, 2) or not sigma_data > 0 or not kappa > 0:
        raise ValueError(
            "mcgdiff needs eta in (0, 1], order 1 or 2, sigma_data > 0 and kappa > 0; "
            f"got {eta}, {order}, {sigma_data} and {kappa}"
        )
    sigmas = checked_levels(sigmas)
    seen, denoise = Coordinates.of(obs), partial(denoiser, **cond)
    s = seen.svd.s.to(seen.y)
    constant = seen.constant - float(s.log().sum())  # y_i of the operator is s_i times the y_i of a coordinate
    parts = (seen.y / s, seen.noise / s, constant, sigmas, seen.shape, eta, order, sigma_data, kappa, len(sigmas) - 1)
    return MCGDiff(denoise, seen.svd, *parts)


def log_normal(z: Tensor, variance: Tensor) -> Tensor:
    """ln N(z; 0, variance)."""
    return -(z**2 / variance + (2 * math.pi * variance).log()) / 2
