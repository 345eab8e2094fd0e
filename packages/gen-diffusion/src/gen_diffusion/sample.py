"""From noise to data: the loop over noise levels, and the steps it can take.

    sigmas = karras(18, sigma_max=80.0)
    x0 = sample(denoiser, sigmas[0] * torch.randn(16, 2), sigmas, heun)

A step is a function `step(denoise, x, sigma, sigma_next, **context) -> (x_next, x0)` that moves `x` from one level to
the next and also returns the estimate x0 of the clean data that it moved by. From its context it names what it uses:
`steps` (the length of the run), `randn_like` (fresh noise), `last` (the `Snapshot` of the step before, for multistep
methods). Steps wrap steps: `churn(40.0, step=euler)`.

    step                   order   calls   noise
    euler, ddim()              1       1   no
    heun, flow_heun            2       2   no
    dpmpp_2m                   2       1   no
    ddim(eta), ancestral()     1       1   yes
    dpmpp_2m_sde(eta)          2       1   yes
    churn(s_churn)             2       2   yes
    corrected(step, n=1)     its   + n    yes
    annealed_langevin(n)       -   1 + n   yes

The ordinary differential equation is dx/dsigma = (x - D(x; sigma)) / sigma, [Karras22] eq. 4 with sigma(t) = t; the
straight path of flow matching and the variance-preserving process are the same curve in other units. A first level of
infinity means that `x` is the noise itself.

[Karras22] Elucidating the design space of diffusion-based generative models, arXiv:2206.00364.
[Ho20] Denoising diffusion probabilistic models, arXiv:2006.11239.
[Song20] Denoising diffusion implicit models, arXiv:2010.02502.
[Lu22] DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models, arXiv:2211.01095.
[Song21] Score-based generative modeling through stochastic differential equations, arXiv:2011.13456.
[Song19] Generative modeling by estimating gradients of the data distribution, arXiv:1907.05600.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_diffusion.denoise import Denoiser
from gen_diffusion.noise import randn_like

Denoise = Callable[[Tensor, Tensor], Tensor]  # a denoiser whose conditions are already given
Pair = tuple[Float[Tensor, "b *shape"], Float[Tensor, "b *shape"]]  # (x at the next level, the estimate x0)


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
) -> Pair:
    """First order, one denoiser call: the estimate, with its noise at the next level ([Song20] eq. 12, eta = 0)."""
    x0 = denoise(x, sigma)
    return x0 + sigma_next * _direction(x, x0, sigma), x0


def heun(
    denoise: Denoise,
    x: Float[Tensor, "b *shape"],
    sigma: Float[Tensor, ""],
    sigma_next: Float[Tensor, ""],
    **_: Any,
) -> Pair:
    """Second order, two denoiser calls ([Karras22] algorithm 1); the Euler step alone from infinity, and to 0."""
    x_next, x0 = euler(denoise, x, sigma, sigma_next)
    if sigma_next == 0 or sigma.isinf():
        return x_next, x0
    d = (x - x0) / sigma
    d_prime = (x_next - denoise(x_next, sigma_next)) / sigma_next
    return x + (sigma_next - sigma) * (d + d_prime) / 2, x0


def flow_heun(
    denoise: Denoise,
    x: Float[Tensor, "b *shape"],
    sigma: Float[Tensor, ""],
    sigma_next: Float[Tensor, ""],
    **_: Any,
) -> Pair:
    """Heun's method in the time t = sigma / (1 + sigma) of the straight path (1 - t) x0 + t n, from infinity too.

    The Euler step is the same curve in either time; the average of two slopes is not.
    """
    x_next, x0 = euler(denoise, x, sigma, sigma_next)
    if sigma_next == 0:
        return x_next, x0
    t, t_next = (1.0 if s.isinf() else s / (1 + s) for s in (sigma, sigma_next))
    x0_next = denoise(x_next, sigma_next)
    velocity = _direction(x, x0, sigma) - x0
    velocity_next = (x_next - x0_next) / sigma_next - x0_next
    state = x if sigma.isinf() else x / (1 + sigma)
    return (1 + sigma_next) * (state + (t_next - t) * (velocity + velocity_next) / 2), x0


def ddim(eta: float = 0.0) -> Step:
    """The generalised reverse process of [Song20] eq. 12 and 16: `eta` = 0 is `euler`, 1 is `ancestral`.

    In this axis its fresh noise has the standard deviation eta sigma_next sqrt(1 - (sigma_next / sigma)^2).

    Raises:
        ValueError: unless eta lies in [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is the share of fresh noise, from 0 to 1; got {eta}")

    def step(
        denoise: Denoise, x: Tensor, sigma: Tensor, sigma_next: Tensor, *, randn_like: Any, **_: Any
    ) -> tuple[Tensor, Tensor]:
        x0 = denoise(x, sigma)
        std = eta * sigma_next * (1 - (sigma_next / sigma) ** 2).sqrt()
        x_next = x0 + (sigma_next**2 - std**2).sqrt() * _direction(x, x0, sigma)
        return (x_next + std * randn_like(x) if std > 0 else x_next), x0

    return step


def ancestral(variance: Literal["small", "large"] = "small") -> Step:
    """The reverse process of [Ho20] algorithm 2, with either of its fixed variances (section 3.2).

    Args:
        variance: "small" is that of q(x_{t-1} | x_t, x0), right for data of no spread; "large" is beta_t, right for
            data of unit variance, and means something only in the variance-preserving scale of such data.
    """

    def step(
        denoise: Denoise, x: Tensor, sigma: Tensor, sigma_next: Tensor, *, randn_like: Any, **_: Any
    ) -> tuple[Tensor, Tensor]:
        x0 = denoise(x, sigma)
        ratio = sigma_next / sigma
        x_next = x0 + sigma_next * ratio * _direction(x, x0, sigma)
        if sigma_next == 0:
            return x_next, x0
        if variance == "small":
            std = sigma_next * (1 - ratio**2).sqrt()
        else:  # beta_t = 1 - (1 + sigma_next^2) / (1 + sigma^2), times 1 + sigma_next^2 for the change of scale
            std = ((1 + sigma_next**2) * (1 - (1 + sigma_next**2) / (1 + sigma**2))).sqrt()
        return x_next + std * randn_like(x), x0

    if variance not in ("small", "large"):
        raise ValueError(f"the variance of the reverse process is 'small' or 'large', got {variance!r}")
    return step


def dpmpp_2m_sde(eta: float = 1.0) -> Step:
    """Second order from one call a step, by what the step before saw ([Lu22] algorithm 2; section 4.5 for the SDE).

    With lambda = -ln(sigma) the linear part of the equation is solved exactly and D is extrapolated to the midpoint.
    The first step and the last one, to 0, are of first order.

    Args:
        eta: 0 is the ordinary differential equation, `dpmpp_2m`; 1 the reverse stochastic one.

    Raises:
        ValueError: if eta is negative.
    """
    if not eta >= 0:
        raise ValueError(f"eta is an amount of fresh noise and cannot be negative, got {eta}")

    def step(
        denoise: Denoise,
        x: Tensor,
        sigma: Tensor,
        sigma_next: Tensor,
        *,
        randn_like: Any,
        last: Snapshot | None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        x0 = denoise(x, sigma)
        if sigma_next == 0:
            return x0, x0
        h = (sigma / sigma_next).log()
        estimate = x0
        if last is not None and not sigma.isinf():
            r = (last.sigma / sigma).log() / h
            estimate = x0 + (x0 - last.x0) / (2 * r)
        noise_kept = (sigma_next / sigma) ** eta if eta else torch.ones_like(sigma)
        keep = (sigma_next if sigma.isinf() else sigma_next / sigma) * noise_kept  # of x
        x_next = keep * x + (1 - (sigma_next / sigma) * noise_kept) * estimate
        if eta:
            x_next = x_next + sigma_next * (1 - noise_kept**2).sqrt() * randn_like(x)
        return x_next, x0

    return step


dpmpp_2m: Step = dpmpp_2m_sde(0.0)


def churn(
    s_churn: float, s_noise: float = 1.0, *, s_min: float = 0.0, s_max: float = math.inf, step: Step = heun
) -> Step:
    """Before each step raise the noise level a little by fresh noise ([Karras22] algorithm 2).

    Args:
        s_churn: total amount; a step raises sigma by the factor `1 + min(s_churn / steps, sqrt(2) - 1)`. 0 is `step`.
        s_noise: multiplies the fresh noise; slightly above 1 repairs detail that an imperfect denoiser removes.
        s_min, s_max: only finite levels in this closed range are raised.
        step: how to move on from the raised level. What the step before saw was at another level than the one it left
            from, so multistep methods are told nothing of it and are of first order here.

    Raises:
        ValueError: if `s_churn` is negative.
    """
    if not s_churn >= 0:
        raise ValueError(f"s_churn is an amount of noise to add and cannot be negative, got {s_churn}")

    def churned(
        denoise: Denoise, x: Tensor, sigma: Tensor, sigma_next: Tensor, *, steps: int, randn_like: Any, **context: Any
    ) -> tuple[Tensor, Tensor]:
        inside = s_min <= sigma <= s_max and not sigma.isinf()
        gamma = min(s_churn / steps, math.sqrt(2) - 1) if inside else 0.0
        if gamma > 0:
            sigma_hat = sigma + gamma * sigma
            x = x + (sigma_hat**2 - sigma**2).sqrt() * s_noise * randn_like(x)
            sigma = sigma_hat
        return step(
            denoise, x, sigma, sigma_next, **{**context, "steps": steps, "randn_like": randn_like, "last": None}
        )

    return churned


def corrected(step: Step = euler, snr: float = 0.16, n: int = 1) -> Step:
    """Predictor-corrector: after `step`, `n` Langevin moves at the level it arrived at ([Song21] algorithm 4 and 5).

    Args:
        step: the predictor.
        snr: r in the size 2 (r sigma)^2 of a move. The paper has |z| / |score| in place of sigma, averaged over the
            batch, which ties samples to each other; that ratio is sigma where noise outweighs the data, and for single
            samples of few dimensions it is sometimes huge.
        n: moves; none follow the step to 0.

    Raises:
        ValueError: unless 0 < snr < 1, beyond which the moves diverge, and n >= 0.
    """
    if not 0 < snr < 1 or n < 0:
        raise ValueError(f"corrected needs snr in (0, 1) and n >= 0, got snr={snr} and n={n}")

    def both(
        denoise: Denoise, x: Tensor, sigma: Tensor, sigma_next: Tensor, *, randn_like: Any, **context: Any
    ) -> tuple[Tensor, Tensor]:
        x, x0 = step(denoise, x, sigma, sigma_next, randn_like=randn_like, **context)
        for _ in range(n if sigma_next > 0 else 0):
            x = x + 2 * snr**2 * (denoise(x, sigma_next) - x) + 2 * snr * sigma_next * randn_like(x)
        return x, x0

    return both


def annealed_langevin(step_size: float = 0.05, n: int = 5) -> Step:
    """`n` Langevin moves at each level that is reached, in proportion to it, and the estimate at 0 ([Song19] alg. 1).

    Args:
        step_size: epsilon / sigma_L^2 of the paper: a move is x + (alpha / 2) score + sqrt(alpha) z with
            alpha = step_size sigma^2.
        n: moves per level; levels should be close enough for them (a ratio of some 1.3 for pictures).

    Raises:
        ValueError: unless 0 < step_size < 4, beyond which the moves diverge, and n >= 1; at a level of infinity.
    """
    if not 0 < step_size < 4 or n < 1:
        raise ValueError(f"annealed_langevin needs step_size in (0, 4) and n >= 1, got {step_size} and {n}")

    def step(
        denoise: Denoise, x: Tensor, sigma: Tensor, sigma_next: Tensor, *, randn_like: Any, **context: Any
    ) -> tuple[Tensor, Tensor]:
        if sigma.isinf():
            raise ValueError("Langevin moves need a finite noise level; begin at one, with karras or exponential")
        x0 = denoise(x, sigma)
        if sigma_next == 0:
            return x0, x0
        for _ in range(n):
            x = x + step_size / 2 * (denoise(x, sigma_next) - x) + math.sqrt(step_size) * sigma_next * randn_like(x)
        return x, x0

    return step


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
        x: noise at level `sigmas[0]`, i.e. already multiplied by it unless it is infinite; its type is the type of the
            computation.
        sigmas: decreasing levels, the last one usually 0.
        step: `euler`, `heun`, `churn(...)` or any function of that kind.
        generator: for the steps that draw noise: one for the batch, or a sequence with one per sample
            (`gen_diffusion.noise.keyed`), which makes samples independent of how they are batched.
        callback: called once per step with its `Snapshot`, before the next one.
        cond: conditions for the denoiser, each with one row per sample.

    Raises:
        ValueError: unless the levels decrease, from above 0, and none is negative.

    >>> exact = lambda x, sigma: x * 0.25 / (0.25 + sigma**2)  # the denoiser of N(0, 0.5^2)
    >>> x = sample(exact, torch.full((1, 1), 80.0), torch.tensor([80.0, 10.0, 1.0, 0.1, 0.0]))
    >>> x.shape
    torch.Size([1, 1])
    """
    sigmas = decreasing(sigmas).to("cpu", x.dtype)
    denoise, noise = partial(denoiser, **cond), partial(randn_like, generators=generator)
    steps = len(sigmas) - 1
    last: Snapshot | None = None
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x_next, x0 = step(denoise, x, sigma, sigma_next, steps=steps, randn_like=noise, last=last)
        last = Snapshot(index, sigma, x, x0)
        if callback is not None:
            callback(last)
        x = x_next
    return x


def decreasing(sigmas: Float[Tensor, "levels"]) -> Float[Tensor, "levels"]:
    """The levels, if they can be walked down."""
    if len(sigmas) < 2 or not (sigmas[1:] < sigmas[:-1]).all() or sigmas[-1] < 0:
        raise ValueError(f"noise levels must decrease and end at 0 or above, two at least; got {sigmas.tolist()}")
    return sigmas


def _direction(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """The noise in x: dx/dsigma, and x itself at sigma = infinity."""
    return x if sigma.isinf() else (x - x0) / sigma
