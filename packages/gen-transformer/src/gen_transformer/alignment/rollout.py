"""Completions sampled from a policy, with the log-probs of the distribution that they were sampled from.

    r = rollout(model, [[5, 6, 7], [8]], n=4, max_new_tokens=16, eos=2)
    score = [reward(prompt, completion) for prompt, completion in r.pairs()]

The sampler is `gen_transformer.generate`: its cache, its padding, one stream of random numbers for each row.

[Munos23] Nash learning from human feedback, arXiv:2312.00886.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from gen_core.task import evaluating
from gen_transformer.alignment.logprobs import causal
from gen_transformer.generate import generate
from gen_transformer.prompt import left_pad
from gen_transformer.sampling import Warp, sampler

Ids = Sequence[int]


@dataclass
class Rollout:
    """`b` rows of a prompt, padded on the left, and a completion, padded on the right."""

    ids: Int[Tensor, "b n"]
    mask: Bool[Tensor, "b n"]
    """True for real tokens. The first end-of-text token of a completion is one; nothing after it is."""
    start: int
    """Where completions begin."""
    logp: Float[Tensor, "b t"]
    """Of the completions' tokens under the sampling distribution; 0 in padding."""
    group: Int[Tensor, "b"]
    """Number of the prompt of each row; the rows of a prompt lie together."""
    ended: Bool[Tensor, "b"]
    """Whether a row ended by itself, not by `max_new_tokens`."""

    @property
    def completion_mask(self) -> Bool[Tensor, "b t"]:
        return self.mask[:, self.start :]

    def pairs(self) -> list[tuple[list[int], list[int]]]:
        """(prompt, completion) of each row without padding, as a reward function reads them."""
        s = self.start
        rows = zip(self.ids, self.mask, strict=True)
        return [(ids[:s][m[:s]].tolist(), ids[s:][m[s:]].tolist()) for ids, m in rows]


@torch.no_grad()
def rollout(
    model: Any,
    prompts: Sequence[Ids],
    *,
    max_new_tokens: int,
    n: int = 1,
    temperature: int | float = 1.0,
    top_p: int | float = 1.0,
    eos: int | Sequence[int] | None = None,
    mix: tuple[Any, float] | None = None,
    generator: Generator | Sequence[Generator] | None = None,
) -> Rollout:
    """`n` completions of each prompt, without dropout.

    Args:
        model: a `LanguageModel` or a causal model of Hugging Face.
        temperature: of the sampling; 0 takes the likeliest token, whose log-prob is then 0.
        top_p: see `gen_transformer.top_p`.
        eos: the id, or ids, that end a completion; None: all have `max_new_tokens`. The padding may be the same id.
        mix: (reference, alpha): each token is drawn from policy^(1 - alpha) reference^alpha, normalised ([Munos23]
            section 7); a mixture of tokens, not of sequences.
        generator: one for all rows, or one for each.
    """
    if n < 1 or not len(prompts):
        raise ValueError(f"a rollout needs at least 1 prompt and 1 completion of each, got {len(prompts)} and n={n}")
    lm = causal(model)
    device = next(model.parameters()).device if isinstance(model, nn.Module) else torch.device("cpu")
    ids, doc = left_pad([prompt for prompt in prompts for _ in range(n)], device=device)
    seen = _Recorder(sampler(temperature, p=top_p), None if mix is None else _Mixture(*mix, doc, max_new_tokens))
    stop = () if eos is None else [eos] if isinstance(eos, int) else list(eos)
    modules = [m for m in (model, mix and mix[0]) if isinstance(m, nn.Module)]
    with evaluating(nn.ModuleList(modules)):
        columns = [
            (token, seen.logprobs.gather(1, token.clamp(min=0)[:, None])[:, 0])
            for token in generate(lm, ids, max_new_tokens, doc=doc, warp=seen, stop=stop, generator=generator)
        ]
    tokens, logp = (torch.stack(column, 1) for column in zip(*columns, strict=True))
    real = tokens >= 0  # -1 after the token that ended a row
    ended = torch.isin(tokens, tokens.new_tensor(stop)).any(1)
    return Rollout(
        ids=torch.cat((ids, tokens.clamp(min=0)), 1), mask=torch.cat((doc >= 0, real), 1), start=ids.shape[1],
        logp=logp.where(real, 0.0), group=torch.arange(len(ids), device=device) // n, ended=ended,
    )  # fmt: skip


def join(
    prompts: Sequence[Ids], completions: Sequence[Ids], *, device: torch.device | str = "cpu"
) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"], int]:
    """(ids, mask, start) of prompts, padded on the left, and completions, padded on the right.

    >>> ids, mask, start = join([[5, 6], [8]], [[1], [2, 3]])
    >>> ids.tolist(), mask.int().tolist(), start
    ([[5, 6, 1, 0], [0, 8, 2, 3]], [[1, 1, 1, 0], [0, 1, 1, 1]], 2)
    """
    if empty := [i for i, prompt in enumerate(prompts) if not len(prompt)]:
        raise ValueError(f"prompt {empty[0]} is empty; start it with one token, such as the beginning of text")
    ids, doc = left_pad(prompts, device=device)
    right, pad = (x.flip(1) for x in left_pad([list(c)[::-1] for c in completions], device=device))
    return torch.cat((ids, right), 1), torch.cat((doc, pad), 1) >= 0, ids.shape[1]


class _Recorder:
    """A warp that keeps the log-probs of the distribution from which the next token is drawn."""

    def __init__(self, warp: Warp, mixture: "_Mixture | None"):
        self.warp, self.mixture = warp, mixture

    def __call__(self, logits: Tensor, ids: Tensor | None = None, /) -> Tensor:
        if self.mixture is not None:
            logits = self.mixture(logits, ids)
        self.logprobs = self.warp(logits, ids).log_softmax(-1)
        return self.logprobs


class _Mixture:
    """Logits (1 - alpha) policy + alpha reference, the reference reading along with a cache of its own."""

    def __init__(self, ref: Any, alpha: int | float, doc: Tensor, n: int):
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha of a mixture lies in 0..1 (the share of the reference), got {alpha}")
        self.ref, self.alpha, self.doc = causal(ref), alpha, doc
        self.cache, self.read = self.ref.cache(len(doc), doc.shape[1] + n), 0

    def __call__(self, logits: Tensor, ids: Any) -> Tensor:
        new = ids[:, self.read :].clamp(min=0)
        hidden = self.ref(new, doc=None if self.read else self.doc, cache=self.cache)
        self.read = ids.shape[1]
        other = self.ref.logits(hidden[:, -1]).float()
        if other.shape != logits.shape:
            raise ValueError(
                f"the policy has {logits.shape[1]} tokens and the reference {other.shape[1]}; use one vocabulary"
            )
        return (1 - self.alpha) * logits + self.alpha * other
