"""How well a model predicts text: bits per byte, perplexity, log-likelihoods, multiple choice.

    score(model, tok, texts, bos=tok.special("<|start|>")).bits_per_byte
    multiple_choice(model, tok, [("2 + 2 =", [" 4", " 5"], 0)])

A model is any `LanguageModel` of `gen_transformer.prompt`; dropout is off in the meantime. Rows of a batch are padded
on the right, where a causal model does not look, so no result depends on the batch.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from gen_transformer.prompt import LanguageModel
from gen_transformer.tokenizer import Tokenizer

Row = tuple[list[int], int]  # ids, and how many of the last are predicted


@dataclass(frozen=True)
class Score:
    """What it costs to predict some texts."""

    nats: float
    """Sum of -log p over the tokens."""
    tokens: int
    """Tokens that were predicted, each once."""
    bytes: int
    """UTF-8 bytes of the text that they stand for."""

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers."""
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """exp of the mean per token; comparable with the same tokenizer only."""
        return math.exp(self.nats / self.tokens)


def score(
    model: LanguageModel,
    tok: Tokenizer,
    texts: Iterable[str],
    *,
    bos: int | None = None,
    context: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
) -> Score:
    """Predict every token of every text once, from what stands before it in the same text.

    Args:
        bos: id before each text. None: its first token has nothing before it, and neither it nor its bytes count.
        context: tokens that the model sees at most; None: all that it can.
        stride: tokens by which this window moves on; None: `context`. With fewer, every token after the first window
            sees more than `context - stride` tokens, for `context / stride` times the work.

    Raises:
        ValueError: when no text has a token to predict.
    """
    parts = score_each(model, tok, texts, bos=bos, context=context, stride=stride, batch_size=batch_size)
    total = Score(math.fsum(p.nats for p in parts), sum(p.tokens for p in parts), sum(p.bytes for p in parts))
    if not total.tokens:
        raise ValueError("no token to predict: the texts are empty, or single tokens without bos; give longer ones")
    return total


def score_each(
    model: LanguageModel,
    tok: Tokenizer,
    texts: Iterable[str],
    *,
    bos: int | None = None,
    context: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
) -> list[Score]:
    """`score` of each text, which may have no token to predict."""
    width = model.config.context if context is None else context
    step = width if stride is None else stride
    if not 1 <= step <= width <= model.config.context:
        raise ValueError(f"need 1 <= stride <= context <= {model.config.context}, got {step} and {width}")
    texts, sizes, windows = list(texts), [], []
    for text, ids in zip(texts, tok.encode_batch(texts), strict=True):
        sizes.append(len(text.encode()) - (int(tok.bytes[ids[0]]) if ids and bos is None else 0))
        windows.append(list(_windows(ids if bos is None else [bos, *ids], width, step)))
    values = iter(_predict(model, [row for rows in windows for row in rows], batch_size))
    return [
        Score(-math.fsum(next(values)[0] for _ in rows), sum(count for _, count in rows), size)
        for rows, size in zip(windows, sizes, strict=True)
    ]


def loglikelihood(
    model: LanguageModel,
    tok: Tokenizer,
    pairs: Iterable[tuple[str, str]],
    *,
    bos: int | None = None,
    empty: int | None = None,
    batch_size: int = 8,
) -> list[tuple[float, bool]]:
    """For each (context, continuation): log p(continuation | context) in nats, and whether greedy decoding gives it.

    Both are tokenised together, blanks at the end of the context belonging to the continuation; what exceeds the
    model's context is cut on the left. These are lm-eval's conventions.

    Args:
        bos: id before each context.
        empty: what an empty context is where there is no `bos`; lm-eval takes the end-of-text token.

    Raises:
        ValueError: for a continuation without tokens of its own or longer than the context, or an empty context
            without either id.
    """
    rows = [_pair(tok, *pair, bos, empty, model.config.context) for pair in pairs]
    return _predict(model, rows, batch_size)


class Accuracy(NamedTuple):
    """Share of questions whose answer is the likeliest choice."""

    plain: float
    normalised: float
    """With log-likelihoods per character of the choice (lm-eval's acc_norm), so that short ones are not favoured."""


