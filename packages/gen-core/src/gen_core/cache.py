"""Decoded pictures on disk, mapped into memory: they need no room of their own there, and processes share them.

    x, facts = stored(key, size, decode)    # uint8 (n, c, h, w); `decode(put)` is called when KEY has no entry
    weights = stored_tensors(key, train)    # {name: tensor}, what `train()` returned when KEY had no entry

An entry is KEY.pixels, the bytes of all pictures, and KEY.json, the facts about them. They lie in `$GEN_CACHE`, or else
in `gen/pictures` below the user's cache directory, of at most `$GEN_CACHE_GB` gigabytes (20): what was not used for
longest is deleted. One process writes an entry while others that need it wait.
"""

import io
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL
import safetensors.torch
import torch
from jaxtyping import UInt8
from torch import Tensor

Facts = dict[str, Any]
Put = Callable[[Any], object]  # takes the pixels of a picture, as `write` of a file does
VERSION = f"1, Pillow {PIL.__version__}"  # of the layout, and of what decoded the pictures
DAY = 86400.0  # seconds
SMALL = 10_000_000  # bytes of tensors, at most


def directory() -> Path:
    """Folder of the entries."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gen" / "pictures"
    return Path(os.environ.get("GEN_CACHE") or usual)


def stored(
    key: str, size: int, decode: Callable[[Put], Facts], what: str = "pictures are decoded into memory"
) -> tuple[UInt8[Tensor, "..."], Facts]:
    """Pictures and the facts about them, from the cache if it has them.

    Where the cache cannot be written, for want of room or rights, they are written into memory, which is said.

    Args:
        key: of all that decides the pictures.
        size: bytes of all pictures, at most.
        decode: calls its argument with the pixels of each picture in turn; the facts it returns hold their `shape`.
        what: is done at every start where there is no cache, for the warning.
    """
    try:
        return _stored(directory(), key, size, decode)
    except OSError as error:
        warnings.warn(f"{what} at every start, for want of a cache: {error}", stacklevel=5)
    memory = io.BytesIO()
    facts = decode(memory.write)
    return torch.frombuffer(memory.getbuffer(), dtype=torch.uint8).view(facts["shape"]), facts


def stored_tensors(key: str, compute: Callable[[], dict[str, Tensor]], what: str) -> dict[str, Tensor]:
    """Named tensors, such as the weights of a small network, from the cache if it has them.

    Args:
        key: of all that decides them.
        compute: makes them, a few megabytes at most.
        what: is done at every start where there is no cache, for the warning.
    """

    def write(put: Put) -> Facts:
        content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in compute().items()})
        put(content)
        return {"shape": [len(content)]}

    content, _ = stored(key, SMALL, write, what)
    return safetensors.torch.load(content.numpy().tobytes())


def _stored(root: Path, key: str, size: int, decode: Callable[[Put], Facts]) -> tuple[Tensor, Facts]:
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / f"{key}.lock"):
        facts = _read(root, key)
        if facts is None:
            with _lock(root / "lock"):
                _make_room(root, size)
            facts = _write(root, key, decode)
        os.utime(root / f"{key}.json")  # used just now
        pixels = torch.from_file(str(root / f"{key}.pixels"), size=math.prod(facts["shape"]), dtype=torch.uint8)
    return pixels.view(facts["shape"]), facts


def _read(root: Path, key: str) -> Facts | None:
    """The facts of an entry; None where there is no entry, or one that has to be written again, which is said."""
    file = root / f"{key}.json"
    if not file.exists():
        return None
    try:
        facts = json.loads(file.read_text())
        if facts["version"] != VERSION:
            why = f"version {facts['version']} wrote it, and this is {VERSION}"
        elif (root / f"{key}.pixels").stat().st_size != math.prod(facts["shape"]):
            why = "its pixels are cut off"
        else:
            return facts
    except (ValueError, KeyError, TypeError, OSError) as error:
        why = f"it is damaged ({error})"
    warnings.warn(f"the cache {file} is rebuilt: {why}", stacklevel=7)
    return None


def _write(root: Path, key: str, decode: Callable[[Put], Facts]) -> Facts:
    """A new entry: nobody sees a part of it, for the facts are there last."""
    part = root / f"{key}.{os.getpid()}.part"
    try:
        with part.open("wb") as file:
            facts = {**decode(file.write), "version": VERSION}
            file.flush()
            os.fsync(file.fileno())
        (root / f"{key}.json").unlink(missing_ok=True)
        os.replace(part, root / f"{key}.pixels")
        part.write_text(json.dumps(facts))
        os.replace(part, root / f"{key}.json")
    finally:
        part.unlink(missing_ok=True)
    return facts


def _make_room(root: Path, size: int) -> None:
    """Delete what was not used for longest until `size` more bytes are within the limit.

    Raises:
        OSError: if they are more than the limit or than the disk has free.
    """
    limit = float(os.environ.get("GEN_CACHE_GB") or 20) * 1e9
    if size > limit:
        raise OSError(f"it takes {size / 1e9:.3g} GB of the {limit / 1e9:g} that GEN_CACHE_GB allows; raise that")
    for part in root.glob("*.part"):
        if time.time() - part.stat().st_mtime > DAY:  # its process was killed
            part.unlink(missing_ok=True)
    entries = sorted(root.glob("*.json"), key=lambda file: file.stat().st_mtime)
    bytes_ = {file: sum(part.stat().st_size for part in root.glob(f"{file.stem}.*")) for file in entries}
    while entries and sum(bytes_[file] for file in entries) + size > limit:
        oldest = entries.pop(0)
        for suffix in (".json", ".pixels", ".lock"):
            oldest.with_suffix(suffix).unlink(missing_ok=True)
    if (free := shutil.disk_usage(root).free) < size:
        raise OSError(f"it takes {size / 1e9:.3g} GB and {root} has {free / 1e9:.3g} free; set GEN_CACHE elsewhere")


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    """One process at a time; on systems without `flock` several may write the same entry, each as a whole."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
