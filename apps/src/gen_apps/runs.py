"""Commands that look at a run: its page, its layers, its samples in a map."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro

from gen_apps import data
from gen_core import Run
from gen_core import embed as maps
from gen_core import report as page
from gen_core.runtime import generator


@dataclass(frozen=True)
class Report:
    """Build the page of a run again."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""


def report(config: Report) -> None:
    print(page.build(Run.open(config.run)))


@dataclass(frozen=True)
class Summary:
    """Print the layers of a run's network."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""


def summary(config: Summary) -> None:
    file = Run.open(config.run).path / "summary.txt"
    if not file.is_file():
        raise FileNotFoundError(f"{config.run} has no summary.txt; its training did not come that far")
    print(file.read_text(), end="")


@dataclass(frozen=True)
class Embed:
    """Draw data, and the samples of a run, in one map."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|DATA")]
    """A run, whose samples and data are drawn together, or DATA as for training."""
    method: Literal["pca", "tsne", "umap"] = "pca"
    """pca is a projection; tsne and umap keep neighbours (umap needs the extra gen-core[umap])."""
    n: int = 500
    """Points of each kind, at most."""
    size: Annotated[int | str, tyro.conf.arg(metavar="PIXELS|WIDTHxHEIGHT")] = 0
    """Pixels of a side of a picture, or as 24x32, where DATA is given; 0 is 8 for digits and 32 otherwise."""
    seed: int = 0
    """Of the choice of points and of the map."""
    out: Path | None = None
    """Picture to write; by default embed-METHOD.png in the run, or in the working directory."""

    def __post_init__(self):
        if self.n < 4:
            raise ValueError(f"--n must be at least 4 points, got {self.n}")


def embed(config: Embed) -> None:
    is_run = (Path(config.source) / "config.json").is_file()
    name = f"embed-{config.method}.png"
    if is_run:
        run = Run.open(config.source)
        if not (run.path / "samples.npz").is_file():
            raise FileNotFoundError(f"{run.path} has no samples.npz; its training did not end")
        asked, drawn = run.config(), np.load(run.path / "samples.npz")
        _, test = data.source(asked).load()
        parts = {"data": test[:], "samples": tuple(torch.from_numpy(drawn[k]) for k in ("x", "label"))}
        out = config.out or run.path / name
    else:
        train, _ = data.load(config.source, config.size)
        parts, out = {"data": data.subset(train)[:]}, config.out or Path(name)
    x, labels, groups = [], [], []
    for name, (values, label) in parts.items():
        chosen = torch.randperm(len(values), generator=generator(config.seed, name))[: config.n]
        x.append(values[chosen].flatten(1))
        labels.append(label[chosen])
        groups += [name] * len(chosen)
    points, label = torch.cat(x), torch.cat(labels)
    if config.method == "pca":
        z = maps.pca(points).z
    else:
        z = (maps.tsne if config.method == "tsne" else maps.umap)(points, seed=config.seed)
    maps.scatter(z, label.tolist(), groups=groups if is_run else None, path=out)
    k = min(12, (len(points) - 1) // 2)
    faithful = maps.trustworthiness(points, z, k)
    print(f"{out}: {len(points)} points by {config.method}, trustworthiness of {k} neighbours {faithful:.3f}")
