"""From logits to a token: what is kept of a distribution, and how one token is drawn from it.

A warp takes logits `(b, vocab)` and the tokens so far and gives logits; those of tokens that may not come are -inf.

    warp = compose(repetition(1.2), temperature(0.8), top_k(50), top_p(0.95))      # applied from left to right
    token = choose(warp(logits, ids).softmax(-1), torch.rand(b))

[Keskar19] CTRL, arXiv:1909.05858. [Fan18] Hierarchical neural story generation, arXiv:1805.04833.
[Holtzman20] The curious case of neural text degeneration, arXiv:1904.09751. [Nguyen24] Min-p, arXiv:2407.01082.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

Logits = Float[Tensor, "b vocab"]
Seen = Int[Tensor, "b t"]  # the tokens so far, prompt included; negative where a row has none


@runtime_checkable
class Warp(Protocol):
    """Logits to logits; `ids` are the tokens so far, prompt included, negative where a row has none."""

    def __call__(self, logits: Logits, ids: Seen | None = None, /) -> Logits: ...


def greedy(logits: Logits, ids: Seen | None = None) -> Logits:
    """Nothing but the likeliest token, the first of equals.

    >>> greedy(torch.tensor([[1.0, 3.0, 3.0]])).tolist()
    [[-inf, 0.0, -inf]]
    """
    return torch.full_like(logits, -torch.inf).scatter(-1, logits.argmax(-1, keepdim=True), 0.0)


def temperature(t: int | float) -> Warp:
    """Probabilities to the power of 1 / t, normalised: below 1 sharper, above flatter, at 0 `greedy`."""
    if t < 0:
        raise ValueError(f"a temperature is at least 0, got {t}; 0 takes the likeliest token")
    return greedy if t == 0 else lambda logits, ids=None: logits / t


def top_k(k: int) -> Warp:
    """The k likeliest tokens and those that tie with the last of them ([Fan18] section 5.4)."""
    if k < 1:
        raise ValueError(f"top_k keeps at least 1 token, got {k}")

    def warp(logits: Logits, ids: Seen | None = None) -> Logits:
        least = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)

    return warp


def top_p(p: int | float) -> Warp:
    """The fewest likeliest tokens whose probabilities sum to at least p ([Holtzman20] eq. 2).

    >>> top_p(0.79)(torch.tensor([[0.5, 0.2, 0.3]]).log()).exp().tolist()  # .5 is too little, .5 + .3 reaches it
    [[0.5, 0.0, 0.30000001192092896]]
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p is a probability above 0, got {p}")

    def warp(logits: Logits, ids: Seen | None = None) -> Logits:
        rising, order = logits.sort(-1)
        tail = rising.softmax(-1).cumsum(-1) <= 1 - p  # these can go, and leave p
        tail[:, -1] = False
        return logits.masked_fill(tail.scatter(-1, order, tail), -torch.inf)

    return warp


def min_p(p: int | float) -> Warp:
    """The tokens at least p times as likely as the likeliest ([Nguyen24] section 3)."""
    if not 0 <= p <= 1:
        raise ValueError(f"min_p is a fraction of the largest probability, 0 to 1, got {p}")

    def warp(logits: Logits, ids: Seen | None = None) -> Logits:
        probs = logits.softmax(-1)
        return logits.masked_fill(probs < p * probs.amax(-1, keepdim=True), -torch.inf)

    return warp


def below(n: int) -> Warp:
    """The tokens 0 .. n - 1, those of a tokenizer: tables of weights are often padded beyond.

    >>> below(2)(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
    [[1.0, 2.0, -inf]]
    """
    if n < 1:
        raise ValueError(f"at least 1 token has to remain, got {n}")

    def warp(logits: Logits, ids: Seen | None = None) -> Logits:
        return logits.masked_fill(torch.arange(logits.shape[-1], device=logits.device) >= n, -torch.inf)

    return warp


