"""`gen llm generate` and `gen llm chat`: text from a trained model, as it comes."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from gen_apps.llm import trained
from gen_core.runtime import generator
from gen_transformer import CHATML, Tally, Tokenizer, Transformer, sampler
from gen_transformer import generate as tokens_of
from gen_transformer.sampling import Warp, known

RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.8
    """0 takes the likeliest."""
    top_k: int = 0
    """Of the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Of the likeliest tokens whose probabilities reach p."""
    min_p: float = 0.0
    """Of tokens at least so probable, relative to the likeliest."""
    repetition: float = 1.0
    """Divides the logits of tokens that were there already."""

    def warp(self, model: Transformer, tok: Tokenizer) -> Warp:
        """Of the tokens that the tokeniser has, where the table is padded beyond."""
        usual = sampler(self.temperature, k=self.top_k, p=self.top_p, m=self.min_p, r=self.repetition)
        return known(usual, model.config.vocab, len(tok))


@dataclass(frozen=True)
class Generate:
    """Go on with a prompt, several times; the same seed gives the same texts, however many are asked for."""

    run: RunPath
    """A run of gen llm, or a Hugging Face directory of a decoder."""
    prompt: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TEXT")] = "\n"
    """What to go on with."""
    n: int = 1
    """Texts."""
    tokens: int = 0
    """New tokens of each, at most; 0 fills the context."""
    stop: tuple[str, ...] = ()
    """Strings that end a text."""
    draft: Path | None = None
    """A smaller model with the same tokeniser that guesses ahead: the same distribution, in less time."""
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    device: str = "auto"

    def __post_init__(self):
        if self.n < 1 or self.tokens < 0:
            raise ValueError(f"--n and --tokens count, got {self.n} and {self.tokens}")


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
            warp=config.sampling.warp(model, tok), stop=ends, decode=tok.decode, draft=draft and draft[0], tally=tally,
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


@dataclass(frozen=True)
class Chat:
    """Talk with a tuned model: a line is a turn, an empty one or Ctrl-D ends the talk."""

    run: RunPath
    """A run of gen llm tune, or a Hugging Face directory with the same control tokens."""
    system: str = ""
    """What stands before the talk."""
    tokens: int = 0
    """Of an answer, at most; 0 fills the context."""
    seed: int = 0
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    device: str = "auto"


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
        warp=config.sampling.warp(model, tok), stop=[CHATML.stop(tok), *trained.ends(config.run, tok)],
        generator=generator(config.seed, "turn", turn),
    )  # fmt: skip
    found = show(tok, (int(token) for token in source))
    print()
    return tok.decode([i for i in found if i not in tok.specials.values()])
