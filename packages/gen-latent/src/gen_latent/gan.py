"""Adversarial losses as functions of logits, penalties as functions of gradients; `gan_task` plays the game.

    loss = relativistic.d(D(x), D(G(z))) + 0.5 * gamma * (r1 + r2)          # one number per sample

A loss is a pair of functions of (real logits, fake logits), each of shape (b,): `d` is what the discriminator
minimises, `g` what the generator does. At logits of 0 the logistic losses of the discriminator are 2 ln 2; at equal
logits the relativistic one is ln 2. A falling loss does not tell that samples improve: count modes (`modes`), or
compare distributions (`gen_core.metrics`).

[Goodfellow14] Generative adversarial nets, arXiv:1406.2661.
[Mao17] Least squares generative adversarial networks, arXiv:1611.04076.
[Lim17] Geometric GAN, arXiv:1705.02894.
[Arjovsky17] Wasserstein GAN, arXiv:1701.07875.
[Gulrajani17] Improved training of Wasserstein GANs, arXiv:1704.00028.
[Jolicoeur19] The relativistic discriminator, arXiv:1807.00734.
[Mescheder18] Which training methods for GANs do actually converge?, arXiv:1801.04406.
[Lin18] PacGAN: the power of two samples in generative adversarial networks, arXiv:1712.04086.
[Huang24] The GAN is dead; long live the GAN!, arXiv:2501.05441.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

Logits = Float[Tensor, "b"]


class GANLoss:
    """Losses of both players, per sample, as functions of (real logits, fake logits).

    Args:
        d, g: of the discriminator and of the generator.
        paired: whether `g` compares fake i with real i; otherwise real logits are not computed for it.
    """

    def __init__(
        self, d: Callable[[Tensor, Tensor], Tensor], g: Callable[[Tensor, Tensor], Tensor], *, paired: bool = False
    ):
        self._d, self._g, self.paired = d, g, paired

    def d(self, real: Float[Tensor, "b ..."], fake: Float[Tensor, "..."]) -> Float[Tensor, "b ..."]:
        """The discriminator's loss of each sample, or of each patch where there are logits of patches."""
        return self._d(*_alike(real, fake))

    def g(self, real: Float[Tensor, "b ..."], fake: Float[Tensor, "..."]) -> Float[Tensor, "b ..."]:
        """The generator's loss of each sample."""
        return self._g(*_alike(real, fake))


def _alike(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    if real.shape != fake.shape:
        raise ValueError(
            f"real and fake logits have the same shape, one number per sample or patch, got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}, which would broadcast"
        )
    return real, fake


def softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x) to rounding error; torch's own takes x itself above 20, 2e-9 off."""
    return F.softplus(x, threshold=40.0)


def _logistic(real: Tensor, fake: Tensor) -> Tensor:
    """-ln D(x) - ln(1 - D(G(z))), D the sigmoid of the logit ([Goodfellow14] eq. 1)."""
    return softplus(-real) + softplus(fake)


minimax = GANLoss(_logistic, lambda real, fake: -softplus(fake))
"""[Goodfellow14] eq. 1: the generator minimises ln(1 - D(G(z))), whose gradient vanishes where it loses."""
non_saturating = GANLoss(_logistic, lambda real, fake: softplus(-fake))
"""[Goodfellow14] section 3: the generator maximises ln D(G(z)) instead; the same fixed point."""
least_squares = GANLoss(lambda real, fake: ((real - 1) ** 2 + fake**2) / 2, lambda real, fake: (fake - 1) ** 2 / 2)
"""[Mao17] eq. 9, a = 0, b = c = 1."""
hinge = GANLoss(lambda real, fake: F.relu(1 - real) + F.relu(1 + fake), lambda real, fake: -fake)
"""[Lim17] section 3."""
wasserstein = GANLoss(lambda real, fake: fake - real, lambda real, fake: -fake)
"""[Arjovsky17] eq. 3; the critic has to be kept Lipschitz, by `gradient_penalty` for instance."""
relativistic = GANLoss(lambda real, fake: softplus(fake - real), lambda real, fake: softplus(real - fake), paired=True)
"""[Jolicoeur19]: real i against fake i, which must carry the same label; with r1 and r2 it converges ([Huang24])."""


def squared_gradient(logits: Logits, x: Float[Tensor, "b ..."]) -> Logits:
    """|d logit_i / d x_i|^2 of each sample: R1 of real samples, R2 of fakes ([Mescheder18] eq. 9, without gamma / 2).

    The gradient is of the sum of the logits, so that no sample's depends on the batch; a discriminator that mixes
    samples, by BatchNorm, makes it meaningless.

    Args:
        x: what `logits` were computed from, with `requires_grad`.
    """
    (g,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return g.square().reshape(len(x), -1).sum(1)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor],
    real: Float[Tensor, "b ..."],
    fake: Float[Tensor, "b ..."],
    mix: Float[Tensor, "b"],
    target: float = 1.0,
) -> Logits:
    """(|gradient| - target)^2 at random points between real and fake samples ([Gulrajani17] eq. 3, without lambda).

    Args:
        mix: uniform on [0, 1), one for each sample.
    """
    share = mix.reshape(-1, *[1] * (real.ndim - 1))
    x = torch.lerp(fake.detach(), real.detach(), share).requires_grad_()
    return (squared_gradient(discriminator(x), x).clamp_min(1e-12).sqrt() - target) ** 2


def pack(x: Float[Tensor, "b c *shape"], m: int) -> Float[Tensor, "packs mc *shape"]:
    """`m` samples in a row side by side as channels of one: what a packed discriminator sees ([Lin18]).

    Raises:
        ValueError: when the samples do not come out even.
    """
    if len(x) % m:
        raise ValueError(f"{len(x)} samples cannot be judged {m} at a time; use a batch size that packing={m} divides")
    return x if m == 1 else rearrange(x, "(b m) c ... -> b (m c) ...", m=m)


def unpack(x: Float[Tensor, "packs mc *shape"], m: int) -> Float[Tensor, "b c *shape"]:
    """The samples of `pack`."""
    return x if m == 1 else rearrange(x, "b (m c) ... -> (b m) c ...", m=m)


def check_penalised(discriminator: nn.Module) -> None:
    """Refuse layers that mix samples.

    Raises:
        ValueError: for a BatchNorm.
    """
    for name, module in discriminator.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"the discriminator's {name} is a {type(module).__name__}, which mixes samples, but a gradient penalty "
                "is of each sample on its own; use GroupNorm or none, or drop the penalty"
            )
