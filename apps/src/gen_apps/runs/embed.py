"""`gen embed`."""

from pathlib import Path

import torch

from gen_apps import data, load, pages
from gen_apps.runs.config import Embed
from gen_core import Run
from gen_core import embed as maps
from gen_core.runtime import generator


def embed(config: Embed) -> None:
    is_run = (Path(config.source) / "config.json").is_file()
    name = f"embed-{config.method}.png"
    if is_run:
        parts, out = load(config.source, device="cpu").groups(), config.out or Path(config.source) / name
    else:
        try:
            train, _ = data.load(config.source, config.size)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{config.source} is no run (no config.json), nor data: {error}") from None
        parts, out = {"data": data.subset(train)[:]}, config.out or Path(name)
    x, labels, groups = [], [], []
    for name, (values, label) in parts.items():
        chosen = torch.randperm(len(values), generator=generator(config.seed, name))[: config.n]
        x.append(values[chosen].flatten(1))
        labels.append(None if label is None else label[chosen])
        groups += [name] * len(chosen)
    points = torch.cat(x)
    label = None if any(part is None for part in labels) else torch.cat(labels).tolist()  # None: coloured by group
    if config.method == "pca":
        z = maps.pca(points).z
    else:
        z = (maps.tsne if config.method == "tsne" else maps.umap)(points, seed=config.seed)
    maps.scatter(z, label, groups=groups if is_run else None, path=out)
    if is_run:
        pages.show(Run(config.source), out)
    k = min(12, (len(points) - 1) // 2)
    faithful = maps.trustworthiness(points, z, k)
    print(f"{out}: {len(points)} points by {config.method}, trustworthiness of {k} neighbours {faithful:.3f}")
