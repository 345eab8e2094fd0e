"""Training a denoiser under gen-core's Trainer."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gen_core.step import Step
from gen_core.task import Task, decay_groups, unpack
from gen_diffusion.denoise import Preconditioned
from gen_diffusion.guide import drop
from gen_diffusion.loss import Uncertainty, denoising_loss, edm_weight, log_normal, masked_loss

QUANTILES = 4  # noise levels in a validation loss


class DiffusionTask(Task):
    """Denoising of `(x0, *conditions)` batches, or of `x0` alone, by AdamW.

    Args:
        denoiser: the network to train, preconditioned.
        conditions: name of each condition of a batch, in order, with the value that stands for none: `{"label": 10}`
            for ten classes, `{"text": 0}` for token ids. Each is dropped for it with probability `p_drop` for each
            sample, all of a sample together. Other parts of a batch are ignored.
        mask: name of the condition that is True where x0 is real, as `masked_loss` takes it: the loss averages over
            what is real. The denoiser is told it like the others, but it is never dropped, whatever stands for none.
        levels: standard normals -> training noise levels. None is the paper's `log_normal`, which is for data of
            standard deviation 0.5, in proportion to sigma_data: the unit of the data makes no difference.
        weight: noise levels -> weight of the squared error of x0; None is `edm_weight`.
        uncertainty: a learned `Uncertainty` that evens out what each level says in the gradient.
        pairing: `(x0, noise) -> noise` in another order, over the global batch, such as `ot_pairing`.
        encode: x0 of the batch -> what the denoiser is trained on: the door to latent diffusion.
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
        conditions: Mapping[str, int | float] | None = None,
        mask: str | None = None,
        p_drop: float = 0.1,
        levels: Callable[[Tensor], Tensor] | None = None,
        weight: Callable[[Tensor], Tensor] | None = None,
        uncertainty: Uncertainty | None = None,
        pairing: Callable[[Tensor, Tensor], Tensor] | None = None,
        encode: Callable[[Tensor], Tensor] | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        super().__init__()
        if not 0 <= p_drop <= 1:
            raise ValueError(f"p_drop is the share of samples without their conditions, from 0 to 1; got {p_drop}")
        if mask is not None and mask not in (conditions or {}):
            raise ValueError(f"mask={mask!r} is none of the conditions {list(conditions or {})}; name it there too")
        if mask is not None and pairing is not None:
            raise ValueError("pairing compares whole samples, and with mask their sizes differ; give one of the two")
        self.denoiser = denoiser
        self.uncertainty = uncertainty
        self.conditions = dict(conditions or {})
        self.mask, self.p_drop = mask, p_drop
        self.levels = levels or partial(log_normal, mean=-1.2 + math.log(denoiser.sigma_data / 0.5))
        self.weight = weight or partial(edm_weight, sigma_data=denoiser.sigma_data)
        self.pairing = pairing
        self._encode = [encode]  # in a list, so that a network is no part of this one's weights
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "net": torch.optim.AdamW(decay_groups(self, self.weight_decay), lr=self.lr, betas=self.betas, fused=True)
        }

    def step(self, batch: Any, t: Step) -> dict[str, Tensor]:
        x0, *given = self._unpack(batch)
        dropped = t.rand(len(x0)) < self.p_drop if given else torch.zeros(0)
        named = zip(self.conditions.items(), given, strict=True)
        cond = [c if name == self.mask else drop(c, dropped, null) for (name, null), c in named]
        sigma, noise = self.levels(t.randn(len(x0))), t.randn_like(x0)
        if self.pairing is not None:
            mine = slice(t.rank * len(x0), (t.rank + 1) * len(x0))
            noise = self.pairing(t.gather(x0), t.gather(noise))[mine]
        return {"loss": t.minimize("net", self.loss, x0, sigma, noise, *cond)}

    def loss(
        self, x0: Float[Tensor, "b *shape"], sigma: Float[Tensor, "b"], noise: Float[Tensor, "b *shape"], *cond: Tensor
    ) -> Float[Tensor, ""]:
        """The weighted denoising loss, averaged over samples and dimensions.

        With the EDM view and weight it is 1 for a network that answers 0.
        """
        losses = self._losses(x0, sigma, noise, *cond)
        return (losses if self.uncertainty is None else self.uncertainty(losses, sigma)).mean()

    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        """The weighted loss per sample, without the learned uncertainty, over fixed quantiles of the levels."""
        x0, *cond = self._unpack(batch)
        u = (torch.arange(QUANTILES, device=x0.device, dtype=x0.dtype) + 0.5) / QUANTILES
        sigmas = self.levels(torch.special.ndtri(u))
        losses = [self._losses(x0, s.expand(len(x0)), torch.randn_like(x0), *cond) for s in sigmas]
        return {"loss": torch.stack(losses).mean(0)}

    def _losses(self, x0: Tensor, sigma: Tensor, noise: Tensor, *cond: Tensor) -> Float[Tensor, "b"]:
        named = dict(zip(self.conditions, cond, strict=True))
        if self.mask is None:
            return self.weight(sigma) * denoising_loss(self.denoiser, x0, sigma, noise, **named)
        return self.weight(sigma) * masked_loss(self.denoiser, x0, sigma, noise, named[self.mask], **named)

    def _unpack(self, batch: Any) -> tuple[Tensor, ...]:
        """`(x0, *conditions)`, x0 encoded."""
        x0, *cond = unpack(batch, self.conditions)
        encode = self._encode[0]
        if encode is not None:
            with torch.no_grad():
                x0 = encode(x0)
        return x0, *cond
