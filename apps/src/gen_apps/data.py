"""DATA on the command line: digits, a name of the catalogue, points:NAME, hub:NAME or a folder of pictures.

It is in two parts, of which one is held out.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from gen_apps.catalogue.entries import Entry, suggestion
from gen_apps.catalogue.entries import of as named
from gen_apps.command import Source, TrainCommand, shape
from gen_core import Arrays, Loader, digits, folder, hub, split
from gen_core.datasets import brains, emoji, fashion_mnist, mnist_5k, stamps
from gen_core.decode import Channels
from gen_core.runtime import generator
from gen_core.transforms import flip
from gen_diffusion import grid, moons, rings, swiss_roll

PARTS: dict[str, Callable[..., Arrays]] = {  # sets with a split of their own: (part, size) -> pictures
    "digits": lambda part, size, folder: digits(part, size),
    "fashion-mnist": lambda part, size, folder: fashion_mnist(part, size, folder=folder),
    "brains": lambda part, size, folder: brains(part, size, folder=folder),
}
WHOLE: dict[str, Callable[..., Arrays]] = {"mnist-5k": mnist_5k, "emoji": emoji, "stamps": stamps}
POINTS = {"moons": moons, "rings": rings, "grid": grid, "swiss-roll": swiss_roll}
LEAST = 12  # pictures to train on, and pictures to measure with
MEASURED = 2000  # held-out samples, at most: each is drawn, denoised and compared with all others
MANY = 10_000  # training samples that statistics are of, at most


@dataclass(frozen=True)
class Subject:
    """The facts of a data set that networks are built for, and rebuilt for without the data."""

    shape: tuple[int, ...]
    """Shape of one sample: (channels, height, width) in [-1, 1], or (2,)."""
    classes: int
    levels: int | None
    """Grey levels of a pixel, evenly spaced; None for values that have none."""

    @classmethod
    def of(cls, name: str, size: int | str, training: Arrays) -> "Subject":
        return cls(tuple(training[:2][0].shape[1:]), len(training.classes), grey_levels(name, size))

    def need_square(self, flag: str) -> None:
        """Refuse pictures of another shape for networks that halve them down to squares."""
        if self.shape[1] != self.shape[2]:
            raise ValueError(
                f"{flag} is for square pictures, got {self.shape[2]}x{self.shape[1]}; use mlp or another --size"
            )

    def need_classes(self, name: str) -> None:
        """Refuse a conditional model of data with fewer than two classes."""
        if self.classes < 2:
            raise ValueError(
                f"--conditional needs labels of 2 classes at least, and {name} has {self.classes}; drop it, or give a "
                "folder with one sub-folder a class"
            )


def subset(part: Arrays, most: int = MANY) -> Arrays:
    """`part`, or a fixed random choice of `most` samples of a larger one."""
    if len(part) <= most:
        return part
    return part.select(torch.randperm(len(part), generator=generator("subset"))[:most].sort().values)


def of(source: Source) -> tuple[Arrays, Arrays]:
    """The training part and the held-out part of a command's data; see `load`."""
    return load(source.data, source.size, channels=source.channels, held_out=source.held_out, classes=source.classes)


def stored(config: dict[str, Any]) -> tuple[Arrays, Arrays]:
    """The training part and the held-out part of the data of a stored configuration."""
    return of(Source(**{f.name: config[f.name] for f in fields(Source) if f.name in config}))


