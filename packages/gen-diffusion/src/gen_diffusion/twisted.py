"""Twisted diffusion: sequential Monte Carlo along the noise levels, steered by an estimate of p(y | x) at each.

    model = twisted(denoiser, obs, sigmas, twist=moments)
    particles = smc(model, 1000, generator=generator)           # exact as their number grows, whatever the twist

The chain is that of the sampler `ddim(eta)`: its law p(x0) and weight p(y | x0) are the target. A twist estimates
ln p(y | x) at level sigma from the denoiser, and E[x0 | x, y], by which particles are moved; how good it is decides
only how many particles are needed. ln Z is that of the chain, which differs from ln p(y) by its discretisation.

    twist        ln p(y | x) is estimated as                                             backward passes
    isotropic    N(y; A D, r^2 A A^T + noise), 1 / r^2 = 1 / sigma_data^2 + 1 / sigma^2  1
    moments      N(y; A D, sigma^2 A D' A^T + noise), exact for Gaussian data            one for each value in y
    likelihood   ln p(y | x0 = D) of any observation, or any function of x0              1
    noisy        a function of x and sigma, such as a classifier's ln p(c | x)           -
    untwisted    0: the prior's draws are weighed at the end, importance sampling        -

[Wu23] Practical and asymptotically exact conditional sampling in diffusion models, arXiv:2306.17775 (TDS).
[Song23] Pseudoinverse-guided diffusion models for inverse problems, ICLR 2023 (PiGDM).
[Boys23] Tweedie moment projected diffusions for inverse problems, arXiv:2310.06721.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gen_diffusion.denoise import Denoiser
from gen_diffusion.operators import SVD, Gaussian, Linear, Observation, decomposed
from gen_diffusion.smc import Noise, State, Weighed

Denoise = Callable[[Tensor, Tensor], Tensor]  # a denoiser whose conditions are already given


class Look(NamedTuple):
    """The estimates at particles of one level."""

    x0: Float[Tensor, "n ..."]
    """E[x0 | x]."""
    guided: Float[Tensor, "n ..."]
    """E[x0 | x, y]."""
    log_twist: Float[Tensor, "n"]
    """ln p(y | x)."""


@dataclass(frozen=True)
class Twist:
    """How to estimate along the way, and the weight of the target itself at clean data."""

    look: Callable[[Denoise, Tensor, Tensor], Look]
    target: Callable[[Tensor], Float[Tensor, "n"]]
    last: Callable[[Tensor, Tensor, Noise], Weighed] | None = None
    """Draws of x0 ~ N(mean, std^2 I) given y and ln p(y), from (mean, std, noise), where they are known."""


def likelihood(obs: Observation | Callable[[Tensor], Tensor]) -> Twist:
    """p(y | x0 = D(x)) for any observation, or any function of x0 as ln p(y | x0) ([Wu23] eq. 8)."""
    target = obs.log_prob if isinstance(obs, Observation) else obs
    return Twist(lambda denoise, x, sigma: _look(denoise, x, sigma, lambda x, x0: target(x0)), target)


def untwisted(obs: Observation | Callable[[Tensor], Tensor]) -> Twist:
    """No estimate and no guidance: draws of the prior, weighed at the end by p(y | x0)."""

    def look(denoise: Denoise, x: Tensor, sigma: Tensor) -> Look:
        x0 = denoise(x, sigma)
        return Look(x0, x0, x0.new_zeros(len(x0)))

    return Twist(look, obs.log_prob if isinstance(obs, Observation) else obs)


def noisy(log_prob: Callable[[Tensor, Tensor], Tensor]) -> Twist:
    """A function of (x, sigma) as ln p(c | x) at each level: classifier guidance, made exact."""
    target = lambda x0: log_prob(x0, x0.new_zeros(()))
    return Twist(lambda denoise, x, sigma: _look(denoise, x, sigma, lambda x, x0: log_prob(x, sigma)), target)


def isotropic(obs: Observation, sigma_data: float = 1.0) -> Twist:
    """As if x0 were D(x) with variance r^2 in each value, that of data with standard deviation `sigma_data`."""
    seen = Coordinates.of(obs)

    def look(denoise: Denoise, x: Tensor, sigma: Tensor) -> Look:
        std = ((seen.svd.s * sigma_data * sigma / math.hypot(sigma_data, sigma)) ** 2 + seen.noise**2).sqrt().to(x)
        z = lambda x0: seen.residual(x0) / std
        return _look(denoise, x, sigma, lambda x, x0: _log_normal(z(x0), std.log().sum()))

    return Twist(look, obs.log_prob, seen.draw)


def moments(obs: Observation) -> Twist:
    """As if x0 were Gaussian with its true mean D(x) and covariance sigma^2 D'(x) (Tweedie's formulas; [Boys23] eq. 9).

    The proposal takes the covariance as constant, which saves second derivatives. It costs one backward pass for each
    singular value of the operator: for observations of few numbers.
    """
    seen = Coordinates.of(obs)

    def look(denoise: Denoise, x: Tensor, sigma: Tensor) -> Look:
        with torch.enable_grad():
            x0 = denoise(x := x.detach().requires_grad_(), sigma)
            residual = seen.residual(x0)
            rows = [-torch.autograd.grad(z.sum(), x, retain_graph=True)[0] for z in residual.unbind(1)]
        x0, residual = x0.detach(), residual.detach()
        slope = torch.stack([row.flatten(1) for row in rows], 1)  # U^T A D'(x), "n r d"
        basis = seen.svd.V(seen.svd.s.diag().to(x0)).flatten(1)  # U^T A, "r d"
        covariance = sigma**2 * slope @ basis.T
        variance, axes = torch.linalg.eigh((covariance + covariance.mT) / 2)
        std = (variance.clamp_min(0) + seen.noise**2).sqrt()  # a network's D' is not quite a covariance over sigma^2
        z = torch.einsum("nij,ni->nj", axes, residual) / std
        shift = torch.einsum("nid,nij,nj->nd", slope, axes, z / std)
        return Look(x0, x0 + sigma**2 * shift.reshape(x0.shape), _log_normal(z, std.log().sum(1)))

    return Twist(look, obs.log_prob, seen.draw)


@dataclass(frozen=True)
class Twisted:
    """The chain of `twisted` as a `FeynmanKac` model; its state is x, both estimates, the twist, the last estimates."""

    denoise: Denoise
    twist: Twist
    sigmas: Float[Tensor, "levels"]
    shape: tuple[int, ...] | None
    like: Tensor  # of the type and device of the particles
    eta: int | float
    order: int
    kappa: int | float
    steps: int

    def initial(self, n: int, noise: Noise) -> Tensor:
        if self.shape is None:
            raise ValueError("a function has no shape of its samples; pass twisted(..., shape=...)")
        return self.sigmas[0] * noise(self.like.new_empty(n, *self.shape))

    def begin(self, x: Tensor) -> Weighed:
        look = self.twist.look(self.denoise, x, self.sigmas[0])
        return (x, *look, *look[:2]), look.log_twist

    def move(self, step: int, state: State, noise: Noise) -> Weighed:
        x, x0, guided, log_twist, last_x0, last_guided = state
        sigma, sigma_next = self.sigmas[step], self.sigmas[step + 1]
        if sigma_next == 0 and self.twist.last and self.kappa > 0:
            x_next, log_prob = self.twist.last(x0, self.kappa * sigma, noise)
            return x_next, log_prob - log_twist
        keep, std = bridge(sigma, sigma_next, self.eta) if sigma_next > 0 else (0.0, self.kappa * sigma)
        ahead = extrapolation(self.sigmas, step, self.order)
        estimate, towards = x0 + ahead * (x0 - last_x0), guided + ahead * (guided - last_guided)
        x_next, log_ratio = estimate + keep * (x - estimate), 0.0
        if std > 0:
            z, u = noise(x), std / sigma**2 * (towards - estimate)  # u = std grad ln p(y | x), the proposal's shift
            x_next = x_next + std * (z + u)
            log_ratio = -(u * z + u**2 / 2).flatten(1).sum(1)  # ln p(x_next | x) - ln q(x_next | x)
        if sigma_next == 0:
            return x_next, log_ratio + self.twist.target(x_next) - log_twist
        look = self.twist.look(self.denoise, x_next, sigma_next)
        return (x_next, *look, x0, guided), log_ratio + look.log_twist - log_twist


def twisted(
    denoiser: Denoiser,
    obs: Observation | Callable[..., Tensor],
    sigmas: Float[Tensor, "levels"],
    *,
    twist: Callable[..., Twist] = isotropic,
    shape: tuple[int, ...] | None = None,
    eta: int | float = 1.0,
    order: int = 1,
    kappa: int | float = 1.0,
    **cond: Any,
) -> Twisted:
    """The model for `smc` ([Wu23] algorithm 1).

    Args:
        obs: what `twist` takes: an observation, or a function for `likelihood` and `noisy`.
        sigmas: decreasing levels, the last one 0. One call of the denoiser for each of the others.
        shape: of a sample; by default that of the operator. Particles that `smc` draws have the type of y.
        eta: share of fresh noise of the chain, above 0 (the proposal moves by it) and at most 1.
        order: 2 extrapolates the estimates as `dpmpp_2m_sde` does: less discretisation at no more calls.
        kappa: noise of the step to 0, in last levels: the estimate there is uncertain by that. 0 ends at the estimate.
        cond: conditions of the denoiser, with a row for each particle, equal within a run.
    """
    if not 0 < eta <= 1 or order not in (1, 2) or not kappa >= 0:
        raise ValueError(f"twisted needs eta in (0, 1], order 1 or 2 and kappa >= 0; got {eta}, {order} and {kappa}")
    sigmas = checked_levels(sigmas)
    if shape is None and isinstance(obs, Observation) and isinstance(obs.A, Linear):
        shape = obs.A.shape_in
    like = obs.y if isinstance(obs, Observation) else torch.empty(0)
    denoise = partial(denoiser, **cond)
    return Twisted(denoise, twist(obs), sigmas, shape, like, eta, order, kappa, len(sigmas) - 1)


def _look(denoise: Denoise, x: Tensor, sigma: Tensor, log_twist: Callable[[Tensor, Tensor], Tensor]) -> Look:
    """The estimates by a twist that can be differentiated: E[x0 | x, y] = D(x) + sigma^2 grad ln p(y | x)."""
    with torch.enable_grad():
        x0 = denoise(x := x.detach().requires_grad_(), sigma)
        value = log_twist(x, x0)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return Look(x0.detach(), x0.detach() + sigma**2 * gradient, value.detach())


def _log_normal(z: Float[Tensor, "n r"], log_std: Tensor) -> Float[Tensor, "n"]:
    """ln of a normal density at the standardised values z."""
    return -z.square().sum(1) / 2 - log_std - z.shape[1] * math.log(2 * math.pi) / 2


def bridge(sigma: Tensor, sigma_next: Tensor, eta: int | float) -> tuple[Tensor, Tensor]:
    """(keep, std) such that x0 + keep (x - x0) + std n is the step of `ddim(eta)`; to several levels at once."""
    std = eta * sigma_next * (1 - (sigma_next / sigma) ** 2).sqrt()
    return (sigma_next**2 - std**2).sqrt() / sigma, std


def extrapolation(sigmas: Float[Tensor, "levels"], step: int, order: int) -> float:
    """How far an estimate is extrapolated, towards the middle of the step, by `dpmpp_2m_sde`; 0 at order 1."""
    if order == 1 or step == 0 or step == len(sigmas) - 2:
        return 0.0
    last, sigma, sigma_next = sigmas[step - 1 : step + 2].log().tolist()
    return (sigma - sigma_next) / (last - sigma) / 2


def checked_levels(sigmas: Float[Tensor, "levels"]) -> Float[Tensor, "levels"]:
    """On the CPU.

    Raises:
        ValueError: unless the levels decrease from a finite one to 0.
    """
    sigmas = sigmas.cpu()
    if len(sigmas) < 2 or not (sigmas[1:] < sigmas[:-1]).all() or sigmas[-1] != 0 or sigmas[0].isinf():
        raise ValueError(f"noise levels must be finite, decrease and end at 0; got {sigmas.tolist()}")
    return sigmas


@dataclass(frozen=True)
class Coordinates:
    """An observation along the singular vectors of its operator: y_i = s_i z_i + noise for z = V^T x."""

    svd: SVD
    y: Float[Tensor, "r"]
    noise: float
    constant: float
    """ln p of what y holds outside the range of the operator, where it is noise alone."""
    shape: tuple[int, ...]
    """Of x."""

    @classmethod
    def of(cls, obs: Observation) -> "Coordinates":
        """Raises ValueError for another observation than one y of a linear operator with Gaussian noise."""
        if not isinstance(obs.A, Linear) or not isinstance(obs.noise, Gaussian):
            raise ValueError("this method needs a Linear operator with Gaussian noise; use twist=likelihood for others")
        if obs.y.shape != obs.A.shape_out:
            raise ValueError(f"particles share one observation of shape {obs.A.shape_out}, got {tuple(obs.y.shape)}")
        svd, noise = decomposed(obs.A).svd, obs.noise.sigma
        assert svd is not None
        y = svd.Ut(obs.y[None])[0]
        outside, more = obs.y.square().sum() - y.square().sum(), obs.y.numel() - len(y)
        constant = (
            -outside / (2 * noise**2) - more * math.log(noise * math.sqrt(2 * math.pi)) if more and noise else 0.0
        )
        return cls(svd, y, noise, float(constant), obs.A.shape_in)

    def residual(self, x0: Float[Tensor, "n ..."]) -> Float[Tensor, "n r"]:
        """U^T (y - A x0)."""
        return self.y.to(x0) - self.svd.s.to(x0) * self.svd.Vt(x0)

    def draw(self, mean: Float[Tensor, "n ..."], std: Tensor, noise: Noise) -> Weighed:
        """x0 ~ N(mean, std^2 I) given y, and ln p(y)."""
        s, residual, z = self.svd.s.to(mean), self.residual(mean), noise(mean)
        total = (s * std) ** 2 + self.noise**2  # variance of y along each vector
        seen = s * std**2 / total * residual + std * self.noise / total.sqrt() * self.svd.Vt(z)
        x0 = mean + std * z + self.svd.V(seen - std * self.svd.Vt(z))
        return x0, _log_normal(residual / total.sqrt(), total.log().sum() / 2) + self.constant
