"""Training a denoiser under gen-core's Trainer."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gen_core.task import Task, decay_groups
from gen_diffusion.denoise import Preconditioned
from gen_diffusion.guide import drop
from gen_diffusion.loss import denoising_loss, edm_weight, log_normal

QUANTILES = 4  # noise levels in a validation loss


class DiffusionTask(Task):
    """Denoising of `(x0, label)` batches, or of `x0` alone, by AdamW.

    Args:
        denoiser: the network to train, preconditioned.
        num_classes: 0 ignores the labels of a batch; otherwise they are dropped for index `num_classes`, the null
            class, with probability `p_drop` for each sample.
        levels: standard normals -> training noise levels. None is the paper's `log_normal`, which is for data of
            standard deviation 0.5, in proportion to sigma_data: the unit of the data makes no difference.
        lr: peak learning rate, multiplied by the Trainer's schedule.

    >>> from gen_diffusion import MLP
    >>> task = DiffusionTask(Preconditioned(MLP(dim=2), sigma_data=0.5))
    >>> task.evaluate(torch.randn(5, 2))["loss"].shape
    torch.Size([5])
    """

    def __init__(
        self,
        denoiser: Preconditioned,
        *,
        num_classes: int = 0,
        p_drop: float = 0.1,
        levels: Callable[[Tensor], Tensor] | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        super().__init__()
        self.denoiser = denoiser
        self.num_classes = num_classes
        self.p_drop = p_drop
        self.levels = levels or partial(log_normal, mean=-1.2 + math.log(denoiser.sigma_data / 0.5))
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        groups = decay_groups(self.denoiser, self.weight_decay)
        return {"net": torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, fused=True)}

    def step(self, batch: Any, t: Any) -> dict[str, Tensor]:
        x0, *label = self._unpack(batch)
        label = [drop(l, t.rand(len(l)) < self.p_drop, null=self.num_classes) for l in label]
        sigma, noise = self.levels(t.randn(len(x0))), t.randn_like(x0)
        return {"loss": t.minimize("net", self.loss, x0, sigma, noise, *label)}

    def loss(
        self, x0: Float[Tensor, "b *shape"], sigma: Float[Tensor, "b"], noise: Float[Tensor, "b *shape"], *label: Tensor
    ) -> Float[Tensor, ""]:
        """The weighted denoising loss, averaged over samples and dimensions; 1 for a network that answers 0."""
        return self._losses(x0, sigma, noise, *label).mean()

    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        """The same loss per sample, averaged over fixed quantiles of the training levels."""
        x0, *label = self._unpack(batch)
        u = (torch.arange(QUANTILES, device=x0.device, dtype=x0.dtype) + 0.5) / QUANTILES
        sigmas = self.levels(torch.special.ndtri(u))
        losses = [self._losses(x0, s.expand(len(x0)), torch.randn_like(x0), *label) for s in sigmas]
        return {"loss": torch.stack(losses).mean(0)}

    def _losses(self, x0: Tensor, sigma: Tensor, noise: Tensor, *label: Tensor) -> Float[Tensor, "b"]:
        cond = {"label": label[0]} if label else {}
        error = denoising_loss(self.denoiser, x0, sigma, noise, **cond)
        return edm_weight(sigma, self.denoiser.sigma_data) * error

    def _unpack(self, batch: Any) -> tuple[Tensor, ...]:
        """`(x0, label)`, or `(x0,)` where the batch has no labels or the task wants none."""
        parts = (batch,) if isinstance(batch, Tensor) else tuple(batch)
        return parts[: 2 if self.num_classes else 1]
