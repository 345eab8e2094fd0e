"""`gen runs compare`: settings, figures and curves of several runs on one page."""

from collections.abc import Sequence
from typing import Any

import rich
from rich.table import Table

from gen_apps import pages
from gen_apps.results import write_results
from gen_apps.runs.config import CompareRuns
from gen_apps.runs.table import energy, figures
from gen_core.run import Run
from gen_core.scales import text


def compare_runs(config: CompareRuns) -> None:
    runs = [Run.open(path) for path in config.runs]
    names = [str(run.path) for run in runs]
    settings = differing([flat(run.config()) for run in runs])
    measured = [figures(run) | ({"joules of training": cost} if (cost := energy(run)) else {}) for run in runs]
    columns = list(dict.fromkeys(name for row in measured for name in row))
    rows = [[name, *(text(row.get(name, "–")) for row in measured)] for name in columns]
    out = pages.write(
        config.out,
        "runs",
        title=f"{len(runs)} runs compared",
        names=names,
        settings=[[name, *values] for name, values in settings.items()],
        rows=rows,
        curves={metric: plot(metric, runs) for metric in shared_metrics(runs)},
    )
    write_results(config.json, "runs compare", config, [{"name": n, **r} for n, r in zip(names, measured, strict=True)])
    shown = Table("", *names, box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*row)
    rich.print(shown)
    print(out)


def flat(config: Any, prefix: str = "") -> dict[str, str]:
    """The entries of a nested configuration by dotted name, as text.

    >>> flat({"$": "Train", "optim": {"$": "Optim", "lr": 0.1}})
    {'$': 'Train', 'optim.lr': '0.1'}
    """
    entries: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            entries |= {k: v for k, v in flat(value, f"{prefix}{name}.").items() if not k.endswith(".$")}
        else:
            entries[prefix + name] = str(value)
    return entries


def differing(configs: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """The entries in which configurations differ, with the value of each.

    >>> differing([{"a": "1", "b": "2"}, {"a": "1", "b": "3"}])
    {'b': ['2', '3']}
    """
    names = dict.fromkeys(name for config in configs for name in config)
    values = {name: [config.get(name, "–") for config in configs] for name in names}
    return {name: row for name, row in values.items() if len(set(row)) > 1}


def shared_metrics(runs: Sequence[Run]) -> list[str]:
    """Metrics that every run logged at two steps or more, energy left out."""
    counts = [[name for entry in run.metrics() for name in entry] for run in runs]
    common = [name for name in dict.fromkeys(counts[0]) if all(c.count(name) > 1 for c in counts)]
    return [name for name in common if name != "step" and not name.startswith("energy/")]


def plot(metric: str, runs: Sequence[Run]) -> Any:
    """A figure with the curve of a metric for each run."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 3.2), layout="constrained")
    axes = drawn.subplots()
    for run in runs:
        entries = [entry for entry in run.metrics() if metric in entry]
        axes.plot([e["step"] for e in entries], [e[metric] for e in entries], label=run.path.name, linewidth=1)
    axes.set(xlabel="step", ylabel=metric)
    axes.legend(fontsize="small")
    return drawn
