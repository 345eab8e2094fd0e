"""Noise levels for sampling, and the variance schedules of discrete time.

A schedule is a function `n -> sigmas` with `sigmas` of shape `(n + 1,)`: decreasing noise standard deviations in the
units of the data, the last one 0, in double precision on the CPU. Samplers walk its pairs. A variance schedule is a
tensor of betas, `alphas_cumprod = (1 - betas).cumprod(0)`, and its levels are sqrt(1 / alphas_cumprod - 1).

[Karras22] Elucidating the design space of diffusion-based generative models, arXiv:2206.00364.
[Ho20] Denoising diffusion probabilistic models, arXiv:2006.11239.
[Nichol21] Improved denoising diffusion probabilistic models, arXiv:2102.09672.
[Song21] Score-based generative modeling through stochastic differential equations, arXiv:2011.13456.
[Lin24] Common diffusion noise schedules and sample steps are flawed, arXiv:2305.08891.
[Esser24] Scaling rectified flow transformers for high-resolution image synthesis, arXiv:2403.03206.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Levels = Float[Tensor, "levels"]


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Levels:
    """`n` levels evenly spaced in sigma^(1/rho), then 0 ([Karras22] eq. 5).

    Args:
        n: number of steps, at least 2.
        sigma_min: last non-zero level, in units of the data.
        sigma_max: first level; must dwarf the spread of the data.
        rho: 1 is uniform spacing; larger values place more steps at low noise.

    Raises:
        ValueError: unless `n >= 2`, `0 < sigma_min < sigma_max`, both finite, and `rho > 0`.

    >>> karras(3, 1.0, 4.0, rho=1.0).tolist()
    [4.0, 2.5, 1.0, 0.0]
    """
    _check("karras", n, sigma_min, sigma_max)
    if not rho > 0:
        raise ValueError(f"karras needs rho > 0, got {rho}")
    hi, lo = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _then_zero((hi + _ramp(n) * (lo - hi)) ** rho)


def exponential(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Levels:
    """`n` levels evenly spaced in ln(sigma), then 0: the limit of `karras` for large rho; arguments as there.

    >>> exponential(3, 1.0, 4.0).tolist()
    [4.0, 2.0, 1.0, 0.0]
    """
    _check("exponential", n, sigma_min, sigma_max)
    return _then_zero(sigma_max * (sigma_min / sigma_max) ** _ramp(n))


def vp(n: int, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> Levels:
    """`n` levels evenly spaced in the time of the variance-preserving process, 1 to `t_min`, then 0 ([Song21])."""
    if n < 2 or not 0 < t_min < 1:
        raise ValueError(f"vp needs at least 2 steps and t_min in (0, 1), got n={n} and t_min={t_min}")
    return _then_zero(vp_sigma(1 + _ramp(n) * (t_min - 1), beta_min, beta_max))


def vp_sigma(t: Float[Tensor, "*b"], beta_min: float = 0.1, beta_max: float = 20.0) -> Float[Tensor, "*b"]:
    """sigma(t) = sqrt(exp(beta_min t + (beta_max - beta_min) t^2 / 2) - 1) ([Song21] eq. 29 over its alpha)."""
    return torch.expm1(beta_min * t + (beta_max - beta_min) * t**2 / 2).sqrt()


def vp_time(sigma: Float[Tensor, "*b"], beta_min: float = 0.1, beta_max: float = 20.0) -> Float[Tensor, "*b"]:
    """The time in [0, 1] at which a variance-preserving diffusion has this level; 1 above the last one.

    >>> vp_time(vp_sigma(torch.tensor([0.0, 0.25, 1.0])))
    tensor([0.0000, 0.2500, 1.0000])
    """
    total = 2 * torch.where(sigma > 1e4, 2 * sigma.log(), torch.log1p(sigma.clamp(max=1e4) ** 2))
    time = total / (beta_min + (beta_min**2 + (beta_max - beta_min) * total).sqrt())
    return torch.where(sigma.isinf(), 1.0, time).clamp(max=1.0)


def flow(n: int, shift: float = 1.0, sigma_max: float = math.inf) -> Levels:
    """`n` even steps in the time t of the straight path (1 - t) x0 + t n, whose level is t / (1 - t), then 0.

    Args:
        shift: t becomes shift t / (1 + (shift - 1) t): more steps at high noise above 1 ([Esser24] eq. 23), once.
        sigma_max: the first level. Flow matching begins at infinity, where `x` is the noise itself; a network that was
            never trained there needs a finite one.

    >>> flow(4).tolist()
    [inf, 3.0, 1.0, 0.3333333333333333, 0.0]
    """
    if n < 1 or not shift > 0 or not sigma_max > 0:
        raise ValueError(
            f"flow needs n >= 1, shift > 0, sigma_max > 0; got n={n}, shift={shift}, sigma_max={sigma_max}"
        )
    first = 1.0 if math.isinf(sigma_max) else sigma_max / (shift + sigma_max)  # t before the shift
    t = first * (1 - torch.arange(n + 1, dtype=torch.float64) / n)
    return shift * t / (1 - t)


def ddpm(
    n: int,
    alphas_cumprod: Float[Tensor, "t"],
    spacing: Literal["trailing", "leading", "linspace"] = "trailing",
) -> Levels:
    """The levels of `n` of the T discrete times, with n = T all of them, then 0.

    Args:
        alphas_cumprod: products of (1 - beta), decreasing; 0 at the end is the level infinity.
        spacing: "trailing" takes T - 1 and every T / n-th before it ([Lin24] section 3.3), "leading" the multiples of
            T // n, which never visit the last time, "linspace" from T - 1 to 0.

    Raises:
        ValueError: unless 1 <= n <= T; for another spacing; for products that do not decrease.
    """
    T = len(alphas_cumprod)
    if not 1 <= n <= T:
        raise ValueError(f"ddpm needs 1 <= n <= {T}, the number of betas; got n={n}")
    if spacing == "trailing":
        times = (T - torch.arange(n, dtype=torch.float64) * T / n).round().long() - 1
    elif spacing == "leading":
        times = torch.arange(n).flip(0) * (T // n)
    elif spacing == "linspace":
        times = torch.linspace(T - 1, 0, n, dtype=torch.float64).round().long()
    else:
        raise ValueError(f"spacing is trailing, leading or linspace, got {spacing!r}")
    return _then_zero(chain_levels(alphas_cumprod)[times])


def chain_levels(alphas_cumprod: Float[Tensor, "t"]) -> Float[Tensor, "t"]:
    """sqrt(1 / alphas_cumprod - 1), the level of each discrete time, the last one possibly infinite.

    Raises:
        ValueError: unless the products of (1 - beta) decrease within [0, 1); betas themselves do not.
    """
    a = alphas_cumprod.detach().cpu().double()
    if not (0 <= a[-1] and a[0] < 1 and (a[1:] < a[:-1]).all()):
        raise ValueError(
            "alphas_cumprod has to decrease within [0, 1), as (1 - betas).cumprod(0) does; were these betas?"
        )
    return (1 / a - 1).sqrt()


def linear_betas(T: int = 1000, first: float = 1e-4, last: float = 0.02) -> Float[Tensor, "t"]:
    """Evenly spaced variances ([Ho20] section 4)."""
    return torch.linspace(first, last, T, dtype=torch.float64)


def cosine_betas(T: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Float[Tensor, "t"]:
    """Variances whose alphas_cumprod falls like cos^2 ([Nichol21] eq. 17)."""
    t = torch.arange(T + 1, dtype=torch.float64) / T
    alphas_cumprod = ((t + offset) / (1 + offset) * math.pi / 2).cos() ** 2
    return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=largest)


def zero_terminal_snr(betas: Float[Tensor, "t"]) -> Float[Tensor, "t"]:
    """The schedule shifted and scaled in sqrt(alphas_cumprod) so that the last signal is exactly 0 ([Lin24] alg. 1)."""
    root = (1 - betas).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alphas = root**2
    return 1 - torch.cat([alphas[:1], alphas[1:] / alphas[:-1]])


def _check(name: str, n: int, sigma_min: float, sigma_max: float) -> None:
    if n < 2:
        raise ValueError(f"{name} needs at least 2 steps to span a range, got n={n}")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"{name} needs 0 < sigma_min < sigma_max < inf, got {sigma_min} and {sigma_max}")


def _ramp(n: int) -> Tensor:
    return torch.linspace(0, 1, n, dtype=torch.float64)


def _then_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])
