"""Samples of a trained run: the classes that are requested, drawing in blocks, and the files of a sample command."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen_apps import pages
from gen_apps.command import SampleCommand
from gen_apps.energy import metered
from gen_apps.opening import Trained
from gen_core import Run, pictures
from gen_core.files import whole

BLOCK = 64  # samples at a time: the rounding of a network's sums depends on how many rows it is given


def requested_labels(label: int | None, n: int, classes: int) -> Tensor | None:
    """The class of each of `n` samples, in turns or all of one; None for a model without classes.

    Raises:
        ValueError: for a class that the run has not.
    """
    if label is not None and not 0 <= label < classes:
        which = f"0..{classes - 1}" if classes else "which was trained without"
        raise ValueError(f"--label must be a class of the run, {which}, got {label}")
    turns = torch.arange(n) % max(1, classes)
    return None if not classes else turns if label is None else torch.full_like(turns, label)


def in_blocks(n: int, labels: Tensor | None, draw: Callable[[int, Tensor | None], Tensor]) -> Tensor:
    """`n` samples of whole blocks, the last one cut: sample i depends on its block and label alone, not on `n`.

    Args:
        labels: of the samples, or None.
        draw: the number of a block and the labels of its samples -> its samples.
    """
    rows = torch.arange(-(-n // BLOCK) * BLOCK) % n
    return torch.cat([draw(b, None if labels is None else labels[i]) for b, i in enumerate(rows.split(BLOCK))])[:n]


@dataclass(frozen=True)
class Files:
    """Names of the files that a sample command writes."""

    picture: Path
    arrays: Path
    energy: Path

    @classmethod
    def of(cls, config: SampleCommand) -> "Files":
        out = config.out or config.run / f"sample-seed-{config.seed}"
        return cls(*(out.with_name(out.name + end) for end in (".png", ".npz", ".energy.json")))


def write_samples(
    config: SampleCommand,
    trained: Trained[Any],
    draw: Callable[[], Tensor],
    arrays: Callable[[Tensor], Mapping[str, Tensor]],
    picture: Callable[[Tensor, Path], object],
) -> Tensor:
    """Draw samples; write their picture, arrays and energy; a picture in the run's directory is on its page.

    Args:
        draw: the samples.
        arrays: samples -> the arrays of the .npz file by name.
        picture: draws the samples into a file.
    """
    with metered(config.place, config.n) as cost, torch.no_grad():
        x = draw()
    files = Files.of(config)
    picture(x, files.picture)
    content: dict[str, Any] = {name: value.numpy() for name, value in arrays(x).items()}
    with whole(files.arrays) as part:
        np.savez(part, **content)
    Run(files.energy.parent).write(files.energy.name, cost.facts)
    trained.run.log(trained.step, cost.metrics)
    pages.show(trained.run, files.picture)
    print(f"{files.picture} and .npz: {config.n} samples of step {trained.step}")
    print("; ".join(f"{name} {cost.facts[name]}" for name in ("energy", "carbon", "per sample")))
    return x


def write_pictures(
    config: SampleCommand, trained: Trained[Any], labels: Tensor | None, draw: Callable[[], Tensor]
) -> None:
    """`write_samples` for pictures or points, each of a class."""
    label = torch.zeros(config.n, dtype=torch.long) if labels is None else labels
    columns = 10 if len(label.unique()) == 10 else None
    write_samples(
        config,
        trained,
        draw,
        lambda x: {"x": x, "label": label},
        lambda x, file: pictures.save(file, x, columns=columns, labels=label),
    )
