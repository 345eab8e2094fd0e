"""The pictures of the comparison: samples side by side, and two figures that have to be read together."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from gen_apps.compare.measure import FLOOR, Row, value
from gen_apps.strips import spread
from gen_core import pictures

SIDE = 8  # pictures on a side of a sheet
COLOURS = {FLOOR: "#8b8e96", "VAE": "#1f5fbf", "GAN": "#2a8c57", "diffusion": "#d9670c"}
OTHER = "#bcbec4"


def sheets(drawn: Mapping[str, Tensor], columns: int = 4) -> Figure:
    """Samples of each set, evenly spaced in it."""
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.85 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (name, x) in zip(axes.flat, drawn.items(), strict=False):
        ax.set_title(name, fontsize=10)
        if x.ndim == 4:
            tiles = pictures.grid(x[spread(len(x), SIDE**2)], SIDE)
            ax.imshow(tiles if tiles.shape[2] == 3 else np.repeat(tiles, 3, 2), interpolation="nearest")
        else:
            ax.scatter(*x[:1000].T, s=1.5, color=COLOURS.get(name, "#4d4f55"), alpha=0.6, linewidths=0)
            ax.set_aspect("equal")
    return figure


def bars(rows: Mapping[str, Row]) -> Figure:
    """Distance and recall of each sampler with their intervals, and what training data reach as a line."""
    distance = "frechet-features" if "frechet-features" in rows[FLOOR] else "frechet"
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [name for name in rows if name != FLOOR][::-1]
    most = 1.15 * sorted(rows[name][distance]["interval"][1] for name in names)[-2]
    for ax, column, title in (
        (left, distance, f"{distance}, less is better (dashed: {FLOOR})"),
        (right, "recall", f"recall, more is better (dashed: {FLOOR})"),
    ):
        limit = max(most, 1e-9) if column == distance else 1.0
        for place, name in enumerate(names):
            _bar(ax, place, rows[name][column], COLOURS.get(name, OTHER), limit)
        ax.axvline(value(rows[FLOOR], column), color="#4d4f55", ls="--", lw=1.1)
        ax.set_xlim(0, limit)
        ax.set_yticks(range(len(names)), names)
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_facecolor("none")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(length=0)
    return figure


def _bar(ax: Any, place: int, figure: Mapping[str, Any], colour: str, limit: float) -> None:
    """One figure, its interval as a thin line, and its number in the bar, with an arrow where it leaves the plot."""
    number, (low, high) = figure["value"], figure["interval"]
    ax.barh(place, number, color=colour, height=0.65)
    ax.plot([low, high], [place, place], color="#1c1d20", lw=1)
    words = f"{number:.3g} →" if number > limit else f"{number:.3g}"
    ax.text(0, place, f" {words} ", va="center", fontsize=9, color="#1c1d20" if colour == OTHER else "white")
