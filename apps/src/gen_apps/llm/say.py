"""`gen llm generate` and `gen llm chat`: text from a trained model, as it comes."""

import sys
from collections.abc import Iterator, Sequence

import torch

from gen_apps.llm import trained
from gen_apps.llm.build import warp
from gen_apps.llm.config import Chat, Generate
from gen_core.runtime import generator
from gen_transformer import CHATML, Tally, Tokenizer, Transformer
from gen_transformer import generate as tokens_of


def generate(config: Generate) -> None:
    model, tok = trained.load(config.run, config.device)
    draft = None if config.draft is None else trained.load(config.draft, config.device)
    if draft and draft[1].fingerprint != tok.fingerprint:
        raise ValueError(f"{config.draft} has another tokeniser than {config.run}; train both with one")
    ids, tally = [*([] if tok.bos is None else [tok.bos]), *tok.encode(config.prompt)], Tally()
    room = model.config.context - len(ids)
    ends = [*config.stop, *trained.ends(config.run, tok)]
    for i in range(config.n):
        source = tokens_of(
            model, torch.tensor([ids]).to(model.output.device), config.tokens or max(1, room),
            warp=warp(config.sampling, model, tok), stop=ends, decode=tok.decode, draft=draft and draft[0], tally=tally,
            generator=generator(config.seed, "text", i),
        )  # fmt: skip
        print(config.prompt, end="")
        show(tok, (int(token) for token in source), ids)
        print("\n" + "-" * 20 if i + 1 < config.n else "")
    if draft:
        print(f"the draft's tokens: {tally}", file=sys.stderr)


def show(tok: Tokenizer, ids: Iterator[int], before: Sequence[int] = ()) -> list[int]:
    """Print the text after `before` as it comes; a character of several tokens when it is whole. The ids.

    Control tokens are not printed.
    """
    found: list[int] = []
    shown = ""
    for token in ids:
        found.append(token)
        text = tok.continuation(before, [i for i in found if i not in tok.specials.values()])
        if not text.endswith("\ufffd"):
            print(text[len(shown) :], end="", flush=True)
            shown = text
    return found


def chat(config: Chat) -> None:
    model, tok = trained.load(config.run, config.device)
    messages = [{"role": "system", "content": config.system}] if config.system else []
    for turn in range(sys.maxsize):
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            line = ""
        if not line:
            return
        messages.append({"role": "user", "content": line})
        answer = reply(model, tok, messages, config, turn)
        messages.append({"role": "assistant", "content": answer})


def reply(model: Transformer, tok: Tokenizer, messages: Sequence[dict[str, str]], config: Chat, turn: int) -> str:
    """Print the answer as it comes, and return it."""
    ids = CHATML.prompt(messages, tok)
    room = model.config.context - len(ids)
    if room < 1:
        raise ValueError(
            f"the talk has {len(ids)} tokens and the model sees {model.config.context}; begin another, or tune a model "
            "with a longer --network.context"
        )
    source = tokens_of(
        model, torch.tensor([ids]).to(model.output.device), min(config.tokens or room, room),
        warp=warp(config.sampling, model, tok), stop=[CHATML.stop(tok), *trained.ends(config.run, tok)],
        generator=generator(config.seed, "turn", turn),
    )  # fmt: skip
    found = show(tok, (int(token) for token in source))
    print()
    return tok.decode([i for i in found if i not in tok.specials.values()])
