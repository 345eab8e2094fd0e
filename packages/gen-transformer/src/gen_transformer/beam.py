"""Beam search: the likeliest continuations, as far as a bounded search finds them.

    sequences, scores = beam_search(model, ids, 20, width=4, length_penalty=1.0, eos=2)
    sequences[:, 0]                                            # the best of each row, -1 after its end

[Wu16] Google's neural machine translation system, arXiv:1609.08144, section 7.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from gen_transformer.prompt import LanguageModel, check_prompt

Ends = int | Sequence[int] | None


@torch.inference_mode()
def beam_search(
    model: LanguageModel,
    ids: Int[Tensor, "b t"],
    n: int,
    width: int,
    *,
    length_penalty: int | float = 0.0,
    eos: Ends = None,
    doc: Int[Tensor, "b t"] | None = None,
) -> tuple[Int[Tensor, "b width at_most_n"], Float[Tensor, "b width"]]:
    """The `width` best continuations of at most n tokens that the search meets, best first, and their scores.

    A score is the sum of the log-probabilities over length^length_penalty, the length being that of the continuation
    with its `eos`. Of the 2 `width` best extensions in a step, those that end are set aside if they are among the first
    `width`, and the best of the others go on; the search is over once none of them can displace what is set aside.

    Args:
        length_penalty: 0 compares sums, 1 means; above 0 longer ones gain.
        eos: the token, or tokens, that end a continuation; None: all have n tokens.
        doc: document of each token of the prompts, negative for padding on their left.

    Returns:
        sequences, -1 after their end (and throughout where there are fewer than `width`, with the score -inf).
    """
    if width < 1:
        raise ValueError(f"a beam is at least 1 wide, got {width}")
    check_prompt(model, ids, n, doc)
    beam = Beam(len(ids), n, width, length_penalty, eos, ids.device)
    cache = model.cache(len(ids), ids.shape[1] + n - 1)
    hidden = model(ids, doc=doc, cache=cache)
    while True:
        logp = model.logits(hidden[:, -1]).float().log_softmax(-1)
        parents, tokens = beam.extend(rearrange(logp, "(b w) v -> b w v", b=len(ids)))
        if beam.over():
            return beam.best[..., : beam.step], beam.scores
        cache.reorder(parents)
        hidden = model(tokens[:, None], cache=cache)


class Beam:
    """`width` running continuations of each row and the best that have ended.

    Attributes:
        alive, sums: running continuations `(b, w, n)` and the sums of their log-probabilities `(b, w)`; one, the empty
            one, at first.
        best, scores: those that ended, best first.
    """

    def __init__(self, rows: int, n: int, width: int, penalty: int | float, eos: Ends, device: Any):
        self.step, self.n, self.width, self.penalty = 0, n, width, penalty
        self.eos = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
        self.alive = torch.full((rows, 1, n), -1, device=device)
        self.sums = torch.zeros(rows, 1, device=device)
        self.best = self.alive.expand(-1, width, -1)
        self.scores = torch.full((rows, width), -torch.inf, device=device)

    def extend(self, logp: Float[Tensor, "b w v"]) -> tuple[Int[Tensor, "go"], Int[Tensor, "go"]]:
        """Take one step; which rows of the cache go on, and with which tokens."""
        self.step += 1
        rows, beams, vocab = logp.shape
        sums = rearrange(self.sums[..., None] + logp, "b w v -> b (w v)")
        sums, index = sums.topk(min(2 * self.width, beams * vocab))
        parent, token = index // vocab, index % vocab
        grown = _pick(self.alive, parent)
        grown[..., self.step - 1] = token
        ends = torch.full_like(token, self.step == self.n, dtype=torch.bool)
        for eos in self.eos:
            ends |= token == eos
        self._set_aside(grown, torch.where(ends, sums, -torch.inf)[:, : self.width] / self.step**self.penalty)
        self.sums, go = torch.where(ends, -torch.inf, sums).topk(min(self.width, sums.shape[1]))
        self.alive = _pick(grown, go)
        first = beams * torch.arange(rows, device=token.device)[:, None]
        return (first + parent.gather(1, go)).flatten(), token.gather(1, go).flatten()

    def _set_aside(self, grown: Tensor, scores: Tensor) -> None:
        scores = torch.cat((self.scores, scores), dim=1)
        self.scores, index = scores.topk(self.width)
        self.best = _pick(torch.cat((self.best, grown[:, : self.width]), dim=1), index)
        self.best = self.best.masked_fill(self.scores[..., None] == -torch.inf, -1)

    def over(self) -> bool:
        """Whether the best running sum, over the length that suits it best, is no better than what ended."""
        if not self.eos or self.step == self.n:
            return self.step == self.n
        reach = self.sums[:, 0] / max((self.step + 1) ** self.penalty, self.n**self.penalty)
        return bool((reach <= self.scores[:, -1]).all())


def _pick(sequences: Int[Tensor, "b w n"], index: Int[Tensor, "b k"]) -> Int[Tensor, "b k n"]:
    return sequences.gather(1, index[..., None].expand(-1, -1, sequences.shape[-1]))
