"""`gen compare`."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rich
from rich.table import Table
from torch import Tensor

from gen_apps import page
from gen_apps.compare import controls, families
from gen_apps.compare.families import Sampled
from gen_apps.compare.measure import COLUMNS, FLOOR, Bench, Row, differences
from gen_apps.compare.sheets import bars, sheets
from gen_apps.compare.words import gaps, paragraph
from gen_apps.data import Source, batch_size, subset
from gen_apps.energy import Place
from gen_apps.identity import Machine, slug
from gen_core import Run, quality
from gen_core.quality import text

FAMILIES = ("vae", "gan", "diffusion")


@dataclass(frozen=True)
class Compare(Source):
    """Train a VAE, a GAN and a diffusion model on the same data, of which each sees as many samples, and measure them.

    None is told the classes. Beside them: training data, a mixture of Gaussians, a memoriser and a collapsed sampler.
    """

    out: Path | None = None
    """Directory to write; by default runs/compare-DATA. The same command again trains only what is not yet trained."""
    steps: int = 4000
    """Updates of each family."""
    batch_size: int = 64
    """Samples per update."""
    families: tuple[str, ...] = FAMILIES
    """Which to train."""
    seed: int = 0
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        super().__post_init__()
        if unknown := set(self.families) - set(FAMILIES):
            raise ValueError(f"--families must be of {', '.join(FAMILIES)}, got {', '.join(sorted(unknown))}")
        if not self.families:
            raise ValueError(f"--families needs one of {', '.join(FAMILIES)} at least")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")

    def directory(self) -> Path:
        return self.out or Path("runs") / f"compare-{slug(self.data)}"


def compare(config: Compare) -> None:
    begun, (training, held_out) = time.monotonic(), config.load()
    families.check(config, training)
    run = Run.create(config.directory(), replace(config, out=None, machine=Machine(), place=Place()))
    config = replace(config, batch_size=batch_size(config.batch_size, len(training)))
    x, *rest = subset(training)[:]
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
    rich.print(_shown(rows))
    print(f"{said}\n{written}, {_page(run, config, rows, costs, drawn, said, bench.n)}; {seconds:.0f} s")


def _spent(sampler: Sampled) -> dict[str, str]:
    """What training cost, without where the figure comes from."""
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


NOTES = """
    c2st: accuracy on held-out folds of a perceptron that learns to tell samples from held-out data; .5 is ideal.
    bits/dim: bounds from above, the VAE's by 500 importance samples, the diffusion's by its probability-flow equation
    on 48 samples; a GAN has none. J/sample: of this machine while it sampled, between the ends 8 times in 10.
"""


def _page(
    run: Run,
    config: Compare,
    rows: dict[str, Row],
    costs: list[dict[str, Any]],
    drawn: dict[str, Tensor],
    said: str,
    n: int,
) -> Path:
    columns, seen = _columns(rows), config.steps * config.batch_size
    notes = [note for name, note in quality.NOTES.items() if not name or name in columns]
    return page.write(
        run.path / "compare.html",
        f"VAE, GAN and diffusion on {config.data}",
        page.text(said),
        page.section("Samples, none of them chosen", page.image(sheets(drawn), "Samples of each side by side")),
        page.section(
            f"All figures, of {n} samples each",
            page.figures(("", *rows), [(c, *(_cell(row, c) for row in rows.values())) for c in columns]),
            *(page.text(note) for note in (*notes, NOTES)),
        ),
        page.section("Near and wide", page.image(bars(rows), "Fréchet distance and recall of each")),
        page.section(
            "The same budget",
            page.text(
                f"Each family saw {seen:,} samples, {config.steps:,} updates of {config.batch_size}, and no classes."
            ),
            page.table(
                ("", "parameters that sample", "energy of training", "per sample seen", "carbon"),
                [(c["name"], f"{c['parameters']:,}", c["energy"], c["per sample"], c["carbon"]) for c in costs],
            ),
        ),
    )
