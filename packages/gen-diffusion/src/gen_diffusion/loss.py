"""Denoising objectives, unreduced: one number per sample, so that masks, weights and logging stay outside.

The noise and its level are arguments. Whoever trains draws them, once for the global batch:

    sigma = log_normal(torch.randn(b))
    error = denoising_loss(denoiser, x0, sigma, torch.randn_like(x0), label=label)
    loss = (edm_weight(sigma, sigma_data=0.5) * error).mean()

[Karras22] Elucidating the design space of diffusion-based generative models, arXiv:2206.00364.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from gen_diffusion.denoise import Denoiser, column


def log_normal(z: Float[Tensor, "*b"], mean: float = -1.2, std: float = 1.2) -> Float[Tensor, "*b"]:
    """Training noise levels, ln(sigma) = mean + std z for standard normal `z` ([Karras22] table 1).

    The defaults suit pictures of standard deviation 0.5; more training at high noise needs a larger mean.
    """
    return (mean + std * z).exp()


def edm_weight(sigma: Float[Tensor, "*b"], sigma_data: float) -> Float[Tensor, "*b"]:
    """lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 = 1 / c_out^2 ([Karras22] table 1).

    With it the preconditioned network answers for unit variance at every level: an output of 0 costs 1.
    """
    return 1 / sigma**2 + 1 / sigma_data**2


def denoising_loss(
    denoiser: Denoiser,
    x0: Float[Tensor, "b *shape"],
    sigma: Float[Tensor, "b"],
    noise: Float[Tensor, "b *shape"],
    **cond: Any,
) -> Float[Tensor, "b"]:
    """|D(x0 + sigma n; sigma) - x0|^2 per sample, averaged over its dimensions ([Karras22] eq. 2, unweighted)."""
    x = x0 + column(sigma, x0) * noise
    return (denoiser(x, sigma, **cond) - x0).square().flatten(1).mean(1)
