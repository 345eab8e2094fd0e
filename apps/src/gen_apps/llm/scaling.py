"""`gen llm scaling`: a law through the losses of runs, how sure it is, and what a budget buys."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from gen_core.runtime import generator
from gen_transformer.scaling import Law, fit

COLUMNS = ("N", "D", "loss")


@dataclass(frozen=True)
class Scaling:
    """Fit L = E + A / N^alpha + B / D^beta to runs, with bootstrap intervals, and spend a budget best."""

    data: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN|CSV ...")]
    """Runs of gen llm pretrain, or .csv files with columns N (parameters), D (tokens) and loss; six runs at least."""
    budget: tuple[float, ...] = ()
    """FLOP to spend; by default 10 and 100 times those of the largest run."""
    bootstrap: int = 200
    """Fits to resampled runs, for the intervals."""
    seed: int = 0
    out: Path = Path("scaling.png")
    """Picture to write."""


def scaling(config: Scaling) -> None:
    points = torch.tensor([point for path in config.data for point in read(path)], dtype=torch.float64).reshape(-1, 3)
    N, D, loss = points.T
    law = fit(N, D, loss, bootstrap=config.bootstrap, generator=generator(config.seed, "bootstrap"))
    residual = (law.predict(N, D) / loss - 1).abs().max()
    print(f"L = {law.E:.4g} + {law.A:.4g} / N^{law.alpha:.4g} + {law.B:.4g} / D^{law.beta:.4g}")
    for name in ("E", "A", "B", "alpha", "beta"):
        low, high = law.interval(lambda one, name=name: getattr(one, name))
        print(f"  {name:6} {getattr(law, name):12.5g}   95 % {low:.4g} to {high:.4g}")
    print(f"{len(points)} runs, the farthest {100 * residual:.2g} % from the law")
    largest = (6 * N * D).max().item()
    for budget in config.budget or (10 * largest, 100 * largest):
        n, d = law.optimal(budget)
        low, high = law.interval(lambda one, budget=budget: one.optimal(budget)[0])
        print(
            f"{budget:.3g} FLOP: {n:.3g} parameters ({low:.3g} to {high:.3g}) on {d:.3g} tokens, "
            f"{d / n:.1f} a parameter: loss {law.predict(n, d):.4f}"
        )
    draw(law, points, config.out)
    print(config.out)


def read(path: Path) -> list[Sequence[float]]:
    """(N, D, loss) of a run, or of every row of a file."""
    if (path / "scaling.json").is_file():
        found = json.loads((path / "scaling.json").read_text())
        return [[found[name] for name in COLUMNS]]
    if path.suffix != ".csv" or not path.is_file():
        raise FileNotFoundError(f"{path} is neither a finished run of gen llm pretrain nor a .csv file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    try:
        return [[float(row[name]) for name in COLUMNS] for row in rows]
    except (KeyError, ValueError):
        raise ValueError(f"{path} needs numbers in columns {', '.join(COLUMNS)}") from None


def draw(law: Law, points: torch.Tensor, out: Path) -> None:
    """Losses against operations, one line for each size, and the frontier."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    sizes = sorted(set(points[:, 0].tolist()))
    colours = plt.get_cmap("viridis")
    for i, size in enumerate(sizes):
        rows = points[points[:, 0] == size]
        D = span(rows[:, 1] / 2, rows[:, 1] * 2)
        colour = colours(i / max(1, len(sizes) - 1))
        axes.plot(6 * size * D, law.predict(torch.tensor(size), D), color=colour, linewidth=1)
        axes.plot(6 * size * rows[:, 1], rows[:, 2], "o", color=colour, markersize=4, label=f"{size:.3g}")
    C = span(6 * points[:, 0] * points[:, 1])
    best = [law.predict(*law.optimal(budget)) for budget in C.tolist()]
    axes.plot(C, best, "k--", linewidth=1, label="frontier")
    axes.set(xscale="log", yscale="log", xlabel="FLOP of training", ylabel="loss, nats per token")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:.2g}")
    axes.legend(title="parameters", fontsize="small", ncols=1 + len(sizes) // 8)
    figure.savefig(out, dpi=150)
    plt.close(figure)


def span(*values: torch.Tensor) -> torch.Tensor:
    """Fifty numbers from the least to the greatest, evenly in their logarithms."""
    low, high = torch.cat(values).log10().aminmax()
    return torch.logspace(low.item(), high.item(), 50, dtype=torch.float64)
