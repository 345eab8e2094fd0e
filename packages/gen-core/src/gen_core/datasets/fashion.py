"""Fashion-MNIST: 70,000 grey pictures of garments, 28 x 28, in ten classes, in the files of MNIST's format IDX.

training, held_out = fashion_mnist("train"), fashion_mnist("test")  # 60,000 and 10,000

H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv:1708.07747; MIT licence. Published test accuracies: 0.876 of a
perceptron of 100 units, 0.925 of two convolutions, 0.967 of a wide residual network.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from gen_core.data import Arrays, Split
from gen_core.datasets.packages import FASHION_MNIST, check, unpacked
from gen_core.datasets.sizes import resized

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FILES = {  # part: pictures and labels, with the hashes of what they hold
    "train": {
        "train-images-idx3-ubyte.gz": "72968d157964e3bf187f8068aa8eb705",
        "train-labels-idx1-ubyte.gz": "f3a0ac57953beea61f6c78cc84b772c2",
    },
    "test": {
        "t10k-images-idx3-ubyte.gz": "62fd04365e6092f24fcc8055119e7157",
        "t10k-labels-idx1-ubyte.gz": "0701dbea1ab4a08a9df680bedf1a96d9",
    },
}


def fashion_mnist(
    split: Split = "all", size: int | tuple[int, int] = 28, *, folder: str | Path | None = None
) -> Arrays:
    """Pictures `(n, 1, height, width)` as bytes and labels: the published parts `train` (60,000) and `test` (10,000).

    Args:
        size: other sizes than 28 are resized.
        folder: holds the four files of FILES, packed or not; by default Debian's package dataset-fashion-mnist.

    Raises:
        FileNotFoundError: without a file, naming the command that installs it.
        ValueError: for a file that is damaged.
    """
    parts = [_read(FILES[part], folder) for part in (FILES if split == "all" else [split])]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    content = " ".join(digest for part in FILES.values() for digest in part.values())
    return Arrays(resized(x, size), torch.from_numpy(y).long(), classes=CLASSES, content=f"{content} {size}")


def _read(files: dict[str, str], folder: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for name, digest in files.items():
        file = FASHION_MNIST.find(name, folder)
        data = unpacked(file)
        found.append(parse_idx(data, file))
        check(file, data, digest)
    return found[0], found[1]


def parse_idx(data: bytes, file: Path) -> UInt8[np.ndarray, "..."]:
    """The array of bytes that an IDX file holds: a magic number, its shape, its values.

    Raises:
        ValueError: naming `file`, if it is none or is cut off.
    """
    if data[:3] != b"\0\0\x08" or len(data) < 4 * (1 + data[3]):
        raise ValueError(f"{file} is no IDX file of bytes; install its package again")
    shape = np.frombuffer(data, ">u4", data[3], 4).tolist()
    values = np.frombuffer(data, np.uint8, offset=4 * (1 + data[3]))
    row = int(np.prod(shape[1:]))
    if len(values) != shape[0] * row:
        raise ValueError(f"{file} is damaged: it holds {len(values) / row:g} of {shape[0]} rows; install it again")
    return values.reshape(shape)
