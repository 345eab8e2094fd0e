"""Sequential Monte Carlo: weighted particles through a sequence of distributions, and the normalising constant.

    particles = smc(twisted(denoiser, obs, sigmas), 1000, generator=generator)
    x = particles.draw(generator)                                   # of equal weight
    particles.log_z, particles.log_z_error                          # ln p(y), and its standard error

A `FeynmanKac` model says how particles begin, move and are weighed; `smc` resamples them where their effective number
falls. A state is a tensor, or a tuple of tensors whose first is x: all that belongs to a particle travels with it.
Several independent runs are one batch: `smc(model, 10, runs=800)` calls the denoiser with 8,000 particles.

[Chopin20] An introduction to sequential Monte Carlo, chapters 5 and 10.
[Chan13] Chan and Lai, A general theory of particle filters in hidden Markov models, arXiv:1312.5114.
[Lee18] Lee and Whiteley, Variance estimation in the particle filter, arXiv:1509.00394.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gen_core.runtime import widest
from gen_diffusion.noise import randn_like
from gen_diffusion.resample import Resample, normalised, systematic

State = Tensor | tuple[Tensor, ...]  # one row for each particle; x, or x and what belongs to it
Noise = Callable[[Tensor], Tensor]  # standard normal of the shape of its argument
Weighed = tuple[State, Float[Tensor, "n"]]  # particles, and the logarithms of their new factors of weight


@runtime_checkable
class FeynmanKac(Protocol):
    """The target is E of the product of all weights: Z, over paths of `initial` and `move`."""

    @property
    def steps(self) -> int:
        """Moves."""
        ...

    def initial(self, n: int, noise: Noise) -> Tensor:
        """`n` first particles."""
        ...

    def begin(self, x: Tensor) -> Weighed:
        """The state of the first particles, and ln G_0."""
        ...

    def move(self, step: int, state: State, noise: Noise) -> Weighed:
        """The particles of `step` + 1 from those of `step`, and ln G of the move."""
        ...


@dataclass(frozen=True)
class Particles:
    """The last particles of one run, or of several, which are then the first dimension of all entries.

    `log_z` is the logarithm of an unbiased estimate of Z; itself it is low by about half its squared error.

    `log_z_error` comes from one run: how unequal weighing makes the families that descend from the first particles
    ([Lee18] eq. 10; where resampling changes them, its expectation there is replaced by what happened, which holds for
    every scheme). It errs to the wide side for schemes better than multinomial. It degenerates with the families: below
    some 30 `roots` it scatters widely, and one root alone leaves nothing to compare, which is reported as infinity.
    Then the spread of `log_z` over several runs is the honest error.
    """

    x: Float[Tensor, "..."]  # "*runs n *shape"
    log_w: Float[Tensor, "*runs n"]
    """Logarithms of the normalised weights."""
    log_z: Float[Tensor, "*runs"]
    log_z_error: Float[Tensor, "*runs"]
    """Standard error of ln Z."""
    ess: Float[Tensor, "*runs weighings"]
    """Effective number of particles after each weighing, before resampling."""
    ancestors: Int[Tensor, "*runs moves n"]
    """The particle before each move that a particle comes from."""
    roots: Int[Tensor, "*runs"]
    """First particles that have descendants."""

    def draw(self, generator: Generator | None = None, resample: Resample = systematic) -> Tensor:
        """As many particles of equal weight, those of all runs in one batch."""
        shape = self.x.shape[self.log_w.ndim :]
        index = resample(self.log_w, generator=generator)
        return _rows(self.x.reshape(-1, *shape), index)

    def mean(self) -> Float[Tensor, "..."]:
        """The weighted mean."""
        weights = self.log_w.exp().reshape(self.log_w.shape + (1,) * (self.x.ndim - self.log_w.ndim))
        return (weights * self.x).sum(self.log_w.ndim - 1)


@torch.no_grad()
def smc(
    model: FeynmanKac,
    n: int | Float[Tensor, "particles ..."],
    *,
    runs: int | None = None,
    resample: Resample = systematic,
    ess: int | float = 0.5,
    generator: Generator | None = None,
) -> Particles:
    """Move, weigh, and resample where fewer than `ess` times n particles are effective ([Chopin20] algorithm 10.3).

    Args:
        n: particles in each run, or the first particles themselves, those of all runs.
        runs: independent runs in one batch; None is one run, without the dimension of runs in the result.
        ess: 0 never resamples, which is importance sampling; 1 resamples before every move.

    Raises:
        ValueError: unless ess lies in [0, 1]; if all particles of a run have weight 0.
    """
    if not 0 <= ess <= 1:
        raise ValueError(f"ess is the share of effective particles below which to resample, from 0 to 1; got {ess}")
    noise = partial(randn_like, generators=generator)
    rows = runs or 1
    x = model.initial(n * rows, noise) if isinstance(n, int) else n
    if len(x) == 0 or len(x) % rows:
        raise ValueError(f"{rows} runs share the particles evenly and need one each at least, got {len(x)}")
    state, log_g = model.begin(x)
    path = _Path(log_g.reshape(rows, -1))
    for step in range(model.steps):
        index = path.select(resample, ess, generator)
        state, log_g = model.move(step, _take(state, index), noise)
        path.weigh(log_g.reshape(rows, -1))
    return path.particles(state if isinstance(state, Tensor) else state[0], runs)


class _Path:
    """The weights, ancestors and families of all runs; `log_w` is normalised, and `log_z` holds its sums so far."""

    def __init__(self, log_g: Float[Tensor, "runs n"]):
        runs, self.n = log_g.shape
        self.log_w = torch.full_like(log_g, -math.log(self.n), dtype=widest(log_g.device))
        self.log_z = self.log_w.new_zeros(runs)
        self.apart = self.log_w.new_ones(runs)  # how weighing has changed the weight of pairs of two families
        self.root = torch.arange(self.n, device=log_g.device).expand(runs, -1)
        self.ess: list[Tensor] = []
        self.ancestors: list[Tensor] = []
        self.weigh(log_g)

    def weigh(self, log_g: Float[Tensor, "runs n"]) -> None:
        before = self._pairs()
        self.log_w = self.log_w + log_g
        weights = normalised(self.log_w)
        step = self.log_w.logsumexp(-1)
        self.log_w, self.log_z = self.log_w - step[:, None], self.log_z + step
        self.ess.append(1 / weights.square().sum(-1))
        self.apart = self.apart * self._pairs() / before

    def _pairs(self) -> Float[Tensor, "runs"]:
        """The chance that two particles, drawn by their weights, descend from different first ones."""
        families = torch.zeros_like(self.log_w).scatter_add(1, self.root, self.log_w.exp())
        return 1 - families.square().sum(1)

    def select(self, resample: Resample, ess: int | float, generator: Generator | None) -> Int[Tensor, "runs n"]:
        """The particles to move, equally weighted in the runs that were resampled."""
        few = (self.ess[-1] < ess * self.n) | (ess == 1)
        index = torch.arange(self.n, device=few.device).expand(len(few), -1)
        if few.any():
            index = torch.where(few[:, None], resample(self.log_w, generator=generator), index)
            self.log_w = torch.where(few[:, None], -math.log(self.n), self.log_w)
            self.root = self.root.gather(1, index)
        self.ancestors.append(index)
        return index

    def particles(self, x: Tensor, runs: int | None) -> Particles:
        roots = torch.zeros_like(self.root).scatter(1, self.root, 1).sum(1)
        error = torch.where(roots > 1, (1 - self.apart).clamp_min(0).sqrt(), math.inf)
        ancestors = torch.stack(self.ancestors, 1) if self.ancestors else self.root[:, None][:, :0]
        parts = (x.unflatten(0, self.log_w.shape), self.log_w, self.log_z, error, torch.stack(self.ess, 1))
        return Particles(*(part if runs else part[0] for part in (*parts, ancestors, roots)))


def _take(state: State, index: Int[Tensor, "runs n"]) -> State:
    """The rows that `index` names within each run, of all that belongs to a particle."""
    return _rows(state, index) if isinstance(state, Tensor) else tuple(_rows(part, index) for part in state)


def _rows(x: Tensor, index: Int[Tensor, "*runs n"]) -> Tensor:
    runs = index if index.ndim > 1 else index[None]
    first = torch.arange(len(runs), device=runs.device)[:, None] * (len(x) // len(runs))
    return x[(runs + first).flatten()]
