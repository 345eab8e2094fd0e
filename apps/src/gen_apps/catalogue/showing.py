"""`gen data show`: a sheet of a set as a PNG, and its facts."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen_apps import data
from gen_apps.catalogue import listing
from gen_apps.catalogue.config import ShowData
from gen_apps.catalogue.entries import Entry, find
from gen_apps.llm.corpus import documents
from gen_core.datasets import captions, stamps
from gen_core.files import whole
from gen_core.pictures import grid
from gen_core.runtime import generator

CAPTIONED = 48  # pictures on a sheet with captions
LINES, COLUMNS = 14, 76  # of each text


def show_data(config: ShowData) -> None:
    name, _, folder = config.name.partition(":")
    entry = find(name)
    for fact, value in listing.row(entry).items():
        print(f"{fact:10}  {value}")
    if not entry.takers:
        return print(f"\n{name} has no loader yet, so there is no sheet of it; its files are for code of your own")
    out = config.out or Path(f"{name}.png")
    draw(entry, config, folder or None, out)
    print(f"\nsheet {out}")


def draw(entry: Entry, config: ShowData, folder: str | None, out: Path) -> None:
    """Write the sheet of a set."""
    if entry.kind == "text":
        figure = text_sheet(documents(config.name, "utf-8"), config.n or 4)
    else:
        figure = captioned(config, folder) if entry.name == "stamps" else classes_sheet(entry, folder, config.n or 8)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out) as part:
        figure.savefig(part, dpi=110, facecolor="white", bbox_inches="tight", metadata={"Software": None})


def classes_sheet(entry: Entry, folder: str | None, n: int) -> Any:
    """A row of `n` random pictures for each class, after its name and the number of its pictures."""
    pictures = data.whole(entry, data.pixels(entry, 0), folder)
    labels = pictures.tensors[-1][:]
    rows = []
    for label, name in enumerate(pictures.classes):
        of_it = (labels == label).nonzero()[:, 0]
        rows.append((f"{name}  ({len(of_it):,})", pictures[_some(of_it, n)][0]))
    figure = _figure(0.66 * n + 1.9, 0.66 * len(rows))
    for i, (name, x) in enumerate(rows):
        top, height = 1 - (i + 1) / len(rows), 1 / len(rows)
        axes = figure.add_axes((0.0, top + 0.06 * height, 1.0, 0.88 * height))
        shown = torch.cat([x, x.new_ones(n - len(x), *x.shape[1:])])
        _imshow(axes, grid(shown, columns=n))
        axes.set_anchor("E")
        figure.text(0.01, top + height / 2, name, va="center", size=9)
    return figure


def captioned(config: ShowData, folder: str | None) -> Any:
    """Random stamps with what they show below."""
    pictures, texts = stamps(96, folder=folder), captions(config.language or "en", folder)
    chosen = _some(torch.arange(len(pictures)), config.n or CAPTIONED)
    x, columns = pictures[chosen][0], 8
    rows = -(-len(x) // columns)
    figure = _figure(11, 1.75 * rows)
    for place, (i, picture) in enumerate(zip(chosen.tolist(), x, strict=True), 1):
        axes = figure.add_subplot(rows, columns, place)
        _imshow(axes, grid(picture[None]))
        shown = textwrap.wrap(texts[i], 22, max_lines=3, placeholder=" ...")
        axes.set_title("\n".join(shown), y=-0.06, va="top", size=6.5)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.06, hspace=0.45)
    return figure


def text_sheet(texts: Sequence[str], n: int) -> Any:
    """The first lines of `n` documents, evenly spaced among them."""
    chosen = [texts[i * len(texts) // n] for i in range(min(n, len(texts)))]
    parts = [[line for part in text.splitlines() for line in textwrap.wrap(part, COLUMNS)][:LINES] for text in chosen]
    shown = "\n\n".join("\n".join(lines) for lines in parts)
    figure = _figure(7.2, 0.2 + 0.168 * (shown.count("\n") + 1))
    figure.text(0.02, 0.99, shown.replace("$", r"\$"), va="top", family="monospace", size=8.5)
    return figure


def _some(index: Tensor, n: int) -> Tensor:
    """At most `n` of them, always the same ones, in their order."""
    return index[torch.randperm(len(index), generator=generator("sheet"))[:n]].sort().values


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def _imshow(axes: Any, pixels: Any) -> None:
    axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255, interpolation="none")
    axes.set_axis_off()
