"""`gen diffusion compare`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import rich
import torch
from rich.table import Table

from gen_apps import pages
from gen_apps.diffusion import drawings
from gen_apps.diffusion.build import draw_samples, within
from gen_apps.diffusion.config import CompareSamplers
from gen_apps.diffusion.flags import METHODS, Sampler
from gen_apps.diffusion.trained import TrainedDiffusion
from gen_apps.energy import metered
from gen_apps.options import given
from gen_apps.results import write_results
from gen_core import Arrays, quality
from gen_core.callbacks import bar
from gen_core.scales import text
from gen_diffusion.explain import Counted

COLUMNS = ("frechet", "frechet-features", "kid", "precision", "recall", "two-sample", "memorisation", "label")
SHORT = {"frechet": "frechet", "precision": "prec.", "recall": "recall", "memorisation": "mem.", "label": "label"}
FLOOR = "training data"
OPTIONS = {name for options in METHODS.values() for name in options}
HEAD = ("name", "steps", "evaluations", "J/sample")
DRAWN = {  # in the page's plots
    "frechet": "Fréchet distance",
    "label": "share of samples that show the class asked for",
    "precision": "precision: share of samples among the data",
    "recall": "recall: share of the data among the samples",
}


def compare(config: CompareSamplers) -> None:
    trained = TrainedDiffusion.open(config.run, config.device)
    training, held_out = trained.data()
    held_out = _first(held_out, config.n)
    planned = list(_planned(config, trained))
    labels = held_out.tensors[-1]
    reference = quality.Reference.of(training, held_out, draws=config.draws)
    rows: list[dict[str, Any]] = []
    with bar("comparing", len(planned)) as advance:
        for done, (method, budget, sampler) in enumerate(planned, 1):
            counted = Counted(trained.network)
            with metered(config.place, len(labels)) as cost:
                x = draw_samples(
                    sampler, counted, range(len(labels)), trained.shape, labels if trained.classes else None,
                    seed=config.seed, batch=config.batch, device=trained.device,
                )  # fmt: skip
            known = labels if trained.classes else None
            rows.append(
                {"budget": budget, "steps": sampler.steps, "evaluations": counted.evaluations / len(labels)}
                | {"J/sample": cost.per_sample, **reference.measure(method, x, known).row()}
            )
            advance(done)
    rows.append(reference.training_data().row())
    written = trained.run.write("compare.json", {"n": len(reference.test), "step": trained.step, "rows": rows})
    write_results(config.json, "diffusion compare", config, rows)
    rich.print(_table(rows))
    print(f"{written}, {_page(trained, rows, reference)}")


def _planned(config: CompareSamplers, trained: TrainedDiffusion) -> Iterator[tuple[str, int, Sampler]]:
    """Each method at each budget that pays for two steps; options of one method do not stop the others."""
    for method in config.methods:
        requested = replace(config.sampler, method=method)
        own = {name: None for name in given(requested) if name in OPTIONS - METHODS[method].keys()}
        sampler = replace(requested, **own).over(trained.config.sampler).completed("", given(config.sampler))
        sampler.check(trained.classes, "")
        for budget in config.budgets:
            if (affordable := within(sampler, budget)) is not None:
                yield method, budget, affordable


def _first(half: Arrays, n: int) -> Arrays:
    """At most `n` samples."""
    return Arrays(*half[torch.arange(min(n, len(half)))], classes=half.classes)


def _cell(row: dict[str, Any], name: str) -> str:
    found = row.get(name, "")
    return text(found) if isinstance(found, dict) else found if isinstance(found, str) else f"{found:g}"


def _table(rows: list[dict[str, Any]]) -> Table:
    """The figures that a terminal has room for, of the distance with their interval."""
    shown = Table("sampler", "steps", "calls", "J", *SHORT.values(), box=None, pad_edge=False)
    for row in rows:
        cells = {name: _cell(row, name) for name in (*HEAD, *SHORT)}
        shown.add_row(*(cell if name == "frechet" else cell.split(" (")[0] for name, cell in cells.items()))
    return shown


def _page(trained: TrainedDiffusion, rows: list[dict[str, Any]], reference: quality.Reference) -> Path:
    plots, columns = {}, [c for c in COLUMNS if c in rows[0]]
    *drawn, floor = rows
    for name, title in ((name, title) for name, title in DRAWN.items() if name in columns):
        curves = {
            method: [(row["evaluations"], row[name]["value"]) for row in drawn if row["name"] == method]
            for method in dict.fromkeys(row["name"] for row in drawn)
        }
        real = floor[name]["value"] if name in floor else None
        plots[name] = (title, drawings.quality(curves, real, title, FLOOR))
    return pages.write(
        trained.run.path / "compare.html",
        "samplers",
        title=f"Samplers on {trained.run.path.resolve().name}",
        n=len(reference.test),
        step=trained.step,
        plots=plots,
        columns=[*HEAD[1:], *columns],
        rows=rows,
        notes=reference.notes(columns),
    )
