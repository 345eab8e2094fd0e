"""From noise to data: the loop over noise levels, and the steps it can take.

    sigmas = karras(18, sigma_max=80.0)
    x0 = sample(denoiser, sigmas[0] * torch.randn(16, 2), sigmas, heun)

A step is a function `step(denoise, x, sigma, sigma_next, **context) -> (x_next, x0)` that moves `x` from one level to
the next and also returns the estimate x0 of the clean data that it moved by. From its context it names what it uses:
`steps` (the length of the run), `randn_like` (fresh noise), `last` (the `Snapshot` of the step before, for multistep
methods). Steps wrap steps: `churn(40.0, step=euler)`.

The ordinary differential equation is dx/dsigma = (x - D(x; sigma)) / sigma, [Karras22] eq. 4 with sigma(t) = t.

[Karras22] Elucidating the design space of diffusion-based generative models, arXiv:2206.00364.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_diffusion.denoise import Denoiser
from gen_diffusion.noise import randn_like

Denoise = Callable[[Tensor, Tensor], Tensor]  # a denoiser whose conditions are already given


@dataclass(frozen=True)
class Snapshot:
    """What a step saw: `x` at level `sigma = sigmas[index]`, and the estimate `x0` of the clean data there."""

    index: int
    sigma: Float[Tensor, ""]
    x: Float[Tensor, "b ..."]
    x0: Float[Tensor, "b ..."]


@runtime_checkable
class Step(Protocol):
    """One move of a sampler; see the module's text."""

    def __call__(
        self, denoise: Denoise, x: Tensor, sigma: Tensor, sigma_next: Tensor, **context: Any
    ) -> tuple[Tensor, Tensor]: ...


def euler(
    denoise: Denoise,
    x: Float[Tensor, "b *shape"],
    sigma: Float[Tensor, ""],
    sigma_next: Float[Tensor, ""],
    **_: Any,
) -> tuple[Float[Tensor, "b *shape"], Float[Tensor, "b *shape"]]:
    """First order, one denoiser call."""
    x0 = denoise(x, sigma)
    d = (x - x0) / sigma
    return x + (sigma_next - sigma) * d, x0


def heun(
    denoise: Denoise,
    x: Float[Tensor, "b *shape"],
    sigma: Float[Tensor, ""],
    sigma_next: Float[Tensor, ""],
    **_: Any,
) -> tuple[Float[Tensor, "b *shape"], Float[Tensor, "b *shape"]]:
    """Second order, two denoiser calls ([Karras22] algorithm 1); at `sigma_next = 0` the Euler step alone."""
    x_next, x0 = euler(denoise, x, sigma, sigma_next)
    if sigma_next == 0:
        return x_next, x0
    d = (x - x0) / sigma
    d_prime = (x_next - denoise(x_next, sigma_next)) / sigma_next
    return x + (sigma_next - sigma) * (d + d_prime) / 2, x0


def churn(
    s_churn: float, s_noise: float = 1.0, *, s_min: float = 0.0, s_max: float = math.inf, step: Step = heun
) -> Step:
    """Before each step raise the noise level a little by fresh noise ([Karras22] algorithm 2).

    Args:
        s_churn: total amount; a step raises sigma by the factor `1 + min(s_churn / steps, sqrt(2) - 1)`. 0 is `step`.
        s_noise: multiplies the fresh noise; slightly above 1 repairs detail that an imperfect denoiser removes.
        s_min, s_max: only levels in this closed range are raised.
        step: how to move on from the raised level.

    Raises:
        ValueError: if `s_churn` is negative.
    """
    if s_churn < 0:
        raise ValueError(f"s_churn is an amount of noise to add and cannot be negative, got {s_churn}")

    def churned(
        denoise: Denoise, x: Tensor, sigma: Tensor, sigma_next: Tensor, *, steps: int, randn_like: Any, **context: Any
    ) -> tuple[Tensor, Tensor]:
        gamma = min(s_churn / steps, math.sqrt(2) - 1) if s_min <= sigma <= s_max else 0.0
        if gamma > 0:
            sigma_hat = sigma + gamma * sigma
            x = x + (sigma_hat**2 - sigma**2).sqrt() * s_noise * randn_like(x)
            sigma = sigma_hat
        return step(denoise, x, sigma, sigma_next, steps=steps, randn_like=randn_like, **context)

    return churned


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    x: Float[Tensor, "b *shape"],
    sigmas: Float[Tensor, "levels"],
    step: Step = heun,
    *,
    generator: Generator | Sequence[Generator] | None = None,
    callback: Callable[[Snapshot], object] | None = None,
    **cond: Any,
) -> Float[Tensor, "b *shape"]:
    """Walk `x` down the levels; sample i depends on row i of `x`, of the conditions and of the noise alone.

    Args:
        x: noise at level `sigmas[0]`, i.e. already multiplied by it; its type is the type of the computation.
        sigmas: decreasing levels, the last one usually 0.
        step: `euler`, `heun`, `churn(...)` or any function of that kind.
        generator: for the steps that draw noise: one for the batch, or a sequence with one per sample
            (`gen_diffusion.noise.keyed`), which makes samples independent of how they are batched.
        callback: called once per step with its `Snapshot`, before the next one.
        cond: conditions for the denoiser, each with one row per sample.

    >>> exact = lambda x, sigma: x * 0.25 / (0.25 + sigma**2)  # the denoiser of N(0, 0.5^2)
    >>> x = sample(exact, torch.full((1, 1), 80.0), torch.tensor([80.0, 10.0, 1.0, 0.1, 0.0]))
    >>> x.shape
    torch.Size([1, 1])
    """
    sigmas = sigmas.to("cpu", x.dtype)
    denoise, noise = partial(denoiser, **cond), partial(randn_like, generators=generator)
    steps, last = len(sigmas) - 1, None
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x_next, x0 = step(denoise, x, sigma, sigma_next, steps=steps, randn_like=noise, last=last)
        last = Snapshot(index, sigma, x, x0)
        if callback is not None:
            callback(last)
        x = x_next
    return x
