"""Pictures of a folder or of the Hugging Face hub, decoded once as bytes of one size.

data = folder("faces", size=64)              # Arrays: pictures (n, c, 64, 64) and labels
training, held_out = split(data, held_out=0.1)
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gen_core.cache import Facts, Put, stored
from gen_core.data import Arrays
from gen_core.decode import SUFFIXES, UNREADABLE, Channels, decode, is_grey, opened

Decode = Callable[[bytes, tuple[int, int], Channels], tuple[tuple[int, int], np.ndarray]]
BLOCK = 256  # pictures in memory at a time


def folder(path: str | Path, size: int | tuple[int, int], *, channels: Channels | None = None) -> Arrays:
    """Pictures of a folder, one sub-folder a class (sorted by name; none: one class), as bytes.

    A sub-folder without readable pictures is no class; hidden folders and `__MACOSX` are not looked into. A picture is
    turned by its EXIF orientation; one of another shape is cropped to its centre and resized, which is said once; an
    unreadable one is named and skipped. Pictures are decoded once, into a cache that is mapped into memory
    (`gen_core.cache`), so that they need not fit memory. At every start all files are read, to know them by content.

    Args:
        size: pixels of a side, or (height, width).
        channels: 1 is grey, 3 colour on white, 4 colour with transparency; None: colour unless every picture is grey.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when no picture in it can be read, or pictures lie beside sub-folders.
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give a folder of pictures, with one sub-folder a class")
    files = list(_files(root))
    loose = [f for f in files if f.parent == root]
    if loose and len(loose) < len(files):
        raise ValueError(
            f"{root} has {len(loose)} pictures beside its sub-folders ({loose[0].name}), and only sub-folders are "
            "classes; move them into a sub-folder, or out of the folder"
        )
    if not files:
        raise ValueError(f"{root} cannot be trained on: there is no picture in it")
    classes = [root.name] if loose else sorted({f.relative_to(root).parts[0] for f in files})
    labels = [0 if loose else classes.index(f.relative_to(root).parts[0]) for f in files]
    names = [str(f.relative_to(root)) for f in files]
    return Encoded(str(root), names, lambda i: files[i].read_bytes()).arrays(labels, classes, size, channels)


