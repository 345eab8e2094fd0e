"""The game of two networks: the discriminator's update, then the generator's, under gen-core's Trainer.

    task = GANTask(generator, discriminator, relativistic, latents=64, r1=1.0, r2=1.0)
    Trainer(task, callbacks=[EMA("generator", 0.998)]).fit(data, steps=10_000)

Sample from the moving average of the generator's weights, which gen-core's EMA keeps: `with ema.swapped():
task.sample(64)`.

[Karras20] Analyzing and improving the image quality of StyleGAN, arXiv:1912.04958.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from gen_core.step import Step
from gen_core.task import Task
from gen_core.task import unpack as unpack_batch
from gen_latent.gan import (
    GANLoss,
    Logits,
    check_penalised,
    gradient_penalty,
    pack,
    relativistic,
    squared_gradient,
    unpack,
)


class GANTask(Task):
    """The two-player game: the discriminator's update, then the generator's.

    Args:
        generator: `(z, **cond) -> x`.
        discriminator: `(x, **cond) -> logits (b,)`; with `packing`, it sees that many times the channels.
        loss: one of the pairs of `gan`.
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
        ValueError: for a penalty on a discriminator with BatchNorm, a packed discriminator with conditions, or `lazy`
            without a penalty.
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
        elif lazy > 1:
            raise ValueError(f"lazy={lazy} spaces out penalties, and there is none; give r1, r2 or gradient_penalty")
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

    def step(self, batch: Any, t: Step) -> dict[str, Tensor]:
        x, *cond = unpack_batch(batch, self.conditions)
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
        """The generator's loss; real logits are constants, and the discriminator's buffers stay as they are."""
        named = dict(zip(self.conditions, cond, strict=True))
        fake = self._judge(self._fake(z, named), u[:, 1], named, hold=True)
        if not self.losses.paired:
            return self.losses.g(fake.detach(), fake).mean()
        with torch.no_grad():
            real = self._judge(x, u[:, 0], named, hold=True)
        return self.losses.g(real, fake).mean()

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None, **cond: Tensor) -> Tensor:
        """`n` samples of the generator, on its device."""
        z = torch.randn(n, self.latents, generator=generator, device=generator.device if generator else None)
        return self.generator(z.to(next(self.generator.parameters())), **cond)

    def _fake(self, z: Tensor, named: dict[str, Tensor]) -> Tensor:
        return pack(self.generator(z.reshape(-1, self.latents), **named), self.packing)

    def _judge(self, x: Tensor, u: Tensor, named: dict[str, Tensor], hold: bool = False) -> Logits:
        """Logits of augmented samples; `hold` lets the discriminator write into copies of its buffers."""
        if self.augment is not None:
            x = pack(self.augment(unpack(x, self.packing), u.reshape(-1, self.augment.numbers)), self.packing)
        copies = {name: b.clone() for name, b in self.discriminator.named_buffers()} if hold else {}
        logits = functional_call(self.discriminator, copies, (x,), named) if copies else self.discriminator(x, **named)
        if logits.shape != x.shape[:1]:
            raise ValueError(
                f"the discriminator gave logits of shape {tuple(logits.shape)} for {len(x)} samples; it has to give "
                f"({len(x)},), one number each"
            )
        return logits
