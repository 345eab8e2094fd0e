"""Generators and discriminators of pictures: DCGAN, and residual networks that need no kernels of their own.

    g, d = ResidualGenerator(3, 32, latents=64), ResidualDiscriminator(3, 32)
    logits = d(g(torch.randn(16, 64)))                                    # (16,)

Pictures are "b c h w"; discriminators answer with one logit for each, of shape (b,). No layer mixes samples, so that a
gradient penalty is of each sample on its own. Every network takes a `label` if it was built for `classes`.

[Radford16] Unsupervised representation learning with deep convolutional GANs, arXiv:1511.06434.
[Miyato18] cGANs with projection discriminator, arXiv:1802.05637.
[Huang24] The GAN is dead; long live the GAN!, arXiv:2501.05441.
[Karras20] Analyzing and improving the image quality of StyleGAN, arXiv:1912.04958.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gen_core.description import describable
from gen_latent.nets import MLP, ConvDecoder, halvings, with_labels


@describable
class MLPDiscriminator(MLP):
    """Linear layers with leaky units, for points and small pictures; a label is judged beside the sample.

    Args:
        shape: of a sample.
        hidden: sizes of the hidden layers.
    """

    def __init__(self, shape: int | Sequence[int], *hidden: int, classes: int = 0):
        super().__init__(shape, *hidden, 1, activation=partial(nn.LeakyReLU, 0.2), classes=classes)

    def forward(self, x: Float[Tensor, "b ..."], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b"]:
        return super().forward(x, label)[:, 0]


@describable
class DCGenerator(ConvDecoder):
    """[Radford16] with GroupNorm for BatchNorm, so that no sample depends on its batch; its output is in (-1, 1)."""

    def forward(self, z: Float[Tensor, "b d"], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b c h w"]:
        return super().forward(z, label).tanh()


@describable
class DCDiscriminator(nn.Module):
    """Strided convolutions with leaky units and no normalisation ([Radford16]); a label is judged by projection.

    Args:
        packing: pictures that are judged at once, side by side as channels.
    """

    def __init__(self, channels: int, size: int, width: int = 32, *, classes: int = 0, packing: int = 1):
        super().__init__()
        times = halvings(size)
        c = [width * min(2**i, 8) for i in range(times + 1)]
        layers: list[nn.Module] = [nn.Conv2d(channels * packing, c[0], 3, padding=1), nn.LeakyReLU(0.2)]
        for a, b in pairwise(c):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = Projection((size >> times) ** 2 * c[-1], classes)

    def forward(self, x: Float[Tensor, "b c h w"], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b"]:
        return self.head(self.body(x), label)


class Projection(nn.Module):
    """A logit of features, plus their inner product with the class's embedding ([Miyato18] eq. 3)."""

    def __init__(self, features: int, classes: int = 0):
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features) if classes else None
        if self.embedding is not None:
            nn.init.zeros_(self.embedding.weight)

    def forward(self, h: Float[Tensor, "b d"], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b"]:
        logit = self.linear(h)[:, 0]
        if self.embedding is None:
            return logit
        if label is None:
            raise ValueError("a conditional discriminator judges a sample with its label; pass label")
        return logit + (self.embedding(label) * h).sum(1)


def variance_preserving(module: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """The layer, begun with weights that keep the variance and a bias of 0."""
    nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


class ResidualBlock(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions beside a skip, no normalisation ([Huang24] section 3.3).

    Args:
        c: channels, in and out.
        cardinality: groups of the 3x3 convolution.
        expansion: of the channels between the 1x1 convolutions.
        depth: blocks in the network; initial weights are scaled so that this many keep gradients of unit size, the
            last ones being 0.
    """

    def __init__(self, c: int, cardinality: int = 8, expansion: int = 2, depth: int = 1):
        super().__init__()
        hidden = c * expansion
        self.enter = nn.Conv2d(c, hidden, 1)
        self.spread = nn.Conv2d(hidden, hidden, 3, padding=1, groups=math.gcd(hidden, cardinality))
        self.leave = nn.Conv2d(hidden, c, 1, bias=False)
        for conv in (self.enter, self.spread):
            nn.init.kaiming_normal_(conv.weight, a=0.2)
            conv.weight.data *= depth ** (-1 / 4)  # depth^(-1 / (2 m - 2)) for branches of m = 3 convolutions
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        h = F.leaky_relu(self.enter(x), 0.2)
        h = F.leaky_relu(self.spread(h), 0.2)
        return x + self.leave(h)


def binomial(x: Float[Tensor, "b c h w"], gain: float = 1.0) -> Float[Tensor, "b c h3 w3"]:
    """Smoothed by the filter (1, 3, 3, 1) / 8 in each direction, where it fits: three pixels fewer."""
    c = x.shape[1]
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype) / 8
    return F.conv2d(x, (gain * tap[:, None] * tap).expand(c, 1, 4, 4), groups=c)


def upsample(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Twice the size: zeros in between, then the filter, in plain torch ([Karras20] without its CUDA plug-in)."""
    b, c, h, w = x.shape
    spread = x.new_zeros(b, c, 2 * h, 2 * w)
    spread[..., ::2, ::2] = x
    return binomial(F.pad(spread, (2, 1, 2, 1)), gain=4.0)


def downsample(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Half the size: the filter, then every other pixel."""
    return binomial(F.pad(x, (1, 1, 1, 1)))[..., ::2, ::2]


class _Stages(nn.Module):
    """Residual blocks at each resolution, and 1x1 convolutions where the number of channels changes between them."""

    def __init__(self, c: list[int], blocks: int):
        super().__init__()
        depth = blocks * len(c)
        self.blocks = nn.ModuleList(nn.Sequential(*(ResidualBlock(a, depth=depth) for _ in range(blocks))) for a in c)
        self.widths = nn.ModuleList(
            variance_preserving(nn.Conv2d(a, b, 1, bias=False)) if a != b else nn.Identity() for a, b in pairwise(c)
        )


@describable
class ResidualGenerator(nn.Module):
    """A learned start of 4 x 4 modulated by z, then blocks and upsampling; its output is unbounded ([Huang24] 3.3).

    Differs from the paper's in the filter, (1, 3, 3, 1), and in its labels: one-hot beside z, without embedding.

    Args:
        channels, size: of the pictures; the size is 4 (to 7, which is then the start's) times a power of two.
        latents: dimensions of z.
        width: channels at full resolution, doubled at each halving up to four times.
        blocks: at each resolution.
    """

    def __init__(self, channels: int, size: int, latents: int, width: int = 64, blocks: int = 2, *, classes: int = 0):
        super().__init__()
        times = halvings(size)
        c = [width * min(2**i, 4) for i in reversed(range(times + 1))]
        self.classes = classes
        self.start = nn.Parameter(torch.randn(1, c[0], size >> times, size >> times))
        self.scale = variance_preserving(nn.Linear(latents + classes, c[0]))
        self.stages = _Stages(c, blocks)
        self.head = variance_preserving(nn.Conv2d(c[-1], channels, 1))

    def forward(self, z: Float[Tensor, "b d"], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b c h w"]:
        first, *rest = self.stages.blocks
        h = first(self.start * self.scale(with_labels(z, label, self.classes))[..., None, None])
        for widen, blocks in zip(self.stages.widths, rest, strict=True):
            h = blocks(upsample(widen(h)))
        return self.head(h)


@describable
class ResidualDiscriminator(nn.Module):
    """The mirror image of the generator; a depth-wise convolution of the smallest size ends it ([Huang24] section 3.3).

    Args:
        packing: pictures that are judged at once, side by side as channels.
    """

    def __init__(
        self, channels: int, size: int, width: int = 64, blocks: int = 2, *, classes: int = 0, packing: int = 1
    ):
        super().__init__()
        times = halvings(size)
        c = [width * min(2**i, 4) for i in range(times + 1)]
        self.stem = variance_preserving(nn.Conv2d(channels * packing, c[0], 1))
        self.stages = _Stages(c, blocks)
        self.basis = variance_preserving(nn.Conv2d(c[-1], c[-1], size >> times, groups=c[-1], bias=False))
        self.head = Projection(c[-1], classes)

    def forward(self, x: Float[Tensor, "b c h w"], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b"]:
        first, *rest = self.stages.blocks
        h = first(self.stem(x))
        for widen, blocks in zip(self.stages.widths, rest, strict=True):
            h = blocks(widen(downsample(h)))
        return self.head(self.basis(h).flatten(1), label)
