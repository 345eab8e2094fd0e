"""A batch cut into micro-batches: every part of it has one item per row, and each piece takes its own rows.

The mean over the global batch is the sum over pieces and processes of `part(mean of the piece, its share)`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen_core.runtime import widest


def micro_batches(batch: tuple, size: int) -> tuple[list[tuple], list[float]]:
    """The pieces of `size` rows (the last may be smaller), and the share of each in all rows.

    Tensors, arrays, lists and tuples are cut; what is in a dict, or in a list or tuple of whole columns, is cut one by
    one. None, numbers and strings are the same for every row.

    Raises:
        ValueError: for a part with another number of rows, or of a type without rows.

    >>> micro_batches((np.arange(3), {"caption": ["a", "b", "c"]}), 2)[0]
    [(array([0, 1]), {'caption': ['a', 'b']}), (array([2]), {'caption': ['c']})]
    """
    tensors_first = sorted(batch, key=lambda part: not isinstance(part, Tensor))
    n = next((rows for part in tensors_first if (rows := _rows(part)) is not None), 0)
    if not n:
        raise ValueError(f"micro-batches need at least one row, got {', '.join(map(_brief, batch)) or 'no arguments'}")
    pieces = [tuple(_cut(part, slice(i, i + size), n) for part in batch) for i in range(0, n, size)]
    return pieces, [min(size, n - i) / n for i in range(0, n, size)]


def shares(
    batch: tuple,
    size: int | None,
    weight: Callable[..., Any] | None,
    mean: Callable[[Tensor], Tensor],
    device: torch.device,
) -> list[tuple[tuple, Any]]:
    """The pieces of a batch, each with what its mean counts in the whole; None where the mean is the whole.

    Args:
        size: rows of a piece; None is all.
        weight, mean: see `weighted`; None counts rows.
    """
    if size is None and weight is None:
        return [(batch, None)]
    micros, counts = ([batch], [1]) if size is None else micro_batches(batch, size)
    if weight is not None:
        micros, counts = weighted(micros, weight, mean, device)
    return list(zip(micros, counts, strict=True))


def weighted(
    micros: list[tuple], weight: Callable[..., Any], mean: Callable[[Tensor], Tensor], device: torch.device
) -> tuple[list[tuple], list[Tensor]]:
    """The pieces with valid items, and what the mean of each counts in the whole: its items / the mean of all ranks.

    Args:
        weight: `(*micro) -> number of valid items`.
        mean: over processes.
    """
    wide = widest(device)
    items = torch.stack([torch.as_tensor(weight(*micro), device=device).to(wide) for micro in micros])
    average = mean(items.sum())  # of valid items per process
    if len(micros) > 1:  # a mean over no items is 0 / 0: such pieces are not computed
        full = items.nonzero().flatten().tolist() or [0]
        micros, items = [micros[i] for i in full], items[full]
    return micros, list(items / average)


def part(value: Tensor, share: Any) -> Tensor:
    """`share * value`, and 0 for a share of 0: the mean over no items is 0 / 0."""
    return torch.where(share == 0, 0, value * share) if isinstance(share, Tensor) else value * share


def _rows(part: Any) -> int | None:
    """The number of rows, None for what has none. Items of several lengths are rows themselves."""
    if isinstance(part, Tensor | np.ndarray):
        return len(part) if part.ndim else None
    if not isinstance(part, dict | list | tuple):
        return None
    inside = _rows_inside(part)
    return inside.pop() if len(inside) == 1 else len(part)


def _rows_inside(part: dict | list | tuple) -> set[int | None]:
    return {_rows(x) for x in (part.values() if isinstance(part, dict) else part)} - {None}


def _cut(part: Any, rows: slice, n: int) -> Any:
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, dict):
        return {name: _cut(column, rows, n) for name, column in part.items()}
    if isinstance(part, list | tuple) and _rows_inside(part) == {n}:
        columns = [_cut(column, rows, n) for column in part]
        return type(part)(*columns) if hasattr(part, "_fields") else type(part)(columns)
    if _rows(part) == n or (isinstance(part, list | tuple) and len(part) == n):
        return part[rows]
    raise ValueError(
        f"micro-batches need arguments with the same number of rows, {n} here, but got {_brief(part)}; "
        "give one item per row, or bind what is not cut to the loss by functools.partial"
    )


def _brief(part: Any) -> str:
    shape = f" of shape {tuple(part.shape)}" if isinstance(part, Tensor | np.ndarray) else ""
    return f"{type(part).__name__}{shape or (f' of {len(part)} items' if hasattr(part, '__len__') else '')}"
