"""Cost of texts under a model, with intervals over their documents."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from gen_apps.results import Row, figure
from gen_core.intervals import bootstrap
from gen_core.runtime import generator
from gen_transformer import Tokenizer, Transformer
from gen_transformer.evaluate import Score, score_each

DOCUMENTS = 4  # that an interval needs


def scored(model: Transformer, tok: Tokenizer, texts: Sequence[str], **how: Any) -> tuple[Score, dict[str, Row]]:
    """The sums over all documents; bits per byte and per character and nats per token, whose `n` counts documents.

    Intervals are over documents, where there are four or more.

    Args:
        how: as `gen_transformer.score` takes it.

    Raises:
        ValueError: when no document has a token to predict.
    """
    parts = [part for part in score_each(model, tok, texts, **how) if part.tokens]
    if not parts:
        raise ValueError("no token to predict: the texts are empty, or single tokens without bos; give longer ones")
    total = Score(math.fsum(p.nats for p in parts), sum(p.tokens for p in parts), sum(p.bytes for p in parts))
    whole = "".join(texts)
    sizes = {
        "bits per byte": (total.bytes * math.log(2), "bits"),
        "bits per character": (total.bytes * math.log(2) * len(whole) / len(whole.encode()), "bits"),
        "nats per token": (total.tokens, "nats"),
    }
    rows = torch.tensor([[p.nats, p.tokens, p.bytes] for p in parts], dtype=torch.float64)
    return total, {
        name: _figure(rows, 1 if unit == "nats" else 2, total.nats / size, unit) for name, (size, unit) in sizes.items()
    }


def _figure(rows: torch.Tensor, by: int, value: float, unit: str) -> Row:
    """A value proportional to the nats over the column `by`, and its interval where there are enough documents."""
    if len(rows) < DOCUMENTS:
        return figure(value, n=len(rows), unit=unit)
    ratio = lambda a, _: (a[:, 0].sum() / a[:, by].sum()).item()
    found = bootstrap(ratio, rows, rows, bounds=(0, math.inf), generator=generator("documents"))
    ends = [value * end / found.value for end in (found.low, found.high)]
    return figure(value, interval=ends, n=len(rows), unit=unit)
