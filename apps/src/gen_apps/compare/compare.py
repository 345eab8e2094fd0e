"""`gen compare`."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import rich
from rich.table import Table
from torch import Tensor

from gen_apps import data, pages
from gen_apps.command import Machine
from gen_apps.compare import controls, families
from gen_apps.compare.config import Compare
from gen_apps.compare.families import Sampled
from gen_apps.compare.measure import COLUMNS, FLOOR, Bench, Row, differences
from gen_apps.compare.sheets import bars, sheets
from gen_apps.compare.words import gaps, paragraph
from gen_apps.energy import Place
from gen_apps.results import write_results
from gen_core import Run
from gen_core.scales import text


def compare(config: Compare) -> None:
    begun, (training, held_out) = time.monotonic(), data.of(config)
    families.check(config, training)
    run = Run.create(config.directory(), replace(config, out=None, json=None, machine=Machine(), place=Place()))
    config = replace(config, batch_size=data.batch_size(config.batch_size, len(training)))
    x, *rest = data.subset(training)[:]
    y = rest[0] if rest else None
    ours = families.trained(config, run.path)
    bench = Bench.of(training, held_out, config.place)
    samplers = [
        *ours.values(),
        controls.mixture(x, config.seed),
        controls.memoriser(x, config.seed),
        controls.collapsed(x, y, config.seed),
    ]
    floor, row = bench.floor()
    measured, rows, drawn = {FLOOR: floor}, {FLOOR: row}, {"held-out data": held_out[:][0], FLOOR: x}
    for sampler in samplers:
        measured[sampler.name], rows[sampler.name], drawn[sampler.name] = bench.row(sampler)
    pairs = differences(measured)
    said = paragraph(rows, [sampler.name for sampler in ours.values()], gaps(pairs))
    costs = [{"name": s.name, "parameters": s.parameters} | _spent(s) for s in ours.values()]
    seconds = time.monotonic() - begun
    written = run.write(
        "compare.json",
        {"rows": list(rows.values()), "differences": pairs, "costs": costs, "paragraph": said, "seconds": seconds},
    )
    spent = {cost["name"]: cost for cost in costs}
    write_results(config.json, "compare", config, [*(row | spent.get(n, {}) for n, row in rows.items()), *pairs])
    rich.print(_shown(rows))
    print(f"{said}\n{written}, {_page(run, config, rows, costs, drawn, said, bench)}; {seconds:.0f} s")


def _spent(sampler: Sampled) -> dict[str, str]:
    """Cost of training, without the source of the figure."""
    return {k: str(sampler.training.get(k, "–")).split(" (")[0] for k in ("energy", "per sample", "carbon")}


def _columns(rows: dict[str, Row]) -> list[str]:
    return [c for c in COLUMNS if any(c in row for row in rows.values())]


def _cell(row: Row, column: str) -> str:
    found = row.get(column)
    return f"{found:.0f}" if isinstance(found, float) else text(found)


def _shown(rows: dict[str, Row]) -> Table:
    """The figures that a terminal has room for; their intervals are on the page and in compare.json."""
    shown = Table("", *rows, box=None, pad_edge=False)
    for column in _columns(rows):
        shown.add_row(column, *(_cell(row, column).split(" (")[0] for row in rows.values()))
    return shown


def _page(
    run: Run,
    config: Compare,
    rows: dict[str, Row],
    costs: list[dict[str, Any]],
    drawn: dict[str, Tensor],
    said: str,
    bench: Bench,
) -> Path:
    columns = _columns(rows)
    return pages.write(
        run.path / "compare.html",
        "families",
        title=f"VAE, GAN and diffusion on {config.data}",
        paragraph=said,
        sheets=sheets(drawn),
        columns=columns,
        rows=list(rows.values()),
        notes=bench.reference.notes(columns),
        bars=bars(rows),
        n=bench.n,
        steps=config.steps,
        batch_size=config.batch_size,
        costs=[(c["name"], f"{c['parameters']:,}", c["energy"], c["per sample"], c["carbon"]) for c in costs],
    )
