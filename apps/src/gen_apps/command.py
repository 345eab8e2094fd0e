"""The flags that commands share, as base dataclasses: a command adds fields of its own by inheriting from one.

    @dataclass(frozen=True)
    class TrainVAE(TrainOnData):
        latents: int = 16

Nothing here imports torch, so that `--help` is instant.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import tyro

from gen_apps.catalogue.entries import NAMES
from gen_apps.energy import Place
from gen_apps.options import Number

RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
DataName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]


@dataclass(frozen=True)
class Machine:
    """Hardware and precision: no part of the run's identity, which may be resumed elsewhere."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: str = "auto"
    """auto, bf16 or fp32."""
    micro_batch: int | None = None
    """Samples per forward pass and process, to fit memory."""


@dataclass(frozen=True)
class Optim:
    """Optimisation."""

    steps: int = 3000
    """Updates."""
    batch_size: int = 64
    """Samples per update, over all processes."""
    lr: float = 2e-3
    """Peak learning rate of AdamW: linear warm-up over a twentieth of the steps, then half a cosine to 0."""
    weight_decay: float = 0.0
    clip: float | None = 1.0
    """Largest norm of a gradient; None does not clip."""

    def __post_init__(self):
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--optim.{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "clip"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"--optim.{name} must be positive, got {value}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"--optim.weight-decay must be at least 0 and finite, got {self.weight_decay}")


@dataclass(frozen=True)
class Averaged(Optim):
    """Optimisation, with an average of weights."""

    ema: float = 0.10
    """Width of the power-function average of weights that is used afterwards, relative to the steps so far."""


@dataclass(frozen=True)
class Measures:
    """The flag of every command that measures."""

    json: Path | None = field(default=None, kw_only=True)
    """Also write the figures to this file, as JSON."""


@dataclass(frozen=True)
class TrainCommand(Measures):
    """The flags of every train command."""

    command: ClassVar[str]
    """Its words after `gen`, such as "vae train"."""
    named_by: ClassVar[tuple[str, ...]] = ("data",)
    """Fields that its default directory may differ in without a hash."""

    out: Path | None = None
    """Directory to write; by default runs/KIND-DATA, and a hash of the flags if any differ from the defaults.
    The same command again continues the same run."""
    resume: Path | None = None
    """Continue this run with its own configuration; a larger --optim.steps trains it longer."""
    start_from: Path | None = None
    """Begin with the weights of this run, averaged where it averages them, instead of random ones."""
    start_optimizer: bool = False
    """With --start-from: also take the optimisers' state, and the last weights instead of their average."""
    seed: int = 0
    """Key of everything random: weights, order, noise, samples."""
    optim: Optim = field(default_factory=Optim)
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)
    log: Literal["none", "tensorboard", "wandb"] = "none"
    """A second place for metrics, beside the run's metrics.jsonl: TensorBoard events in the run, or W&B."""

    def data_name(self) -> str:
        """The part of a run's default directory that names its data."""
        return ""

    def completed(self) -> Self:
        """The configuration with the defaults of all that was left to a choice."""
        return self


@dataclass(frozen=True)
class Source:
    """The flags of every command that takes DATA: points or pictures, in classes."""

    data: DataName = "digits"
    """digits, another picture set of `gen data list`, points:moons (rings, grid, swiss-roll), hub:NAME, or a folder of
    pictures with one sub-folder a class. A name and a folder, as fashion-mnist:FOLDER, reads the files from there."""
    size: Annotated[int | str, tyro.conf.arg(metavar="PIXELS|WIDTHxHEIGHT")] = 0
    """Pixels of a side of a picture, or as 24x32; 0 is 8 for digits, 28 for fashion-mnist and mnist-5k, 64 for brains,
    32 otherwise. Points have no size."""
    channels: Annotated[Literal[1, 3, 4] | None, tyro.conf.arg(metavar="{1,3,4}", help_behavior_hint="")] = None
    """Channels of pictures: 1 grey, 3 colour, 4 colour and transparency; by default colour unless all are grey."""
    held_out: Number = None
    """Share of the data that is held out, of every class (the published test part where there is one; else a half, and
    2,000 pictures at most). Of more than 2,000 held-out ones a fixed choice of 2,000 is measured."""
    classes: tuple[str, ...] = ()
    """Only pictures of these classes, by name; by default all."""
    flip: bool = False
    """Mirror pictures left to right in training, each time with probability one half."""

    def __post_init__(self):
        shape(self.size)
        if self.held_out is not None and not 0 < self.held_out < 1:
            raise ValueError(f"--held-out is a share between 0 and 1, got {self.held_out}")
        points, entry = self.data.startswith("points:"), NAMES.get(self.data.partition(":")[0])
        if self.channels is not None and (points or (entry and not entry.files)):
            raise ValueError(f"--channels is of pictures in files, not of {self.data}; leave it out")
        if points and (self.held_out is not None or self.flip or self.classes):
            raise ValueError(f"--held-out, --classes and --flip are of pictures, not of {self.data}; leave them out")


def shape(size: int | str, usual: int = 32) -> tuple[int, int]:
    """(height, width) of `--size`.

    >>> shape(0), shape("16"), shape("24x32")
    ((32, 32), (16, 16), (32, 24))
    """
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", str(size))
    width, height = (int(n) for n in (found[1], found[2] or found[1])) if found else (-1, -1)
    if found is None or (0 in (width, height) and size not in (0, "0")):
        raise ValueError(f"--size is a number of pixels, WIDTHxHEIGHT, or 0 for the usual one, got {size}")
    return height or usual, width or usual


@dataclass(frozen=True)
class TrainOnData(TrainCommand, Source):
    """The flags of a train command that takes DATA."""

    optim: Averaged = field(default_factory=Averaged)

    def data_name(self) -> str:
        return self.data


@dataclass(frozen=True)
class SampleCommand:
    """The flags of every sample command."""

    run: RunPath
    """Directory of the run."""
    n: int = 64
    """Samples."""
    seed: int = 0
    """Sample i is a function of the seed, i and its conditions alone, whatever n."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    place: Place = field(default_factory=Place)
    out: Path | None = None
    """File names to write, without suffix; by default sample-seed-SEED in the run."""

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"--n must be at least 1 sample, got {self.n}")


@dataclass(frozen=True)
class SampleClasses(SampleCommand):
    """The flags of a sample command of a model that may know classes."""

    label: int | None = None
    """Class of all samples; by default the classes take turns."""
