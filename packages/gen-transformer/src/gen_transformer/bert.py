"""BERT: an encoder that fills in masked words and tells whether one sentence follows another.

    bert = Bert(Config(vocab=30522, dim=768, layers=12, heads=12, context=512, causal=False, **BERT))
    words, follows = bert(ids, segment)          # (b, t, vocab), (b, 2)

Training text is made by `nsp_pairs` (which sentences), `join` (one row of both) and `mask_tokens` (which words), each a
function of its generator: given one that is keyed by the epoch, as gen-core's `Loader` hands to its `transform`, every
epoch sees other masks.

[Devlin19] BERT, arXiv:1810.04805.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gen_core.description import describable
from gen_core.step import Step
from gen_core.task import Task, decay_groups
from gen_transformer.attention import positions
from gen_transformer.config import Config
from gen_transformer.loss import lm_loss
from gen_transformer.model import Transformer, check_ids, norm

BERT: dict[str, Any] = {
    "norm": "layer",
    "norm_eps": 1e-12,
    "post_norm": True,
    "mlp": "gelu",
    "pos": "learned",
    "bias": "all",
    "causal": False,
    "tie": True,
}
"""What makes a `Config` a BERT ([Devlin19] section 3)."""


@describable
class Bert(nn.Module):
    """Words, places and segments, an encoder over their sum, and a head for each of the two tasks.

    Args:
        cfg: an encoder with learned positions, `Config(..., **BERT)`.
        segments: kinds of segment.
        sentences: whether there is a pooler and a head for sentence pairs.
    """

    def __init__(self, cfg: Config, *, segments: int = 2, sentences: bool = True):
        super().__init__()
        wrong = {k: v for k, v in {"causal": False, "pos": "learned", "tie": True}.items() if getattr(cfg, k) != v}
        if wrong:
            raise ValueError(f"a BERT has {wrong}; make its config by Config(..., **BERT)")
        self.config = cfg
        self.tokens = nn.Embedding(cfg.vocab, cfg.dim)
        self.places = nn.Embedding(cfg.context, cfg.dim)
        self.segments = nn.Embedding(segments, cfg.dim)
        self.norm, self.drop = norm(cfg), nn.Dropout(cfg.dropout)
        self.trunk = Transformer(replace(cfg, vocab=0, pos="none"))
        self.transform, self.transform_norm = nn.Linear(cfg.dim, cfg.dim), norm(cfg)
        self.bias = nn.Parameter(torch.zeros(cfg.vocab))
        self.pooler = nn.Linear(cfg.dim, cfg.dim) if sentences else None
        self.follows = nn.Linear(cfg.dim, 2) if sentences else None
        for module in (self.tokens, self.places, self.segments, self.transform, self.pooler, self.follows):
            if module is not None:
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self,
        ids: Int[Tensor, "b t"],
        segment: Int[Tensor, "b t"] | None = None,
        doc: Int[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t vocab"], Float[Tensor, "b 2"] | None]:
        """Logits of every word, and of (the second sentence follows, it does not) where the model has that head.

        Args:
            segment: 0 for the first sentence, 1 for the second; None: all 0.
            doc: document of each token, negative for padding; None: one document a row.
        """
        x = self.hidden(ids, segment, doc)
        return F.linear(self.words(x), self.tokens.weight, self.bias), self.pairs(x)

    def hidden(
        self, ids: Int[Tensor, "b t"], segment: Int[Tensor, "b t"] | None = None, doc: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """The encoder's last states."""
        if ids.shape[1] > self.config.context:
            raise ValueError(f"{ids.shape[1]} tokens do not fit the context of {self.config.context}; cut the text")
        if ids.device.type == "cpu" and not torch.compiler.is_compiling():
            check_ids(ids, self.config.vocab)
        place = torch.arange(ids.shape[1], device=ids.device)[None] if doc is None else positions(doc)
        kind = torch.zeros_like(ids) if segment is None else segment
        x = self.tokens(ids) + self.segments(kind) + self.places(place)
        return self.trunk(embeds=self.drop(self.norm(x)), doc=doc)

    def words(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """What is multiplied with the token table to fill in a word."""
        return self.transform_norm(F.gelu(self.transform(hidden)))

    def pairs(self, hidden: Float[Tensor, "b t d"]) -> Float[Tensor, "b 2"] | None:
        """Logits of (follows, does not follow) from the first token of each row."""
        if self.pooler is None or self.follows is None:
            return None
        return self.follows(torch.tanh(self.pooler(hidden[:, 0])))


# ---------------------------------------------------------------------- training text


def mask_tokens(
    ids: Int[Tensor, "*b"],
    *,
    vocab: int,
    mask: int,
    keep: Sequence[int] | Bool[Tensor, "*b"],
    share: float = 0.15,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "*b"], Bool[Tensor, "*b"]]:
    """Corrupted ids, and which positions are to be predicted ([Devlin19] section 3.1, task 1).

    Each word is chosen with probability `share`; of those chosen 80 % become `mask`, 10 % a random word of the whole
    vocabulary, and 10 % stay as they are, so that the model cannot tell which words count.

    Args:
        keep: what is never chosen: ids of control tokens and padding, or a mask over the positions.
    """
    if isinstance(keep, Tensor):
        fixed = keep
    else:
        fixed = torch.isin(ids, torch.tensor(list(keep), dtype=torch.long, device=ids.device))
    draw = lambda: torch.rand(ids.shape, generator=generator, device=ids.device)
    chosen = (draw() < share) & ~fixed
    word = torch.randint(vocab, ids.shape, generator=generator, device=ids.device)
    fate = draw()
    corrupted = torch.where(fate < 0.8, mask, torch.where(fate < 0.9, word, ids))
    return torch.where(chosen, corrupted, ids), chosen


