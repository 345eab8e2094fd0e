"""Resampling of weighted particles: functions `(log_w, m, generator) -> indices`, unbiased: E[count of i] = m W_i.

    ancestors = systematic(log_w, generator=generator)
    x, log_w = x[ancestors], torch.zeros(len(x))

The last dimension of `log_w` holds the particles; each run in front of it is resampled by itself. Weights may be
unnormalised and reach over thousands of nats; a particle of weight 0 is never chosen.

    scheme        uniform numbers   variance of a resampled mean
    multinomial   m + 1             that of m independent draws
    residual      m + 1             smaller: floor(m W_i) copies are certain
    stratified    m                 smaller: one draw in each m-th of the weight
    systematic    1                 the smallest in most cases; the default of `smc`

[Douc05] Comparison of resampling schemes for particle filtering, arXiv:cs/0507025.
[Chopin20] An introduction to sequential Monte Carlo, chapter 9, and its library `particles`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gen_core.runtime import widest

Resample = Callable[..., Tensor]  # (log_w, m=None, generator=None) -> indices


def normalised(log_w: Float[Tensor, "*runs n"]) -> Float[Tensor, "*runs n"]:
    """Weights that sum to 1, in double precision where the device has it.

    Raises:
        ValueError: if a weight is nan or +inf, or all weights of a run are 0.
    """
    log_w = log_w.to(widest(log_w.device))
    top = log_w.amax(-1, keepdim=True)
    if not top.isfinite().all():
        raise ValueError(
            "the log-weights of a run have no finite maximum: all particles have weight 0, or one is nan or infinite; "
            "use more particles, a better twist, or a larger noise of the observation"
        )
    return (log_w - top).softmax(-1)


def effective_size(log_w: Float[Tensor, "*runs n"]) -> Float[Tensor, "*runs"]:
    """1 / sum_i W_i^2, from 1 to n: how many equally weighted particles have the same sum of squared weights.

    >>> effective_size(torch.tensor([0.0, 0.0, -1e4])).item()
    2.0
    """
    return 1 / normalised(log_w).square().sum(-1)


def multinomial(
    log_w: Float[Tensor, "*runs n"], m: int | None = None, generator: Generator | None = None
) -> Int[Tensor, "*runs m"]:
    """`m` independent draws (by default n), in ascending order: uniform spacings in place of a sort."""
    w = normalised(log_w)
    return _inverse_cdf(w, _ordered(_uniform(w, (m or w.shape[-1]) + 1, generator)))


def stratified(
    log_w: Float[Tensor, "*runs n"], m: int | None = None, generator: Generator | None = None
) -> Int[Tensor, "*runs m"]:
    """One draw in each m-th of the weight."""
    w, m = normalised(log_w), m or log_w.shape[-1]
    return _inverse_cdf(w, (torch.arange(m, device=w.device) + _uniform(w, m, generator)) / m)


def systematic(
    log_w: Float[Tensor, "*runs n"], m: int | None = None, generator: Generator | None = None
) -> Int[Tensor, "*runs m"]:
    """A regular comb of m teeth at one random offset."""
    w, m = normalised(log_w), m or log_w.shape[-1]
    return _inverse_cdf(w, (torch.arange(m, device=w.device) + _uniform(w, 1, generator)) / m)


def residual(
    log_w: Float[Tensor, "*runs n"], m: int | None = None, generator: Generator | None = None
) -> Int[Tensor, "*runs m"]:
    """floor(m W_i) copies of particle i, and multinomial draws in proportion to what the floor leaves."""
    w, m = normalised(log_w), m or log_w.shape[-1]
    copies = (m * w).floor()
    certain = copies.sum(-1, keepdim=True)  # "*runs 1"
    teeth = torch.arange(m, device=w.device).expand(*w.shape[:-1], m)
    sure = torch.searchsorted(copies.cumsum(-1), teeth.to(w), right=True)
    left = (m - certain).long()
    rest = torch.where(left > 0, m * w - copies, w)  # where nothing is left, any weights do
    drawn = _inverse_cdf(rest, _ordered(_uniform(w, m + 1, generator), left))
    return torch.where(teeth < certain, sure, drawn.gather(-1, (teeth - certain.long()).clamp_min(0)))


def _uniform(w: Tensor, m: int, generator: Generator | None) -> Tensor:
    """Uniform numbers "*runs m", drawn on the generator's own device."""
    device = generator.device if generator else w.device
    return torch.rand(*w.shape[:-1], m, generator=generator, device=device, dtype=widest(device)).to(w)


def _ordered(uniform: Float[Tensor, "*runs m1"], m: Int[Tensor, "*runs 1"] | None = None) -> Float[Tensor, "*runs m"]:
    """The first `m` (by default all) of m1 - 1 ordered uniform numbers: sums of exponential ones over the last sum."""
    sums = (-uniform.clamp_min(torch.finfo(uniform.dtype).tiny).log()).cumsum(-1)
    last = sums[..., -1:] if m is None else sums.gather(-1, m)
    return sums[..., :-1] / last


def _inverse_cdf(w: Float[Tensor, "*runs n"], positions: Float[Tensor, "*runs m"]) -> Int[Tensor, "*runs m"]:
    """For each position in [0, 1) the first particle whose cumulated weight exceeds it."""
    cdf = w.cumsum(-1)
    below_one = 1 - torch.finfo(w.dtype).eps / 2  # a position may be rounded to 1, which no weight exceeds
    return torch.searchsorted(cdf / cdf[..., -1:], positions.clamp_max(below_one).contiguous(), right=True)
