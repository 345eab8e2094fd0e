"""Samples as one picture: pictures in a grid, points in the plane as a scatter.

save(run.path / "samples" / "step-000500.png", samples, columns=10)
"""

import math
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from gen_core.files import whole

TILE = 32  # pixels a small picture is enlarged to, at least


def grid(x: Float[Tensor, "n c h w"], columns: int | None = None) -> UInt8[np.ndarray, "height width c"]:
    """Pictures in [-1, 1], row by row with a gap of one pixel of theirs, small ones enlarged without smoothing.

    A fourth channel is opacity: such pictures are laid on white.

    Args:
        columns: None makes the grid about square.

    >>> grid(torch.zeros(6, 1, 64, 64), columns=3).shape
    (131, 197, 1)
    """
    if x.shape[1] == 4:
        opacity = (x[:, 3:].clamp(-1, 1) + 1) / 2
        x = x[:, :3] * opacity + (1 - opacity)
    n, c, h, w = x.shape
    if c not in (1, 3):
        raise ValueError(f"pictures have 1, 3 or 4 channels, got {c}; pick which to show")
    columns = columns or math.ceil(math.sqrt(n))
    x = torch.nn.functional.pad(x.detach().float().cpu(), (0, 1, 0, 1), value=1.0)
    blank = x.new_ones(-n % columns, c, h + 1, w + 1)
    sheet = rearrange(torch.cat([x, blank]), "(rows columns) c h w -> (rows h) (columns w) c", columns=columns)
    pixels = ((sheet[:-1, :-1].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    scale = max(1, math.ceil(TILE / max(h, w)))
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def save(path: str | Path, x: Float[Tensor, "n ..."], columns: int | None = None, labels: Tensor | None = None) -> None:
    """Write a PNG of pictures `(n, c, h, w)` in [-1, 1] as a grid, or of points `(n, 2)` as a scatter."""
    if Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"a picture is a file of type png, jpg or webp, got {path}; name it {Path(path).name}.png")
    if x.ndim == 4:
        from PIL import Image

        pixels = grid(x, columns)
        with whole(path) as part:
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(part)
    elif x.ndim == 2 and x.shape[1] == 2:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 5), layout="constrained", dpi=100)
        axes = figure.subplots()
        points = x.detach().cpu()
        colour = {} if labels is None else {"c": labels.cpu(), "cmap": "tab10"}
        axes.scatter(points[:, 0], points[:, 1], s=4, **colour)
        axes.set_aspect("equal")
        with whole(path) as part:
            figure.savefig(part)
    else:
        raise ValueError(f"samples of shape {tuple(x.shape)} are neither pictures (n, c, h, w) nor points (n, 2)")
