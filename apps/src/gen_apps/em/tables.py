"""Tables of numbers: bundled ones, CSV and NPY files."""

import csv
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read(name: str) -> Tensor:
    """Rows and columns of a bundled table or of a file, float64; NaN where a cell is empty.

    Raises:
        FileNotFoundError: if there is no such table.
        ValueError: if it is not one of numbers.
    """
    if name in BUNDLED:
        return torch.from_numpy(np.ascontiguousarray(BUNDLED[name]())).double()
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {name}: name a CSV or NPY file, or one of {', '.join(BUNDLED)}")
    x = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _csv(path)
    if x.dtype.kind not in "fiu" or x.ndim not in (1, 2, 3) or not x.size:
        raise ValueError(f"{name} holds {x.dtype} of the shape {x.shape}; it must hold numbers, in 1 to 3 dimensions")
    return torch.from_numpy((x[:, None] if x.ndim == 1 else x).astype(np.float64))


def _csv(path: Path) -> np.ndarray:
    """The columns in which all cells are numbers or empty; a first row without numbers is a header."""
    lines = path.read_text(encoding="utf-8-sig").strip("\r\n").splitlines()
    rows = list(csv.reader(line for line in lines if not line.startswith("#")))
    one = max((len(row) for row in rows), default=0) == 1  # of a single column an empty line is an empty cell
    rows = [row or [""] for row in rows if row or one]
    if len(lengths := {len(row) for row in rows}) > 1:
        raise ValueError(f"{path} has rows of {sorted(lengths)} cells; all must have the same number")
    cells = [[_number(cell) for cell in row] for row in rows]
    if cells and not any(isinstance(cell, float) for cell in cells[0]):
        cells = cells[1:]
    columns = [column for column in zip(*cells, strict=True) if all(isinstance(cell, float) for cell in column)]
    if not columns:
        raise ValueError(f"{path} has no column of numbers; cells are numbers, or empty where missing")
    return np.array(columns).T


def _number(cell: str) -> float | str:
    try:
        return float(cell) if cell.strip() else float("nan")
    except ValueError:
        return cell


def _prices() -> np.ndarray:
    """Monthly S&P 500, which ships with matplotlib."""
    from matplotlib import cbook

    values = _csv(Path(str(cbook.get_sample_data("Stocks.csv", asfileobj=False))))[:, -2]
    return values[np.isfinite(values)][:, None]  # without the days of dividends


def _iris() -> np.ndarray:
    from sklearn.datasets import load_iris

    return np.asarray(load_iris(return_X_y=True)[0])


BUNDLED = {
    "iris": _iris,
    "prices": lambda: np.log(_prices()),
    "returns": lambda: 100 * np.diff(np.log(_prices()), axis=0),
}
