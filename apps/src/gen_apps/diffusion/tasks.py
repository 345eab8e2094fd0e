"""The tasks of `gen diffusion restore`: their operators, and pictures of what is seen."""

import math
from pathlib import Path

import torch
from torch import Tensor

from gen_apps.diffusion.config import Restore
from gen_core.decode import decode
from gen_core.runtime import generator
from gen_diffusion import (
    Linear,
    block_mean,
    blur,
    channel_mean,
    compressed_sensing,
    decomposed,
    gaussian_kernel,
    inpaint,
    kspace_lines,
    mri,
    radon,
    ricker,
    seismic,
)

Shape = tuple[int, ...]


def operator(config: Restore, shape: Shape) -> Linear:
    """What the task sees of a picture (channels, height, width).

    Raises:
        ValueError: for a task of grey pictures or of colours, where the run's are the other.
    """
    channels, height, width = shape
    if config.task == "colour" and channels != 3:
        raise ValueError(f"--task colour needs a run on pictures of 3 channels, this one has {channels}")
    if config.task in ("mri", "tomography") and channels != 1:
        raise ValueError(f"--task {config.task} needs a run on grey pictures, this one has {channels} channels")
    few = config.factor or (4 if config.task in ("mri", "compressed") else 2)
    if config.task == "inpaint":
        mask = torch.ones(shape, dtype=torch.bool)
        mask[:, height // 4 : height - height // 4, width // 4 : width - width // 4] = False
        return inpaint(mask)
    if config.task == "super-resolution":
        return block_mean(shape, few)
    if config.task == "blur":
        return blur(gaussian_kernel(height / 16), shape)
    if config.task == "colour":
        return channel_mean(shape)
    if config.task == "mri":
        return mri(kspace_lines((height, width), few, seed=config.seed), shape)
    if config.task == "tomography":
        A = radon(torch.arange(max(1, height // few)) * math.pi / max(1, height // few), shape)
        return decomposed(A) if config.method in ("ddrm", "ddnm") else A
    if config.task == "seismic":
        return seismic(ricker(0.15), shape)
    return compressed_sensing(shape, max(1, math.prod(shape) // few), generator(config.seed, "compressed"))


def seen(config: Restore, shape: Shape) -> tuple[Linear, Tensor]:
    """The operator and what it saw, (1, ...), where `--image` is what was seen: its transparent pixels are hidden."""
    assert config.image is not None  # as the configuration has checked
    if config.task == "inpaint":
        x = picture(config.image, (4, *shape[1:]))
        A = inpaint((x[0, 3:] > 0).expand(shape).clone())
        return A, A(picture(config.image, shape))
    A = operator(config, shape)
    return A, picture(config.image, A.shape_out)


def picture(file: Path, shape: Shape) -> Tensor:
    """A picture file as (1, channels, height, width) in [-1, 1], cropped to its centre and resized."""
    channels, height, width = shape
    if not file.is_file():
        raise FileNotFoundError(f"there is no picture {file}")
    if channels not in (1, 3, 4):
        raise ValueError(f"a picture has 1, 3 or 4 channels, got {channels}")
    _, pixels = decode(file.read_bytes(), (height, width), channels)
    return torch.from_numpy(pixels.copy())[None].float() / 127.5 - 1


def shown(task: str, A: Linear, y: Tensor) -> Tensor:
    """What was seen, as pictures (n, c, h, w): hidden pixels grey, projections by angle, frequencies back in space."""
    if task in ("mri", "compressed"):
        return A.T(y)
    if task == "inpaint":
        return A.T(y)
    return y[:, None] if y.ndim == 3 else y
