"""Random changes of a sample, for `Loader(transform=...)`: what each draws is keyed by (seed, epoch, index).

    loader = Loader(folder("faces", 32), 64, transform=chain(crop(4), flip))

A sample is a tuple that begins with a picture `(c, h, w)` in [-1, 1].
"""

from collections.abc import Callable

import torch
from torch import Tensor

Sample = tuple[Tensor, ...]
Transform = Callable[[Sample, torch.Generator], Sample]


def flip(sample: Sample, generator: torch.Generator) -> Sample:
    """The mirror image in one of two cases."""
    x, *rest = sample
    return (x.flip(-1) if torch.rand((), generator=generator) < 0.5 else x, *rest)


def crop(pixels: int) -> Transform:
    """The picture shifted by up to `pixels` in each direction, its border reflected into what becomes free."""

    def cropped(sample: Sample, generator: torch.Generator) -> Sample:
        x, *rest = sample
        top, left = torch.randint(2 * pixels + 1, (2,), generator=generator).tolist()
        wide = torch.nn.functional.pad(x[None], (pixels,) * 4, mode="reflect")[0]
        return (wide[:, top : top + x.shape[1], left : left + x.shape[2]], *rest)

    return cropped


def chain(*transforms: Transform) -> Transform:
    """One transform after another, of one stream of random numbers."""

    def chained(sample: Sample, generator: torch.Generator) -> Sample:
        for transform in transforms:
            sample = transform(sample, generator)
        return sample

    return chained
