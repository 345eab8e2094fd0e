"""`gen runs`: the runs of a directory, newest first."""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rich

from gen_apps.results import Row, figure, table, write_results
from gen_apps.runs.config import ListRuns
from gen_core.run import Run
from gen_core.scales import text
from gen_green import Reading, si


def list_runs(config: ListRuns) -> None:
    runs = sorted(find_runs(config.directory), key=written, reverse=True)
    if not runs:
        raise FileNotFoundError(f"{config.directory} holds no run; give the directory that runs were written to")
    rows = [describe(run) for run in runs]
    rich.print(table("run", [shown(row) for row in rows]))
    write_results(config.json, "runs", config, rows)


def shown(row: Row) -> Row:
    """The row of a run for a terminal, with one column for the main figure, whichever it is."""
    known = ("name", "command", "data", "steps", "requested", "energy", "written")
    main = "".join(f"{name} {text(entry)}" for name, entry in row.items() if name not in known)
    steps = f"{row['steps']}" + (f" of {row['requested']}" if "requested" in row else "")
    words = {name: row[name] for name in ("name", "command", "data") if name in row}
    cost = {"energy": si(row["energy"]["value"], "J")} if "energy" in row else {}
    past = age(time.time() - datetime.fromisoformat(row["written"]).timestamp())
    return words | {"steps": steps} | cost | {"age": past} | ({"figure": main} if main else {})


def find_runs(directory: Path) -> Iterator[Run]:
    """The runs below a directory, those inside of other runs included."""
    return (Run(file.parent) for file in directory.rglob("config.json") if '"$"' in file.read_text(encoding="utf-8"))


def written(run: Run) -> float:
    """Seconds since 1970 when the run last logged or was created."""
    files = (run.path / name for name in ("metrics.jsonl", "config.json"))
    return max(file.stat().st_mtime for file in files if file.is_file())


def describe(run: Run) -> Row:
    """The row of a run: how far it came, its main figure, what training cost and when it was last written."""
    config = run.config()
    pointer = run.path / "checkpoints" / "latest"
    done = int(pointer.read_text().removeprefix("step-")) if pointer.is_file() else 0
    data = config.get("data", "")
    total = (config.get("optim") or {}).get("steps") or config.get("steps")
    row = {
        "name": str(run.path),
        "command": command_of(config),
        "data": data if isinstance(data, str) else " ".join(data),
        "steps": done,
        "requested": total,
        "energy": energy(run),
        "written": datetime.fromtimestamp(written(run), UTC).isoformat(timespec="seconds"),
        **main_figure(run),
    }
    return {name: entry for name, entry in row.items() if entry not in ("", None)}


def command_of(config: Mapping[str, Any]) -> str:
    """The words of the command that a stored configuration is of, or the name of its class."""
    from gen_apps.__main__ import COMMANDS

    commands = {flags.split(":")[1]: name for name, (flags, _) in COMMANDS.items()}
    kind = str(config["$"])
    return commands.get(kind, kind)


def figures(run: Run) -> dict[str, Any]:
    """The first row of a run's quality table: what was measured of its samples or its model."""
    file = run.path / "quality.json"
    if not file.is_file():
        return {}
    first = json.loads(file.read_text(encoding="utf-8"))["rows"][0]
    return {name: value for name, value in first.items() if name not in ("name", "n")}


def main_figure(run: Run) -> Row:
    """The first column of a run's quality table by its name; else the last loss, where there is one."""
    if found := figures(run):
        return dict([next(iter(found.items()))])
    losses = [entry for entry in run.metrics() if "val/loss" in entry or "loss" in entry]
    name = "val/loss" if losses and "val/loss" in losses[-1] else "loss"
    return {name: figure(losses[-1][name])} if losses else {}


def energy(run: Run) -> Row | None:
    """Joules of training, within the spread of their source; None before it ended."""
    file = run.path / "reading.json"
    if not file.is_file():
        return None
    reading = Reading.from_json(json.loads(file.read_text(encoding="utf-8")), str(file))
    return figure(reading.total, interval=(reading.low, reading.high), unit="J")


def age(seconds: float) -> str:
    """A duration in the largest unit that it fills.

    >>> age(30), age(7200), age(200_000)
    ('30 s', '2 h', '2 d')
    """
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
