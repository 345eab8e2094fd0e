"""DATA on the command line: digits, points:NAME, hub:NAME or a folder of pictures, in two parts: one is held out."""

import re
import warnings
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import torch
import tyro

from gen_apps.options import Number
from gen_core import Arrays, Loader, digits, folder, hub, split
from gen_core.runtime import generator
from gen_core.transforms import flip
from gen_diffusion import grid, moons, rings, swiss_roll

POINTS = {"moons": moons, "rings": rings, "grid": grid, "swiss-roll": swiss_roll}
LEAST = 12  # pictures to train on, and pictures to measure with
MEASURED = 2000  # held-out samples, at most: each is drawn, denoised and compared with all others
MANY = 10_000  # training samples that statistics are of, at most


@dataclass(frozen=True)
class Source:
    """The data of a command, and what is made of them."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")] = "digits"
    """digits, points:moons (rings, grid, swiss-roll), a folder of pictures with one sub-folder a class, or hub:NAME."""
    size: Annotated[int | str, tyro.conf.arg(metavar="PIXELS|WIDTHxHEIGHT")] = 0
    """Pixels of a side of a picture, or as 24x32; 0 is 8 for digits and 32 otherwise. Points have no size."""
    channels: Annotated[Literal[1, 3, 4] | None, tyro.conf.arg(metavar="{1,3,4}", help_behavior_hint="")] = None
    """Of pictures: 1 grey, 3 colour, 4 colour and transparency; by default colour unless all are grey."""
    held_out: Number = None
    """Share of the data that is held out, of every class (a half, and 2,000 pictures at most). Of more than 2,000
    held-out ones a fixed choice of 2,000 is measured."""
    flip: bool = False
    """Mirror pictures left to right in training, each time with probability one half."""

    def __post_init__(self):
        shape(self.size)
        if self.held_out is not None and not 0 < self.held_out < 1:
            raise ValueError(f"--held-out is a share between 0 and 1, got {self.held_out}")
        points = self.data.startswith("points:")
        if self.channels is not None and (points or self.data == "digits"):
            raise ValueError(f"--channels is of pictures in files, not of {self.data}; leave it out")
        if points and (self.held_out is not None or self.flip):
            raise ValueError(f"--held-out and --flip are of pictures, not of {self.data}; leave them out")

    def load(self) -> tuple[Arrays, Arrays]:
        """(training part, held-out part of MEASURED samples at most), every number of them finite."""
        return load(self.data, self.size, channels=self.channels, held_out=self.held_out)


def subset(part: Arrays, most: int = MANY) -> Arrays:
    """`part`, or a fixed random choice of `most` samples of a larger one."""
    if len(part) <= most:
        return part
    return part.select(torch.randperm(len(part), generator=generator("subset"))[:most].sort().values)


def source(config: dict[str, Any]) -> Source:
    """The data of a stored configuration."""
    return Source(**{f.name: config[f.name] for f in fields(Source) if f.name in config})


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


def load(
    name: str, size: int | str = 0, *, channels: Literal[1, 3, 4] | None = None, held_out: float | None = None
) -> tuple[Arrays, Arrays]:
    """(training part, held-out part of MEASURED samples at most), every number of them finite.

    Args:
        size: of pictures, in pixels, or as "24x32"; 0 is 8 for digits and 32 otherwise.
        channels, held_out: as in `Source`.

    Raises:
        ValueError: for an unknown set of points, data with fewer than 24 samples, or data that are not finite.
        FileNotFoundError: for a folder that is not there.
    """
    train, test = _load(name, size, channels, held_out)
    for part in (train, test):
        if part.tensors[0].dtype == torch.uint8:  # every byte is a number
            continue
        x, *_ = part[:]
        if broken := len(x) - int(x.isfinite().flatten(1).all(1).sum()):
            raise ValueError(f"{broken} of {len(x)} samples of {name} hold NaN or infinity; mend or drop them")
    return train, subset(test, MEASURED)


def loader(config: Any, training: Arrays) -> Loader:
    """The batches of a `train` command, smaller where there are fewer samples; flipped where the data are to be."""
    rows = batch_size(config.optim.batch_size, len(training))
    return Loader(training, rows, seed=config.seed, transform=flip if getattr(config, "flip", False) else None)


def batch_size(wanted: int, samples: int) -> int:
    """`wanted`, or the largest power of two of fewer samples, which is said."""
    if wanted <= samples:
        return wanted
    rows = 1 << samples.bit_length() - 1
    warnings.warn(f"there are {samples} samples to train on, so a batch has {rows} of them, not {wanted}", stacklevel=2)
    return rows


def grey_levels(name: str, size: int | str) -> int | None:
    """Equally spaced values from -1 to 1 that a pixel can have; None for points, and for digits that were resized."""
    if name == "digits":
        return 17 if shape(size, 8) == (8, 8) else None
    return None if name.startswith("points:") else 256


def _load(
    name: str, size: int | str, channels: Literal[1, 3, 4] | None, held_out: float | None
) -> tuple[Arrays, Arrays]:
    if name == "digits":
        pixels = shape(size, 8)
        return (
            _split(digits("all", pixels), held_out) if held_out else (digits("train", pixels), digits("test", pixels))
        )
    kind, _, rest = name.partition(":")
    if kind == "points":
        if rest not in POINTS:
            raise ValueError(f"points:{rest} is not known; there are {', '.join('points:' + p for p in POINTS)}")
        parts = [POINTS[rest](n, generator("points", rest, n)) for n in (4_000, 1_000)]
        names = [str(c) for c in range(int(parts[0][1].max()) + 1)]
        train, test = (Arrays(*part, classes=names) for part in parts)
        return train, test
    read, where = (hub, rest) if kind == "hub" else (folder, name)
    data = read(where, shape(size), channels=channels)
    if len(data) < 2 * LEAST:
        raise ValueError(f"{name} holds {len(data)} pictures; training and measuring need at least {2 * LEAST}")
    return _split(data, held_out or min(0.5, MEASURED / len(data)))


def _split(data: Arrays, held_out: float) -> tuple[Arrays, Arrays]:
    train, test = split(data, held_out)
    if min(len(train), len(test)) < LEAST:
        raise ValueError(
            f"--held-out {held_out:g} makes {len(train)} samples to train on and {len(test)} held-out ones; choose a "
            f"share that gives {LEAST} to both"
        )
    return train, test
