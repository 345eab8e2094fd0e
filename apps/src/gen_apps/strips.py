"""Rows of pictures that training leaves one at a time, and the sheet that they make together."""

from pathlib import Path

import torch
from torch import Tensor

from gen_core import pictures


def spread(n: int, few: int = 10) -> Tensor:
    """Indices of a few of `n` samples, evenly spaced: the pictures of a folder stand class by class."""
    return torch.linspace(0, n - 1, min(few, n)).long()


def add(run: Path, name: str, step: int, given: Tensor, now: Tensor) -> None:
    """The row of `step`; the row of step 0 is what was given."""
    for at, x in ((0, given), (step, now)):
        pictures.save(run / "strips" / f"{name}-{at:06d}.png", x, columns=len(x))


def join(run: Path, name: str) -> None:
    """pictures/NAME.png: what was given, then the rows in the order of their steps."""
    import numpy as np
    from PIL import Image

    rows = [np.asarray(Image.open(file)) for file in sorted((run / "strips").glob(f"{name}-*.png"))]
    if not rows:
        return
    gap = np.full_like(rows[0][:4], 255)
    sheet = np.concatenate([part for row in rows for part in (row, gap)][:-1])
    (run / "pictures").mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(run / "pictures" / f"{name} over training, the data on top.png")