def load(
    name: str,
    size: int | str = 0,
    *,
    channels: Channels | None = None,
    held_out: float | None = None,
    classes: Sequence[str] = (),
) -> tuple[Arrays, Arrays]:
    """(training part, held-out part of MEASURED samples at most), every number of them finite.

    Args:
        name: as in `Source`.
        size: of pictures, in pixels, or as "24x32"; 0 is that of the catalogue, and 32 otherwise.
        channels, held_out, classes: as in `Source`.

    Raises:
        ValueError: for an unknown set of points, data with fewer than 24 samples, or data that are not finite.
        FileNotFoundError: for a folder or a package that is not there.
    """
    train, test = _load(name, size, channels, held_out, classes)
    for part in (train, test):
        if part.tensors[0].dtype == torch.uint8:  # every byte is a number
            continue
        x, *_ = part[:]
        if broken := len(x) - int(x.isfinite().flatten(1).all(1).sum()):
            raise ValueError(f"{broken} of {len(x)} samples of {name} hold NaN or infinity; mend or drop them")
    return train, subset(test, MEASURED)


def loader(config: TrainCommand, training: Arrays) -> Loader:
    """The batches of a `train` command, smaller where there are fewer samples; flipped where the data are to be."""
    rows = batch_size(config.optim.batch_size, len(training))
    return Loader(
        training, rows, seed=config.seed, transform=flip if isinstance(config, Source) and config.flip else None
    )


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


def pixels(entry: Entry, size: int | str) -> tuple[int, int]:
    """(height, width) of the pictures of a set."""
    return shape(size, entry.pixels)


def whole(entry: Entry, size: tuple[int, int], where: str | None, channels: Channels | None = None) -> Arrays:
    """All pictures of a set of the catalogue."""
    if entry.name in PARTS:
        return PARTS[entry.name]("all", size, where)
    given = {} if channels is None else {"channels": channels}
    return WHOLE[entry.name](size, folder=where, **given)


def only(pictures: Arrays, classes: Sequence[str]) -> Arrays:
    """The pictures of these classes, which are numbered anew, in the order of the data.

    Raises:
        ValueError: for a class that there is not, naming those there are.
    """
    if not classes:
        return pictures
    if unknown := [name for name in classes if name not in pictures.classes]:
        raise ValueError(f"--classes {unknown[0]} is none of {', '.join(pictures.classes)}")
    kept = [i for i, name in enumerate(pictures.classes) if name in classes]
    labels = pictures.tensors[-1]
    rows = torch.isin(labels[:], torch.tensor(kept)).nonzero()[:, 0]
    chosen = pictures.select(rows)
    labels = torch.searchsorted(torch.tensor(kept), labels[:][rows])
    return Arrays(
        *chosen.tensors[:-1],
        labels,
        classes=[pictures.classes[i] for i in kept],
        content=f"{pictures.content} {kept}" if pictures.content else "",
    )


def _load(
    name: str, size: int | str, channels: Channels | None, held_out: float | None, classes: Sequence[str]
) -> tuple[Arrays, Arrays]:
    kind, _, rest = name.partition(":")
    if kind == "points":
        if rest not in POINTS:
            raise ValueError(f"points:{rest} is not known; there are {', '.join('points:' + p for p in POINTS)}")
        parts = [POINTS[rest](n, generator("points", rest, n)) for n in (4_000, 1_000)]
        names = [str(c) for c in range(int(parts[0][1].max()) + 1)]
        train, test = (Arrays(*part, classes=names) for part in parts)
        return train, test
    if found := named(name, "DATA"):
        entry, where = found
        if entry.name in PARTS and held_out is None:
            train, test = (only(PARTS[entry.name](p, pixels(entry, size), where), classes) for p in ("train", "test"))
            return train, test
        if entry.name == "brains":
            raise ValueError("--held-out is not for brains, whose neighbouring slices are nearly alike; leave it out")
        data = whole(entry, pixels(entry, size), where, channels)
    elif kind == "hub":
        data = hub(rest, shape(size), channels=channels)
    elif not Path(name).is_dir():
        there = "digits, a name of gen data list, points:NAME, hub:NAME or a folder of pictures"
        raise FileNotFoundError(f"{name} is no folder; give {there}{suggestion(name)}")
    else:
        data = folder(name, shape(size), channels=channels)
    data = only(data, classes)
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
