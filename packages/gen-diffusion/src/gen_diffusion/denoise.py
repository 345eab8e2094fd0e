"""The one convention: a denoiser is a callable `denoise(x, sigma, **cond) -> E[x0 | x]`.

`x = x0 + sigma * n` is clean data plus white noise of standard deviation `sigma`, in the units of the data. Samplers,
losses and guidance are functions over such callables, so that anything which speaks the convention works with all of
them: a trained network, an exact mixture (`gen_diffusion.mixture`), a lambda in a test.

    denoiser = Preconditioned(UNet(channels=1, num_classes=10), sigma_data=0.5)
    x0 = denoiser(x, sigma, label=label)

[Karras22] Elucidating the design space of diffusion-based generative models, arXiv:2206.00364.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Denoiser(Protocol):
    """`(x, sigma, **cond) -> x0`, the posterior mean of the clean data, of the shape of `x`.

    `sigma` has shape `()` (one level for the batch, possibly on the CPU while `x` is not, so that comparing it never
    waits for the device) or `(b,)`. A missing condition means the unconditional denoiser.
    """

    def __call__(self, x: Tensor, sigma: Tensor, **cond: Any) -> Tensor: ...


def column(sigma: Float[Tensor, ""] | Float[Tensor, "b"], x: Float[Tensor, "b *shape"]) -> Float[Tensor, "..."]:
    """`sigma` in the type and on the device of `x`, shaped `()` or `(b, 1, ..., 1)` so that it multiplies samples.

    >>> column(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 1, 1, 1])
    """
    return sigma.to(x).reshape(sigma.shape + (1,) * (x.ndim - 1) * sigma.ndim)


class Preconditioned(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)  ([Karras22] eq. 7, coefficients of table 1, column "Ours").

    The network sees inputs of unit variance and is asked for outputs of unit variance at every noise level.

    Args:
        net: `(x, c_noise, **cond) -> y` with `y.shape == x.shape`; `c_noise = ln(sigma) / 4` has shape `(b,)`.
        sigma_data: standard deviation of the clean data, about its mean of zero.

    Raises:
        ValueError: unless `sigma_data > 0`.
    """

    def __init__(self, net: nn.Module, sigma_data: float = 0.5):
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"sigma_data is a standard deviation and must be positive, got {sigma_data}")
        self.net = net
        self.sigma_data = sigma_data

    def forward(
        self, x: Float[Tensor, "b *shape"], sigma: Float[Tensor, ""] | Float[Tensor, "b"], **cond: Any
    ) -> Float[Tensor, "b *shape"]:
        s = column(sigma, x)
        sd = torch.full_like(s, self.sigma_data)
        total = torch.hypot(s, sd)  # sqrt(sigma^2 + sigma_data^2), which squares would overflow at large sigma
        c_skip, c_out, c_in = (sd / total) ** 2, sd * (s / total), 1 / total
        c_noise = s.clamp_min(torch.finfo(x.dtype).tiny).log() / 4  # finite at sigma = 0, where c_out removes F
        F_x = self.net(c_in * x, c_noise.flatten().expand(len(x)), **cond)
        return c_skip * x + c_out * F_x.to(x.dtype)  # to: under autocast the network answers in half precision
