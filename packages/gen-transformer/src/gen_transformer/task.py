"""Training a language model under gen-core's Trainer: the loss of every token once, over all micro-batches and ranks.

task = LMTask(Transformer(cfg), lr=1e-3)
Trainer(task, clip=1.0, schedule=wsd(100, 2000, 400)).fit(Loader(rows, batch_size=32), steps=2000)
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim import Optimizer

from gen_core import Metrics, Task
from gen_transformer.loss import lm_loss
from gen_transformer.model import Transformer
from gen_transformer.optim import optimizer

Batch = Sequence[Tensor]  # ids, targets, weight, doc; each (b, t)


class LMTask(Task):
    """Next-token prediction on batches `(ids, targets, weight, doc)`.

    The gradient is that of (sum of the losses of tokens) / (weight of tokens) over the global batch, however it is cut
    into micro-batches and processes and whatever is masked in each.

    Args:
        model: the stack that is trained.
        lr, muon, weight_decay, betas: see `optimizer`.
        smoothing, z: see `lm_loss`; only in training.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        lr: float = 1e-3,
        muon: float | None = None,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        smoothing: float = 0.0,
        z: float = 0.0,
    ):
        super().__init__()
        self.model, self.smoothing, self.z = model, smoothing, z
        self.rates: dict[str, Any] = {"lr": lr, "muon": muon, "weight_decay": weight_decay, "betas": betas}

    def optimizers(self) -> dict[str, Optimizer]:
        return {"model": optimizer(self.model, **self.rates)}

    def loss(
        self,
        ids: Int[Tensor, "b t"],
        targets: Int[Tensor, "b t"],
        weight: Float[Tensor, "b t"],
        doc: Int[Tensor, "b t"],
    ) -> Float[Tensor, ""]:
        """Mean over the weight of these tokens, in nats."""
        hidden = self.model(ids, doc=doc)
        cap = self.model.config.softcap
        return lm_loss(hidden, self.model.output, targets, weight, smoothing=self.smoothing, z=self.z, softcap=cap)

    def step(self, batch: Batch, t: Any) -> dict[str, Tensor]:
        return {"loss": t.minimize("model", self.loss, *batch, weight=lambda *micro: micro[2].sum())}

    def evaluate(self, batch: Batch) -> Metrics:
        """Nats per token of each row, to be averaged by its tokens."""
        ids, targets, weight, doc = batch
        logits = self.model.logits(self.model(ids, doc=doc)).float()
        nats = logits.logsumexp(2) - logits.gather(2, targets.where(weight != 0, 0)[..., None])[..., 0]
        count = weight.sum(1)
        return {"loss": (torch.where(weight != 0, nats * weight, 0).sum(1) / count, count)}
