"""A run as one HTML page that needs nothing else: no server, no network.

    build("runs/a")  # runs/a/report.html: samples, quality, curves, configuration, environment, whatever is there

The page is a function of the run's files: built twice, it has the same bytes. Its words are in templates/run.html.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from gen_core import chart, page
from gen_core.run import Run

__all__ = ["build"]

_MOST_STEPS = 24  # sample grids, or texts, in a page; more are thinned evenly
_COSTS = ("energy/", "sampling/")  # metrics of the energy section


def build(run: str | PathLike[str] | Run) -> Path:
    """Write report.html into a run directory and return its path.

    PNG files of `samples/` and texts of `texts/` whose names end in a step share a slider; PNG files of `pictures/` and
    of the directory itself follow with their names as captions. quality.json is `{"columns": ["frechet", ...], "rows":
    [{"name": "samples", "n": 899, "frechet": {"value": 0.41, "interval": [0.38, 0.45], "n": 899, "unit": "1"}}, ...],
    "notes": ["..."]}`; the first row is the model's and its first column the main figure. energy.json is any nesting of
    names and values.

    Raises:
        FileNotFoundError: if the directory is no run.
        ValueError: if one of its files is not JSON.
    """
    run = Run.open(run)
    entries, environment, config = run.metrics(), _load(run, "environment.json") or {}, run.config()
    quality, summary, texts = _load(run, "quality.json"), _read(run, "summary.txt"), run.path / "texts"
    series = _series(entries)
    curves = {name: found for name, found in series.items() if len(set(found[0])) > 1}
    singles = {name: float(found[1, -1]) for name, found in series.items() if name not in curves}
    content = {
        "title": run.path.resolve().name,
        "what": _what(run, entries, config, summary),
        "main": _main(quality, series),
        "facts": _facts(environment),
        "samples": _steps((run.path / "samples").glob("*.png")),
        "pictures": [*sorted((run.path / "pictures").glob("*.png")), *sorted(run.path.glob("*.png"))],
        "texts": {p.stem: p.read_text("utf-8") for p in sorted(texts.glob("*.txt")) if _step(p) is None},
        "written": _steps(texts.glob("*.txt")),
        "quality": quality,
        "charts": _charts({name: found for name, found in curves.items() if not name.startswith(_COSTS)}),
        "singles": {name: value for name, value in singles.items() if not name.startswith(_COSTS)},
        "smoothed": any(found.shape[1] >= chart.LONG for found in curves.values()),
        "energy": _energy(_load(run, "energy.json") or {}, series, curves),
        "config": list(_names(config)),
        "environment": list(_names(environment)),
        "summary": summary,
    }
    return run.write("report.html", page.render(page.TEMPLATES / "run.html", **content))


def _read(run: Run, name: str) -> str:
    file = run.path / name
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _load(run: Run, name: str) -> Any:
    try:
        return json.loads(_read(run, name) or "null")
    except ValueError as error:
        raise ValueError(f"{run.path / name} is not JSON ({error}); write it again or delete it") from None


def _series(entries: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Steps and values of each metric, in two rows; loss first, and a val/ namesake after its metric."""
    names = {name for entry in entries for name in entry} - {"step"}
    order = lambda name: ((plain := name.removeprefix("val/")) != "loss", plain, name != plain)
    return {
        name: np.array([(e["step"], e[name]) for e in entries if name in e], dtype=float).T
        for name in sorted(names, key=order)
    }


def _what(run: Run, entries: list[dict[str, Any]], config: Mapping[str, Any], summary: str) -> dict[str, Any]:
    """Model, data and length of the training, as far as the run's files say."""
    data, optim = config.get("data", ""), config.get("optim") or {}
    network = _classes((_load(run, "model.json") or {}).get("network"))
    counts = [int(n.replace(",", "")) for n in re.findall(r"^([\d,]+) parameters \(", summary, re.M)]
    steps = int(max((entry["step"] for entry in entries), default=0))
    return {
        "network": network or "Model",
        "parameters": sum(counts),
        "data": data if isinstance(data, str) else ", ".join(map(str, data)),
        "steps": steps,
        "planned": optim.get("steps") or steps,
        "samples": steps * optim.get("batch_size", 0),
        "time": _duration((_load(run, "reading.json") or {}).get("seconds")),
    }


def _classes(network: Any) -> str:
    """The class of a described network, and that of the network inside which it is about: "Preconditioned UNet"."""
    if not isinstance(network, Mapping):
        return ""
    return f"{network.get('$', '')} {_classes(network.get('net'))}".strip()


