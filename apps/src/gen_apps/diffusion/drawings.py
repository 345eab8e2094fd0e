"""The pictures of `gen diffusion learn2d` and `compare`: data grey, the exact denoiser blue, the learned one orange."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from gen_diffusion import Denoiser
from gen_diffusion.explain import score

DATA, EXACT, LEARNED = "#8b8e96", "#1f5fbf", "#d9670c"
COLOURS = ("#1f5fbf", "#d9670c", "#2a8c57", "#8a4fbf", "#b3261e", "#00838f", "#a07900", "#c2458f", "#4d4f55")


def panels(rows: int, columns: int, size: float = 2.4) -> tuple[Figure, Any]:
    """A figure of equal plots without ticks, and its axes, (rows, columns)."""
    figure = Figure(figsize=(size * columns, size * rows + 0.25 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_color("#d0d0cc")
    return figure, axes


def forward(x0: Float[Tensor, "n 2"], noise: Float[Tensor, "n 2"], sigmas: Sequence[float], spread: float) -> Figure:
    """The same points at each noise level; the frame grows with them."""
    figure, axes = panels(1, len(sigmas))
    for ax, sigma in zip(axes[0], sigmas, strict=True):
        x, r = x0 + sigma * noise, 2.6 * (spread**2 + sigma**2) ** 0.5
        ax.scatter(*x.T, s=2, c=x0[:, 0], cmap="viridis", linewidths=0)
        ax.set(xlim=(-r, r), ylim=(-r, r))
        ax.set_title(f"σ = {sigma:g}", fontsize=10)
    return figure


def scores(
    denoisers: Mapping[str, tuple[Denoiser, str]],
    x0: Float[Tensor, "n 2"],
    noise: Float[Tensor, "n 2"],
    sigmas: Sequence[float],
    spread: float,
) -> Figure:
    """The score's direction on a lattice, longer where sigma times the score is; a row of plots for each denoiser."""
    figure, axes = panels(len(denoisers), len(sigmas), 2.8)
    for row, (name, (denoise, colour)) in zip(axes, denoisers.items(), strict=True):
        for ax, sigma in zip(row, sigmas, strict=True):
            r = 1.9 * (spread**2 + sigma**2) ** 0.5
            x = lattice(r, 19)
            arrows = sigma * score(denoise, x, torch.tensor(sigma))
            arrows = r / 7 * arrows / (1 + arrows.norm(dim=1, keepdim=True))
            ax.scatter(*(x0 + sigma * noise).T, s=1, c=DATA, alpha=0.35, linewidths=0)
            ax.quiver(*x.T, *arrows.T, color=colour, angles="xy", scale_units="xy", scale=1, width=0.005)
            ax.set(xlim=(-r, r), ylim=(-r, r))
            ax.set_title(f"σ = {sigma:g}", fontsize=10)
        row[0].set_ylabel(name, fontsize=10)
    return figure


def answers(denoisers: Mapping[str, tuple[Denoiser, str]], sigmas: Sequence[float], spread: float) -> Figure:
    """Images under each denoiser of a fine lattice of points."""
    figure, axes = panels(1, len(sigmas), 3.4)
    for ax, sigma in zip(axes[0], sigmas, strict=True):
        x = lattice(1.9 * (spread**2 + sigma**2) ** 0.5, 41)
        for (name, (denoise, colour)), size in zip(denoisers.items(), (9, 2), strict=False):
            ax.scatter(*denoise(x, torch.tensor(sigma)).T, s=size, c=colour, linewidths=0, label=name)
        ax.set(xlim=(-1.9 * spread, 1.9 * spread), ylim=(-1.9 * spread, 1.9 * spread))
        ax.set_title(f"D(x; σ = {sigma:g})", fontsize=10)
    axes[0][0].legend(fontsize=8, loc="upper left", markerscale=2, framealpha=0.9)
    return figure


def losses(sigmas: Float[Tensor, "n"], floor: Float[Tensor, "n"], excess: Float[Tensor, "n"]) -> Figure:
    """The two parts of the loss at each level."""
    figure, ax = plot("noise level σ", "weighted loss per dimension")
    ax.loglog(sigmas, floor, color=EXACT, label="floor: what no denoiser can know")
    ax.loglog(sigmas, excess, color=LEARNED, label="excess: what training could still win")
    ax.legend(fontsize=9, frameon=False)
    return figure


