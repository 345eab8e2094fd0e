"""The shipped tables (data/*.csv), read when first asked for, and the nearest name for one that they lack."""

import csv
import difflib
import functools
from collections.abc import Iterable
from pathlib import Path

__all__ = ["nearest", "read", "rows"]

DATA = Path(__file__).parent / "data"


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a csv with a header.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file without rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the path of a csv file with a header")
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = [row for row in csv.DictReader(file) if any(row.values())]
    if not table:
        raise ValueError(f"{path} has no rows; a table is a csv with a header and at least one row")
    return table


@functools.cache
def rows(name: str) -> list[dict[str, str]]:
    """The rows of a shipped table: "intensity", "cpu", "gpu" or "factors"."""
    return read(DATA / f"{name}.csv")


def nearest(name: str, names: Iterable[str]) -> str:
    """The closest of `names` in spelling, whatever the case.

    >>> nearest("frnace", ["Germany", "France"])
    'France'
    """
    by_fold = {known.casefold(): known for known in names}
    return by_fold[difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.0)[0]]
