"""Adversarial losses as functions of logits, penalties as functions of gradients, and the task that plays the game.

    loss = relativistic.d(D(x), D(G(z))) + 0.5 * gamma * (r1 + r2)          # one number per sample
    GANTask(generator, discriminator, relativistic, r1=1.0, r2=1.0)

A loss is a pair of functions of (real logits, fake logits), each of shape (b,): `d` is what the discriminator
minimises, `g` what the generator does. At logits of 0 the logistic losses of the discriminator are 2 ln 2; at equal
logits the relativistic one is ln 2. A falling loss does not tell that samples improve: count modes (`modes`), or
compare distributions (`gen_core.metrics`). Sample from the moving average of the generator's weights, which gen-core's
`EMA("generator", 0.998)` keeps as a callback of the Trainer.

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
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from gen_core.task import Task

Logits = Float[Tensor, "b"]


class GANLoss:
    """What each player minimises, per sample, as functions of (real logits, fake logits).

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


class GANTask(Task):
    """The two-player game: the discriminator's update, then the generator's.

    Args:
        generator: `(z, **cond) -> x`.
        discriminator: `(x, **cond) -> logits (b,)`; with `packing`, it sees that many times the channels.
        loss: one of the pairs above.
        latents: dimensions of z, which is standard normal.
        r1, r2: gamma of half the squared gradient at real and at fake samples; a number, or a function of the step.
        gradient_penalty: lambda of the penalty between them.
        lazy: the penalties are applied in every `lazy`-th step, that many times as strong ([Karras20] appendix B).
        augment: `(x, u) -> x` on whatever the discriminator judges, with `augment.numbers` uniform numbers a sample;
            the penalties are of the pictures before it. See `gen_latent.augment`.
        d_steps: updates of the discriminator for one of the generator: the same real samples, other latents.
        packing: samples that the discriminator judges at once.
        conditions: names of the conditions that follow x in a batch, for both networks; fake i carries those of real i.
        lr, d_lr, betas: of Adam; `d_lr` is `lr` unless given.

    Raises:
        ValueError: for a penalty on a discriminator with BatchNorm, or a packed discriminator with conditions.
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
        for name, value in {"latents": latents, "lazy": lazy, "d_steps": d_steps, "packing": packing}.items():
            if value < 1:
                raise ValueError(f"{name} is at least 1, got {value}")
        if packing > 1 and conditions:
            raise ValueError(
                "a packed discriminator judges several samples at once and takes no condition; use packing=1"
            )
        if gradient_penalty or any(callable(g) or g for g in (r1, r2)):
            check_penalised(discriminator)
        self.generator, self.discriminator, self.losses = generator, discriminator, loss
        self.latents, self.conditions = latents, conditions
        self.gammas = tuple(g if callable(g) else (lambda _, g=g: g) for g in (r1, r2))
        self.gradient_penalty, self.lazy = gradient_penalty, lazy
        self.augment, self.d_steps, self.packing = augment, d_steps, packing
        self.lr, self.d_lr, self.betas = lr, lr if d_lr is None else d_lr, betas

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        players = {"g": (self.generator, self.lr), "d": (self.discriminator, self.d_lr)}
        return {
            name: torch.optim.Adam(net.parameters(), lr=lr, betas=self.betas, fused=True)
            for name, (net, lr) in players.items()
        }

    def step(self, batch: Any, t: Any) -> dict[str, Tensor]:
        x, *cond = self._unpack(batch)
        b, x = len(x), pack(x, self.packing)
        n = len(x)
        latents = lambda: t.randn(n, self.packing * self.latents)
        numbers = 0 if self.augment is None else self.packing * self.augment.numbers
        uniform = lambda: t.rand(n, 2, numbers) if numbers else x.new_empty(n, 2, 0)
        often = 0 if t.step % self.lazy else self.lazy
        r1, r2 = (often * gamma(t.step) for gamma in self.gammas)
        penalty, metrics = often * self.gradient_penalty, {}
        mix = lambda: t.rand(n) if penalty else x.new_zeros(n)
        d_loss = partial(self.d_loss, r1=r1, r2=r2, penalty=penalty)
        for _ in range(self.d_steps):
            metrics["d"] = t.minimize("d", d_loss, x, latents(), uniform(), mix(), *cond)
        metrics["g"] = t.minimize("g", self.g_loss, x, latents(), uniform(), *cond)
        return metrics if self.augment is None else metrics | self.augment.adapt(t, b)

    def d_loss(
        self,
        x: Float[Tensor, "n mc *shape"],
        z: Float[Tensor, "n md"],
        u: Float[Tensor, "n 2 numbers"],
        mix: Float[Tensor, "n"],
        *cond: Tensor,
        r1: float = 0.0,
        r2: float = 0.0,
        penalty: float = 0.0,
    ) -> Float[Tensor, ""]:
        """The discriminator's loss; fakes are constants. Rows are packs of samples, one sample each without packing."""
        named = dict(zip(self.conditions, cond, strict=True))
        with torch.no_grad():
            fake = self._fake(z, named)
        x, fake = x.detach().requires_grad_(r1 > 0), fake.requires_grad_(r2 > 0)
        real_logits, fake_logits = self._judge(x, u[:, 0], named), self._judge(fake, u[:, 1], named)
        if self.augment is not None:
            self.augment.watch(real_logits.detach())
        loss = self.losses.d(real_logits, fake_logits)
        if r1:
            loss = loss + r1 / 2 * squared_gradient(real_logits, x)
        if r2:
            loss = loss + r2 / 2 * squared_gradient(fake_logits, fake)
        if penalty:
            loss = loss + penalty * gradient_penalty(partial(self.discriminator, **named), x, fake, mix)
        return loss.mean()

    def g_loss(
        self, x: Float[Tensor, "n mc *shape"], z: Float[Tensor, "n md"], u: Float[Tensor, "n 2 numbers"], *cond: Tensor
    ) -> Float[Tensor, ""]:
        """The generator's loss; real logits are constants."""
        named = dict(zip(self.conditions, cond, strict=True))
        fake = self._judge(self._fake(z, named), u[:, 1], named)
        if not self.losses.paired:
            return self.losses.g(fake.detach(), fake).mean()
        with torch.no_grad():
            real = self._judge(x, u[:, 0], named)
        return self.losses.g(real, fake).mean()

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None, **cond: Tensor) -> Tensor:
        """`n` samples of the generator, on its device."""
        z = torch.randn(n, self.latents, generator=generator, device=generator.device if generator else None)
        return self.generator(z.to(next(self.generator.parameters())), **cond)

    def _fake(self, z: Tensor, named: dict[str, Tensor]) -> Tensor:
        return pack(self.generator(z.reshape(-1, self.latents), **named), self.packing)

    def _judge(self, x: Tensor, u: Tensor, named: dict[str, Tensor]) -> Logits:
        if self.augment is not None:
            x = pack(self.augment(unpack(x, self.packing), u.reshape(-1, self.augment.numbers)), self.packing)
        logits = self.discriminator(x, **named)
        if logits.shape != x.shape[:1]:
            raise ValueError(
                f"the discriminator gave logits of shape {tuple(logits.shape)} for {len(x)} samples; it has to give "
                f"({len(x)},), one number each"
            )
        return logits

    def _unpack(self, batch: Any) -> tuple[Tensor, ...]:
        x, *rest = (batch,) if isinstance(batch, Tensor) else tuple(batch)
        if len(rest) < len(self.conditions):
            raise ValueError(
                f"a batch of {len(rest) + 1} tensors lacks conditions: the networks take {self.conditions}"
            )
        return x, *rest[: len(self.conditions)]
