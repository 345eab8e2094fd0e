"""Speculative decoding: a small model guesses some tokens ahead, the large one judges them all in one pass.

What comes out has the distribution of the large model alone, under any warp: with p and q the *warped* distributions of
the target and the draft, a guess x ~ q stands with probability min(1, p(x) / q(x)); the first that falls is replaced by
a draw from max(0, p - q), normalised, and if none falls one more token is drawn from p.

[Leviathan23] Fast inference from transformers via speculative decoding, arXiv:2211.17192, algorithm 1 and appendix A.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gen_transformer.prompt import LanguageModel, history
from gen_transformer.sampling import Warp, choose


@dataclass
class Tally:
    """How many tokens a draft proposed, and how many of them stood."""

    proposed: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        return self.accepted / self.proposed if self.proposed else float("nan")


def judge(
    p: Float[Tensor, "b k1 vocab"],
    q: Float[Tensor, "b k vocab"],
    guesses: Int[Tensor, "b k"],
    u: Float[Tensor, "b k1 3"],
) -> tuple[Int[Tensor, "b"], Int[Tensor, "b"]]:
    """How many guesses stand, and the token that comes after them ([Leviathan23] algorithm 1).

    Args:
        p: of the model, at the places of the guesses and one more.
        q: of the draft, from which the guesses were drawn.
        u: uniform numbers of each place: of the guess, of its trial, of what replaces it.
    """
    k, x = guesses.shape[1], guesses[..., None]
    stands = u[:, :k, 1:2] * q.gather(2, x) < p[:, :k].gather(2, x)
    stood = stands[..., 0].long().cumprod(1).sum(1)
    row = torch.arange(len(p), device=p.device)
    p, q, u = p[row, stood], F.pad(q, (0, 0, 0, 1))[row, stood], u[row, stood]
    rest = (p - q).clamp(min=0)  # after the last guess q is 0, and this is p
    rest = rest.where(rest.sum(1, keepdim=True) > 0, p)  # p = q, and rounding alone made the guess fall
    # As no guess was made there, its number is free: a draft that equals the model gives the text without a draft.
    return stood, choose(rest, u[:, 2].where(stood < k, u[:, 0]))


def speculate_rows(
    model: LanguageModel,
    draft: LanguageModel,
    ids: Int[Tensor, "b t"],
    doc: Int[Tensor, "b t"] | None,
    k: int,
    warp: Warp,
    u: Float[Tensor, "b n 3"],
    tally: Tally,
) -> Iterator[Int[Tensor, "b"]]:
    """Rows one by one, because each accepts another number of guesses."""
    if k < 1:
        raise ValueError(f"a draft guesses at least 1 token ahead, got k={k}")
    if model.config.vocab != draft.config.vocab:
        raise ValueError(
            f"the draft has {draft.config.vocab} tokens and the model {model.config.vocab}; they must agree"
        )
    rows = []
    for i in range(len(ids)):
        row_doc = None if doc is None else doc[i : i + 1]
        row = Speculation(_row(model, i), _row(draft, i), ids[i : i + 1], row_doc, k, warp, u[i].to(ids.device), tally)
        rows.append(row.tokens())
    return (torch.cat(tokens) for tokens in zip(*rows, strict=True))


def _row(model: Any, i: int) -> LanguageModel:
    """A model that has something for each row, as a decoder its sources, gives the one of this row."""
    return model.row(i) if hasattr(model, "row") else model


class Speculation:
    """One row being continued; both caches hold what stands of its text, or less.

    Position i of the text has three uniform numbers of its own: for the guess, for its trial, for what replaces it.
    """

    def __init__(self, model, draft, ids: Tensor, doc: Tensor | None, k: int, warp: Warp, u: Tensor, tally: Tally):
        self.start, self.n, self.end = ids.shape[1], len(u), ids.shape[1]
        self.target, self.draft = ((m, m.cache(1, self.start + self.n - 1)) for m in (model, draft))
        self.ids, self.doc = F.pad(ids, (0, self.n)), doc
        self.seen = history(ids, doc, self.n)
        self.k, self.warp, self.u, self.tally = k, warp, u, tally

    def tokens(self) -> Iterator[Int[Tensor, "1"]]:
        while self.end < self.start + self.n:
            first = self.end
            self._round()
            for i in range(first, self.end):
                yield self.ids[:, i].clone()

    @torch.inference_mode()
    def _round(self) -> None:
        """Guess, judge, keep what stands and one token more."""
        first, k = self.end, min(self.k, self.start + self.n - self.end - 1)
        u = self.u[first - self.start :]
        q = [self._guess(first + i, u[i]) for i in range(k)]
        p = self._probabilities(*self.target, first + k, k + 1)
        guesses = self.ids[:, first : first + k]
        stood, token = judge(p[None], torch.stack(q)[None] if q else p[None, :0], guesses, u[None, : k + 1])
        stood = int(stood)  # the one wait for the device
        self._write(first + stood, token)
        self.end = first + stood + 1
        for _, cache in (self.target, self.draft):
            cache.crop(self.end - 1)
        self.seen[:, self.end :] = -1
        self.tally.proposed += k
        self.tally.accepted += stood

    def _guess(self, end: int, u: Tensor) -> Float[Tensor, "vocab"]:
        """Write the draft's token at `end`; the distribution that it was drawn from."""
        q = self._probabilities(*self.draft, end, 1)
        self._write(end, choose(q, u[:1]))
        return q[0]

    def _probabilities(self, model: LanguageModel, cache: Any, end: int, last: int) -> Float[Tensor, "last vocab"]:
        """Warped distributions of what follows each of the last tokens before `end`."""
        doc = self.doc if cache.used == 0 else None
        if doc is not None and end > self.start:  # the first pass of the model sees the first guesses too
            doc = torch.cat((doc, doc[:, -1:].expand(-1, end - self.start)), dim=1)
        hidden = model(self.ids[:, cache.used : end], doc=doc, cache=cache)
        logits = model.logits(hidden[0, -last:]).float()
        place = torch.arange(end, device=logits.device)
        future = place > place[-last:, None]  # of a token in the middle, for warps that look at the past
        return self.warp(logits, self.seen[:, :end].masked_fill(future, -1)).softmax(-1)

    def _write(self, place: int, token: Int[Tensor, "1"]) -> None:
        self.ids[:, place] = self.seen[:, place] = token
