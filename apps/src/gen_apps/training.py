"""What the `train` commands of latent models share: the loop, and what it leaves for a reader."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from torch import Tensor, nn

from gen_apps import data
from gen_apps.diffusion.trained import load_averaged
from gen_apps.energy import metered
from gen_apps.identity import identity
from gen_apps.loop import loop
from gen_core import (
    EMA,
    Arrays,
    Loader,
    Run,
    Task,
    Trainer,
    pictures,
    quality,
    report,
)
from gen_core.checkpoint import sound, step
from gen_core.config import from_dict
from gen_core.ema import power
from gen_core.files import whole
from gen_core.runtime import select_device


@dataclass(frozen=True)
class Optim:
    """How it is trained."""

    steps: int = 3000
    """Updates."""
    batch_size: int = 64
    """Samples per update, over all processes."""
    lr: float = 2e-3
    """Peak learning rate."""
    weight_decay: float = 0.0
    ema: float = 0.10
    """Width of the power-function average of weights that is used afterwards, relative to the steps so far."""

    def __post_init__(self):
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--optim.{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"--optim.lr must be positive, got {self.lr}")


@dataclass(frozen=True)
class Subject:
    """What a model is of: it rebuilds the networks without the data."""

    shape: tuple[int, ...]
    """Of one sample: (channels, height, width) in [-1, 1], or (2,)."""
    classes: int
    levels: int | None
    """Grey levels of a pixel, evenly spaced; None for what has none."""

    @classmethod
    def of(cls, name: str, size: int | str, training: Arrays) -> "Subject":
        return cls(tuple(training[:2][0].shape[1:]), len(training.classes), data.grey_levels(name, size))

    def need_classes(self, name: str) -> None:
        """Refuse what cannot be told apart."""
        if self.classes < 2:
            raise ValueError(
                f"--conditional needs labels of 2 classes at least, and {name} has {self.classes}; drop it, or give a "
                "folder with one sub-folder a class"
            )


def need_square(flag: str, shape: tuple[int, ...]) -> None:
    """Refuse pictures of another shape for networks that halve them down to 4 x 4."""
    if shape[1] != shape[2]:
        raise ValueError(f"{flag} is for square pictures, got {shape[2]}x{shape[1]}; use mlp or another --size")


def fit(
    command: str,
    config: Any,
    run: Path,
    task: Task,
    loader: Loader,
    draw: Callable[[int], Tensor] | None,
    *,
    averaged: str,
    clip: float | None = 1.0,
    model: Any,
    layers: Any = "",
    held_out: Arrays | None = None,
    decay: Any = None,
    look: Callable[[int], object] = lambda step: None,
) -> tuple[Trainer, EMA]:
    """Train as `config` says, or go on where the run stands.

    Args:
        draw: so many samples, with the averaged weights in place, for a picture now and then; None for a model that
            draws none.
        averaged: the module whose average is kept and used.
        clip: largest norm of a gradient; None for the two players of a game, whose gradients their penalties bound.
        model: what to write into model.json.
        held_out: data for `task.evaluate`; None for a task without.
        look: called with the step whenever a picture is made, on the first process.
    """
    ema = EMA(averaged, decay or power(config.optim.ema))

    def picture(t: Trainer) -> None:
        if t.rank == 0:
            with ema.swapped(), torch.no_grad():
                if draw is not None:
                    pictures.save(run / "samples" / f"step-{t.step:06d}.png", draw(50), columns=10)
                look(t.step)

    def begin() -> None:
        record = Run.create(run, identity(config))
        record.write("model.json", asdict(model))
        record.write("summary.txt", f"{layers}\n")

    validation = None if held_out is None else Loader(held_out, min(512, len(held_out)))
    trainer = loop(
        config, run, task, loader, ema, picture,
        begin=begin, go_on=f"go on with: gen {command} --resume {run}", validation=validation, clip=clip,
    )  # fmt: skip
    return trainer, ema


def leave(
    config: Any, run: Path, draw: Callable[[int], Tensor], training: Arrays, held_out: Arrays, labels: Tensor | None
) -> None:
    """Samples, their quality, what they and the training cost, and the page; on the first process."""
    n = len(held_out)
    with metered(config.place, n) as cost, torch.no_grad():
        x = draw(n)
    spent = {"training": json.loads((run / "energy.json").read_text()), "sampling": cost.facts}
    Run(run).write("energy.json", spent)
    shown = torch.zeros(n, dtype=torch.long) if labels is None else labels
    with whole(run / "samples.npz") as part:
        np.savez(part, x=x.numpy(), label=shown.numpy())
    measured = quality.assess(x, labels, training, held_out)
    Run(run).write("quality.json", measured)
    rich.print(quality.table(measured))
    print(f"training: energy {spent['training']['energy']}; carbon {spent['training']['carbon']}")
    print(f"samples {run / 'samples.npz'}, report {report.build(run)}")


def weights(run: Run, command: str, device: str, net: nn.Module) -> tuple[int, torch.device]:
    """Load the averaged weights of a run's newest checkpoint into `net`, and put it in its place: (step, device).

    Raises:
        FileNotFoundError: without a checkpoint.
        ValueError: for weights that are not of this network.
    """
    newest, where = sound(run.path, "ema.safetensors"), select_device(device)
    if newest is None:
        raise FileNotFoundError(f"{run.path} has no checkpoint yet; train it first: gen {command} --resume {run.path}")
    load_averaged(net, newest)
    net.to(where).eval()
    return step(newest), where


def subject(run: Run) -> Subject:
    """What the model of a run is of."""
    if not (run.path / "model.json").is_file():
        raise FileNotFoundError(f"{run.path} has no model.json, so no gen train command made it")
    return from_dict(Subject, json.loads((run.path / "model.json").read_text()))
