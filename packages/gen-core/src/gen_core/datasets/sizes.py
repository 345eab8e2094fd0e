"""Arrays of pictures in another size."""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from gen_core.decode import fitted


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
