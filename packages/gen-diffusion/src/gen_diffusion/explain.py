"""Looking at diffusion: what a sampler costs and where its samples walk, and how far a denoiser is from the exact one.

    counted = Counted(denoiser)
    states = trajectory(counted, x, sigmas, heun)       # (levels, b, 2), to be drawn
    print(counted.evaluations / len(x))                 # 35 for 18 steps of Heun
    excess = excess_loss(denoiser, grid_mixture(), x0, log_normal(z), noise)

A network's denoising loss says little: most of it is noise that no denoiser could remove. Beside an exact denoiser D*,

    E w |D - x0|^2 = E w |D* - x0|^2 + E w |D - D*|^2,

the first term is the floor and the second the excess, which is what training can still win.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_diffusion.denoise import Denoiser, noised
from gen_diffusion.guide import Weight, cfg
from gen_diffusion.loss import edm_weight
from gen_diffusion.mixture import GaussianMixture
from gen_diffusion.sample import Snapshot, Step, heun, sample
from gen_diffusion.view import Level, column


class Counted:
    """The same denoiser, which counts the samples that it was asked for: `evaluations` over all calls."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser = denoiser
        self.evaluations = 0

    def __call__(self, x: Float[Tensor, "b *shape"], sigma: Any, **cond: Any) -> Float[Tensor, "b *shape"]:
        self.evaluations += len(x)
        return self.denoiser(x, sigma, **cond)


def evaluations(step: Step, sigmas: Float[Tensor, "levels"], guidance: float | Weight = 1.0) -> int:
    """Network evaluations that one sample costs, found by making one of a denoiser that answers 0.

    >>> evaluations(heun, torch.tensor([4.0, 2.0, 1.0, 0.0]))
    5
    >>> evaluations(heun, torch.tensor([4.0, 2.0, 1.0, 0.0]), guidance=1.5)
    10
    """
    counted = Counted(lambda x, sigma, **_: torch.zeros_like(x))
    sample(cfg(counted, guidance), torch.ones(1, 1), sigmas, step, generator=Generator())
    return counted.evaluations


def most_steps(budget: int, evaluations: Callable[[int], int], least: int = 2) -> int | None:
    """The largest number of steps whose evaluations are within the budget; None if not even `least` steps are.

    >>> most_steps(12, lambda n: 2 * n - 1)
    6
    """
    steps = least
    if evaluations(steps) > budget:
        return None
    while evaluations(steps + 1) <= budget:
        steps += 1
    return steps


@torch.no_grad()
def trajectory(
    denoiser: Denoiser,
    x: Float[Tensor, "b *shape"],
    sigmas: Float[Tensor, "levels"],
    step: Step = heun,
    *,
    generator: Generator | Sequence[Generator] | None = None,
    **cond: Any,
) -> Float[Tensor, "levels b *shape"]:
    """The states at every level, from `x` to the sample; arguments as for `sample`."""
    seen: list[Snapshot] = []
    last = sample(denoiser, x, sigmas, step, generator=generator, callback=seen.append, **cond)
    return torch.stack([*(snapshot.x for snapshot in seen), last])


@torch.no_grad()
def score(denoiser: Denoiser, x: Float[Tensor, "b *shape"], sigma: Level, **cond: Any) -> Float[Tensor, "b *shape"]:
    """grad ln p(x; sigma) = (D(x; sigma) - x) / sigma^2, Tweedie's formula, of any denoiser at sigma > 0."""
    return (denoiser(x, sigma, **cond) - x) / column(sigma, x) ** 2


@dataclass(frozen=True)
class Excess:
    """Weighted losses per dimension, one for each sample."""

    floor: Float[Tensor, "b"]
    """w |D* - x0|^2, of the exact denoiser."""
    excess: Float[Tensor, "b"]
    """w |D - D*|^2, of the other one."""


@torch.no_grad()
def excess_loss(
    denoiser: Denoiser,
    exact: Denoiser,
    x0: Float[Tensor, "b *shape"],
    sigma: Float[Tensor, "b"],
    noise: Float[Tensor, "b *shape"],
    *,
    sigma_data: float = 0.5,
) -> Excess:
    """How far a denoiser is from the exact one of the same data, by EDM's weight."""
    x, weight = noised(x0, sigma, noise), edm_weight(sigma, sigma_data)
    best = exact(x, sigma)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return weight * (a - b).square().flatten(1).mean(1)

    return Excess(loss(best, x0), loss(denoiser(x, sigma), best))


def log_density_gap(
    mixture: GaussianMixture, x: Float[Tensor, "b d"], generator: Generator | None = None, n: int = 100_000
) -> tuple[float, float]:
    """(E ln p of exact samples minus that of the samples `x`, its standard error), in nats: 0 for a perfect sampler.

    Samples off the data have a low density; the gap is blunt where samples are too close to the modes, where it is
    negative. Evaluated in double precision.
    """
    mixture = deepcopy(mixture).double()
    exact, found = mixture.log_prob(mixture.sample(n, generator)), mixture.log_prob(x.double())
    error = (exact.var() / len(exact) + found.var() / len(found)).sqrt()
    return (exact.mean() - found.mean()).item(), error.item()
