"""Any language model of ours under lm-eval's tasks.

    lm = harness(model, tok, empty=tok.special("<|end|>"))
    lm_eval.simple_evaluate(lm, tasks=["arc_easy"])

lm-eval is imported when `harness` is called; 0.4.13 is the version that this was compared with.
"""

import json
from collections.abc import Sequence
from typing import Any

import torch

from gen_transformer.beam import Ends
from gen_transformer.evaluate import evaluating, loglikelihood, score_each
from gen_transformer.generate import complete
from gen_transformer.prompt import LanguageModel, left_pad
from gen_transformer.sampling import Warp, compose, known, sampler
from gen_transformer.tokenizer import Tokenizer


def harness(
    model: LanguageModel,
    tok: Tokenizer,
    *,
    bos: int | None = None,
    empty: int | None = None,
    end: Ends = None,
    new_tokens: int = 256,
    batch_size: int = 8,
    generator: torch.Generator | None = None,
) -> Any:
    """The model as an `lm_eval.api.model.LM`, for `lm_eval.simple_evaluate`.

    Args:
        bos: id before each context.
        empty: what an empty context is where there is no `bos`, and what rolling log-likelihoods then start from.
        end: the id, or ids, at which an answer ends, besides the strings of the task.
        new_tokens: longest answer where the task names no length.
        generator: for tasks that sample.

    Raises:
        ImportError: without lm-eval.
    """
    from lm_eval.api.model import LM

    class Harness(LM):
        def loglikelihood(self, requests: list, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            pairs = [request.args for request in requests]
            return loglikelihood(model, tok, pairs, bos=bos, empty=empty, batch_size=batch_size)

        def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list[float]:
            texts, first = [request.args[0] for request in requests], empty if bos is None else bos
            return [-text.nats for text in score_each(model, tok, texts, bos=first, batch_size=batch_size)]

        def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
            answers = [""] * len(requests)
            kinds = [json.dumps(request.args[1], sort_keys=True) for request in requests]
            for kind in dict.fromkeys(kinds):
                same = [i for i, k in enumerate(kinds) if k == kind]
                until, n, warp = _options(json.loads(kind), new_tokens)
                for rows in (same[i : i + batch_size] for i in range(0, len(same), batch_size)):
                    prompts = [requests[i].args[0] for i in rows]
                    texts = answer(
                        model, tok, prompts, n, until=until, bos=bos, end=end, warp=warp, generator=generator
                    )
                    for i, text in zip(rows, texts, strict=True):
                        answers[i] = text
            return answers

    return Harness()


def answer(
    model: LanguageModel,
    tok: Tokenizer,
    prompts: Sequence[str],
    n: int,
    *,
    until: Sequence[str] = (),
    bos: int | None = None,
    end: Ends = None,
    warp: Warp | None = None,
    generator: torch.Generator | None = None,
) -> list[str]:
    """What the model says after each prompt, at most `n` tokens, without the string or id that ended it.

    A prompt and its answer are one text, so an answer may begin with a blank; lm-eval's Hugging Face backend loses it
    with tokenizers like Llama's. Prompts that do not fit the context with `n` tokens more are cut on the left.

    Raises:
        ValueError: where `n` leaves no room for a prompt, or a prompt has no token.
    """
    room = model.config.context - n
    if room < 1:
        raise ValueError(f"{n} new tokens leave no room for a prompt in a context of {model.config.context}; ask fewer")
    first = [] if bos is None else [bos]
    ends = [] if end is None else [end] if isinstance(end, int) else list(end)
    warp = known(warp or compose(), model.config.vocab, len(tok))
    rows = [(first + tok.encode(prompt))[-room:] for prompt in prompts]
    with evaluating(model) as device:
        ids, doc = left_pad(rows, device=device)
        stop = [*until, *ends]
        new = complete(model, ids, n, doc=doc, warp=warp, stop=stop, decode=tok.decode, generator=generator).tolist()
    return [_text(tok, row, [i for i in more if i >= 0], until, ends) for row, more in zip(rows, new, strict=True)]


def _text(tok: Tokenizer, before: list[int], ids: list[int], until: Sequence[str], ends: Sequence[int]) -> str:
    ids = [i for i in ids if i not in ends and i not in tok.specials.values()]
    text = tok.continuation(before, ids)
    for stop in until:
        text = text.split(stop)[0]
    return text


def _options(options: dict[str, Any], new_tokens: int) -> tuple[list[str], int, Warp]:
    """A task's generation_kwargs as stop strings, tokens and warp; greedy unless it asks to sample."""
    names = {"until", "do_sample", "temperature", "top_k", "top_p", "max_gen_toks", "max_new_tokens"}
    if unknown := options.keys() - names:
        raise ValueError(
            f"the task asks for {', '.join(sorted(unknown))}; generation here knows {', '.join(sorted(names))}"
        )
    until = options.get("until", [])
    n = options.get("max_gen_toks", options.get("max_new_tokens", new_tokens))
    t = options.get("temperature", 1.0 if options.get("do_sample") else 0.0)
    warp = sampler(t if options.get("do_sample", True) else 0.0, k=options.get("top_k", 0), p=options.get("top_p", 1.0))
    return [until] if isinstance(until, str) else until, n, warp
