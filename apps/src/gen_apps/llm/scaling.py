"""`gen llm scaling`: a law through the losses of runs, how sure it is, and what a budget buys."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from gen_apps.llm.config import Scaling
from gen_apps.results import Row, figure, write_results
from gen_core.runtime import generator
from gen_core.scales import text
from gen_transformer.scaling import Law, fit

COLUMNS = ("N", "D", "loss")
LETTERS = ("E", "A", "B", "alpha", "beta")


def scaling(config: Scaling) -> None:
    points = torch.tensor([point for path in config.data for point in read(path)], dtype=torch.float64).reshape(-1, 3)
    N, D, loss = points.T
    law = fit(N, D, loss, bootstrap=config.bootstrap, generator=generator(config.seed, "bootstrap"))
    residual = (law.predict(N, D) / loss - 1).abs().max()
    rows: list[Row] = [
        {"name": name, "value": _figure(law, lambda one, n=name: getattr(one, n), len(points))} for name in LETTERS
    ]
    print(f"L = {law.E:.4g} + {law.A:.4g} / N^{law.alpha:.4g} + {law.B:.4g} / D^{law.beta:.4g}")
    for row in rows:
        print(f"  {row['name']:6} {text(row['value'], 4)}")
    print(f"{len(points)} runs, the farthest {100 * residual:.2g} % from the law")
    largest = (6 * N * D).max().item()
    for budget in config.budget or (10 * largest, 100 * largest):
        rows.append(spent(law, budget, len(points)))
        n, d, loss = (rows[-1][name] for name in ("parameters", "tokens", "loss"))
        print(
            f"{budget:.3g} FLOP: {text(n)} parameters on {text(d)} tokens, {d['value'] / n['value']:.1f} a parameter: "
            f"loss {text(loss, 5)}"
        )
    write_results(config.json, "llm scaling", config, rows)
    draw(law, points, config.out)
    print(config.out)


def spent(law: Law, budget: float, runs: int) -> Row:
    """The best use of a budget: size and number of tokens, and the loss that the law gives them."""
    buys = {
        "parameters": (lambda one: one.optimal(budget)[0], ""),
        "tokens": (lambda one: one.optimal(budget)[1], ""),
        "loss": (lambda one: one.predict(*one.optimal(budget)), "nats"),
    }
    return {"name": f"{budget:.3g} FLOP"} | {name: _figure(law, of, runs, unit) for name, (of, unit) in buys.items()}


def _figure(law: Law, of: Callable[[Law], float], runs: int, unit: str = "") -> Row:
    """Anything that is computed from a law, with its bootstrap interval."""
    return figure(of(law), interval=law.interval(of), n=runs, unit=unit)


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
