"""Denoising objectives, unreduced: one number per sample, so that masks, weights and logging stay outside.

The noise and its level are arguments. Whoever trains draws them, once for the global batch:

    sigma = log_normal(torch.randn(b))
    error = denoising_loss(denoiser, x0, sigma, torch.randn_like(x0), label=label)
    loss = (edm_weight(sigma, sigma_data=0.5) * error).mean()

An objective is three choices: the view that the network answers (`Preconditioned(view=...)`), the distribution of the
levels, and the weight of the squared error of x0 at each level. Every loss of the literature is one of them:

    loss                                  levels                    weight
    EDM                                   log_normal                edm_weight
    DDPM's |eps - eps_theta|^2            those of the betas        view_weight("eps", sigma)
    progressive distillation's v          those of the betas        view_weight("v", sigma)
    flow matching                         uniform_flow              view_weight("velocity", sigma)
    ... with logit-normal times           log_normal                view_weight("velocity", sigma)
    min-SNR                               any                       min_snr_weight(sigma)
    the variational bound, in nats        log_normal                variational_weight(sigma, mean, std)

[Karras22] Elucidating the design space of diffusion-based generative models, arXiv:2206.00364.
[Karras24] Analyzing and improving the training dynamics of diffusion models, arXiv:2312.02696.
[Hang23] Efficient diffusion training via min-SNR weighting strategy, arXiv:2303.09556.
[Kingma21] Variational diffusion models, arXiv:2107.00630.
[Lipman23] Flow matching for generative modeling, arXiv:2210.02747.
[Tong24] Improving and generalizing flow-based generative models with minibatch optimal transport, arXiv:2302.00482.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gen_core.description import describable
from gen_diffusion.denoise import Denoiser, noised
from gen_diffusion.schedule import chain_levels
from gen_diffusion.view import View, coefficients


def denoising_loss(
    denoiser: Denoiser,
    x0: Float[Tensor, "b *shape"],
    sigma: Float[Tensor, "b"],
    noise: Float[Tensor, "b *shape"],
    **cond: Any,
) -> Float[Tensor, "b"]:
    """|D(x0 + sigma n; sigma) - x0|^2 per sample, averaged over its dimensions ([Karras22] eq. 2, unweighted)."""
    return (denoiser(noised(x0, sigma, noise), sigma, **cond) - x0).square().flatten(1).mean(1)


def masked_loss(
    denoiser: Denoiser,
    x0: Float[Tensor, "b *shape"],
    sigma: Float[Tensor, "b"],
    noise: Float[Tensor, "b *shape"],
    mask: Bool[Tensor, "b *part"],
    /,
    **cond: Any,
) -> Float[Tensor, "b"]:
    """`denoising_loss` of samples of unequal sizes, averaged over what is real.

    Args:
        mask: True where x0 is real, somewhere in each sample; of the first dimensions of x0, or of all, with 1 for any
            that it says nothing of. What x0 and the noise hold elsewhere makes no difference: the denoiser gets 0.
        cond: with the mask among them, by the name that the denoiser knows, unless it needs none.
    """
    real = mask.reshape(mask.shape + (1,) * (x0.ndim - mask.ndim)).expand_as(x0)
    answer = denoiser(noised(x0, sigma, noise).masked_fill(~real, 0), sigma, **cond)
    error = (answer - x0).masked_fill(~real, 0).square()  # filled first: 0 times the gradient at NaN is NaN
    return error.flatten(1).sum(1) / real.flatten(1).sum(1)


# ------------------------------------------------------------------ levels, from standard normal draws


def log_normal(z: Float[Tensor, "*b"], mean: float = -1.2, std: float = 1.2) -> Float[Tensor, "*b"]:
    """Training noise levels, ln(sigma) = mean + std z for standard normal `z` ([Karras22] table 1).

    The defaults suit pictures of standard deviation 0.5; more training at high noise needs a larger mean. On the
    straight path of flow matching it is the logit-normal distribution of times, since logit(t) = ln(sigma).
    """
    return (mean + std * z).exp()


def uniform_flow(z: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Levels t / (1 - t) of times t uniform on (0, 1), by the normal distribution function of `z` ([Lipman23])."""
    return (torch.special.log_ndtr(z) - torch.special.log_ndtr(-z)).exp()  # the tails of ndtr are 0 in float32


