"""Text from a language model, token by token.

ids, doc = left_pad([tokenizer.encode(text) for text in prompts])
for token in generate(model, ids, 100, doc=doc, warp=sampler(0.8, p=0.95)):     # (b,), as they come
    ...
tokens = complete(model, ids, 100, doc=doc, draft=small)                        # (b, 100)
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from gen_transformer.prompt import LanguageModel, check_prompt, history
from gen_transformer.sampling import Warp, choose, compose, greedy, likeliest, uniforms
from gen_transformer.speculative import Tally, speculate_rows
from gen_transformer.tokenizer import continuation

Stop = int | str | Sequence[int]


def generate(
    model: LanguageModel,
    ids: Int[Tensor, "b t"],
    n: int,
    *,
    warp: Warp | None = None,
    doc: Int[Tensor, "b t"] | None = None,
    stop: Stop | Sequence[Stop] = (),
    decode: Callable[[list[int]], str] | None = None,
    draft: LanguageModel | None = None,
    k: int = 4,
    tally: Tally | None = None,
    generator: Generator | Sequence[Generator] | None = None,
) -> Iterator[Int[Tensor, "b"]]:
    """At most n tokens after each prompt, yielded one by one; -1 in rows that have stopped.

    The text of a row is a function of its prompt and its generator, whatever the other rows are.
    A model in training mode drops out here too: call `model.eval()` first.

    Args:
        warp: what is kept of the distribution, `sampler(...)` for the usual ways; None: all of it.
        doc: document of each token of the prompts, negative for padding on their left (`left_pad`).
        stop: ids, sequences of ids and strings; a row ends with the first token that completes one of them.
        decode: ids to text, needed for strings.
        draft: a smaller model of the same vocabulary that guesses `k` tokens ahead, for the same distribution in less
            time (`gen_transformer.speculative`); rows then run one by one.
        tally: counts the draft's tokens and those that stood.
        generator: one for all rows, or one for each.

    Raises:
        ValueError: for an empty prompt, one that ends in padding, ids outside of the vocabulary, and a prompt and n
            that do not fit the context together.
    """
    check_prompt(model, ids, n, doc)
    stops = _parse(stop, decode)
    u = uniforms(generator, len(ids), n)
    if draft is None:
        cache = model.cache(len(ids), ids.shape[1] + n - 1)
        tokens = _decode(model, ids, doc, cache, warp or compose(), u)
    else:
        tokens = speculate_rows(model, draft, ids, doc, k, warp or compose(), u, tally or Tally())
    return _until(ids[:, -1].tolist(), tokens, stops) if stops else tokens


def complete(model: LanguageModel, ids: Int[Tensor, "b t"], n: int, **options: Any) -> Int[Tensor, "b at_most_n"]:
    """All tokens of `generate` at once, -1 after the end of a row."""
    return torch.stack(list(generate(model, ids, n, **options)), dim=1)


@torch.inference_mode()
def _decode(
    model: LanguageModel, ids: Tensor, doc: Tensor | None, cache: Any, warp: Warp, u: Tensor
) -> Iterator[Tensor]:
    start, n = ids.shape[1], u.shape[1]
    seen, u = history(ids, doc, n), u[..., 0].to(ids.device)
    new = ids
    for i in range(n):
        hidden = model(new, doc=doc if i == 0 else None, cache=cache)
        logits = model.logits(hidden[:, -1]).float()
        if warp is greedy:  # the same token with less work
            token = likeliest(logits)
        else:
            token = choose(warp(logits, seen[:, : start + i]).softmax(-1), u[:, i])
        seen[:, start + i] = token
        new = token[:, None]
        yield token.clone()


# ---------------------------------------------------------------------- where a row ends

Ends = Callable[[list[int]], bool]  # the last token of a prompt and the new ones to whether the last of them ends it


def _parse(stop: Stop | Sequence[Stop], decode: Callable[[list[int]], str] | None) -> list[Ends]:
    each = [stop] if isinstance(stop, int | str) else list(stop)
    return [_text_ends(s, decode) if isinstance(s, str) else _ids_end([s] if isinstance(s, int) else s) for s in each]


def _ids_end(ids: Sequence[int]) -> Ends:
    if not ids:
        raise ValueError("a stop sequence needs at least one id")
    return lambda row: row[1:][-len(ids) :] == list(ids)


def _text_ends(text: str, decode: Callable[[list[int]], str] | None) -> Ends:
    if not text:
        raise ValueError("a stop string is empty; it would end every text at once")
    if decode is None:
        raise ValueError(f"to stop at the string {text!r}, pass decode=, which turns ids into text")
    tail = len(text.encode())  # a token is a byte at least

    def ends(row: list[int]) -> bool:
        first = max(1, len(row) - tail)
        return text in continuation(decode, row[:first], row[first:])

    return ends


def _until(before: list[int], tokens: Iterator[Tensor], stops: list[Ends]) -> Iterator[Tensor]:
    """The tokens up to the end of each row, then -1, until all rows have ended."""
    rows = [[last] for last in before]
    ended: set[int] = set()
    for token in tokens:
        values = token.tolist()  # the one wait for the device
        yield token.new_tensor([-1 if i in ended else value for i, value in enumerate(values)]) if ended else token
        for i, value in enumerate(values):
            rows[i].append(value)
            if i not in ended and any(ends(rows[i]) for ends in stops):
                ended.add(i)
        if len(ended) == len(rows):
            return
