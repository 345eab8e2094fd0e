"""The pictures of the comparison: samples side by side, and two figures that have to be read together."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from gen_apps.compare.measure import value
from gen_apps.strips import spread
from gen_core import pictures

SIDE = 8  # pictures on a side of a sheet
COLOURS = {"real data": "#8b8e96", "VAE": "#1f5fbf", "GAN": "#2a8c57", "diffusion": "#d9670c"}
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


def bars(rows: Mapping[str, dict[str, Any]]) -> Figure:
    """Distance and recall of each sampler, with what real data reach as a line."""
    distance = "features" if value(rows["real data"], "features") is not None else "frechet"
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [name for name in rows if name != "real data"][::-1]
    most = 1.15 * sorted(value(rows[name], distance) or 0.0 for name in names)[-2]
    for ax, column, title in (
        (left, distance, "Fréchet distance, less is better (dashed: real data)"),
        (right, "recall", "recall, more is better (dashed: real data)"),
    ):
        found = [value(rows[name], column) or 0.0 for name in names]
        ax.barh(names, found, color=[COLOURS.get(name, OTHER) for name in names], height=0.65)
        ax.axvline(value(rows["real data"], column), color="#4d4f55", ls="--", lw=1.1)
        limit = max(most, 1e-9) if column == distance else 1.0
        ax.set_xlim(0, limit)
        for place, number in enumerate(found):
            inside = number > 0.85 * limit
            light = inside and names[place] in COLOURS
            words = f"{number:.3g} →" if number > limit else f"{number:.3g}"
            ax.text(
                min(number, limit), place, f" {words} ", va="center", ha="right" if inside else "left",
                fontsize=9, color="white" if light else "#1c1d20",
            )  # fmt: skip
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_facecolor("none")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(length=0)
    return figure
