"""`gen llm pretrain`: from text to a language model that writes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset

from gen_apps.identity import identity
from gen_apps.llm import corpus, trained
from gen_apps.llm.config import Pretrain
from gen_apps.llm.speed import Speed
from gen_apps.loop import loop
from gen_core import Evaluate, Loader, Run, report, seed_all
from gen_core.summary import summary
from gen_transformer import (
    Corpus,
    LMTask,
    Mixture,
    Score,
    Tokenizer,
    Transformer,
    Windows,
    bytes_per_token,
    fertility,
    flops_per_token,
    parameters,
    score,
)

GLANCE = 256  # held-out rows that are looked at during training; all of them at the end


def pretrain(config: Pretrain) -> None:
    config, run = config.placed()
    run.mkdir(parents=True, exist_ok=True)
    asked = {"tokenizer": config.tokenizer, "held_out": config.held_out, "encoding": config.encoding}
    tok, sources = corpus.prepare(config.data, run / "data", **asked)
    config = config.completed(tok)
    seed_all(config.seed, "weights")
    model = Transformer(config.network.made(len(tok)))
    model.recompute = config.network.recompute
    context, isolate = config.network.context, config.isolate
    rows = {name: Windows(training, context, isolate=isolate) for name, (training, _) in sources.items()}
    shares = dict(zip(rows, config.ratios or [len(source) for source in rows.values()], strict=True))
    mixture = Mixture(rows, shares, batch_size=config.optim.batch_size or 1, seed=config.seed)
    trainer = train(config, run, model, tok, mixture, {name: held for name, (_, held) in sources.items()})
    if trainer.rank == 0:
        trained.keep(run, tok, model, end=corpus.END)
        scores = {name: _scored(model, tok, held) for name, (_, held) in sources.items()}
        _leave(config, run, model, tok, scores, mixture.seen(trainer.step))


def train(config: Any, run: Path, model: Transformer, tok: Tokenizer, data: Mixture, held: dict[str, Corpus]) -> Any:
    """Train a stack as `config` says, looking at the held-out tokens and letting it write now and then."""
    o, context = config.optim, config.network.context
    task = LMTask(
        model, lr=o.lr, muon=o.muon or None, weight_decay=o.weight_decay, betas=o.betas, smoothing=o.smoothing, z=o.z,
        compile=o.compile,
    )  # fmt: skip
    flops = flops_per_token(model.config, context)
    often = max(1, o.steps // 6)
    looks: list[Any] = [Speed(o.batch_size * context, flops, max(1, o.steps // 200))]
    for name, tokens in held.items():
        few = Windows(tokens, context)
        some = Subset(few, range(0, len(few), max(1, len(few) // GLANCE)))
        prefix = "val/" if len(held) == 1 else f"val/{name}/"
        looks.append(Evaluate(Loader(some, min(64, len(some)), shuffle=False), often, prefix=prefix))

    def write(t: Any) -> None:
        if t.rank == 0:
            trained.write(run, f"step {t.step:06d}", trained.sample(model, tok, config.prompt or "", 200, config.seed))

    def begin() -> None:
        record = Run.create(run, identity(config))
        tok.save(run)
        ids = torch.zeros(1, context, dtype=torch.long)
        record.write("model.json", asdict(model.config))
        record.write(
            "summary.txt", f"{summary(model, ids)}\n{parameters(model):,} parameters, {flops:,} FLOP a token\n"
        )

    return loop(
        config, run, task, data, None, write, begin=begin, go_on=f"go on with: gen llm pretrain --resume {run}",
        clip=o.clip, schedule=o.factor(), more=looks,
    )  # fmt: skip


def _scored(model: Transformer, tok: Tokenizer, held: Corpus) -> tuple[Score, str]:
    """The score of held-out documents, and their text."""
    texts = list(corpus.texts(held, tok))
    return score(model, tok, texts, stride=max(1, model.config.context // 2), batch_size=64), "".join(texts)


def _leave(
    config: Pretrain, run: Path, model: Transformer, tok: Tokenizer, scores: dict[str, Any], seen: dict[str, Any]
) -> None:
    rows, columns = [], []
    for name, (found, text) in scores.items():
        values = {
            "bits per byte": found.bits_per_byte,
            "bits per character": found.bits_per_byte * len(text.encode()) / len(text),
            "nats per token": found.nats / found.tokens,
            "bytes per token": bytes_per_token(tok, text),
            "tokens per word": fertility(tok, text),
            "tokens trained on": seen[name].tokens,
            "epochs": seen[name].epochs,
        }
        columns = list(values)
        rows.append({"name": name, "n": found.tokens, **{key: {"value": v} for key, v in values.items()}})
        print(
            f"{name}: {values['bits per byte']:.3f} bits per byte, {values['bits per character']:.3f} per character, "
            f"{values['nats per token']:.4f} nats per token on {found.tokens:,} held-out tokens; "
            f"{values['tokens per word']:.2f} tokens per word; trained on {seen[name].tokens:,.0f} tokens "
            f"({seen[name].epochs:.2f} epochs)"
        )
    note = f"Every token predicted once from at least {model.config.context // 2} before it (n counts them)."
    Run(run).write("quality.json", {"columns": columns, "rows": rows, "notes": [note]})
    size, tokens = parameters(model), sum(one.tokens for one in seen.values())
    loss = sum(found.nats for found, _ in scores.values()) / sum(found.tokens for found, _ in scores.values())
    Run(run).write("scaling.json", {"N": parameters(model, tables=False), "D": tokens, "loss": loss})
    text = trained.sample(model, tok, config.prompt or "", 600, config.seed)
    trained.write(run, "sample", text)
    spent = json.loads((run / "energy.json").read_text())
    print(f"\n{text}\n")
    print(f"{size:,} parameters; training: energy {spent['energy']}; carbon {spent['carbon']}")
    print(f"go on with: gen llm generate {run} 'TEXT'; report {report.build(run)}")
