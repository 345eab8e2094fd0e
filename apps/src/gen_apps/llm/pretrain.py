"""`gen llm pretrain`: from text to a language model that writes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset

from gen_apps.llm import build, corpus, trained
from gen_apps.llm.config import Pretrain
from gen_apps.llm.scoring import scored
from gen_apps.llm.speed import Speed
from gen_apps.results import Row, figure
from gen_apps.training import conclude, fit
from gen_core import Evaluate, Loader, Run, Trainer, Training, seed_all
from gen_core.scales import text
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
)

GLANCE = 256  # held-out rows that are looked at during training; all of them at the end


def pretrain(config: Pretrain, run: Path) -> None:
    build.network_config(config.network, vocab=1)  # an impossible network is refused before the text is read
    run.mkdir(parents=True, exist_ok=True)
    settings = {"tokenizer": config.tokenizer, "held_out": config.held_out, "encoding": config.encoding}
    tok, sources = corpus.prepare(config.data, run / "data", **settings)
    config = build.complete(config, tok)
    seed_all(config.seed, "weights")
    model = Transformer(build.network_config(config.network, len(tok)))
    model.recompute = config.network.recompute
    context, isolate = config.network.context, config.isolate
    rows = {name: Windows(training, context, isolate=isolate) for name, (training, _) in sources.items()}
    shares = dict(zip(rows, config.ratios or [len(source) for source in rows.values()], strict=True))
    mixture = Mixture(rows, shares, batch_size=config.optim.batch_size or 1, seed=config.seed)
    trainer = train(config, run, model, tok, mixture, {name: held for name, (_, held) in sources.items()})
    if trainer.rank == 0:
        trained.export(run, tok, model, end=corpus.END)
        scores = {name: _scored(model, tok, held) for name, (_, held) in sources.items()}
        _finish(config, run, model, tok, scores, mixture.seen(trainer.step))


def train(
    config: Pretrain, run: Path, model: Transformer, tok: Tokenizer, data: Mixture, held: dict[str, Corpus]
) -> Trainer:
    """Train a stack as a completed `config` says; score the held-out tokens and write a text now and then."""
    o, context = config.optim, config.network.context
    assert o.steps and o.batch_size and o.lr, "the configuration is completed"
    task = LMTask(
        model, lr=o.lr, muon=o.muon or None, weight_decay=o.weight_decay, betas=o.betas, smoothing=o.smoothing, z=o.z,
        compile=o.compile,
    )  # fmt: skip
    flops = flops_per_token(model.config, context)
    callbacks: list[Any] = [Speed(o.batch_size * context, flops, max(1, o.steps // 200))]
    for name, tokens in held.items():
        few = Windows(tokens, context)
        some = Subset(few, range(0, len(few), max(1, len(few) // GLANCE)))
        prefix = "val/" if len(held) == 1 else f"val/{name}/"
        callbacks.append(Evaluate(Loader(some, min(64, len(some)), shuffle=False), max(1, o.steps // 6), prefix=prefix))

    def preview(t: Training) -> None:
        if t.rank == 0:
            trained.write(run, f"step {t.step:06d}", trained.sample(model, tok, config.prompt or "", 200, config.seed))

    layers = summary(model, torch.zeros(1, context, dtype=torch.long))
    trainer, _ = fit(
        config, run, task, data, network="model", facts={},
        layers=f"{layers}\n{parameters(model):,} parameters, {flops:,} FLOP a token", preview=preview,
        schedule=lambda steps: build.schedule(replace(o, steps=steps)), callbacks=callbacks, files=tok.save,
    )  # fmt: skip
    return trainer


def _scored(model: Transformer, tok: Tokenizer, held: Corpus) -> tuple[Score, dict[str, Row]]:
    """The score of held-out documents, and their figures."""
    texts = list(corpus.texts(held, tok))
    total, row = scored(model, tok, texts, stride=max(1, model.config.context // 2), batch_size=64)
    whole = "".join(texts)
    row["bytes per token"], row["tokens per word"] = (figure(f(tok, whole)) for f in (bytes_per_token, fertility))
    return total, row


def _finish(
    config: Pretrain, run: Path, model: Transformer, tok: Tokenizer, scores: dict[str, Any], seen: dict[str, Any]
) -> None:
    rows = []
    for name, (found, costs) in scores.items():
        read = {"tokens trained on": figure(seen[name].tokens), "epochs": figure(seen[name].epochs)}
        rows.append({"name": name, "n": found.tokens, **costs, **read})
        print(
            f"{name}: {text(costs['bits per byte'])} bits per byte, {text(costs['bits per character'])} per character, "
            f"{text(costs['nats per token'], 5)} nats per token on {found.tokens:,} held-out tokens; "
            f"{costs['tokens per word']['value']:.2f} tokens per word; trained on {seen[name].tokens:,.0f} tokens "
            f"({seen[name].epochs:.2f} epochs)"
        )
    note = (
        f"Every token predicted once from at least {model.config.context // 2} before it (n counts them); intervals "
        "are 95 % over documents, where there are four or more."
    )
    columns = [name for name in rows[0] if name not in ("name", "n")]
    size, tokens = parameters(model), sum(one.tokens for one in seen.values())
    loss = sum(found.nats for found, _ in scores.values()) / sum(found.tokens for found, _ in scores.values())
    Run(run).write("scaling.json", {"N": parameters(model, tables=False), "D": tokens, "loss": loss})
    written = trained.sample(model, tok, config.prompt or "", 600, config.seed)
    trained.write(run, "sample", written)
    print(f"\n{written}\n\n{size:,} parameters")
    table = {"columns": columns, "rows": rows, "notes": [note]}
    conclude(config, run, table, f"continue a prompt: gen llm generate {run} 'TEXT'")
