"""Means of `task.evaluate` over a whole data set, each sample counted once, whatever the process count."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gen_core.data import Data
from gen_core.hooks import Training
from gen_core.runtime import seed_all, to_device, widest
from gen_core.task import evaluating


@torch.no_grad()
def evaluate(t: Training, data: Data, stopped: Callable[[], bool]) -> dict[str, float]:
    """See `Trainer.evaluate`; {} once `stopped` says that a signal came."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    with evaluating(t.task):
        for index, batch in data.once(t.rank, t.world):
            if stopped():
                return {}
            seed_all(t.seed, "evaluate", -1 if index is None else index)
            for name, given in t.task(t.task.evaluate, to_device(batch, t.device)).items():
                value, weight = _weighted(name, given, index is not None, widest(t.device))
                sums[name] = sums.get(name, 0) + value
                counts[name] = counts.get(name, 0) + weight
    total, count = t.reduce(sums, "sum"), t.reduce(counts, "sum")
    return {name: (total[name] / count[name]).item() for name in total}


def _weighted(name: str, given: Any, counted: bool, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """The weighted sum of a batch's values and the sum of their weights."""
    value, weight = given if isinstance(given, tuple) else (given, torch.ones_like(given))
    if not value.ndim:
        raise ValueError(f"evaluate's {name!r} is a scalar; return a value per sample, of shape (b,)")
    weight = weight.to(wide) * counted
    value = torch.where(weight != 0, value.to(wide), 0)  # what does not count may be anything
    return (value * weight).sum(), weight.sum()
