"""`gen llm tune`: a trained model learns to answer."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from gen_apps.energy import Place
from gen_apps.identity import Machine, identity
from gen_apps.llm import trained
from gen_apps.llm.speed import Speed
from gen_apps.loop import loop
from gen_core import Arrays, Loader, Run, report, seed_all
from gen_core.schedule import wsd
from gen_transformer import CHATML, LMTask, Tokenizer, Transformer, complete, flops_per_token, greedy, pack
from gen_transformer.chat import batch
from gen_transformer.data import json_lines
from gen_transformer.sampling import known

Chat = list[dict[str, Any]]


@dataclass(frozen=True)
class TuneOptim:
    """How it is trained."""

    steps: int = 300
    """Updates."""
    batch_size: int = 16
    """Rows of packed chats per update, over all processes."""
    lr: float = 1e-3
    """Peak rate of AdamW, for tables, head, gains and biases."""
    muon: float = 0.005
    """Peak rate of Muon for the matrices of the blocks; 0 trains them by AdamW too."""
    clip: float | None = 1.0
    """Largest norm of a gradient."""


@dataclass(frozen=True)
class Tune:
    """Teach a trained model to answer: chats in, only what the assistant says is learned."""

    base: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run of gen llm pretrain or tune, or a Hugging Face directory with its tokeniser."""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CHATS")]
    """A .jsonl file with a chat a line: {"messages": [{"role": "user", "content": "..."}, ...]}."""
    freeze: bool = False
    """Train only the tables, the head and the last norm; the blocks stay as they are."""
    held_out: float = 0.1
    """Share of the chats that is not trained on."""
    out: Path | None = None
    """Directory to write; by default runs/llm-CHATS. The same command again continues the same run."""
    seed: int = 0
    optim: TuneOptim = field(default_factory=TuneOptim)
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)
    resume: Annotated[None, tyro.conf.Suppress] = None

    def __post_init__(self):
        if not 0 < self.held_out < 1:
            raise ValueError(f"--held-out is a share between 0 and 1, got {self.held_out}")


def tune(config: Tune) -> None:
    run = config.out or Path("runs") / f"llm-{Path(config.data).stem}"
    model, tok = trained.load(config.base, "cpu", dtype=torch.float32)
    _need_controls(tok, config.base)
    chats = read_chats(Path(config.data))
    count = min(max(1, round(len(chats) * config.held_out)), len(chats) - 1)
    training, held = (rows(part, tok, model.config.context) for part in (chats[:-count], chats[-count:]))
    seed_all(config.seed, "weights")
    o = config.optim
    if config.freeze:
        model.blocks.requires_grad_(False)
    task = LMTask(model, lr=o.lr, muon=None if config.freeze else o.muon or None, weight_decay=0.0)
    context = model.config.context
    look = Speed(
        min(o.batch_size, len(training)) * context, flops_per_token(model.config, context), max(1, o.steps // 20)
    )
    first = next(chat for chat in chats[-count:] if CHATML.learnt(chat))

    def answer(t: Any) -> None:
        if t.rank == 0:
            trained.write(run, f"step {t.step:06d}", said(model, tok, first))

    def begin() -> None:
        record = Run.create(run, identity(config))
        tok.save(run)
        record.write("model.json", asdict(model.config))

    loader = Loader(training, min(o.batch_size, len(training)), seed=config.seed)
    validation = Loader(held, min(16, len(held)), shuffle=False)
    trainer = loop(
        config, run, task, loader, None, answer, begin=begin, go_on="the same command goes on",
        validation=validation, clip=o.clip,
        schedule=wsd(max(1, o.steps // 20), o.steps, o.steps // 2), more=[look],
    )  # fmt: skip
    loss = trainer.evaluate(validation)["loss"]  # on all processes, which share the rows
    if trainer.rank == 0:
        trained.keep(run, tok, model, end=CHATML.controls[-1], template=CHATML.to_jinja())
        spent = json.loads((run / "energy.json").read_text())
        print(f"{said(model, tok, first)}\n")
        print(f"{loss:.4f} nats per token that the assistant says in {count} held-out chats")
        print(f"training: energy {spent['energy']}; carbon {spent['carbon']}")
        print(f"talk with it: gen llm chat {run}; report {report.build(run)}")


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