Pair = tuple[list[int], list[int], int]


def nsp_pairs(documents: Sequence[Sequence[list[int]]], *, generator: torch.Generator | None = None) -> list[Pair]:
    """(sentence, sentence, label) for each sentence that has a successor ([Devlin19] section 3.1, task 2).

    Half of them get their successor and the label 0, half a random sentence of another document and the label 1.

    Args:
        documents: each a list of sentences, each a list of ids.
    """
    if len(documents) < 2:
        raise ValueError(f"negatives come from another document, so there must be 2 or more, got {len(documents)}")
    draw = lambda n: int(torch.randint(n, (), generator=generator))
    pairs = []
    for i, sentences in enumerate(documents):
        for first, second in pairwise(sentences):
            if draw(2):
                pairs.append((first, second, 0))
            else:
                other = documents[(i + 1 + draw(len(documents) - 1)) % len(documents)]
                pairs.append((first, other[draw(len(other))], 1))
    return pairs


def join(
    first: list[int], second: list[int], *, length: int, cls: int, sep: int, pad: int = 0
) -> tuple[Int[Tensor, "t"], Int[Tensor, "t"], Int[Tensor, "t"]]:
    """[CLS] first [SEP] second [SEP] as (ids, segment, doc), padded to `length`; the longer one is cut at its end."""
    first, second = list(first), list(second)
    if length < 5:
        raise ValueError(f"two words and three control tokens need a length of 5 or more, got {length}")
    while len(first) + len(second) > length - 3:
        (first if len(first) > len(second) else second).pop()
    rows = [cls, *first, sep, *second, sep]
    kinds = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    rest = length - len(rows)
    ids, segment = torch.tensor(rows + [pad] * rest), torch.tensor(kinds + [0] * rest)
    return ids, segment, torch.tensor([0] * len(rows) + [-1] * rest)


class BertTask(Task):
    """Both tasks at once, the mean over masked words plus the mean over pairs ([Devlin19] appendix A.2).

    A batch is `(ids, segment, doc, targets, chosen, label)`: corrupted ids, the true ones, where they count, and
    (b,) 0 for a pair that belongs together; `chosen` comes from `mask_tokens`.

    Args:
        lr, weight_decay: of AdamW.
    """

    def __init__(self, bert: Bert, *, lr: float = 1e-4, weight_decay: float = 0.01):
        super().__init__()
        self.bert, self.lr, self.weight_decay = bert, lr, weight_decay

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"bert": torch.optim.AdamW(decay_groups(self.bert, self.weight_decay), lr=self.lr)}

    def loss(
        self,
        ids: Int[Tensor, "b t"],
        segment: Int[Tensor, "b t"],
        doc: Int[Tensor, "b t"],
        targets: Int[Tensor, "b t"],
        weight: Float[Tensor, "b t"],
        label: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """(sum of weight times the words' loss) / rows + the mean of the pairs' loss."""
        x = self.bert.hidden(ids, segment, doc)
        picked = weight != 0
        words = self.bert.words(x[picked])
        table, bias = self.bert.tokens.weight, self.bert.bias
        loss = lm_loss(words, table, targets[picked], weight[picked], bias=bias, total=len(ids))
        pairs = self.bert.pairs(x)
        if pairs is None:
            return loss
        return loss + F.cross_entropy(pairs.to(torch.promote_types(pairs.dtype, torch.float32)), label)

    def step(self, batch: Any, t: Step) -> dict[str, Any]:
        *rows, chosen, label = batch
        weight = chosen.to(self.bert.bias.dtype)
        total = t.reduce(weight.sum()).clamp(min=1)  # of this step, over all micro-batches and processes
        weight = weight * (len(label) / total)  # so that a mean over rows is a mean over words
        return {"loss": t.minimize("bert", self.loss, *rows, weight, label)}
