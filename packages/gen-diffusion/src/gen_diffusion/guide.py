"""Guidance: functions from denoiser to denoiser, so that any sampler runs any of them.

    x0 = sample(cfg(denoiser, weight=1.5), x, sigmas, label=label)
    x0 = sample(cfg(denoiser, clamp_linear(2.0, low=1.2)), x, sigmas, label=label)
    x0 = sample(classifier(denoiser, log_prob, weight=2.0), x, sigmas, label=label)

Convention: weight 0 is the unconditional denoiser (for autoguidance the weak one), 1 the conditional one, more
extrapolates. A weight is a number or a function of the noise level, one of those at the end of this file.

Ho & Salimans and Wang et al. write (1 + w) eps_c - w eps_u, so that their w is the weight here minus 1. With r = 1 - t
for the progress of sampling, from 0 at pure noise to 1 at the data, [Wang24] and this file mean the same by

    theirs, of mean w0 over time    here, of mean w = 1 + w0 over time
    2 w0 r                          linear(w) = 1 + 2 (w - 1) r
    w0 (1 - cos(pi r))              cosine(w) = 1 + (w - 1) (1 - cos(pi r))
    max(c, 2 w0 r)                  clamp_linear(w, low) = max(low, 1 + 2 (w - 1) r), low = 1 + c; its mean is above w

[Ho22] Classifier-free diffusion guidance, arXiv:2207.12598.
[Dhariwal21] Diffusion models beat GANs on image synthesis, arXiv:2105.05233.
[Karras24] Guiding a diffusion model with a bad version of itself, arXiv:2406.02507.
[Kynkaanniemi24] Applying guidance in a limited interval improves sample and distribution quality, arXiv:2404.07724.
[Wang24] Analysis of classifier-free guidance weight schedulers, arXiv:2404.13040.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from gen_diffusion.denoise import Denoiser
from gen_diffusion.schedule import vp_time
from gen_diffusion.view import Level, column, spread

Weight = Callable[[Tensor], Tensor]  # noise levels -> guidance weights, one for each level or one for all


def cfg(
    denoiser: Denoiser, weight: float | Weight, null: Mapping[str, Any] | None = None, keep: Sequence[str] = ()
) -> Denoiser:
    """Classifier-free guidance, D_u + weight (D_c - D_u) ([Ho22] eq. 6, there for eps).

    Where one weight holds for the whole batch and is exactly 0 or 1, only the denoiser that is needed is called.

    Args:
        weight: a number, or a function of the noise level such as `interval(2.0, 0.2, 5.0)`.
        null: the conditions of the unconditional branch. None leaves them all out, which the networks of this
            package read as their null class.
        keep: conditions that both branches are told, such as a mask of padding or a picture to be filled in.
    """

    def unconditional(x: Tensor, sigma: Any, **cond: Any) -> Tensor:
        return denoiser(x, sigma, **{name: cond[name] for name in keep if name in cond} | dict(null or {}))

    return _between(unconditional, denoiser, weight)


def autoguide(denoiser: Denoiser, weak: Denoiser, weight: float | Weight) -> Denoiser:
    """Guidance by a worse version of the same model, D_weak + weight (D - D_weak) ([Karras24] section 4).

    Args:
        weak: smaller or less trained, for the same data; it is told the same conditions.
        weight: as for `cfg`: 0 is the weak denoiser, 1 the good one, and neither costs more than its own call.
    """
    return _between(weak, denoiser, weight)


def classifier(denoiser: Denoiser, log_prob: Callable[..., Tensor], weight: float | Weight = 1.0) -> Denoiser:
    """Classifier guidance, D + weight sigma^2 grad_x ln p(c | x; sigma) ([Dhariwal21] eq. 14, there for eps).

    At weight 1 an unconditional denoiser and the exact classifier make the conditional denoiser. The gradient is
    defined under `torch.no_grad`, is taken for each sample by itself, and can be differentiated in turn.

    Args:
        denoiser: unconditional: the conditions go to the classifier alone.
        log_prob: `(x, sigma, **cond) -> (b,)`, ln p(c | x) in nats for noisy x, `sigma` as for a denoiser; row i may
            depend on row i of `x` only.
        weight: as for `cfg`; where it is exactly 0 the classifier is not called.

    Raises:
        ValueError: at an infinite level, where the gradient is lost.
    """
    weight = _function(weight)

    def guided(x: Float[Tensor, "b *shape"], sigma: Level, **cond: Any) -> Float[Tensor, "b *shape"]:
        s, w = column(sigma, x), _at(weight, sigma, x)
        if not (isinstance(sigma, Tensor) and sigma.is_cuda) and s.isinf().any():  # on a GPU looking would wait for it
            raise ValueError(
                "classifier guidance needs a finite noise level, got inf; begin with a large one, like 1000"
            )
        x0 = denoiser(x, sigma)
        if w.ndim == 0 and w == 0:
            return x0
        gradient = torch.func.grad(lambda x: log_prob(x, sigma, **cond).sum())(x)
        return x0 + spread(w, x) * s**2 * gradient

    return guided


def constant(weight: float) -> Weight:
    """The same weight at every level.

    Raises:
        ValueError: here and below, if a weight is not finite.
    """
    value = torch.tensor(_finite(weight), dtype=torch.float64)
    return lambda sigma: value


def linear(weight: float, time: Weight = vp_time) -> Weight:
    """1 + 2 (weight - 1) r: from 1 at pure noise up to 2 weight - 1 at the data ([Wang24], "linear").

    Args:
        weight: the mean over time.
        time: noise levels -> t = 1 - r in [0, 1], of which t = 0 is the data. The default is that of the
            variance-preserving diffusion with linear betas; that of flow matching is `lambda s: s / (1 + s)`.

    >>> linear(3.0)(torch.tensor([0.0, 1e9])).tolist()
    [5.0, 1.0]
    """
    at_data = 2 * (_finite(weight) - 1)
    return lambda sigma: 1 + at_data * (1 - time(torch.as_tensor(sigma)))


def cosine(weight: float, time: Weight = vp_time) -> Weight:
    """1 + (weight - 1) (1 - cos(pi r)): the same ends and mean as `linear`, with a slow start ([Wang24], "cosine")."""
    mean = _finite(weight) - 1
    return lambda sigma: 1 + mean * (1 + (math.pi * time(torch.as_tensor(sigma))).cos())  # cos(pi t) = -cos(pi r)


def clamp_linear(weight: float, low: float, time: Weight = vp_time) -> Weight:
    """max(low, linear): never less guidance than `low`, so the mean is above `weight` ([Wang24], "clamp-linear").

    Raises:
        ValueError: if `low` is negative.

    >>> clamp_linear(3.0, low=1.5)(torch.tensor([0.0, 1e9])).tolist()
    [5.0, 1.5]
    """
    if not 0 <= _finite(low):
        raise ValueError(f"low is the least guidance weight and cannot be negative, got {low}; 1 is no guidance")
    raised = linear(weight, time)
    return lambda sigma: raised(sigma).clamp_min(low)


def interval(weight: float, low: float, high: float) -> Weight:
    """`weight` on noise levels in (low, high], 1 elsewhere ([Kynkaanniemi24] eq. 5).

    Raises:
        ValueError: unless `0 <= low < high`.

    >>> interval(3.0, 0.3, 5.0)(torch.tensor([0.3, 1.0, 5.0, 6.0])).tolist()
    [1.0, 3.0, 3.0, 1.0]
    """
    if not 0 <= low < high:
        raise ValueError(f"guidance in an interval needs noise levels 0 <= low < high, got low={low} and high={high}")
    weight = _finite(weight)

    def inside(sigma: Tensor) -> Tensor:
        sigma = torch.as_tensor(sigma)
        return torch.where((low < sigma) & (sigma <= high), weight, 1.0).to(sigma)

    return inside


def drop(
    value: Shaped[Tensor, "b *shape"], dropped: Bool[Tensor, "b"], null: int | float
) -> Shaped[Tensor, "b *shape"]:
    """Conditions with the chosen samples' own replaced by a null value: what teaches one network both denoisers.

    Args:
        value: labels, token ids, masks or pictures, one row per sample.
        null: what stands for "none": the index after the last class, 0 for token ids and pictures, False for masks.

    >>> drop(torch.tensor([0, 1, 2]), torch.tensor([True, False, True]), null=10).tolist()
    [10, 1, 10]
    """
    return value.masked_fill(dropped.reshape(dropped.shape + (1,) * (value.ndim - 1)), null)


def _between(base: Denoiser, target: Denoiser, weight: float | Weight) -> Denoiser:
    """base + weight (target - base), exact at 0 and 1 and there at the price of one call."""
    weight = _function(weight)

    def guided(x: Float[Tensor, "b *shape"], sigma: Level, **cond: Any) -> Float[Tensor, "b *shape"]:
        w = _at(weight, sigma, x)
        if w.ndim == 0 and w == 1:
            return target(x, sigma, **cond)
        if w.ndim == 0 and w == 0:
            return base(x, sigma, **cond)
        return torch.lerp(base(x, sigma, **cond), target(x, sigma, **cond), spread(w, x))  # exact at w = 0 and 1

    return guided


def _function(weight: float | Weight) -> Weight:
    return weight if callable(weight) else constant(weight)


def _at(weight: Weight, sigma: Level, x: Tensor) -> Tensor:
    """The weight at this level, in the precision of `x` but wherever the level is: it may be on the CPU on purpose."""
    level = sigma if isinstance(sigma, Tensor) else torch.tensor(sigma, dtype=x.dtype)
    return torch.as_tensor(weight(level), dtype=x.dtype)


def _finite(weight: float) -> float:
    if not math.isfinite(weight):
        raise ValueError(f"a guidance weight must be finite, got {weight}")
    return weight