def known(warp: Warp, vocab: int, tokens: int) -> Warp:
    """`warp` on the ids that a tokenizer of so many tokens has, where a table of `vocab` rows is padded beyond."""
    return warp if vocab <= tokens else compose(below(tokens), warp)


def repetition(r: int | float) -> Warp:
    """Positive logits of the tokens so far divided by r, negative ones times r ([Keskar19] section 4.1)."""
    if r <= 0:
        raise ValueError(f"a repetition penalty is positive, got {r}; 1 changes nothing, above 1 repeats less")

    def warp(logits: Logits, ids: Seen | None = None) -> Logits:
        if ids is None:
            raise ValueError("repetition looks at the tokens so far; call the warp with (logits, ids)")
        vocab = logits.shape[-1]
        seen = logits.new_zeros(len(logits), vocab + 1, dtype=torch.bool)  # the last column takes what is no token
        seen = seen.scatter(-1, ids.where(ids >= 0, vocab), True)[:, :-1]
        return torch.where(seen, torch.where(logits > 0, logits / r, logits * r), logits)

    return warp


def compose(*warps: Warp) -> Warp:
    """One after the other, the first first; none at all leaves logits as they are."""

    def warp(logits: Logits, ids: Seen | None = None) -> Logits:
        for each in warps:
            logits = each(logits, ids)
        return logits

    return warp if len(warps) != 1 else warps[0]


def sampler(
    t: int | float = 1.0, *, k: int = 0, p: int | float = 1.0, m: int | float = 0.0, r: int | float = 1.0
) -> Warp:
    """The usual warps in their usual order: repetition, temperature, top-k, top-p, min-p.

    Args:
        t: temperature; 0 is greedy, whatever `k`, `p` and `m`.
        k: of top_k, 0 for all tokens.
        p: of top_p, 1 for all tokens.
        m: of min_p, 0 for all tokens.
        r: repetition penalty, 1 for none.
    """
    warps = [repetition(r)] if r != 1 else []
    warps += [temperature(t)] if t != 1 else []
    if t != 0:
        warps += [top_k(k)] if k else []
        warps += [top_p(p)] if p != 1 else []
        warps += [min_p(m)] if m else []
    return compose(*warps)


def choose(probs: Float[Tensor, "b vocab"], u: Float[Tensor, "b"]) -> Int[Tensor, "b"]:
    """The token whose share of the cumulative distribution u in [0, 1) falls in; never one of probability 0.

    Rows need not sum to 1.

    >>> choose(torch.tensor([[0.0, 3.0, 1.0, 0.0]] * 3), torch.tensor([0.0, 0.74, 0.99])).tolist()
    [1, 1, 2]
    """
    mass = probs.cumsum(-1) * (probs > 0)  # on a GPU rounding could let the sum rise over a token of probability 0
    total = mass.amax(-1, keepdim=True)
    _check_numbers(total)
    return (mass > u[:, None] * total).byte().argmax(-1)


def likeliest(logits: Logits) -> Int[Tensor, "b"]:
    """The token that `greedy` leaves."""
    highest, token = logits.max(-1)
    _check_numbers(highest)
    return token


def _check_numbers(x: Tensor) -> None:
    if x.device.type == "cpu" and not x.isfinite().all():  # on a GPU looking would wait for it
        raise ValueError("the logits are not finite; the weights are not numbers, or a warp left no token")


def uniforms(generator: Generator | Sequence[Generator] | None, rows: int, n: int) -> Float[Tensor, "rows n 3"]:
    """Three numbers in [0, 1) for each token of each row, on the CPU.

    Each row has its own stream, which starts from the next number of the row's generator, or of the one for all: its
    numbers depend neither on how many rows follow nor on `n`.
    """
    given = list(generator) if isinstance(generator, Sequence) else [generator] * rows
    if len(given) != rows:
        raise ValueError(f"one generator for all or one for each row, got {len(given)} for {rows} rows")
    seeds = [torch.randint(2**62, (), generator=g, device=g.device if g else None) for g in given]
    return torch.stack([torch.rand(n, 3, generator=Generator().manual_seed(int(seed))) for seed in seeds])
