"""Networks of other conventions as denoisers: what they see, when they think it is, what they answer.

    denoiser = from_eps(net, discrete(alphas_cumprod))      # DDPM, Stable Diffusion: net(x, t) -> eps
    denoiser = from_v(net, discrete(alphas_cumprod))        # also after training with zero terminal SNR
    denoiser = from_eps(net, vp_time)                       # [Song21], continuous time
    denoiser = from_score(score)                            # score(x, sigma) = grad ln p(x; sigma)
    denoiser = from_velocity(net)                           # flow matching, net(x_t, t), noise at t = 1

Any sampler then runs them on any levels. Variance-preserving networks see x / sqrt(1 + sigma^2), flow networks
x / (1 + sigma) at t = sigma / (1 + sigma).

[Song21] Score-based generative modeling through stochastic differential equations, arXiv:2011.13456.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gen_diffusion.schedule import chain_levels
from gen_diffusion.view import Level, View, coefficients, column

Time = Callable[[Tensor], Tensor]  # noise levels (b,) -> what the network calls its time


class Adapted(nn.Module):
    """E[x0 | x] of a network that answers another view, on another scale, in another time.

    Args:
        net: `(state, time, **cond) -> value`.
        view: what it answers.
        time: noise level `(b,)` -> its second argument.
        scale: its state: "vp" x / sqrt(1 + sigma^2), "flow" x / (1 + sigma), "ve" x itself; n at sigma = infinity.
        sign: -1 for a velocity that points from the noise to the data.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        view: View,
        time: Time,
        scale: Literal["vp", "flow", "ve"] = "vp",
        sign: float = 1.0,
    ):
        super().__init__()
        self.view: View = view
        self.net, self.time, self.scale, self.sign = net, time, scale, sign

    def forward(self, x: Float[Tensor, "b *shape"], sigma: Level, **cond: Any) -> Float[Tensor, "b *shape"]:
        s = column(sigma, x)
        norm = {"vp": torch.hypot(s, torch.ones_like(s)), "flow": 1 + s, "ve": torch.ones_like(s)}[self.scale]
        state = x / torch.where(s.isinf(), 1.0, norm)
        value = self.net(state, self.time(s.flatten().expand(len(x))), **cond).to(x.dtype)
        c_skip, c_out = coefficients(self.view, s)
        return c_skip * x + self.sign * c_out * value


def from_x0(net: Callable[..., Tensor], time: Time) -> Adapted:
    """A variance-preserving network that answers the clean data."""
    return Adapted(net, "x0", time)


def from_eps(net: Callable[..., Tensor], time: Time) -> Adapted:
    """A variance-preserving network that answers the noise."""
    return Adapted(net, "eps", time)


def from_v(net: Callable[..., Tensor], time: Time) -> Adapted:
    """A variance-preserving network that answers v = alpha n - s x0; right at zero signal-to-noise ratio too."""
    return Adapted(net, "v", time)


def from_score(score: Callable[..., Tensor]) -> Adapted:
    """`score(x, sigma)` of the data at noise level sigma: x + sigma^2 score (Tweedie)."""
    return Adapted(score, "score", lambda sigma: sigma, "ve")


def from_velocity(net: Callable[..., Tensor], data_at: Literal[0, 1] = 0) -> Adapted:
    """`net(x_t, t) -> dx_t/dt` on the straight path between data and noise.

    Args:
        data_at: where t has the data: 0 as in rectified flow and diffusers, 1 as in [Lipman23] and torchcfm.
    """
    if data_at not in (0, 1):
        raise ValueError(f"the data are at t = 0 or t = 1, got data_at={data_at}")
    to_noise: Time = lambda sigma: torch.where(sigma.isinf(), 1.0, sigma / (1 + sigma))
    if data_at == 0:
        return Adapted(net, "velocity", to_noise, "flow")
    return Adapted(net, "velocity", lambda sigma: 1 - to_noise(sigma), "flow", sign=-1.0)


def discrete(alphas_cumprod: Float[Tensor, "t"]) -> Time:
    """sigma -> index of the discrete time with that signal-to-noise ratio, linear in ln(sigma) between two of them.

    Whole numbers are exact at the levels of `gen_diffusion.schedule.ddpm`; outside the range it is the first or last.

    Args:
        alphas_cumprod: products of (1 - beta), decreasing; the last one may be 0.

    >>> discrete(torch.tensor([0.9, 0.5, 0.0]))(torch.tensor([1.0, 5.0, float("inf")])).tolist()
    [1.0, 1.0, 2.0]
    """
    return partial(_index, levels=chain_levels(alphas_cumprod).log())


def _index(sigma: Tensor, levels: Tensor) -> Tensor:
    """Position of ln(sigma) among `levels`, as a float of the type of sigma."""
    levels = levels.to(sigma.device, torch.float32 if sigma.device.type == "mps" else torch.float64)
    log = sigma.to(levels.dtype).log().clamp(levels[0], levels[-1]).contiguous()
    low = (torch.searchsorted(levels, log, right=True) - 1).clamp(0, len(levels) - 2)
    share = (log - levels[low]) / (levels[low + 1] - levels[low])
    share = torch.where(levels[low + 1].isinf(), log.isinf().to(log), share)  # nothing lies between it and infinity
    t = low + share
    return torch.where((t - t.round()).abs() < 1e-3, t.round(), t).to(sigma)
