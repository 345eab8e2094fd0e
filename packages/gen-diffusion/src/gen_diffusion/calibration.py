"""Does a posterior sampler draw from the posterior? Measured on problems whose posterior is exact.

    problems = [lattice_problem(8, 2, index) for index in range(20)]
    report = calibrate(mcgdiff_sample, problems, lattice_levels(8))
    print(report.estimate("sw"), report.estimate("floor"), report.estimate("ks"))
    print(difference(report, calibrate(dps, problems, lattice_levels(8)), "sw"))

A sampler is any function `(denoiser, obs, x, sigmas, *, generator) -> x0` of noise x at the first level; it sees the
prior through its denoiser alone. No figure is enough by itself: a posterior mean repeated n times has a better sliced
Wasserstein distance than some samplers, and gives itself away by `ks` and `coverage`.

    figure       what it is                                                             exact draws have
    sw           sliced Wasserstein-1 distance to as many exact draws                   the floor
    floor        that of two sets of exact draws                                        -
    mode_tv      total variation between the weights of modes and their exact weights   about sqrt(modes / 4 n)
    ks           Kolmogorov-Smirnov distance of |S_k^-1/2 (x - m_k)| to exact draws     about 1 / sqrt(n)
    coverage     share of the posterior in central intervals of the draws (90 %)        .9
    log_z_error  |ln Z - ln p(y)|, of samplers that estimate it                         -
    calls        of the denoiser, for each draw                                         -
    gradients    backward passes through the denoiser, for each draw                    -

[Cardoso23] Monte Carlo guided diffusion for Bayesian linear inverse problems, arXiv:2308.07983 (the lattice problems).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_core.intervals import Estimate, mean
from gen_core.metrics import sliced_wasserstein
from gen_core.runtime import generator
from gen_diffusion.denoise import Denoiser
from gen_diffusion.explain import Counted
from gen_diffusion.mixture import GaussianMixture
from gen_diffusion.operators import Gaussian, Linear, Observation, matrix, observe
from gen_diffusion.particles import ParticleSampler
from gen_diffusion.schedule import exponential

Sampler = Callable[..., Tensor]  # (denoiser, obs, x, sigmas, *, generator) -> x0
Figure = Literal["sw", "floor", "mode_tv", "ks", "coverage", "log_z_error", "calls", "gradients"]
LEVEL = 0.9  # of the credible intervals


@dataclass(frozen=True)
class Problem:
    """A prior, something seen of it, and a name for its random numbers."""

    prior: GaussianMixture
    obs: Observation
    key: tuple[int | str, ...]


def lattice_problem(dim: int, observed: int, index: int, seed: int = 0) -> Problem:
    """25 Gaussians of unit variance on a lattice of spacing 8, seen through a random matrix ([Cardoso23] section 5.1).

    The means are (8 i, 8 j) for i, j = -2 to 2, repeated in all pairs of coordinates; weights are squares of normal
    numbers. A = U diag(s) V^T with uniform s, and the noise is a uniform share of the largest.

    Args:
        dim: even.
        observed: values in y, at most `dim`.
    """
    if dim < 2 or dim % 2 or not 1 <= observed <= dim:
        raise ValueError(f"the lattice has an even dimension of at least `observed`, got {dim} and {observed}")
    key = ("lattice", dim, observed, index)
    g = generator(seed, *key)
    normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    side = 8 * torch.arange(-2.0, 3.0, dtype=torch.float64)
    means = torch.cartesian_prod(side, side).repeat(1, dim // 2)
    prior = GaussianMixture(normal(25) ** 2, means, torch.ones(dim, dtype=torch.float64))
    U, _, Vt = torch.linalg.svd(normal(observed, dim), full_matrices=False)
    *s, share = torch.rand(observed + 1, generator=g, dtype=torch.float64)
    s = torch.stack(s).sort(descending=True).values
    obs = observe(matrix(U * s @ Vt), prior.sample(1, g)[0], Gaussian(float(share * s[0])), g)
    return Problem(prior, obs, (seed, *key))


def lattice_levels(dim: int, n: int = 100) -> Float[Tensor, "levels"]:
    """`n` levels for lattice problems, evenly spaced in ln(sigma): from thrice the farthest mean to .03, then 0."""
    return exponential(n, 0.03, 48 * math.sqrt(dim)).double()


@dataclass(frozen=True)
class Quality:
    """The figures of one sampler on one problem; `log_z_error` is None where the sampler estimates no ln Z."""

    sw: float
    floor: float
    mode_tv: float
    ks: float
    coverage: float
    calls: float
    gradients: float
    log_z_error: float | None = None


@dataclass(frozen=True)
class Calibration:
    """The figures of one sampler on each of several problems."""

    each: list[Quality]

    def values(self, figure: Figure) -> Float[Tensor, "problems"] | None:
        """One figure on each problem; None where the sampler has none."""
        values = [getattr(quality, figure) for quality in self.each]
        return None if None in values else torch.tensor(values, dtype=torch.float64)

    def estimate(self, figure: Figure) -> Estimate | None:
        """The mean over problems with its interval of 95 %."""
        values = self.values(figure)
        if values is None:
            return None
        found = mean(values)
        return replace(found, low=max(found.low, 0.0))  # no figure is negative


def difference(a: Calibration, b: Calibration, figure: Figure, draws: int = 10_000, seed: int = 0) -> Estimate:
    """Mean of a's figure less b's on the same problems, with the paired bootstrap interval of 95 % over problems.

    Raises:
        ValueError: if the two were not measured on equally many problems, or have no such figure.
    """
    x, y = a.values(figure), b.values(figure)
    if x is None or y is None or len(x) != len(y):
        raise ValueError(f"{figure} of two samplers is compared on the same problems, and one lacks it on some")
    gap = x - y
    again = gap[torch.randint(len(gap), (draws, len(gap)), generator=generator(seed, "bootstrap"))].mean(1)
    low, high = again.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(gap.mean().item(), low, high, len(gap))


def calibrate(
    sampler: Sampler,
    problems: Iterable[Problem],
    sigmas: Float[Tensor, "levels"],
    *,
    n: int = 1000,
    clouds: int = 2,
    slices: int = 200,
    seed: int = 0,
) -> Calibration:
    """Measure a sampler on problems; see the table at the top of the module.

    Args:
        n, clouds: particles of a call, and independent calls: `n * clouds` draws are compared with as many exact ones.
        slices: random directions of the sliced distances.
        seed: of the sampler's noise and the exact draws, which are the same for every sampler.
    """
    return Calibration([_measure(sampler, problem, sigmas, n, clouds, slices, seed) for problem in problems])


def _measure(
    sampler: Sampler, problem: Problem, sigmas: Tensor, n: int, clouds: int, slices: int, seed: int
) -> Quality:
    posterior, counted = problem.prior.posterior(problem.obs), _Counted(problem.prior)
    g = generator(seed, "draws", *problem.key)
    draws, log_z = zip(*(_cloud(sampler, counted, problem.obs, sigmas, n, g) for _ in range(clouds)), strict=True)
    evidence = problem.prior.evidence(problem.obs)
    error = None if None in log_z else (torch.stack(log_z) - evidence).abs().mean().item()
    compared = _compare(torch.cat(draws), posterior, slices, generator(seed, "exact", *problem.key))
    calls, gradients = counted.evaluations / (n * clouds), counted.gradients / (n * clouds)
    return Quality(**compared, calls=calls, gradients=gradients, log_z_error=error)


def _cloud(
    sampler: Sampler, denoiser: Denoiser, obs: Observation, sigmas: Tensor, n: int, g: Generator
) -> tuple[Tensor, Tensor | None]:
    """Draws of one call, and ln Z."""
    assert isinstance(obs.A, Linear)  # or there would be no exact posterior
    x = sigmas[0] * torch.randn(n, *obs.A.shape_in, generator=g, dtype=sigmas.dtype)
    if not isinstance(sampler, ParticleSampler):
        return sampler(denoiser, obs, x, sigmas, generator=g).detach(), None
    particles = sampler.particles(denoiser, obs, x, sigmas, generator=g)
    return particles.draw(g), particles.log_z


def _compare(draws: Tensor, posterior: GaussianMixture, slices: int, g: Generator) -> dict[str, float]:
    """sw, floor, mode_tv, ks and coverage of draws."""
    exact, other = (posterior.sample(len(draws), g) for _ in range(2))
    distance = lambda x: sliced_wasserstein(x, exact, slices, generator=generator(0, "slices"), p=1)
    weights = posterior.responsibilities(draws).mean(0)
    mode_tv = (weights - posterior.log_weights.exp()).abs().sum().item() / 2
    ks = kolmogorov_smirnov(posterior.radius(draws), posterior.radius(exact))
    low, high = draws.quantile(torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2]).to(draws), dim=0)
    coverage = ((low <= exact) & (exact <= high)).double().mean().item()
    return {"sw": distance(draws), "floor": distance(other), "mode_tv": mode_tv, "ks": ks, "coverage": coverage}


def kolmogorov_smirnov(a: Float[Tensor, "n"], b: Float[Tensor, "m"]) -> float:
    """Largest gap between the distribution functions of two samples."""
    a, b, at = a.sort().values, b.sort().values, torch.cat([a, b])
    share = lambda x: torch.searchsorted(x, at, right=True) / len(x)
    return (share(a) - share(b)).abs().max().item()


class _Counted(Counted):
    """A denoiser that also counts the samples that gradients were taken through."""

    gradients = 0

    def __call__(self, x: Tensor, sigma: Any, **cond: Any) -> Tensor:
        return _Watched.apply(super().__call__(x, sigma, **cond), self)


class _Watched(torch.autograd.Function):
    """The identity, whose backward pass is counted."""

    @staticmethod
    def forward(x: Tensor, counter: _Counted) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, _Counted], output: Tensor) -> None:
        ctx.counter = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.counter.gradients += len(gradients[0])
        return gradients[0], None
