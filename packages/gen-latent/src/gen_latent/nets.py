"""Small networks to plug in: MLPs, and convolutional encoders and decoders; the networks of GANs are in `gan_nets`.

Pictures are "b c h w" in [-1, 1]; every network that ends in a vector takes an optional `label`.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gen_core.description import describable


def halvings(size: int) -> int:
    """Number of times that a picture can be halved until 4 to 7 pixels are left.

    Raises:
        ValueError: unless `size` is 4, 5, 6 or 7 times a power of two.

    >>> halvings(32), halvings(28)
    (3, 2)
    """
    times = max(size, 4).bit_length() - 3
    if size < 4 or size % 2**times:
        below, above = (max(4, ((size >> times) + more) << times) for more in (0, 1))
        near = " or ".join(str(n) for n in sorted({below, above} - {size}))
        raise ValueError(f"pictures of {size} pixels cannot be halved down to 4 to 7; resize them, say to {near}")
    return times


def _halvings_of_map(size: int, spatial: int, classes: int) -> int:
    if size % 2**spatial:
        raise ValueError(f"pictures of {size} pixels cannot be halved {spatial} times; use fewer")
    if classes:
        raise ValueError(f"classes={classes} are for networks of vectors, not of maps; leave out spatial={spatial}")
    return spatial


@describable
class MLP(nn.Sequential):
    """Linear layers with an activation between them, over whatever follows the first dimension.

    Args:
        sizes: of the input, the hidden layers and the output; input and output may be shapes.
        activation: a module class, or a partial of one.
        dropout: after each activation.
        classes: labels are appended to the input as one-hot vectors; 0 for none.
        last: a module after the last layer.
    """

    def __init__(
        self,
        *sizes: int | Sequence[int],
        activation: Callable[[], nn.Module] = nn.SiLU,
        dropout: float = 0.0,
        classes: int = 0,
        last: nn.Module | None = None,
    ):
        if len(sizes) < 2:
            raise ValueError(f"an MLP has an input and an output size, got {sizes}")
        flat = [size if isinstance(size, int) else math.prod(size) for size in sizes]
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise([flat[0] + classes, *flat[1:]])):
            if i:
                layers += [activation(), *([nn.Dropout(dropout)] if dropout else [])]
            layers.append(nn.Linear(a, b))
        super().__init__(*layers, *([last] if last else []))
        self.shape = None if isinstance(sizes[-1], int) else tuple(sizes[-1])
        self.classes = classes

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "b ..."], label: Int[Tensor, "b"] | None = None
    ) -> Float[Tensor, "b ..."]:
        h = super().forward(with_labels(x.flatten(1), label, self.classes))
        return h if self.shape is None else h.unflatten(1, self.shape)


def with_labels(x: Tensor, label: Tensor | None, classes: int) -> Tensor:
    """`x` with one-hot labels beside it."""
    if not classes:
        return x
    if label is None:
        raise ValueError(f"this network was built for {classes} classes and needs a label for each sample")
    return torch.cat([x, F.one_hot(label, classes).to(x)], 1)


@describable
class ConvEncoder(nn.Module):
    """Halves a picture down to 4 to 7 pixels, then answers with `out` numbers, or with a map of `out` channels.

    Args:
        channels, size: of the pictures.
        out: numbers per sample.
        width: features at full resolution; doubled at each halving, up to eight times.
        spatial: stop after this many halvings and answer with a picture "b out h w" instead of a vector.
    """

    def __init__(
        self, channels: int, size: int, out: int, width: int = 32, *, spatial: int | None = None, classes: int = 0
    ):
        super().__init__()
        times = halvings(size) if spatial is None else _halvings_of_map(size, spatial, classes)
        c = [width * min(2**i, 8) for i in range(times + 1)]
        layers: list[nn.Module] = [nn.Conv2d(channels, c[0], 3, padding=1)]
        for a, b in pairwise(c):
            layers += [nn.GroupNorm(math.gcd(a // 4, 8), a), nn.SiLU(), nn.Conv2d(a, b, 4, stride=2, padding=1)]
        layers += [nn.GroupNorm(math.gcd(c[-1] // 4, 8), c[-1]), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        features = (size >> times) ** 2 * c[-1]
        self.head = nn.Linear(features + classes, out) if spatial is None else nn.Conv2d(c[-1], out, 1)
        self.spatial, self.classes = spatial is not None, classes

    def forward(self, x: Float[Tensor, "b c h w"], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b ..."]:
        h = self.body(x)
        return self.head(h) if self.spatial else self.head(with_labels(h.flatten(1), label, self.classes))


@describable
class ConvDecoder(nn.Module):
    """The way back: `latents` numbers (or a map) to "b channels size size"."""

    def __init__(
        self, channels: int, size: int, latents: int, width: int = 32, *, spatial: int | None = None, classes: int = 0
    ):
        super().__init__()
        times = halvings(size) if spatial is None else _halvings_of_map(size, spatial, classes)
        c = [width * min(2**i, 8) for i in range(times + 1)]
        self.start = (c[-1], size >> times, size >> times)
        features = math.prod(self.start)
        self.stem = nn.Linear(latents + classes, features) if spatial is None else nn.Conv2d(latents, c[-1], 1)
        layers: list[nn.Module] = []
        for a, b in pairwise(reversed(c)):
            layers += [
                nn.GroupNorm(math.gcd(a // 4, 8), a),
                nn.SiLU(),
                nn.ConvTranspose2d(a, b, 4, stride=2, padding=1),
            ]
        layers += [nn.GroupNorm(math.gcd(c[0] // 4, 8), c[0]), nn.SiLU(), nn.Conv2d(c[0], channels, 3, padding=1)]
        self.body = nn.Sequential(*layers)
        self.spatial, self.classes = spatial is not None, classes

    def forward(self, z: Float[Tensor, "b ..."], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b c h w"]:
        if self.spatial:
            return self.body(self.stem(z))
        return self.body(self.stem(with_labels(z, label, self.classes)).unflatten(1, self.start))
