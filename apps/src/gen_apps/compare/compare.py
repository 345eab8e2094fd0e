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
from gen_apps.compare.measure import COLUMNS, Bench, cell
from gen_apps.compare.sheets import bars, sheets
from gen_apps.compare.words import paragraph
from gen_apps.data import Source, batch_size, subset
from gen_apps.energy import Place
from gen_apps.identity import Machine, slug
from gen_core import Run

FAMILIES = ("vae", "gan", "diffusion")


@dataclass(frozen=True)
class Compare(Source):
    """Train a VAE, a GAN and a diffusion model on the same data, of which each sees as many samples, and measure them.

    None is told the classes. Beside them stand real data, a mixture of Gaussians, a memoriser and a collapsed sampler.
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
    (x, *rest), (x_test, *_) = subset(training)[:], held_out[:]
    y = rest[0] if rest else None
    ours = families.trained(config, run.path)
    bench = Bench.of(x, y, x_test, config.place, config.seed)
    samplers = [
        controls.real(x),
        *ours.values(),
        controls.mixture(x, config.seed),
        controls.memoriser(x, config.seed),
        controls.collapsed(x, y, config.seed),
    ]
    rows, drawn = {}, {"held-out data": x_test}
    for sampler in samplers:
        rows[sampler.name], drawn[sampler.name] = bench.row(sampler, x_test)
    said = paragraph(rows, [sampler.name for sampler in ours.values()])
    seconds = time.monotonic() - begun
    run.write("compare.json", {"rows": list(rows.values()), "paragraph": said, "seconds": seconds})
    shown = Table("", *SHORT.values(), box=None, pad_edge=False)
    for name, row in rows.items():
        shown.add_row(name, *(cell(row, c).split(" ±")[0] for c in SHORT))
    rich.print(shown)
    print(f"{said}\n{run.path / 'compare.json'}, {_page(run, config, rows, drawn, said, bench.n)}; {seconds:.0f} s")


SHORT = {  # of the columns that a terminal has room for
    "features": "FD feat",
    "frechet": "FD pix",
    "precision": "prec.",
    "recall": "recall",
    "coverage": "cover",
    "c2st": "C2ST",
    "bits": "bits",
    "evaluations": "calls",
    "joules": "J",
}
NOTES = """
    All sets have {n} samples and are compared with {n} held-out ones. Fréchet distances grow as n falls, so read them
    beside the first row, real data that nobody generated. Features are the 64 hidden units of a perceptron that was
    fitted to the classes of the training data; all else is of pixels or coordinates, precision to coverage with 5
    neighbours. KID is unbiased, 0 for one distribution. C2ST is the accuracy of a classifier that tells samples from
    held-out data, .5 at best. Novelty is the median distance to the nearest training sample over that to the
    nearest held-out one, near 0 for copies. Bits per dimension are bounds from above, the VAE's by 500 importance
    samples, the diffusion's by its probability-flow equation on 48 samples; a GAN has none. Intervals are 95 %, from
    half samples.
"""


def _page(
    run: Run, config: Compare, rows: dict[str, dict[str, Any]], drawn: dict[str, Tensor], said: str, n: int
) -> Path:
    seen = config.steps * config.batch_size
    columns = [c for c in COLUMNS if any(c in row["values"] for row in rows.values())]
    head = ("", *(COLUMNS[c][0] for c in columns))
    body = [(name, *(cell(row, c) for c in columns)) for name, row in rows.items()]
    costs = [
        (
            name,
            f"{row['parameters']:,}",
            *(str(row["training"].get(k, "–")).split(" (")[0] for k in ("energy", "per sample", "carbon")),
        )
        for name, row in rows.items()
        if row["training"]
    ]
    return page.write(
        run.path / "compare.html",
        f"VAE, GAN and diffusion on {config.data}",
        page.text(said),
        page.section("Samples, none of them chosen", page.image(sheets(drawn), "Samples of each side by side")),
        page.section(
            "All figures",
            f'<div class="wide">{page.table(head, body)}</div>',
            page.text(NOTES.format(n=n)),
        ),
        page.section("Near and wide", page.image(bars(rows), "Fréchet distance and recall of each")),
        page.section(
            "The same budget",
            page.text(
                f"Each family saw {seen:,} samples, {config.steps:,} updates of {config.batch_size}, and no classes."
            ),
            page.table(("", "parameters that sample", "energy of training", "per sample seen", "carbon"), costs),
        ),
    )
