"""A lower bound of ln p(x) from the discrete chain of a variance-preserving diffusion.

    alphas_cumprod = (1 - linear_betas()).cumprod(0)
    nats = elbo(denoiser, x, alphas_cumprod, "large")                # one per sample, from all 1000 steps
    nats = elbo(denoiser, x, alphas_cumprod, "large", steps=100)     # the same on average, from a random part of them

The chain starts from N(0, I) at time T and ends in a density of x_0 = x itself. With a = `alphas_cumprod` its state is
x_t = sqrt(a_t) x0 + sqrt(1 - a_t) n; the denoiser sees x_t / sqrt(a_t), which is at level sqrt(1 / a_t - 1).

[Ho20] Denoising diffusion probabilistic models, arXiv:2006.11239.
[Bao22] Analytic-DPM: an analytic estimate of the optimal reverse variance, arXiv:2201.06503.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gen_diffusion.denoise import Denoiser, noised
from gen_diffusion.noise import randn_like

Generators = Generator | Sequence[Generator] | None


@torch.no_grad()
def elbo(
    denoiser: Denoiser,
    x: Float[Tensor, "b *shape"],
    alphas_cumprod: Float[Tensor, "t"],
    variance: Literal["optimal", "small", "large"] | Float[Tensor, "t"] = "optimal",
    *,
    steps: int | None = None,
    draws: int = 1,
    batch: int = 4096,
    generator: Generators = None,
    **cond: Any,
) -> Float[Tensor, "b"]:
    """A lower bound of ln p(x) in nats: minus [Ho20] eq. 5, an unbiased estimate of it for each sample.

    p is the last of the reverse steps, a density of the clean data, under the chain that starts from N(0, I).

    Args:
        alphas_cumprod: products of (1 - beta), decreasing from below 1; 0 at the end is fine.
        variance: of the reverse steps. "large" is beta, "small" the posterior's for known data ([Ho20] section 3.2),
            but beta at t = 1, where the posterior's is 0 and the bound of a density would be minus infinity. "optimal"
            ([Bao22]) is the best one for each t; here it is fitted to `x` itself, T numbers in all, at the price of a
            second run over all steps. A bound that owes nothing to the data that it judges takes a tensor, such as
            `optimal_variance(alphas_cumprod, posterior_error(denoiser, training_data, sigmas))`.
        steps: None evaluates the denoiser at every t; otherwise at t = 1 and at this many others for each sample, one
            drawn from each of as many strata, those with large terms more often.
        draws: of the noise (and of the strata), averaged.
        batch: rows in one call of the denoiser, but all samples of `x` at least; hand over fewer to save memory.
        generator: one, or one per sample, which makes a sample's result independent of the others.

    Raises:
        ValueError: unless `1 > alphas_cumprod[0] > ... >= 0`, `1 <= steps < T`, and the variances are positive.
    """
    a = alphas_cumprod.to("cpu", torch.float64)
    beta, coefficient, posterior = _posterior(a)
    sigmas, d, T = (1 / a - 1).sqrt(), x[0].numel(), len(a)
    if isinstance(variance, Tensor):
        v = variance.to(a)
    elif variance == "small":
        v = torch.cat([beta[:1], posterior[1:]])
    elif variance == "large":
        v = beta
    elif variance == "optimal":
        error = posterior_error(denoiser, x, sigmas, draws=draws, batch=batch, generator=generator, **cond)
        v = optimal_variance(a, error)
    else:
        raise ValueError(f'variance is "optimal", "small", "large" or a tensor of T variances, got {variance!r}')
    if v.shape != a.shape or not (v > 0).all():
        raise ValueError(f"need {T} positive reverse variances, got {len(v)} from {v.min():.3g} to {v.max():.3g}")
    ratio = posterior[1:] / v[1:]
    constant = (ratio - 1 - ratio.log()).sum() + (2 * math.pi * v[0]).log() - a[-1] - torch.log1p(-a[-1])
    slope = coefficient**2 / v
    t, weight = _times(slope * (1 - a), steps, draws, len(x), generator)
    error = _squared_errors(denoiser, x, sigmas[t], batch, generator, cond)
    distance = (error * (weight * slope[t]).to(error)).sum(1)
    return -(a[-1].item() * x.square().flatten(1).sum(1) + d * constant.item() + distance) / 2


def optimal_variance(alphas_cumprod: Float[Tensor, "t"], error: Float[Tensor, "t"]) -> Float[Tensor, "t"]:
    """The variances of x_{t-1} given x_t that make `elbo` largest ([Bao22] theorem 1, for any denoiser).

    They add up what is left where x0 is known, and what the denoiser does not know of x0.

    Args:
        error: the denoiser's mean squared error per dimension at each of the levels sqrt(1 / alphas_cumprod - 1).
    """
    _, coefficient, posterior = _posterior(alphas_cumprod.to("cpu", torch.float64))
    return posterior + coefficient**2 * error.to(posterior)


@torch.no_grad()
def posterior_error(
    denoiser: Denoiser,
    x: Float[Tensor, "b *shape"],
    sigmas: Float[Tensor, "levels"],
    *,
    draws: int = 1,
    batch: int = 4096,
    generator: Generators = None,
    **cond: Any,
) -> Float[Tensor, "levels"]:
    """E|D(x + sigma n; sigma) - x|^2 per dimension at each level, averaged over `x` and `draws` of the noise."""
    each = sigmas.to("cpu", torch.float64).repeat(len(x), draws)
    errors = _squared_errors(denoiser, x, each, batch, generator, cond).cpu().double()
    return errors.mean(0).unflatten(0, (draws, len(sigmas))).mean(0) / x[0].numel()


def _posterior(a: Float[Tensor, "t"]) -> tuple[Float[Tensor, "t"], Float[Tensor, "t"], Float[Tensor, "t"]]:
    """beta; the coefficient of x0 in the mean of q(x_{t-1} | x_t, x0), and its variance ([Ho20] eq. 7); t = 1 to T."""
    before = torch.cat([a.new_ones(1), a[:-1]])
    if len(a) < 2 or not ((before > a).all() and a[-1] >= 0):
        raise ValueError(
            f"alphas_cumprod must decrease from below 1 to no less than 0 in at least 2 steps, "
            f"got {len(a)} from {a[0]:.3g} to {a[-1]:.3g}"
        )
    beta = 1 - a / before
    return beta, before.sqrt() * beta / (1 - a), (1 - before) * beta / (1 - a)


def _times(
    size: Float[Tensor, "t"], steps: int | None, draws: int, b: int, generator: Generators
) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b n"]]:
    """The times (from 0) to evaluate for each sample, and the weights that make their sum that over all times.

    Half of the probability is even over time, half follows `size`, the terms as they are for data of unit variance.
    """
    T = len(size)
    if steps is None:
        return torch.arange(T).repeat(b, draws), size.new_full((b, T * draws), 1 / draws)
    if not 1 <= steps < T:
        raise ValueError(f"steps must be from 1 to T - 1 = {T - 1}, got {steps}; None takes all T")
    q = (size[1:] / size[1:].sum() + 1 / (T - 1)) / 2
    u = torch.special.ndtr(randn_like(size.new_empty(b, draws, steps), generator))
    index = torch.searchsorted(q.cumsum(0), (torch.arange(steps) + u) / steps).clamp(max=T - 2)
    t = torch.cat([index.new_zeros(b, draws, 1), 1 + index], 2)
    weight = torch.cat([q.new_ones(b, draws, 1), 1 / (steps * q[index])], 2)
    return t.flatten(1), weight.flatten(1) / draws


def _squared_errors(
    denoiser: Denoiser,
    x: Float[Tensor, "b *shape"],
    sigmas: Float[Tensor, "b n"],
    batch: int,
    generator: Generators,
    cond: Mapping[str, Any],
) -> Float[Tensor, "b n"]:
    """|D - x|^2 of each sample at its own levels, many levels in one call."""
    errors = []
    for part in sigmas.split(max(1, batch // len(x)), 1):
        n = part.shape[1]
        clean, sigma = x.repeat_interleave(n, 0), part.flatten().to(x)
        noise = torch.stack([randn_like(x, generator) for _ in range(n)], 1).flatten(0, 1)
        rows = {name: value.repeat_interleave(n, 0) for name, value in cond.items()}
        error = denoiser(noised(clean, sigma, noise), sigma, **rows) - clean
        errors.append(error.square().flatten(1).sum(1).unflatten(0, (len(x), n)))
    return torch.cat(errors, 1)
