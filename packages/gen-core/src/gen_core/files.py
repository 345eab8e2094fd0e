"""Files that appear whole or not at all, fingerprints of their bytes, and a lock on a directory.

with whole("runs/a/samples.npz") as part:  # a path beside it, renamed when the block ends
    np.savez(part, x=x)
with lock("runs/a"):                       # ValueError: runs/a is in use by process 4711 on host ...
    ...
"""

import errno
import fcntl
import hashlib
import os
import socket
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_BLOCK = 1 << 22
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}
_descriptors: set[int] = set()  # of the locks that this process holds


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path with the suffix of `path`, to write to; it replaces `path` after the block, and is deleted by an error."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        sync(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(path: Path) -> str:
    """128 bits that change when the file does: BLAKE2b of its length and of the CRC-32 of every 4 MiB.

    It finds damage, not an attacker; blocks are read on several threads, which costs a few percent of writing them.
    """
    with open(path, "rb", buffering=0) as file, ThreadPoolExecutor(8) as pool:
        size = os.fstat(file.fileno()).st_size
        sums = pool.map(lambda at: zlib.crc32(os.pread(file.fileno(), _BLOCK, at)), range(0, size, _BLOCK))
        return hashlib.blake2b(repr([size, *sums]).encode(), digest_size=16).hexdigest()


@contextmanager
def lock(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Inside, no other process may lock `directory`; the lock ends with this process, however it ends.

    A file system without locks is warned of.

    Raises:
        ValueError: while another holds it, naming that process and its host.
    """
    _close_in_children()
    path = Path(directory) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _descriptors.add(descriptor)
    try:
        _take(descriptor, directory)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on host {socket.gethostname()}".encode(), 0)
        yield
    finally:
        if descriptor in _descriptors:  # not in a forked child, where the number may be another file's by now
            _descriptors.remove(descriptor)
            os.close(descriptor)


def _take(descriptor: int, directory: str | os.PathLike[str]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 1000).decode(errors="replace") or "another process"
        raise ValueError(
            f"{os.fspath(directory)} is in use by {holder}; wait until that ends, or choose another directory"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"{os.fspath(directory)} is on a file system without locks ({error.strerror}); "
            "make sure that no other process trains there",
            stacklevel=4,
        )


@cache
def _close_in_children() -> None:
    """A forked child, such as a loader's worker, shares its parent's locks until it closes them."""
    os.register_at_fork(after_in_child=_close_all)


def _close_all() -> None:
    while _descriptors:
        os.close(_descriptors.pop())