def paths(
    walks: Mapping[str, tuple[Float[Tensor, "levels n 2"], Tensor]], x0: Float[Tensor, "m 2"], spread: float
) -> Figure:
    """The way of each sampler from the same noise, scaled at each level to the size of the data."""
    figure, axes = panels(-(-len(walks) // 3), 3, 3.1)
    r = 2.6 * spread
    for ax, (name, (states, sigmas)) in zip(axes.flat, walks.items(), strict=False):
        shown = states * (spread / (spread**2 + sigmas**2).sqrt())[:, None, None]
        ax.scatter(*x0.T, s=1, c=DATA, alpha=0.35, linewidths=0)
        for i, colour in zip(range(shown.shape[1]), COLOURS * shown.shape[1], strict=False):
            ax.plot(*shown[:, i].T, "-", color=colour, lw=0.9, alpha=0.85)
            ax.plot(*shown[-1, i], "o", color=colour, ms=3.5)
        ax.set(xlim=(-r, r), ylim=(-r, r))
        ax.set_title(name, fontsize=10)
    for ax in list(axes.flat)[len(walks) :]:
        ax.set_visible(False)
    return figure


def samples(drawn: Mapping[str, tuple[Float[Tensor, "n 2"], str]], spread: float) -> Figure:
    """The points of each, by name, with a line of text."""
    figure, axes = panels(-(-len(drawn) // 3), 3, 3.1)
    for ax, (name, (x, text)) in zip(axes.flat, drawn.items(), strict=False):
        ax.scatter(*x.T, s=1.5, c=DATA if name == "data" else LEARNED, alpha=0.6, linewidths=0)
        ax.set(xlim=(-1.9 * spread, 1.9 * spread), ylim=(-1.9 * spread, 1.9 * spread))
        ax.set_title(f"{name}\n{text}", fontsize=10)
    for ax in list(axes.flat)[len(drawn) :]:
        ax.set_visible(False)
    return figure


def quality(curves: Mapping[str, Sequence[tuple[float, float]]], floor: float | None, name: str, note: str) -> Figure:
    """A figure of quality against network evaluations, a curve for each sampler, and what real data reach."""
    figure, ax = plot("network evaluations per sample", name)
    for (method, points), colour in zip(curves.items(), COLOURS * len(curves), strict=False):
        ax.plot(*zip(*points, strict=True), "o-", color=colour, lw=1.6, ms=4, label=method)
    if floor is not None:
        ax.axhline(floor, color=DATA, lw=1.2, ls="--", label=note)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    values = [y for points in curves.values() for _, y in points]
    if 0 < 4 * min(values) < max(values) and max(values) > 1:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(fontsize=9, frameon=False, loc="outside right upper")
    return figure


def lattice(r: float, n: int) -> Float[Tensor, "n 2"]:
    """n x n points of the square from -r to r."""
    side = torch.linspace(-r, r, n)
    return torch.cartesian_prod(side, side)


def plot(x: str, y: str) -> tuple[Figure, Any]:
    """One plot with named axes."""
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    ax = figure.subplots()
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(color="#e4e4e1", lw=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def restored(
    columns: Mapping[str, Float[Tensor, "n ..."]], draws: Float[Tensor, "n m c h w"], rows: int = 6, most: int = 5
) -> Figure:
    """A row for each of the first pictures: what `columns` has of it, the spread of its draws, and some of them."""
    n, shown = min(rows, len(draws)), min(most, draws.shape[1])
    spread = draws.var(1).mean(1).sqrt()
    figure, axes = panels(n, len(columns) + 1 + shown, 1.15)
    for i in range(n):
        pictures = [*columns.items(), *((f"draw {j + 1}", draws[:, j]) for j in range(shown))]
        cells = [(name, x[i]) for name, x in pictures]
        cells.insert(len(columns), ("spread", spread[i][None]))
        for ax, (name, x) in zip(axes[i], cells, strict=True):
            image = x.movedim(0, -1).squeeze(-1).numpy()
            if name == "spread":
                ax.imshow(image, cmap="magma", vmin=0, vmax=float(spread[:n].max()))
            elif name == "seen":
                low, high = min(-1.0, float(x.min())), max(1.0, float(x.max()))
                ax.imshow(((image - low) / (high - low)), cmap="grey", vmin=0, vmax=1, aspect="auto")
                ax.set_box_aspect(1)
            else:
                ax.imshow((image.clip(-1, 1) + 1) / 2, cmap="grey", vmin=0, vmax=1)
            if i == 0:
                ax.set_title(name, fontsize=8)
    return figure
