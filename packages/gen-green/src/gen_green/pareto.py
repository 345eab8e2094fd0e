"""Quality against energy: which models nothing else beats, and when more energy stops paying.

    runs = [{"accuracy": 0.97, "kJ": 3.1, "name": "knn"}, ...]
    front(runs, maximise=["accuracy"], minimise=["kJ"])          # indices
    plot(runs, "kJ", "accuracy", "front.png")                    # pip install 'gen-green[plot]'

A front over modelled joules does not change when all powers are off by one factor, so a wrong TDP cannot reorder models
that ran on one machine.
"""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["break_even", "front", "marginal", "plot", "worthwhile"]


def front(
    points: Sequence[Mapping[Any, float]] | Sequence[Sequence[float]],
    maximise: Sequence[Hashable] = (),
    minimise: Sequence[Hashable] = (),
) -> list[int]:
    """Indices of the points that no other point dominates, in their order.

    One point dominates another when it is at least as good in every objective and better in one; equal points stay
    together. A point with a NaN is never on the front, and dominates nothing.

    Args:
        points: mappings by name, or sequences by position.
        maximise, minimise: the names or positions that count.

    Raises:
        ValueError: without an objective.

    >>> front([(0.9, 1.0), (0.8, 2.0), (0.95, 3.0), (0.9, 1.0)], maximise=[0], minimise=[1])
    [0, 2, 3]
    """
    if not (maximise or minimise):
        raise ValueError("a front needs at least one objective; name them in maximise= and minimise=")
    costs = [(*(-p[k] for k in maximise), *(p[k] for k in minimise)) for p in points]  # pyright: ignore
    order = sorted((i for i, c in enumerate(costs) if not any(map(math.isnan, c))), key=lambda i: costs[i])
    kept: list[int] = []  # by ascending cost, a point can only be dominated by one that comes before it
    for i in order:
        if not any(costs[j] != costs[i] and all(a <= b for a, b in zip(costs[j], costs[i], strict=True)) for j in kept):
            kept.append(i)
    return sorted(kept)


def break_even(first: tuple[float, float], second: tuple[float, float]) -> float:
    """The size n at which two devices that take `fixed + each * n` joules cost the same, (f2 - f1) / (e1 - e2).

    Args:
        first, second: (fixed, each): joules to start (load, warm up, idle), and joules per item.

    Returns:
        n above 0; from it on the device with the smaller `each` costs less. NaN where one device is better at every n
        > 0.

    >>> break_even((10.0, 2.0), (1000.0, 0.2))
    550.0
    """
    (f1, e1), (f2, e2) = first, second
    n = (f2 - f1) / (e1 - e2) if e1 != e2 else math.nan
    return n if n > 0 else math.nan


def marginal(quality: Sequence[float], joules: Sequence[float]) -> list[float]:
    """Quality gained per kJ between one evaluation and the next.

    Args:
        quality: larger is better.
        joules: cumulative, increasing, as many.

    Raises:
        ValueError: for unequal lengths, or joules that do not increase.
    """
    if len(quality) != len(joules) or any(b <= a for a, b in itertools.pairwise(joules)):
        raise ValueError("marginal quality needs as many qualities as cumulative joules, and joules that increase")
    steps = itertools.pairwise(zip(quality, joules, strict=True))
    return [(q1 - q0) / (e1 - e0) * 1000 for (q0, e0), (q1, e1) in steps]


def worthwhile(quality: Sequence[float], joules: Sequence[float], least: float, patience: int = 1) -> bool:
    """True while training pays: False once the last `patience` steps each gained less than `least` quality per kJ.

    >>> worthwhile([0.5, 0.8, 0.81], [0.0, 1000.0, 2000.0], least=0.05)
    False
    """
    if patience < 1:
        raise ValueError(f"patience counts evaluations, so it is at least 1, got {patience}")
    gains = marginal(quality, joules)[-patience:]
    return len(gains) < patience or any(gain >= least for gain in gains)


def plot(
    points: Sequence[Mapping[str, Any]],
    cost: str,
    quality: str,
    path: str | Path | None = None,
    *,
    label: str = "name",
    spread: str | None = None,
) -> Any:
    """The points with their front, joules on a logarithmic axis.

    Args:
        points: mappings; `label` names each in the picture where it has one.
        cost, quality: the keys to minimise and to maximise.
        path: where to save (.png, .pdf, .svg).
        spread: the key of a geometric spread of `cost`, drawn as a bar.

    Returns:
        matplotlib's figure.

    Raises:
        ImportError: without matplotlib, with the command that installs it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("a Pareto plot needs matplotlib: pip install 'gen-green[plot]'") from None
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    best = front([{cost: p[cost], quality: p[quality]} for p in points], maximise=[quality], minimise=[cost])
    line = sorted((points[i][cost], points[i][quality]) for i in best)
    axes.step([x for x, _ in line], [y for _, y in line], where="post", color="0.6", label="front")
    for i, p in enumerate(points):
        x, s = p[cost], p[spread] if spread else 1.0
        bar = [[x - x / s], [x * s - x]] if s > 1 else None
        axes.errorbar([x], [p[quality]], xerr=bar, fmt="o" if i in best else ".", color="C0" if i in best else "0.5")
        if p.get(label):
            axes.annotate(str(p[label]), (x, p[quality]), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel=cost, ylabel=quality, xscale="log" if all(p[cost] > 0 for p in points) else "linear")
    axes.legend(loc="lower right", frameon=False)
    if path is not None:
        figure.savefig(path)
    return figure
