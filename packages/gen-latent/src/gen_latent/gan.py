"""Adversarial losses as functions of logits, penalties as functions of gradients, and the task that plays the game.

    loss = relativistic.d(D(x), D(G(z))) + 0.5 * gamma * (r1 + r2)          # one number per sample
    GANTask(generator, discriminator, relativistic, r1=1.0, r2=1.0)

A loss is a pair of functions of (real logits, fake logits), each of shape (b,): `d` is what the discriminator minimises,
`g` what the generator does. At equal logits the logistic discriminator losses are 2 ln 2, the relativistic one ln 2.

[Goodfellow14] Generative adversarial nets, arXiv:1406.2661.
[Mao17] Least squares generative adversarial networks, arXiv:1611.04076.
[Lim17] Geometric GAN, arXiv:1705.02894.
[Arjovsky17] Wasserstein GAN, arXiv:1701.07875.
[Gulrajani17] Improved training of Wasserstein GANs, arXiv:1704.00028.
[Jolicoeur19] The relativistic discriminator, arXiv:1807.00734.
[Mescheder18] Which training methods for GANs do actually converge?, arXiv:1801.04406.
[Karras20] Analyzing and improving the image quality of StyleGAN, arXiv:1912.04958.
[Lin18] PacGAN: the power of two samples in generative adversarial networks, arXiv:1712.04086.
[Huang24] The GAN is dead; long live the GAN!, arXiv:2501.05441.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from gen_core.task import Task

Logits = Float[Tensor, "b"]


class GANLoss(NamedTuple):
    """What each player minimises, per sample, as a function of (real logits, fake logits)."""

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor, Tensor], Tensor]


def _logistic(real: Logits, fake: Logits) -> Logits:
    """-ln D(x) - ln(1 - D(G(z))), D the sigmoid of the logit ([Goodfellow14] eq. 1)."""
    return F.softplus(-real) + F.softplus(fake)


minimax = GANLoss(_logistic, lambda real, fake: -F.softplus(fake))
"""[Goodfellow14] eq. 1: the generator minimises ln(1 - D(G(z))), whose gradient vanishes where it loses."""
non_saturating = GANLoss(_logistic, lambda real, fake: F.softplus(-fake))
"""[Goodfellow14] section 3: the generator maximises ln D(G(z)) instead; the same fixed point."""
least_squares = GANLoss(lambda real, fake: ((real - 1) ** 2 + fake**2) / 2, lambda real, fake: (fake - 1) ** 2 / 2)
"""[Mao17] eq. 9, a = 0, b = c = 1."""
hinge = GANLoss(lambda real, fake: F.relu(1 - real) + F.relu(1 + fake), lambda real, fake: -fake)
"""[Lim17] section 3."""
wasserstein = GANLoss(lambda real, fake: fake - real, lambda real, fake: -fake)
"""[Arjovsky17] eq. 3; the critic has to be kept Lipschitz, by `gradient_penalty` for instance."""
relativistic = GANLoss(lambda real, fake: F.softplus(fake - real), lambda real, fake: F.softplus(real - fake))
"""[Jolicoeur19]: real i against fake i, which must carry the same label; with r1 and r2 it converges ([Huang24])."""


def squared_gradient(logits: Logits, x: Float[Tensor, "b ..."]) -> Logits:
    """|d logit_i / d x_i|^2 of each sample: R1 of real samples, R2 of fakes ([Mescheder18] eq. 9, without gamma / 2).

    The gradient is of the sum of the logits, so that no sample's depends on the batch; a discriminator that mixes
    samples, by BatchNorm, makes it meaningless.

    Args:
        x: what `logits` were computed from, with `requires_grad`.
    """
    (g,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return g.square().flatten(1).sum(1)


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


def pack(x: Float[Tensor, "b c *shape"], m: int) -> Float[Tensor, "b_over_m mc *shape"]:
    """`m` samples side by side as channels of one: what a packed discriminator sees ([Lin18])."""
    return x if m == 1 else rearrange(x, "(b m) c ... -> b (m c) ...", m=m)


def check_penalised(discriminator: nn.Module) -> None:
    """Refuse layers that mix samples.

    Raises:
        ValueError: for a BatchNorm.
    """
    for name, module in discriminator.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"the discriminator's {name} is a {type(module).__name__}, which mixes samples: a gradient penalty is of "
                "each sample on its own; use GroupNorm, or none, or drop the penalty"
            )


class GANTask(Task):
    """The two-player game: the discriminator's update, then the generator's.

    Args:
        generator: `(z, **cond) -> x`.
        discriminator: `(x, **cond) -> logits (b,)`; with `packing`, it sees that many times the channels.
        latents: dimensions of z, which is standard normal.
        loss: one of the pairs above.
        r1, r2: gamma of the squared gradient at real and at fake samples; a number, or a function of the step.
        gradient_penalty: lambda of the penalty between them.
        lazy: the penalties are applied in every `lazy`-th step, that many times as strong ([Karras20] section 4.2).
        augment: `(x, u) -> x` on whatever the discriminator judges, with `augment.numbers` uniform numbers a sample;
            the penalties are of the pictures before it. See `gen_latent.augment`.
        d_steps: updates of the discriminator for one of the generator.
        conditions: names of the conditions that follow x in a batch, for both networks.

    Raises:
        ValueError: for a penalty on a discriminator with BatchNorm.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: GANLoss = relativistic,
        *,
        latents: int,
        r1: float | Callable[[int], float] = 0.0,
        r2: float | Callable[[int], float] = 0.0,
        gradient_penalty: float = 0.0,
        lazy: int = 1,
        augment: Any = None,
        d_steps: int = 1,
        packing: int = 1,
        conditions: tuple[str, ...] = (),
        lr: float = 2e-4,
        d_lr: float | None = None,
        betas: tuple[float, float] = (0.0, 0.99),
    ):
        super().__init__()
        if latents < 1 or d_steps < 1 or packing < 1 or lazy < 1:
            raise ValueError(
                f"latents, d_steps, packing and lazy are at least 1, got {latents}, {d_steps}, {packing} and {lazy}"
            )
        if packing > 1 and conditions:
            raise ValueError(
                "a packed discriminator judges several samples at once and takes no condition; use packing=1"
            )
        self.generator, self.discriminator, self.losses = generator, discriminator, loss
        self.latents, self.lazy, self.d_steps, self.packing, self.conditions = (
            latents,
            lazy,
            d_steps,
            packing,
            conditions,
        )
        self.gammas = tuple(g if callable(g) else (lambda _, g=g: g) for g in (r1, r2))
        self.penalty = gradient_penalty
        if gradient_penalty or any(callable(g) or g for g in (r1, r2)):
            check_penalised(discriminator)
        self.augment = augment
        self.lr, self.d_lr, self.betas = lr, d_lr or lr, betas

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "g": torch.optim.Adam(self.generator.parameters(), lr=self.lr, betas=self.betas),
            "d": torch.optim.Adam(self.discriminator.parameters(), lr=self.d_lr, betas=self.betas),
        }

    def step(self, batch: Any, t: Any) -> dict[str, Tensor]:
        x, *cond = (batch,) if isinstance(batch, Tensor) else tuple(batch)
        cond, metrics, b = cond[: len(self.conditions)], {}, len(x)
        penalised = t.step % self.lazy == 0
        r1, r2 = (self.lazy * gamma(t.step) if penalised else 0.0 for gamma in self.gammas)
        numbers = 0 if self.augment is None else self.augment.numbers
        for _ in range(self.d_steps):
            given = (x, t.randn(b, self.latents), t.rand(b), t.rand(b, 2, numbers), *cond)
            judge = lambda *parts: self.d_loss(*parts, r1=r1, r2=r2, penalty=self.penalty * self.lazy * penalised)
            metrics["d"] = t.minimize("d", judge, *given)
        metrics["g"] = t.minimize("g", self.g_loss, x, t.randn(b, self.latents), t.rand(b, 2, numbers), *cond)
        if self.augment is not None:
            metrics |= self.augment.adapt(t, b)
        return metrics

    def d_loss(
        self, x: Tensor, z: Tensor, mix: Tensor, u: Tensor, *cond: Tensor, r1: float, r2: float, penalty: float
    ) -> Float[Tensor, ""]:
        """The discriminator's loss; fakes are constants."""
        named = dict(zip(self.conditions, cond, strict=True))
        with torch.no_grad():
            fake = self.generator(z, **named)
        x, fake = pack(x, self.packing), pack(fake, self.packing)
        x, fake = (v.detach().requires_grad_(bool(gamma)) for v, gamma in ((x, r1), (fake, r2)))
        real_logits, fake_logits = self._judge(x, u[:, 0], named, watch=True), self._judge(fake, u[:, 1], named)
        loss = self.losses.d(real_logits, fake_logits)
        if r1:
            loss = loss + r1 / 2 * squared_gradient(real_logits, x)
        if r2:
            loss = loss + r2 / 2 * squared_gradient(fake_logits, fake)
        if penalty:
            mix = mix[:: self.packing]
            loss = loss + penalty * gradient_penalty(lambda v: self.discriminator(v, **named), x, fake, mix)
        return loss.mean()

    def g_loss(self, x: Tensor, z: Tensor, u: Tensor, *cond: Tensor) -> Float[Tensor, ""]:
        """The generator's loss, which needs the real logits where the loss is relativistic."""
        named = dict(zip(self.conditions, cond, strict=True))
        fake = self._judge(pack(self.generator(z, **named), self.packing), u[:, 1], named)
        with torch.no_grad():
            real = self._judge(pack(x, self.packing), u[:, 0], named)
        return self.losses.g(real, fake).mean()

    def _judge(self, x: Tensor, u: Tensor, named: dict[str, Tensor], watch: bool = False) -> Tensor:
        if self.augment is not None:
            x = self.augment(x, u[:: self.packing])
        logits = self.discriminator(x, **named)
        if logits.shape != x.shape[:1]:
            raise ValueError(
                f"the discriminator gave logits of shape {tuple(logits.shape)} for {len(x)} samples; it has to give ({len(x)},)"
            )
        if watch and self.augment is not None:
            self.augment.watch(logits.detach())
        return logits
