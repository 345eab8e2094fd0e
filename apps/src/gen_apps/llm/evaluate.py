"""`gen llm eval`: figures of a model on texts, on multiple choice, on lm-eval's tasks."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import rich

from gen_apps.llm import corpus, trained
from gen_apps.llm.config import Evaluate
from gen_apps.llm.scoring import scored
from gen_apps.results import Row, figure, table, write_results
from gen_core.intervals import proportion
from gen_core.scales import text
from gen_transformer import Tokenizer, Transformer, fertility, multiple_choice
from gen_transformer.data import json_lines


def evaluate(config: Evaluate) -> None:
    model, tok = trained.load(config.run, config.device)
    ends = trained.ends(config.run, tok)
    rows = []
    if config.texts:
        stride = config.stride or max(1, model.config.context // 2)
        for name, source in zip(corpus.names(config.texts), config.texts, strict=True):
            rows.append({"name": name, **read(model, tok, corpus.documents(source, config.encoding), stride)})
        rich.print(table("text", rows, digits=5))
    if config.choices:
        rows.append({"name": str(config.choices), **answered(config.choices, model, tok, ends)})
        right = rows[-1]
        print(
            f"{config.choices}: {text(right['accuracy'])} right of {right['accuracy']['n']} by likelihood, "
            f"{text(right['accuracy by character'])} by likelihood per character"
        )
    if config.tasks:
        for row in run_tasks(config, model, tok, ends):
            rows.append(row)
            print(f"{row['name']}: " + ", ".join(f"{k} {text(v, 4)}" for k, v in row.items() if k != "name"))
    write_results(config.json, "llm eval", config, rows)


def read(model: Transformer, tok: Tokenizer, texts: Sequence[str], stride: int) -> Row:
    """The figures of the documents of a TEXT."""
    total, costs = scored(model, tok, texts, bos=tok.bos, stride=stride)
    nats = costs["nats per token"]
    ends = [math.exp(end) for end in nats.get("interval", ())] or None
    perplexity = figure(math.exp(nats["value"]), interval=ends, n=nats["n"])
    return {
        **costs,
        "perplexity": perplexity,
        "tokens": total.tokens,
        "tokens per word": fertility(tok, "".join(texts)),
    }


def answered(file: Path, model: Transformer, tok: Tokenizer, ends: list[int]) -> Row:
    """The shares of the questions of a file that are answered rightly."""
    asked = questions(file)
    right = multiple_choice(model, tok, asked, bos=tok.bos, empty=next(iter(ends), None))
    shares = {"accuracy": right.plain, "accuracy by character": right.normalised}
    return {name: proportion(share, len(asked)).figure() for name, share in shares.items()}


def questions(file: Path) -> list[tuple[str, list[str], int]]:
    """The questions of a .jsonl file: context, choices, index of the right one."""
    found = []
    for number, line in json_lines(file):
        try:
            found.append((line["context"], list(line["choices"]), int(line["answer"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} line {number} is no question: {error!r}; see gen llm eval --help") from None
    return found


def run_tasks(config: Evaluate, model: Transformer, tok: Tokenizer, ends: list[int]) -> list[Row]:
    """The figures of lm-eval's tasks, with the normal interval of the standard errors that it gives."""
    try:
        import lm_eval  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("lm-eval's tasks need it: pip install lm-eval") from None
    from gen_transformer.harness import harness

    lm = harness(model, tok, bos=tok.bos, empty=next(iter(ends), None), end=ends)
    found = cast(Any, lm_eval).simple_evaluate(lm, tasks=list(config.tasks), limit=config.limit)
    return [{"name": task, **_figures(values)} for task, values in found["results"].items()]


def _figures(values: Mapping[str, Any]) -> Row:
    """The numbers of a task by "metric,filter", each with the interval of "metric_stderr,filter".

    >>> _figures({"alias": "a", "acc,none": 0.5, "acc_stderr,none": 0.1})
    {'acc': {'value': 0.5, 'interval': [0.304, 0.696]}}
    """
    row = {}
    for key, value in values.items():
        metric, _, kind = key.partition(",")
        if not isinstance(value, float) or metric.endswith("_stderr"):
            continue
        error = values.get(f"{metric}_stderr,{kind}")
        ends = [value - 1.96 * error, value + 1.96 * error] if isinstance(error, float) else None
        row[metric if kind in ("", "none") else f"{metric}, {kind}"] = figure(value, interval=ends)
    return row
