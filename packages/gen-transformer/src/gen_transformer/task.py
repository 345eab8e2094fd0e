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

from gen_core.step import Step
from gen_core.task import Metrics, Task
from gen_transformer.loss import lm_loss
from gen_transformer.model import EncoderDecoder, Transformer
from gen_transformer.optim import optimizer
from gen_transformer.rnn import CharRNN

Batch = Sequence[Tensor]  # ids, targets, weight and perhaps doc; each (b, t)


class LMTask(Task):
    """Next-token prediction on batches `(ids, targets, weight, doc)`, or with a source `(..., source, source_doc)`.

    Without `doc` a row is one document, padded on the right at most. On a GPU, where looking at `doc` would wait for
    it, attention then needs no mask and takes its fastest kernel.

    The gradient is that of (sum of the losses of tokens) / (weight of tokens) over the global batch, however it is cut
    into micro-batches and processes and whatever is masked in each.

    Args:
        model: what is trained; an encoder-decoder has batches with a source, `(b, s)` each.
        lr, muon, weight_decay, betas: see `optimizer`.
        smoothing, z: see `lm_loss`; only in training.
        compile: make one graph of the network and its loss (torch.compile with fullgraph), for training only:
            what is generated meanwhile changes its shape at every token.
    """

    def __init__(
        self,
        model: Transformer | EncoderDecoder | CharRNN,
        *,
        lr: float = 1e-3,
        muon: float | None = None,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        smoothing: float = 0.0,
        z: float = 0.0,
        compile: bool = False,
    ):
        super().__init__()
        self.model, self.smoothing, self.z = model, smoothing, z
        self._graph = torch.compile(self.loss, fullgraph=True) if compile else None
        self.rates: dict[str, Any] = {"lr": lr, "muon": muon, "weight_decay": weight_decay, "betas": betas}

    def optimizers(self) -> dict[str, Optimizer]:
        return {"model": optimizer(self.model, **self.rates)}

    def loss(
        self,
        ids: Int[Tensor, "b t"],
        targets: Int[Tensor, "b t"],
        weight: Float[Tensor, "b t"],
        doc: Int[Tensor, "b t"] | None = None,
        *source: Int[Tensor, "b s"],
    ) -> Float[Tensor, ""]:
        """Mean over the weight of these tokens, in nats; 0 where none counts, as may be on one of several processes."""
        total = weight.sum()
        return lm_loss(
            self._hidden(ids, doc, *source), self.model.output, targets, weight, total=total.where(total > 0, 1),
            bias=getattr(self.model, "bias", None), smoothing=self.smoothing, z=self.z, softcap=self._softcap,
        )  # fmt: skip

    def step(self, batch: Batch, t: Step) -> dict[str, Tensor]:
        return {"loss": t.minimize("model", self._graph or self.loss, *batch, weight=lambda *micro: micro[2].sum())}

    def evaluate(self, batch: Batch) -> Metrics:
        """Nats per token of each row, to be averaged by its tokens; logits exist for a row at a time."""
        ids, targets, weight, *rest = batch
        head = {"head": self.model.output.detach(), "bias": getattr(self.model, "bias", None), "softcap": self._softcap}
        rows = zip(self._hidden(ids, *rest), targets, weight, strict=True)
        nats = [lm_loss(hidden, targets=y, weight=w, total=1, **head) for hidden, y, w in rows]
        count = weight.sum(1)
        return {"loss": (torch.stack(nats) / count, count)}

    def _hidden(self, ids: Tensor, doc: Tensor | None = None, *source: Tensor) -> Tensor:
        if not source:
            return self.model(ids, doc=doc)
        return self.model(source[0], ids, source_doc=source[1], doc=doc)

    @property
    def _softcap(self) -> float | None:
        return getattr(self.model.config, "softcap", None)
