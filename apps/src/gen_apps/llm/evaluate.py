"""`gen llm eval`: what a model makes of texts it is given, of questions, of lm-eval's tasks."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import rich
from rich.table import Table

from gen_apps.llm import corpus, trained
from gen_apps.llm.prepare import Texts
from gen_apps.llm.say import RunPath
from gen_transformer import fertility, multiple_choice, score
from gen_transformer.data import json_lines


@dataclass(frozen=True)
class Evaluate:
    """Bits per byte and perplexity of texts; answers to multiple choice; lm-eval's tasks."""

    run: RunPath
    """A run of gen llm, or a Hugging Face directory of a decoder."""
    texts: Texts = ()
    """Files or folders of text."""
    stride: int = 0
    """Tokens by which the window moves on; 0 is half of the context. Fewer see more, and cost more."""
    choices: Path | None = None
    """A .jsonl file with a question a line: {"context": "2 + 2 =", "choices": [" 4", " 5"], "answer": 0}."""
    tasks: tuple[str, ...] = ()
    """Names of lm-eval's tasks (pip install lm-eval)."""
    limit: int | None = None
    """Examples of each task."""
    encoding: str = "utf-8"
    device: str = "auto"

    def __post_init__(self):
        if not (self.texts or self.choices or self.tasks):
            raise ValueError("give TEXT, --choices or --tasks")


def evaluate(config: Evaluate) -> None:
    model, tok = trained.load(config.run, config.device)
    ends = trained.ends(config.run, tok)
    if config.texts:
        table = Table("text", "bits per byte", "bits per character", "perplexity", "tokens", "tokens per word")
        for name, text in zip(corpus.names(config.texts), config.texts, strict=True):
            found = corpus.documents(text, config.encoding)
            s = score(model, tok, found, bos=tok.bos, stride=config.stride or max(1, model.config.context // 2))
            whole = "".join(found)
            per_character = s.bits_per_byte * len(whole.encode()) / len(whole)
            table.add_row(
                name, f"{s.bits_per_byte:.4f}", f"{per_character:.4f}", f"{s.perplexity:.3f}",
                f"{s.tokens:,}", f"{fertility(tok, whole):.3f}",
            )  # fmt: skip
        rich.print(table)
    if config.choices:
        asked = questions(config.choices)
        right = multiple_choice(model, tok, asked, bos=tok.bos, empty=next(iter(ends), None))
        spread = 1.96 * math.sqrt(right.plain * (1 - right.plain) / len(asked))
        print(
            f"{config.choices}: {right.plain:.3f} +- {spread:.3f} right of {len(asked)} by likelihood, "
            f"{right.normalised:.3f} by likelihood per character"
        )
    if config.tasks:
        run_tasks(config, model, tok, ends)


def questions(file: Path) -> list[tuple[str, list[str], int]]:
    """Of a .jsonl file."""
    found = []
    for number, line in json_lines(file):
        try:
            found.append((line["context"], list(line["choices"]), int(line["answer"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} line {number} is no question: {error!r}; see gen llm eval --help") from None
    return found


def run_tasks(config: Evaluate, model, tok, ends: list[int]) -> None:
    """Drive the model by lm-eval."""
    try:
        import lm_eval  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("lm-eval's tasks need it: pip install lm-eval") from None
    from gen_transformer.harness import harness

    lm = harness(model, tok, bos=tok.bos, empty=next(iter(ends), None), end=ends)
    found = cast(Any, lm_eval).simple_evaluate(lm, tasks=list(config.tasks), limit=config.limit)
    for task, values in found["results"].items():
        print(f"{task}: " + ", ".join(f"{name} {v:.4f}" for name, v in values.items() if isinstance(v, float)))