def _duration(seconds: int | float | None) -> str:
    """
    >>> _duration(1.37), _duration(200), _duration(9000)
    ('1.4 s', '3.3 min', '2.5 h')
    """
    if seconds is None:
        return ""
    size, unit = next(((n, unit) for n, unit in ((3600, "h"), (60, "min")) if seconds >= n), (1, "s"))
    return f"{seconds / size:.1f} {unit}"


def _main(quality: Any, series: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """The first figure of the quality table, else the last loss."""
    for name in quality["columns"] if quality else ():
        figure = quality["rows"][0].get(name)
        figure = figure if isinstance(figure, Mapping) else {"value": figure}
        if figure.get("value") is not None:
            return {"name": name, "figure": figure}
    losses = [name for name in ("val/loss", "loss") if name in series]
    return {"name": losses[0], "figure": {"value": float(series[losses[0]][1, -1])}} if losses else None


def _facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """The line under the title."""
    commit = str(environment.get("git") or "")
    return {
        "started": str(environment.get("started", "")).replace("T", " ").replace("+00:00", " UTC"),
        "device": ", ".join(map(str, environment.get("devices") or [])) or ("CPU" if environment else ""),
        "commit": commit[:10] + ("-dirty" if commit.endswith("-dirty") else ""),
    }


def _step(file: Path) -> int | None:
    """The step that a file's name says: step-000123.png, step 000123.txt."""
    found = re.fullmatch(r"step[- ](\d+)", file.stem)
    return int(found[1]) if found else None


def _steps(files: Iterable[Path]) -> dict[str, Any] | None:
    """The files of steps in order; both ends and an even choice between them where there are many."""
    found = sorted((step, file) for file in files if (step := _step(file)) is not None)
    if not found:
        return None
    chosen = np.unique(np.linspace(0, len(found) - 1, _MOST_STEPS).round().astype(int))
    return {"all": len(found), "shown": [{"step": found[i][0], "file": found[i][1]} for i in chosen]}


def _charts(curves: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """One chart for each metric, its `val/` namesake in it."""
    charts = []
    for name in dict.fromkeys(name.removeprefix("val/") for name in curves):
        drawn = {n: curves[n] for n in (name, f"val/{name}") if n in curves}
        shown = [_curve(n, *found) for n, found in drawn.items()]
        charts.append({"curves": shown, "log": chart.spans_decades(drawn), "svg": chart.svg(drawn)})
    return charts


def _curve(name: str, steps: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """The caption of a curve: last value, extent and the first step that went wrong."""
    finite = np.isfinite(values)
    return {
        "name": name,
        "kind": "val" if name.startswith("val/") else "train",
        "last": float(values[-1]),
        "low": float(values[finite].min()) if finite.any() else None,
        "high": float(values[finite].max()) if finite.any() else None,
        "broken": None if finite.all() else int(steps[~finite][0]),
    }


def _energy(facts: Mapping[str, Any], series: Mapping[str, Any], curves: Mapping[str, Any]) -> dict[str, Any] | None:
    """The facts of energy.json, a column for each part of the run, one chart of the joules, the rest in the details."""
    logged = {name: float(found[1, -1]) for name, found in series.items() if name.startswith(_COSTS)}
    if not facts and not logged:
        return None
    parts = facts if all(isinstance(part, Mapping) for part in facts.values()) else {"": facts}
    plain = {name: {k: v for k, v in part.items() if not isinstance(v, dict | list)} for name, part in parts.items()}
    nested = {name: {k: v for k, v in part.items() if k not in plain[name]} for name, part in parts.items()}
    return {
        "parts": plain,
        "names": list(dict.fromkeys(name for part in plain.values() for name in part)),
        "charts": _charts({name: found for name, found in curves.items() if name == "energy/joules"}),
        "sources": list(_names(nested if len(nested) > 1 else nested.get("", nested))),
        "logged": logged,
    }


def _names(content: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Any nesting of names and values, one row each with its depth; what is null or empty is left out."""
    items = content.items() if isinstance(content, Mapping) else ((f"[{i}]", v) for i, v in enumerate(content))
    for name, value in items:
        nested = _is_nested(value)
        inner = list(_names(value, depth + 1)) if nested else []
        shown = (value.get("$", "") if isinstance(value, Mapping) else "") if nested else _words(value)
        if name != "$" and (inner or shown):
            yield {"name": name, "value": shown, "depth": depth, "nested": nested}
            yield from inner


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(v, dict | list) for v in value))


def _words(value: Any) -> str:
    """A plain value, or a list of them; empty for null."""
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    return ", ".join(str(v) for v in values if v is not None)
