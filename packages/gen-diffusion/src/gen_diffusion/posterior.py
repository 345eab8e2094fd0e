"""Draws of x given y = A x + noise from a denoiser that was trained without y.

    obs = Observation(A, y, Gaussian(0.1))
    x0 = pigdm(denoiser, obs, sigmas[0] * initial_noise(range(16), shape), sigmas, generator=keyed(0, range(16)))

Every method is a function `(denoiser, obs, x, sigmas, *, generator, ...) -> x0` of noise `x` at the finite level
`sigmas[0]`. Row i of its result depends on row i of `x` and the noise alone. Nothing is clipped to a range, and units
do not matter: x, y, sigma and `sigma_data`, the standard deviation of the data, may be scaled together. Conditions are
part of the denoiser: `partial(denoiser, label=label)`.

    method   operator       noise               calls a step       idea
    dps      any            any                 1, with gradient   descend |y - A D(x)|
    pigdm    linear         Gaussian            1, with gradient   D given y, if x0 given x were round
    ddrm     with svd       Gaussian            1                  diffuse each singular coordinate from its measurement
    ddnm     with svd [1]   Gaussian            1                  put the measurement into D(x)
    daps     any [2]        any, sigma > 0      `ode`              draw x0 given D(x) and y, then noise it again
    mgdm     any            any, sigma > 0      see there          Gibbs moves between x, a midpoint and x0

    [1] without noise any linear one    [2] exactly where linear, else by Langevin moves

All approximate the posterior: how far off they are on a problem is measured beside an exact one (`GaussianMixture`).

[Chung23] Diffusion posterior sampling for general noisy inverse problems, arXiv:2209.14687.
[Song23] Pseudoinverse-guided diffusion models for inverse problems, ICLR 2023.
[Kawar22] Denoising diffusion restoration models, arXiv:2201.11793.
[Wang23] Zero-shot image restoration using denoising diffusion null-space model, arXiv:2212.00490.
[Zhang25] Improving diffusion inverse problem solving with decoupled noise annealing, arXiv:2407.01521.
[Janati25] A mixture-based framework for guiding diffusion models, arXiv:2502.03332.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_diffusion.denoise import Denoiser
from gen_diffusion.noise import randn_like
from gen_diffusion.operators import SVD, Gaussian, Linear, Observation
from gen_diffusion.sample import Step, ancestral, ddim, decreasing, euler, sample
from gen_diffusion.view import Level, column, spread

Generators = Generator | Sequence[Generator] | None
Batch = Float[Tensor, "n *shape"]


def dps(
    denoiser: Denoiser,
    obs: Observation,
    x: Batch,
    sigmas: Float[Tensor, "levels"],
    *,
    generator: Generators = None,
    scale: float = 1.0,
    sigma_data: float = 1.0,
) -> Batch:
    """Ancestral steps, each followed by a step down the distance of A D(x) from y ([Chung23] algorithm 1).

    Args:
        scale: zeta of the paper, the length of that step before the denoiser's gradient, in units of `sigma_data`; the
            paper's states are x / sqrt(sigma_data^2 + sigma^2).
    """
    _checked(obs, x, sigmas)
    move = ancestral()

    def step(denoise: Any, x: Tensor, sigma: Tensor, sigma_next: Tensor, **context: Any) -> tuple[Tensor, Tensor]:
        def distance(x: Tensor) -> tuple[Tensor, Tensor]:
            x0 = denoise(x, sigma)
            return obs.noise.distance(obs.y.to(x), obs.A(x0)).sum(), x0  # of each sample: rows stay independent

        gradient, x0 = torch.func.grad(distance, has_aux=True)(x)
        length = scale / sigma_data * torch.hypot(sigma, x.new_tensor(sigma_data).cpu())
        length = length * torch.hypot(sigma_next, x.new_tensor(sigma_data).cpu())
        return move(lambda *_: x0, x, sigma, sigma_next, **context)[0] - length * gradient, x0

    return sample(denoiser, x, sigmas, step, generator=generator)


def pigdm(
    denoiser: Denoiser,
    obs: Observation,
    x: Batch,
    sigmas: Float[Tensor, "levels"],
    *,
    generator: Generators = None,
    eta: float = 1.0,
    sigma_data: float = 1.0,
) -> Batch:
    """The sampler `ddim(eta)` of the denoiser given y ([Song23] algorithm 1).

    Args:
        eta: share of fresh noise, from 0 to 1.
    """
    _checked(obs, x, sigmas)
    return sample(pigdm_denoiser(denoiser, obs, sigma_data), x, sigmas, ddim(eta), generator=generator)


def pigdm_denoiser(denoiser: Denoiser, obs: Observation, sigma_data: float = 1.0) -> Denoiser:
    """E[x0 | x, y] if x0 given x were N(D(x), k I): a denoiser that any sampler runs ([Song23] eq. 7).

    k = sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2) is exact for data N(m, sigma_data^2 I), and so is the result.

        D + sigma^2 (dD/dx)^T A^T (k A A^T + sigma_y^2 I)^-1 (y - A D)
    """
    A, noise = _linear(obs, "pigdm")

    def guided(x: Batch, sigma: Level, **cond: Any) -> Batch:
        s = column(sigma, x)
        k = (s * sigma_data / torch.hypot(s, torch.full_like(s, sigma_data))) ** 2
        x0, pull = torch.func.vjp(lambda x: denoiser(x, sigma, **cond), x)[:2]
        gained = A.gain(obs.y.to(x) - A(x0), (noise**2 / k).flatten() if k.ndim else noise**2 / k)
        return x0 + s**2 / k * pull(gained)[0]

    return guided


def ddrm(
    denoiser: Denoiser,
    obs: Observation,
    x: Batch,
    sigmas: Float[Tensor, "levels"],
    *,
    generator: Generators = None,
    eta: float = 0.85,
    eta_b: float = 1.0,
    fresh: Literal["paper", "ddim"] = "paper",
) -> Batch:
    """Each singular coordinate is diffused from its measurement, of noise c = sigma_y / s ([Kawar22] eq. 7-8).

    Args:
        eta: share of fresh noise where nothing was measured, or with more noise than there is.
        eta_b: weight of the measurement elsewhere, beside 1 - eta_b for the denoiser.
        fresh: the paper renews the share eta of all noise in every step, which loses spread where nothing was measured
            (to a variance of .72 for N(0, 1) data). "ddim" renews there what `ddim(eta)` does, which is exact in the
            limit of many steps but moves less between modes.
    """
    if fresh not in ("paper", "ddim") or not 0 <= eta <= 1:
        raise ValueError(f"fresh is 'paper' or 'ddim' and eta lies in [0, 1]; got {fresh!r} and {eta}")
    svd, seen, c = _measured(obs, _checked(obs, x, sigmas), "ddrm")
    unseen = (_renewed if fresh == "paper" else ddim)(eta)
    first = float(sigmas[0])
    start = seen + ((first**2 - c**2).clamp_min(0).sqrt() / first) * svd.Vt(x)

    def step(
        denoise: Any, x: Tensor, sigma: Tensor, sigma_next: Tensor, *, randn_like: Any, **_: Any
    ) -> tuple[Tensor, Tensor]:
        x0, n = denoise(x, sigma), randn_like(x)
        x_next = unseen(lambda *_: x0, x, sigma, sigma_next, randn_like=lambda _: n)[0]
        z, e, s = svd.Vt(x0), svd.Vt(n), float(sigma_next)
        rough = z + math.sqrt(1 - eta**2) * s * (seen - z) / c.clamp_min(1e-30) + eta * s * e
        fine = (1 - eta_b) * z + eta_b * seen + (s**2 - (eta_b * c) ** 2).clamp_min(0).sqrt() * e
        return x_next + svd.V(torch.where(s < c, rough, fine) - svd.Vt(x_next)), x0

    return sample(denoiser, x + svd.V(start - svd.Vt(x)), sigmas, step, generator=generator)


def ddnm(
    denoiser: Denoiser,
    obs: Observation,
    x: Batch,
    sigmas: Float[Tensor, "levels"],
    *,
    generator: Generators = None,
) -> Batch:
    """Ancestral steps whose x0 agrees with y as far as its noise fits into the step ([Wang23] alg. 1, eq. 17-19).

    With noise it is DDNM+: a coordinate of measurement noise c moves the share min(1, tau / (a c)) of the way, where a
    is the weight of x0 in the step and tau its fresh noise, which is less by what y brought.
    """
    A, noise = _linear(obs, "ddnm")
    _checked(obs, x, sigmas)
    if noise == 0:

        def consistent(x: Tensor, sigma: Any, **_: Any) -> Tensor:
            x0 = denoiser(x, sigma)
            return x0 + A.pinv(obs.y.to(x) - A(x0))

        return sample(consistent, x, sigmas, ancestral(), generator=generator)
    svd, seen, c = _measured(obs, x, "ddnm")

    def step(
        denoise: Any, x: Tensor, sigma: Tensor, sigma_next: Tensor, *, randn_like: Any, **_: Any
    ) -> tuple[Tensor, Tensor]:
        a = 1 - (sigma_next / sigma) ** 2
        tau = sigma_next * a.sqrt()
        x0, n = denoise(x, sigma), randn_like(x)
        share = (tau / (a * c)).clamp_max(1)
        fresh = (tau**2 - (a * share * c) ** 2).clamp_min(0).sqrt()
        x0 = x0 + svd.V(share * (seen - svd.Vt(x0)))
        return a * x0 + (1 - a) * x + tau * n + svd.V((fresh - tau) * svd.Vt(n)), x0

    return sample(denoiser, x, sigmas, step, generator=generator)


def daps(
    denoiser: Denoiser,
    obs: Observation,
    x: Batch,
    sigmas: Float[Tensor, "levels"],
    *,
    generator: Generators = None,
    ode: int = 1,
    langevin: int | None = None,
    step_size: float = 0.1,
    curvature: float | None = None,
    sigma_data: float = 1.0,
) -> Batch:
    """From x an estimate m of x0, from N(m, k I) and y a draw of x0, and from that the next x ([Zhang25] alg. 1).

    Args:
        ode: Euler steps of the ordinary differential equation that gives m; 1 is the posterior mean D(x).
        langevin: moves of the inner sampler. None draws x0 exactly, by a least-squares problem, where A is linear and
            its noise Gaussian, and takes 100 moves elsewhere.
        step_size: of a move, over the largest curvature of the density that it samples.
        curvature: largest second derivative of -ln p(y | x); by default that of a linear operator, |A|^2 / sigma^2.
        sigma_data: k = sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2); the paper's k = sigma^2 is that of infinity.
    """
    _checked(obs, x, sigmas)
    noise, sigmas = partial(randn_like, generators=generator), sigmas.to("cpu", x.dtype)
    inner = _inner(obs, langevin, step_size, curvature)
    for sigma, sigma_next in pairwise(sigmas):
        m = sample(denoiser, x, sigma * torch.linspace(1, 0, ode + 1, dtype=x.dtype) ** 2, euler)
        k = float(sigma**2 / (1 + (sigma / sigma_data) ** 2))
        x0 = inner(m, k, noise)
        x = x0 + sigma_next * noise(x)
    return x


def mgdm(
    denoiser: Denoiser,
    obs: Observation,
    x: Batch,
    sigmas: Float[Tensor, "levels"],
    *,
    generator: Generators = None,
    repeats: int = 1,
    gradients: int = 10,
    denoising: int = 10,
    rate: float = 0.5,
) -> Batch:
    """Gibbs moves of (x0, x_s, x) for a level s below that of x, at each level in turn ([Janati25] algorithms 1 and 2).

    The likelihood is p(y | D(x_s)). Given x0 and x, x_s is drawn from a Gaussian that is fitted to it; given x_s, x0 by
    the denoiser and x by noise. A move costs `gradients` calls with gradient and `denoising` without.

    Args:
        repeats: Gibbs moves at each level.
        gradients: steps of Adam that fit the Gaussian of x_s, of size `rate` in its standard deviations.
        denoising: ancestral steps that draw x0.
    """
    _checked(obs, x, sigmas)
    noise, levels = partial(randn_like, generators=generator), sigmas.to("cpu", x.dtype)[:-1]
    x0 = _denoised(denoiser, x, levels[0].expand(len(x)), denoising, noise)
    for i in range(1, len(levels) - 1):
        x = _bridge(x0, x, levels[i].expand(len(x)), levels[i - 1], noise)
        for _ in range(repeats):
            uniform = torch.special.ndtr(noise(x.flatten(1)[:, :1]).flatten()).cpu()
            below = levels[i + 1 :][(uniform * (len(levels) - i - 1)).long()]
            x_s = _fitted(denoiser, obs, x0, x, below, levels[i], gradients, rate, noise)
            x0 = _denoised(denoiser, x_s, below, denoising, noise)
            x = x_s + spread((levels[i] ** 2 - below**2).sqrt(), x) * noise(x)
    return x0


def _renewed(eta: float) -> Step:
    """The step of [Kawar22] where nothing was measured: noise of standard deviation eta sigma_next is fresh."""

    def step(
        denoise: Any, x: Tensor, sigma: Tensor, sigma_next: Tensor, *, randn_like: Any, **_: Any
    ) -> tuple[Tensor, Tensor]:
        x0 = denoise(x, sigma)
        return x0 + sigma_next * (math.sqrt(1 - eta**2) * (x - x0) / sigma + eta * randn_like(x)), x0

    return step


def _inner(obs: Observation, moves: int | None, step_size: float, curvature: float | None) -> Any:
    """(m, k, noise) -> a draw of x0 from N(m, k I) given y, exact or by Langevin moves."""
    if isinstance(obs.A, Linear) and isinstance(obs.noise, Gaussian):
        if moves is None:
            return partial(_draw_given, obs.A, obs.y, obs.noise.sigma)
        if obs.noise.sigma == 0:
            raise ValueError("Langevin moves need noise, got sigma=0; leave langevin out to draw exactly")
        curvature = (obs.A.norm() / obs.noise.sigma) ** 2 if curvature is None else curvature
    if curvature is None:
        raise ValueError("daps needs the curvature of -ln p(y | x) for its moves where A is not linear and Gaussian")
    return partial(_langevin, obs, moves or 100, step_size, curvature)


def _draw_given(A: Linear, y: Tensor, sigma: float, m: Batch, k: float, noise: Any) -> Batch:
    """A draw of x0 ~ N(m, k I) and its y, moved by the gain to the y that was seen: exact."""
    x0 = m + math.sqrt(k) * noise(m)
    drawn = A(x0)
    return x0 + A.gain(y.to(m) - drawn - sigma * noise(drawn), sigma**2 / k)


def _langevin(
    obs: Observation, moves: int, step_size: float, curvature: float, m: Batch, k: float, noise: Any
) -> Batch:
    """Moves from m that sample the density N(m, k I) times p(y | x0)."""
    h, x0 = step_size / (1 / k + curvature), m
    score = torch.func.grad(lambda x: obs.log_prob(x).sum())
    for _ in range(moves):
        x0 = x0 + h * (score(x0) - (x0 - m) / k) + math.sqrt(2 * h) * noise(x0)
    return x0


def _bridge(x0: Batch, x: Batch, sigma_next: Float[Tensor, "n"], sigma: Tensor, noise: Any) -> Batch:
    """x at sigma_next, given x0 and x at sigma."""
    mean, std = _between(x0, x, sigma_next, sigma)
    return mean + std * noise(x)


def _between(x0: Batch, x: Batch, sigma_next: Float[Tensor, "n"], sigma: Tensor) -> tuple[Tensor, Tensor]:
    ratio = (sigma_next / sigma) ** 2
    return x0 + spread(ratio, x) * (x - x0), spread(sigma_next * (1 - ratio).sqrt(), x)


def _denoised(denoiser: Denoiser, x: Batch, sigma: Float[Tensor, "n"], steps: int, noise: Any) -> Batch:
    """A draw of x0 given x at a level for each sample, by ancestral steps down to 0."""
    for i in range(steps):
        below = sigma * ((steps - 1 - i) / (steps - i)) ** 3
        x, sigma = _bridge(denoiser(x, sigma), x, below, sigma, noise), below
    return x


def _fitted(
    denoiser: Denoiser,
    obs: Observation,
    x0: Batch,
    x: Batch,
    s: Tensor,
    sigma: Tensor,
    steps: int,
    rate: float,
    noise: Any,
) -> Batch:
    """A draw of x_s given x0, x and y, by the Gaussian with independent entries that is nearest in KL divergence.

    In units of the mean and the standard deviation of x_s given x0 and x alone, it begins as N(0, 1).
    """
    mean, std = _between(x0, x, s, sigma)
    mu, rho = torch.zeros_like(x, requires_grad=True), torch.zeros_like(x, requires_grad=True)
    optimiser = torch.optim.Adam([mu, rho], lr=rate)
    for _ in range(steps):
        with torch.enable_grad():
            x_s = mean + std * (mu + rho.exp() * noise(x))
            divergence = (mu**2 + (2 * rho).exp()) / 2 - rho
            loss = divergence.sum() - obs.log_prob(denoiser(x_s, s)).sum()
        mu.grad, rho.grad = torch.autograd.grad(loss, [mu, rho])
        optimiser.step()
    return (mean + std * (mu + rho.exp() * noise(x))).detach()


def _checked(obs: Observation, x: Batch, sigmas: Tensor) -> Batch:
    """x, if the observation and the levels fit it."""
    if not math.isfinite(float(decreasing(sigmas)[0])):
        raise ValueError("posterior samplers begin at a finite noise level, got infinity; use karras or exponential")
    if isinstance(obs.A, Linear):
        if obs.A.shape_in != tuple(x.shape[1:]):
            raise ValueError(f"the operator takes samples of shape {obs.A.shape_in}, but x has {tuple(x.shape[1:])}")
        if obs.y.ndim > len(obs.A.shape_out) and len(obs.y) != len(x):
            raise ValueError(f"got {len(obs.y)} observations for {len(x)} samples; give one, or one for each")
    return x


def _linear(obs: Observation, name: str) -> tuple[Linear, float]:
    if not isinstance(obs.A, Linear) or not isinstance(obs.noise, Gaussian):
        raise ValueError(f"{name} needs a linear operator and Gaussian noise; dps, daps and mgdm take any")
    return obs.A, obs.noise.sigma


def _measured(obs: Observation, x: Batch, name: str) -> tuple[SVD, Tensor, Tensor]:
    """Singular vectors, what was measured of each coordinate, (1 or n, r), and its noise's standard deviation, (r,)."""
    A, noise = _linear(obs, name)
    if A.svd is None:
        raise ValueError(f"{name} needs the operator's singular values: decomposed(A) computes them; or use pigdm")
    y, s = obs.y.to(x), A.svd.s.to(x)
    return A.svd, A.svd.Ut(y if y.ndim > len(A.shape_out) else y[None]) / s, noise / s
