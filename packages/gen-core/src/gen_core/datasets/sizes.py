"""Pictures in another size: arrays of bytes, and encoded ones that are made square instead of being cut."""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from gen_core.decode import MODES, Channels, fitted, opened


def resized(x: UInt8[np.ndarray, "n h w"], size: int | tuple[int, int]) -> UInt8[Tensor, "n 1 h2 w2"]:
    """Grey pictures cropped to the shape of `size` and resized as `gen_core.folder` does it.

    Args:
        size: pixels of a side, or (height, width).
    """
    from PIL import Image

    shape = (size, size) if isinstance(size, int) else size
    if x.shape[1:] != shape:
        x = np.stack([np.asarray(fitted(Image.fromarray(picture), *shape)) for picture in x])
    return torch.from_numpy(x.copy())[:, None]


def squared(
    data: bytes, size: tuple[int, int], channels: Channels
) -> tuple[tuple[int, int], UInt8[np.ndarray, "c h w"]]:
    """(width and height, the picture): all of it in the middle of a square, then as `gen_core.decode.decode` gives it.

    What is around it is transparent with 4 channels and white with 1 or 3; pictures are averaged down.
    """
    from PIL import Image

    with opened(data) as found:
        picture = found.convert("RGBA")
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0 if channels == 4 else 255))
    square.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    pixels = np.asarray(fitted(square.convert(MODES[channels]), *size, average=side > max(size)))
    return picture.size, pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
