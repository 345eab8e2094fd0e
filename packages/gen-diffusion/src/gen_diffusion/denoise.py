"""The one convention: a denoiser is a callable `denoise(x, sigma, **cond) -> E[x0 | x]`.

`x = x0 + sigma * n` is clean data plus white noise of standard deviation `sigma`, in the units of the data. Samplers,
losses and guidance are functions over such callables, so that anything which speaks the convention works with all of
them: a trained network, an exact mixture (`gen_diffusion.mixture`), a network of another library behind an adapter
(`gen_diffusion.adapt`), a lambda in a test.

    denoiser = Preconditioned(UNet(channels=1, num_classes=10), sigma_data=0.5)
    x0 = denoiser(x, sigma, label=label)

The axis ends at sigma = infinity, where nothing of the data is left: there `x` stands for the noise n itself.

[Karras22] Elucidating the design space of diffusion-based generative models, arXiv:2206.00364.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gen_core.description import describable
from gen_diffusion.view import Level, View, coefficients, column


@runtime_checkable
class Denoiser(Protocol):
    """`(x, sigma, **cond) -> x0`, the posterior mean of the clean data, of the shape of `x`.

    `sigma` is a number, a tensor of shape `()` (one level for the batch, possibly on the CPU while `x` is not, so that
    comparing it never waits for the device) or `(b,)`. A missing condition means the unconditional denoiser.
    """

    def __call__(self, x: Tensor, sigma: Any, **cond: Any) -> Tensor: ...


def noised(x0: Float[Tensor, "b *shape"], sigma: Level, noise: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
    """x0 + sigma n; the noise itself where sigma is infinite."""
    s = column(sigma, x0)
    return torch.where(s.isinf(), noise, x0 + s * noise)


@describable
class Preconditioned(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)  ([Karras22] eq. 7).

    The network sees inputs of unit variance at every noise level. What it is asked for is the `view`: "F", the target
    of unit variance at every level ([Karras22] table 1, column "Ours"), or another one of `gen_diffusion.view`, whose
    docstring has their table; for "score" the network answers sigma times the score, which is of the order of 1.

    Args:
        net: `(x, c_noise, **cond) -> y` with `y.shape == x.shape`; `c_noise = ln(sigma) / 4` has shape `(b,)`.
        sigma_data: standard deviation of the clean data, about its mean of zero.

    Raises:
        ValueError: unless `sigma_data > 0`; for an unknown view.
    """

    def __init__(self, net: nn.Module, sigma_data: float = 0.5, view: View = "F"):
        super().__init__()
        if not 0 < sigma_data < float("inf"):
            raise ValueError(f"sigma_data is a standard deviation and must be positive, got {sigma_data}")
        coefficients(view, torch.ones(()), sigma_data)  # an unknown view is an error here, not in the first step
        self.net = net
        self.sigma_data = sigma_data
        self.view: View = view

    def forward(self, x: Float[Tensor, "b *shape"], sigma: Level, **cond: Any) -> Float[Tensor, "b *shape"]:
        s = column(sigma, x)
        if self.view == "score":
            c_skip, c_out = (~s.isinf()).to(s), s.masked_fill(s.isinf(), 0)  # sigma^2 times answer / sigma
        else:
            c_skip, c_out = coefficients(self.view, s, self.sigma_data)
        c_in = torch.where(s.isinf(), 1.0, 1 / torch.hypot(s, torch.full_like(s, self.sigma_data)))
        finite = torch.finfo(x.dtype)
        c_noise = s.clamp(finite.tiny, finite.max).log() / 4  # finite at both ends of the axis
        F_x = self.net(c_in * x, c_noise.flatten().expand(len(x)), **cond)
        return c_skip * x + c_out * F_x.to(x.dtype)  # to: under autocast the network answers in half precision
