"""What generation starts from: a model that can be continued, and prompts.

    ids, doc = left_pad([[5, 6, 7], [8]])

A model is anything with `model(ids, doc=, cache=) -> hidden`, `model.logits(hidden)`, `model.cache(batch, length)` and
`model.config`: a Transformer, an EncoderDecoder `given` its source, a recurrent network.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from gen_transformer.model import check_ids


@runtime_checkable
class LanguageModel(Protocol):
    """What can be continued."""

    config: Any
    """Has `vocab` and `context`."""

    def __call__(self, ids: Tensor, *, doc: Tensor | None = None, cache: Any = None) -> Tensor: ...
    def logits(self, hidden: Tensor) -> Tensor: ...
    def cache(self, batch: int, length: int) -> Any: ...


def left_pad(
    prompts: Sequence[Sequence[int]], *, device: torch.device | str = "cpu"
) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
    """Prompts of any lengths as `(ids, doc)`, their ends aligned; `doc` is 0 for a token and -1 for padding.

    >>> ids, doc = left_pad([[5, 6, 7], [8]])
    >>> ids.tolist(), doc.tolist()
    ([[5, 6, 7], [0, 0, 8]], [[0, 0, 0], [-1, -1, 0]])
    """
    longest = max(map(len, prompts), default=0)
    ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    doc = [[-1] * (longest - len(prompt)) + [0] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device).long(), torch.tensor(doc, device=device).long()


def check_prompt(model: LanguageModel, ids: Tensor, n: int, doc: Tensor | None) -> None:
    if n < 1:
        raise ValueError(f"generate makes at least 1 token, got n={n}")
    if not ids.numel():
        raise ValueError("the prompt is empty; start it with one token, such as the tokeniser's beginning of text")
    check_ids(ids, model.config.vocab)
    if doc is not None and bool((doc[:, -1] < 0).any()):
        row = int((doc[:, -1] < 0).nonzero()[0])
        raise ValueError(f"prompt {row} is empty or ends in padding; pad on the left, as left_pad does")


def history(ids: Int[Tensor, "b t"], doc: Int[Tensor, "b t"] | None, n: int) -> Int[Tensor, "b t_and_n"]:
    """The documents that go on, with room for n tokens; -1 stands for all else and for what is to come."""
    seen = ids if doc is None else ids.where(doc == doc[:, -1:], -1)
    return torch.cat((seen, seen.new_full((len(ids), n), -1)), dim=1)