def hub(name: str, size: int | tuple[int, int], split: str = "train", *, channels: Channels | None = None) -> Arrays:
    """A data set of pictures from the Hugging Face hub, or a local copy of one, as `folder` gives it.

    Raises:
        ImportError: without the extra `hub`.
        ValueError: when it has no column of pictures, or none can be read.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("reading from the hub needs datasets: pip install 'gen-core[hub]'") from None
    rows = datasets.load_dataset(name, split=split)
    columns = {type(feature).__name__: column for column, feature in reversed(rows.features.items())}
    if "Image" not in columns:
        raise ValueError(f"{name} has no column of pictures; its columns are {', '.join(rows.features)}")
    pictures = rows.select_columns(columns["Image"]).cast_column(columns["Image"], datasets.Image(decode=False))
    label = columns.get("ClassLabel")
    names = rows.features[label].names if label else [name]

    def read(i: int) -> bytes:
        picture = pictures[i][columns["Image"]]
        return picture["bytes"] or Path(picture["path"]).read_bytes()

    found = Encoded(name, [f"row {i}" for i in range(len(rows))], read)
    return found.arrays(list(rows[label]) if label else [0] * len(rows), names, size, channels)


def _files(root: Path) -> Iterator[Path]:
    """The picture files below a folder, sorted; none in hidden folders or what archivers leave."""
    for entry in sorted(root.iterdir()):
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_dir():
            yield from _files(entry)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry


@dataclass(frozen=True)
class Encoded:
    """Encoded pictures, read by number."""

    where: str
    names: Sequence[str]
    read: Callable[[int], bytes]
    decoded: Decode = decode
    """Bytes, (height, width) and channels -> the size that was found and the pixels."""

    def arrays(
        self, labels: Sequence[int], classes: Sequence[str], size: int | tuple[int, int], channels: Channels | None
    ) -> Arrays:
        """Pictures of one size, as bytes, and their labels; classes without a readable picture are left out."""
        shape = (size, size) if isinstance(size, int) else size
        digests = self._each(range(len(self.names)), lambda i: blake2b(self.read(i), digest_size=16).digest())
        how = (shape, channels) if self.decoded is decode else (shape, channels, self.decoded.__name__)
        key = blake2b(repr(how).encode() + b"".join(digests), digest_size=16).hexdigest()
        most = len(labels) * (channels or 3) * shape[0] * shape[1]
        x, facts = stored(key, most, lambda put: self._decode_all(put, shape, channels))
        self._tell(facts, shape)
        read = [y for i, y in enumerate(labels) if str(i) not in facts["broken"]]
        present = {y: rank for rank, y in enumerate(sorted({*read}))}  # a class without a picture is none
        read, classes = [present[y] for y in read], [classes[y] for y in present]
        content = blake2b(f"{key} {read} {classes}".encode(), digest_size=8).hexdigest()
        return Arrays(x, torch.tensor(read), classes=classes, content=content)

    def _each(self, numbers: Sequence[int], function: Callable[[int], Any]) -> Iterator[Any]:
        """`function` of each number in order, by threads: PIL and hashes let go of the interpreter."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for first in range(0, len(numbers), BLOCK):
                yield from pool.map(function, numbers[first : first + BLOCK])

    def _decode_all(self, put: Put, size: tuple[int, int], channels: Channels | None) -> Facts:
        """Decode all pictures, one after another; unreadable ones are in the facts, with the reason."""
        numbers = range(len(self.names))
        channels = channels or (1 if all(self._each(numbers, self._is_grey)) else 3)
        broken: dict[str, str] = {}
        shapes: set[tuple[int, int]] = set()
        for i, found in enumerate(self._each(numbers, lambda i: self._decode(i, size, channels))):
            if isinstance(found, str):
                broken[str(i)] = found
            else:
                shapes.add(found[0])
                put(found[1])
        if not shapes:
            why = f"none of its {len(broken)} pictures can be read: {self.names[0]} ({broken['0']})"
            raise ValueError(f"{self.where} cannot be trained on: {why}")
        return {
            "shape": [len(numbers) - len(broken), channels, *size],
            "broken": broken,
            "sizes": [list(shape) for shape in sorted(shapes)[:: max(1, len(shapes) - 1)]],
        }

    def _is_grey(self, i: int) -> bool:
        try:
            with opened(self.read(i)) as image:
                return is_grey(image)
        except UNREADABLE:
            return True  # it is named when it is decoded

    def _decode(self, i: int, size: tuple[int, int], channels: Channels) -> tuple[tuple[int, int], np.ndarray] | str:
        """(width and height in the file, pixels), or why it cannot be read."""
        try:
            return self.decoded(self.read(i), size, channels)
        except UNREADABLE as error:
            return str(error) or type(error).__name__

    def _tell(self, facts: Facts, size: tuple[int, int]) -> None:
        """Warn of pictures that were skipped, and that pictures were resized."""
        broken, sizes = facts["broken"], [f"{width}x{height}" for width, height in facts["sizes"]]
        if broken:
            shown = ", ".join(f"{self.names[int(i)]} ({why})" for i, why in list(broken.items())[:3])
            more = " ..." if len(broken) > 3 else ""
            warnings.warn(f"skipped {len(broken)} of {len(self.names)} pictures: {shown}{more}", stacklevel=4)
        wanted = f"{size[1]}x{size[0]}"
        if sizes != [wanted] and self.decoded is decode:
            shape = "squares" if size[0] == size[1] else "their centre"
            said = f"pictures of {' to '.join(sizes)} were cropped to {shape} and resized to {wanted}"
            warnings.warn(said, stacklevel=4)
