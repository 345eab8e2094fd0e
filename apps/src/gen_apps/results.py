"""Results as data: the file that `--json FILE` writes, the same for every command that measures.

    {"command": "vae nll", "config": {...}, "seed": 0, "versions": {...}, "rows": [{"name": ..., "nll": {...}}]}

A row maps names to strings, numbers, or {"value": 1.2, "interval": [1.1, 1.3], "n": 899, "unit": "nats"}; an entry that
was not measured is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from gen_core.config import to_dict
from gen_core.run import Run
from gen_core.scales import text

Row = Mapping[str, Any]


def figure(value: float, *, interval: Sequence[float] | None = None, n: int | None = None, unit: str = "") -> Row:
    """An entry of a row.

    Args:
        interval: lowest and highest value at 95 %.
        n: number of samples behind it.

    >>> figure(1.5, n=3)
    {'value': 1.5, 'n': 3}
    """
    entries = {"value": value, "interval": None if interval is None else list(interval), "n": n, "unit": unit or None}
    return {name: entry for name, entry in entries.items() if entry is not None}


def table(head: str, rows: Sequence[Row], columns: Sequence[str] | None = None, digits: int = 3) -> Any:
    """Rows for a terminal, as a rich renderable: the name of each, and its entries.

    Args:
        head: what the names are of.
        columns: entries to show; by default all.
    """
    from rich.table import Table

    names = columns or list(dict.fromkeys(name for row in rows for name in row if name != "name"))
    shown = Table(box=None, pad_edge=False)
    for name in (head, *names):
        shown.add_column(name, overflow="fold")
    for row in rows:
        shown.add_row(row["name"], *(text(row.get(name, "–"), digits) for name in names))
    return shown


def show(config: Any, command: str, head: str, rows: Sequence[Row], columns: Sequence[str] | None = None) -> None:
    """Print what a command measured as a table, and write it where `--json` was given; see `table`."""
    from rich import print

    print(table(head, rows, columns))
    write_results(config.json, command, config, rows)


def write_results(file: Path | None, command: str, config: Any, rows: Iterable[Row]) -> None:
    """Write what a command measured, where `--json` was given."""
    if file is None:
        return
    ours = (d for d in distributions() if (d.name or "").startswith("gen-") or d.name in ("torch", "numpy"))
    content = {
        "command": command,
        "config": to_dict(config),
        "seed": getattr(config, "seed", None),
        "versions": {d.name: d.version for d in sorted(ours, key=lambda d: d.name)},
        "rows": list(rows),
    }
    Run(file.parent).write(file.name, content)
