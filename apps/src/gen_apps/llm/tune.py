"""`gen llm tune`: a trained model learns to answer."""

from pathlib import Path
from typing import Any

import torch

from gen_apps.llm import trained
from gen_apps.llm.config import Tune
from gen_apps.llm.speed import Speed
from gen_apps.results import figure
from gen_apps.training import conclude, fit
from gen_core import Arrays, Loader, Training, seed_all
from gen_core.schedule import wsd
from gen_core.summary import summary
from gen_transformer import CHATML, LMTask, Tokenizer, Transformer, complete, flops_per_token, greedy, pack
from gen_transformer.chat import batch
from gen_transformer.data import json_lines
from gen_transformer.sampling import known

Chat = list[dict[str, Any]]


def tune(config: Tune, run: Path) -> None:
    if not (config.base and config.data):
        raise ValueError("RUN and CHATS are missing: give a trained model and a .jsonl file with a chat a line")
    model, tok = trained.load(Path(config.base), "cpu", dtype=torch.float32)
    _need_controls(tok, Path(config.base))
    chats = read_chats(Path(config.data))
    count = min(max(1, round(len(chats) * config.held_out)), len(chats) - 1)
    training, held = (rows(part, tok, model.config.context) for part in (chats[:-count], chats[-count:]))
    seed_all(config.seed, "weights")
    o = config.optim
    if config.freeze:
        model.blocks.requires_grad_(False)
    task = LMTask(model, lr=o.lr, muon=None if config.freeze else o.muon or None, weight_decay=o.weight_decay)
    context = model.config.context
    look = Speed(
        min(o.batch_size, len(training)) * context, flops_per_token(model.config, context), max(1, o.steps // 20)
    )
    first = next(chat for chat in chats[-count:] if CHATML.learnt(chat))

    def preview(t: Training) -> None:
        if t.rank == 0:
            trained.write(run, f"step {t.step:06d}", said(model, tok, first))

    validation = Loader(held, min(16, len(held)), shuffle=False)
    trainer, _ = fit(
        config, run, task, Loader(training, min(o.batch_size, len(training)), seed=config.seed), network="model",
        facts={}, layers=summary(model, torch.zeros(1, context, dtype=torch.long)), preview=preview,
        validation=validation, schedule=lambda steps: wsd(max(1, steps // 20), steps, steps // 2), callbacks=[look],
        files=tok.save,
    )  # fmt: skip
    loss = trainer.evaluate(validation)["loss"]  # on all processes, which share the rows
    if trainer.rank == 0:
        trained.export(run, tok, model, end=CHATML.controls[-1], template=CHATML.to_jinja())
        print(f"{said(model, tok, first)}\n")
        print(f"{loss:.4f} nats per token that the assistant says in {count} held-out chats")
        row = {"name": "held-out chats", "n": count, "nats per token": figure(loss, n=count, unit="nats")}
        notes = ["Nats per token of what the assistant says in held-out chats."]
        table = {"columns": ["nats per token"], "rows": [row], "notes": notes}
        conclude(config, run, table, f"talk with it: gen llm chat {run}")


def read_chats(file: Path) -> list[Chat]:
    """The conversations of a .jsonl file.

    Raises:
        FileNotFoundError, ValueError: when there is no such file, a line is no chat, or there are fewer than 2.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file; give a .jsonl file with a chat a line")
    chats = []
    for number, line in json_lines(file):
        try:
            chats.append([dict(message) for message in line["messages"]])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f'{file} line {number} is no chat; a line is {{"messages": [...]}}') from None
    if len(chats) < 2:
        raise ValueError(f"{file} holds {len(chats)} chats; give at least 2, one of which is held out")
    return chats


def rows(chats: list[Chat], tok: Tokenizer, context: int) -> Arrays:
    """Chats packed into rows of the context; what does not fit is cut, and nothing learnt is left in some: those go.

    Raises:
        ValueError: when all go.
    """
    cut = [(ids[:context], mask[:context]) for ids, mask in (CHATML.render(chat, tok) for chat in chats)]
    rendered = [(ids, mask) for ids, mask in cut if any(mask[1:])]
    if not rendered:
        raise ValueError(f"in none of {len(cut)} chats the assistant says anything within the context of {context}")
    if len(rendered) < len(cut):
        print(f"left out {len(cut) - len(rendered)} chats: the assistant says nothing within the context of {context}")
    places = pack([len(ids) for ids, _ in rendered], context)
    return Arrays(*batch([[rendered[i] for i in place] for place in places], context))


def said(model: Transformer, tok: Tokenizer, chat: Chat) -> str:
    """A chat up to its first answer that is learnt: the last turn before it, the answer, and the model's."""
    at = CHATML.learnt(chat)[0]
    turns, wanted = chat[:at], chat[at]["content"]
    ids = CHATML.prompt(turns, tok)
    room = model.config.context - len(ids)
    if room < 1:
        return f"(what stands before the answer {wanted[:60]!r} fills the context)"
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    warp = known(greedy, model.config.vocab, len(tok))
    new = complete(model, torch.tensor([ids], device=device), room, warp=warp, stop=[CHATML.stop(tok)])[0].tolist()
    model.train(training)
    answer = tok.decode([i for i in new if i >= 0 and i not in tok.specials.values()])
    return f"{turns[-1]['role']}: {turns[-1]['content']}\nwanted: {wanted}\nmodel: {answer}"


def _need_controls(tok: Tokenizer, base: Path) -> None:
    if missing := [name for name in CHATML.controls if name not in tok.specials]:
        raise ValueError(
            f"the tokeniser of {base} has no {' and '.join(missing)}, which mark turns; those of "
            "gen llm pretrain have them"
        )
