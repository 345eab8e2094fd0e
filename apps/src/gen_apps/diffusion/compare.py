"""`gen diffusion compare`."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import rich
import torch
import tyro
from rich.table import Table

from gen_apps import page
from gen_apps.diffusion import drawings
from gen_apps.diffusion.samplers import METHODS, Sampler
from gen_apps.diffusion.trained import Trained
from gen_apps.energy import Place, metered
from gen_apps.options import given
from gen_core import Arrays, quality
from gen_core.callbacks import bar
from gen_diffusion.explain import Counted

USUAL = tuple(name for name in METHODS if name != "ddim")  # which without fresh noise is euler
COLUMNS = ("frechet", "frechet-features", "kid", "precision", "recall", "two-sample", "memorisation", "label")
SHORT = {"frechet": "frechet", "precision": "prec.", "recall": "recall", "memorisation": "mem.", "label": "label"}
FLOOR = "training data"
OPTIONS = {name for _, options in METHODS.values() for name in options}
HEAD = ("name", "steps", "evaluations", "J/sample")
DRAWN = {  # in the page's plots
    "frechet": "Fréchet distance",
    "label": "share of samples that show the class asked for",
    "precision": "precision: share of samples among the data",
    "recall": "recall: share of the data among the samples",
}


@dataclass(frozen=True)
class Compare:
    """Draw samples of a run with every sampler at several budgets of network evaluations, and measure them all."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Directory of the run, where compare.json and compare.html are written."""
    n: int = 500
    """Samples of each, beside as many held-out ones; at most those that there are."""
    budgets: tuple[int, ...] = (6, 12, 24, 48)
    """Network evaluations per sample, guidance included; a sampler takes the most steps that stay within."""
    methods: tuple[str, ...] = USUAL
    """Samplers, of those of gen diffusion sample."""
    sampler: Annotated[Sampler, tyro.conf.arg(name="")] = field(default_factory=Sampler)
    draws: int = 4
    """Half samples behind each interval."""
    seed: int = 0
    batch: int = 256
    """Samples at a time, to fit memory."""
    device: str = "auto"
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        if unknown := set(self.methods) - set(METHODS):
            raise ValueError(f"--methods must be of {', '.join(METHODS)}, got {', '.join(sorted(unknown))}")
        if not self.methods or not self.budgets or min(self.budgets) < 2:
            raise ValueError(f"--methods and --budgets need one entry at least, budgets 2 or more, got {self.budgets}")
        for name in ("method", "steps"):
            if getattr(self.sampler, name) is not None:
                raise ValueError(f"--{name} is what is compared; give --methods and --budgets")
        for name, least in (("n", 12), ("draws", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")


def compare(config: Compare) -> None:
    trained = Trained.open(config.run, config.device)
    training, held_out = (_first(half, config.n) for half in trained.data())
    planned = list(_planned(config, trained))
    labels = held_out.tensors[-1]
    reference = quality.Reference.of(training, held_out, draws=config.draws)
    rows: list[dict[str, Any]] = []
    with bar("comparing", len(planned)) as advance:
        for done, (method, budget, sampler) in enumerate(planned, 1):
            counted = Counted(trained.denoiser)
            with metered(config.place, len(labels)) as cost:
                x = sampler.draw(
                    counted, range(len(labels)), trained.model.shape, labels if trained.model.classes else None,
                    seed=config.seed, batch=config.batch, device=trained.device,
                )  # fmt: skip
            asked = labels if trained.model.classes else None
            rows.append(
                {"budget": budget, "steps": sampler.steps, "evaluations": counted.evaluations / len(labels)}
                | {"J/sample": cost.per_sample, **reference.measure(method, x, asked).row()}
            )
            advance(done)
    rows.append(reference.training_data().row())
    written = trained.run.write("compare.json", {"n": len(reference.test), "step": trained.step, "rows": rows})
    rich.print(_table(rows))
    print(f"{written}, {_page(trained, rows, len(reference.test))}")


def _planned(config: Compare, trained: Trained) -> Iterator[tuple[str, int, Sampler]]:
    """Each method at each budget that pays for two steps; options of one method do not stop the others."""
    for method in config.methods:
        asked = replace(config.sampler, method=method)
        own = {name: None for name in given(asked) if name in OPTIONS - METHODS[method][1].keys()}
        sampler = replace(asked, **own).over(trained.config.sampler).completed("", given(config.sampler))
        sampler.check(trained.model.classes, "")
        for budget in config.budgets:
            if (within := sampler.within(budget)) is not None:
                yield method, budget, within


def _first(half: Arrays, n: int) -> Arrays:
    """As many samples of all sets, so that their distances are biased alike."""
    return Arrays(*half[torch.arange(min(n, len(half)))], classes=half.classes)


def _cell(row: dict[str, Any], name: str) -> str:
    found = row.get(name, "")
    return quality.text(found) if isinstance(found, dict) else found if isinstance(found, str) else f"{found:g}"


def _table(rows: list[dict[str, Any]]) -> Table:
    """The figures that a terminal has room for, of the distance with their interval."""
    shown = Table("sampler", "steps", "calls", "J", *SHORT.values(), box=None, pad_edge=False)
    for row in rows:
        cells = {name: _cell(row, name) for name in (*HEAD, *SHORT)}
        shown.add_row(*(cell if name == "frechet" else cell.split(" (")[0] for name, cell in cells.items()))
    return shown


def _page(trained: Trained, rows: list[dict[str, Any]], n: int) -> Path:
    pictures, columns = [], [c for c in COLUMNS if c in rows[0]]
    *drawn, floor = rows
    for name, title in DRAWN.items():
        curves = {
            method: [(row["evaluations"], row[name]["value"]) for row in drawn if row["name"] == method]
            for method in dict.fromkeys(row["name"] for row in drawn)
        }
        if name in columns:
            real = floor[name]["value"] if name in floor else None
            pictures.append(page.image(drawings.quality(curves, real, title, FLOOR), f"{title} of each sampler"))
    head = (*HEAD, *columns)
    notes = [note for name, note in quality.NOTES.items() if not name or name in columns]
    return page.write(
        trained.run.path / "compare.html",
        f"Samplers on {trained.run.path.resolve().name}",
        page.text(
            f"""
            {n} samples of each, drawn from the same noise with the weights of step {trained.step}, beside {n} held-out
            samples. Evaluations are counted at the network, guidance included. The dashed line is what {n} training
            samples reach.
            """
        ),
        page.section("Quality against network evaluations", *pictures),
        page.section(
            "All figures",
            page.figures(head, [[_cell(row, name) for name in head] for row in rows]),
            *(page.text(note) for note in notes),
        ),
    )