def multiple_choice(
    model: LanguageModel,
    tok: Tokenizer,
    questions: Sequence[tuple[str, Sequence[str], int]],
    *,
    bos: int | None = None,
    empty: int | None = None,
    batch_size: int = 8,
) -> Accuracy:
    """Answer each (context, choices, index of the right one) by the likelihood of the choices.

    Choices are what follows the context directly: begin them with the blank between the two.
    """
    if not questions:
        raise ValueError("no questions: an accuracy over none is 0 / 0; give at least one")
    for i, (_, choices, answer) in enumerate(questions):
        if not 0 <= answer < len(choices):
            raise ValueError(f"the answer of question {i} is choice {answer} of {len(choices)}; count from 0")
    pairs = [(context, choice) for context, choices, _ in questions for choice in choices]
    values = iter(loglikelihood(model, tok, pairs, bos=bos, empty=empty, batch_size=batch_size))
    plain = normalised = 0
    for _, choices, answer in questions:
        ll = [next(values)[0] for _ in choices]
        plain += max(range(len(ll)), key=ll.__getitem__) == answer
        normalised += max(range(len(ll)), key=lambda i: ll[i] / len(choices[i])) == answer
    return Accuracy(plain / len(questions), normalised / len(questions))


# ---------------------------------------------------------------------- windows and batches


def _windows(ids: list[int], context: int, stride: int) -> Iterator[Row]:
    """Windows of at most `context` inputs that predict every id but the first once; the last one is full, too."""
    done, last = 0, len(ids) - 1
    while done < last:
        end = min(last, done + (stride if done else context))
        yield ids[max(0, end - context) : end + 1], end - done
        done = end


def _pair(tok: Tokenizer, context: str, continuation: str, bos: int | None, empty: int | None, limit: int) -> Row:
    stem = context.rstrip()
    first = bos if bos is not None or stem else empty
    if first is None and not stem:
        raise ValueError(f"nothing stands before {continuation[:40]!r}; pass empty=, the id for an empty context")
    before = tok.encode(stem) if stem else []
    after = tok.encode(context + continuation)[len(before) :]  # what a token across the border holds is in neither
    count = len(after)
    if not 0 < count <= limit:
        raise ValueError(f"{continuation[:40]!r} adds {count} tokens; a continuation has 1 to {limit} (the context)")
    ids = before + after if first is None else [first, *before, *after]
    return ids[-(limit + 1) :], count


@torch.no_grad()
def _predict(model: LanguageModel, rows: Sequence[Row], batch_size: int) -> list[tuple[float, bool]]:
    """Of each row's last `count` ids: their log p given all before, and whether each was the likeliest."""
    results = [(0.0, True)] * len(rows)
    longest_first = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
    with evaluating(model) as device:
        for start in range(0, len(rows), batch_size):
            chunk = longest_first[start : start + batch_size]
            ids, counted = (x.to(device) for x in _pad([rows[i] for i in chunk]))
            hidden, targets = model(ids[:, :-1])[counted], ids[:, 1:][counted]
            total, greedy = [], []
            for h, target in zip(hidden.split(1024), targets.split(1024), strict=True):  # the logits are what is large
                logits = model.logits(h)
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                total.append(logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(1))
                greedy.append(logits.argmax(1) == target)
            sizes = counted.sum(1).tolist()
            parts = zip(torch.cat(total).double().split(sizes), torch.cat(greedy).split(sizes), strict=True)
            for i, (value, best) in zip(chunk, parts, strict=True):
                results[i] = value.sum().item(), bool(best.all())
    return results


def _pad(rows: Sequence[Row]) -> tuple[Int64[Tensor, "b n"], Bool[Tensor, "b n-1"]]:
    """The ids, padded on the right, and which targets count."""
    n = max(len(ids) for ids, _ in rows)
    ids, counted = torch.zeros(len(rows), n, dtype=torch.long), torch.zeros(len(rows), n - 1, dtype=torch.bool)
    for i, (row, count) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        counted[i, len(row) - 1 - count : len(row) - 1] = True
    return ids, counted


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[torch.device]:
    """The device of the weights, with dropout off in the meantime; the CPU for what is no module."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    training = [m for m in modules if m.training]
    for m in training:
        m.training = False
    try:
        yield next((p.device for m in modules[:1] for p in m.parameters()), torch.device("cpu"))
    finally:
        for m in training:
            m.training = True