def uniform_discrete(z: Float[Tensor, "*b"], alphas_cumprod: Float[Tensor, "t"]) -> Float[Tensor, "*b"]:
    """Levels of discrete times that are equally likely, by the normal distribution function of `z`."""
    times = (torch.special.ndtr(z) * len(alphas_cumprod)).long().clamp(max=len(alphas_cumprod) - 1)
    return chain_levels(alphas_cumprod).to(z)[times]


# ------------------------------------------------------------------ weights of |D - x0|^2


def edm_weight(sigma: Float[Tensor, "*b"], sigma_data: float) -> Float[Tensor, "*b"]:
    """lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 = 1 / c_out^2 ([Karras22] table 1).

    With it the preconditioned network answers for unit variance at every level: an output of 0 costs 1.
    """
    return 1 / sigma**2 + 1 / sigma_data**2


def view_weight(view: View, sigma: Float[Tensor, "*b"], sigma_data: float = 1.0) -> Float[Tensor, "*b"]:
    """1 / c_out^2, which makes the loss the squared error of the view itself: eps by 1 / sigma^2, and so on.

    >>> view_weight("eps", torch.tensor([0.5, 2.0])).tolist()
    [4.0, 0.25]
    """
    return 1 / coefficients(view, sigma, sigma_data)[1] ** 2


def min_snr_weight(sigma: Float[Tensor, "*b"], gamma: float = 5.0) -> Float[Tensor, "*b"]:
    """min(SNR, gamma) with SNR = 1 / sigma^2 ([Hang23], the weight of the squared error of x0)."""
    return (1 / sigma**2).clamp(max=gamma)


def variational_weight(sigma: Float[Tensor, "*b"], mean: float = -1.2, std: float = 1.2) -> Float[Tensor, "*b"]:
    """Makes the mean over `log_normal(z, mean, std)` levels an estimate of the diffusion loss in nats per dimension.

    That loss is the integral of |D - x0|^2 / sigma^3 over sigma ([Kingma21] section 4, with SNR = 1 / sigma^2), so the
    weight is 1 / sigma^3 over the density of the levels.
    """
    z = (sigma.log() - mean) / std
    return std * math.sqrt(2 * math.pi) * (z**2 / 2).exp() / sigma**2


@describable
class Uncertainty(nn.Module):
    """u(sigma), learned beside the network, so that weight / e^u |D - x0|^2 + u is 1 + u at every level.

    e^u becomes the loss at that level: all levels get the same say in the gradient, whatever the weight ([Karras24],
    the learned loss weighting). Linear in random Fourier features of ln(sigma) / 4, and 0 at first. It is thrown away
    after training.
    """

    def __init__(self, features: int = 64):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.frequencies = nn.Buffer(2 * math.pi * torch.randn(features, generator=generator))
        self.phases = nn.Buffer(2 * math.pi * torch.rand(features, generator=generator))
        self.linear = nn.Linear(features, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, loss: Float[Tensor, "b"], sigma: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """`loss` / e^u + u, per sample."""
        c_noise = sigma.log() / 4
        u = self.linear((c_noise[:, None] * self.frequencies + self.phases).cos() * math.sqrt(2))[:, 0]
        return loss / u.exp() + u


# ------------------------------------------------------------------ which noise goes with which sample


def ot_pairing(x0: Float[Tensor, "b *shape"], noise: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
    """The same noise in the order that makes the sum of |x0 - n|^2 the smallest ([Tong24] section 4.2).

    Minibatch optimal transport: paths between noise and data cross less, so that few steps follow them. Exact, by the
    Hungarian method on the CPU: some 10 ms for 256 samples.
    """
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x0.flatten(1).cpu().double(), noise.flatten(1).cpu().double()).square()
    _, order = linear_sum_assignment(cost.numpy())
    return noise[torch.as_tensor(order, device=noise.device)]
