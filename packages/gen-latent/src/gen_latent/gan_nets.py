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
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gen_latent.nets import ConvDecoder, halvings, with_labels


class DCGenerator(ConvDecoder):
    """[Radford16] with GroupNorm for BatchNorm, so that no sample depends on its batch; its output is in (-1, 1)."""

    def forward(self, z: Float[Tensor, "b d"], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b c h w"]:
        return super().forward(z, label).tanh()


class DCDiscriminator(nn.Module):
    """Strided convolutions with leaky units and no normalisation ([Radford16]); a label is judged by projection.

    Args:
        packing: pictures that are judged at once, side by side as channels.
    """

    def __init__(self, channels: int, size: int, width: int = 32, *, classes: int = 0, packing: int = 1):
        super().__init__()
        c = [width * min(2**i, 8) for i in range(halvings(size) + 1)]
        layers: list[nn.Module] = [nn.Conv2d(channels * packing, c[0], 3, padding=1), nn.LeakyReLU(0.2)]
        for a, b in pairwise(c):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = Projection(16 * c[-1], classes)

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


class ResidualBlock(nn.Module):
    """1x1, grouped 3x3, 1x1 convolutions beside a skip, no normalisation; the last weights begin at 0 ([Huang24] 3.3)."""

    def __init__(self, c: int, cardinality: int = 8, expansion: int = 2, depth: int = 1):
        super().__init__()
        hidden = c * expansion
        self.convs = nn.ModuleList(
            [nn.Conv2d(c, hidden, 1), nn.Conv2d(hidden, hidden, 3, padding=1, groups=math.gcd(hidden, cardinality)),
             nn.Conv2d(hidden, c, 1, bias=False)]
        )  # fmt: skip
        for conv in self.convs[:2]:  # so that L blocks of 3 convolutions add up to unit variance
            nn.init.kaiming_normal_(conv.weight, a=0.2)
            conv.weight.data *= depth ** (-1 / 4)
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.convs[2].weight)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        h = F.leaky_relu(self.convs[0](x), 0.2)
        h = F.leaky_relu(self.convs[1](h), 0.2)
        return x + self.convs[2](h)


def binomial(x: Float[Tensor, "b c h w"], gain: float = 1.0) -> Float[Tensor, "b c h w"]:
    """Smoothed by the filter (1, 3, 3, 1) / 8 in each direction, zeros outside: the same as scipy's upfirdn."""
    c = x.shape[1]
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype) / 8
    kernel = (gain * tap[:, None] * tap[None]).expand(c, 1, 4, 4)
    return F.conv2d(x, kernel, groups=c)


def upsample(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2h 2w"]:
    """Twice the size: zeros in between, then the filter, in plain torch ([Karras20] without its CUDA plug-in)."""
    b, c, h, w = x.shape
    spread = x.new_zeros(b, c, 2 * h, 2 * w)
    spread[..., ::2, ::2] = x
    return binomial(F.pad(spread, (2, 1, 2, 1)), gain=4.0)


def downsample(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Half the size: the filter, then every other pixel."""
    return binomial(F.pad(x, (1, 1, 1, 1)))[..., ::2, ::2]


class ResidualGenerator(nn.Module):
    """[Huang24]: a learned 4 x 4 start modulated by z, blocks and upsampling; output in the data's range, unbounded."""

    def __init__(self, channels: int, size: int, latents: int, width: int = 64, blocks: int = 2, classes: int = 0):
        super().__init__()
        times, self.classes = halvings(size), classes
        c = [width * min(2**i, 4) for i in reversed(range(times + 1))]
        depth = blocks * (times + 1)
        self.start = nn.Parameter(torch.randn(1, c[0], 4, 4))
        self.scale = nn.Linear(latents + classes, c[0])
        self.stages = nn.ModuleList(nn.Sequential(*(ResidualBlock(a, depth=depth) for _ in range(blocks))) for a in c)
        self.widths = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) if a != b else nn.Identity() for a, b in pairwise(c))
        self.head = nn.Conv2d(c[-1], channels, 1)

    def forward(self, z: Float[Tensor, "b d"], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b c h w"]:
        h = self.start * self.scale(with_labels(z, label, self.classes))[..., None, None]
        for i, stage in enumerate(self.stages):
            h = stage(h if i == 0 else self.widths[i - 1](upsample(h)))
        return self.head(h)


class ResidualDiscriminator(nn.Module):
    """The mirror image of the generator; a 4 x 4 depth-wise convolution ends it ([Huang24])."""

    def __init__(
        self, channels: int, size: int, width: int = 64, blocks: int = 2, *, classes: int = 0, packing: int = 1
    ):
        super().__init__()
        times = halvings(size)
        c = [width * min(2**i, 4) for i in range(times + 1)]
        depth = blocks * (times + 1)
        self.stem = nn.Conv2d(channels * packing, c[0], 1)
        self.stages = nn.ModuleList(nn.Sequential(*(ResidualBlock(a, depth=depth) for _ in range(blocks))) for a in c)
        self.widths = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) if a != b else nn.Identity() for a, b in pairwise(c))
        self.basis = nn.Conv2d(c[-1], c[-1], 4, groups=c[-1], bias=False)
        self.head = Projection(c[-1], classes)

    def forward(self, x: Float[Tensor, "b c h w"], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b"]:
        h = self.stem(x)
        for i, stage in enumerate(self.stages):
            h = stage(h if i == 0 else downsample(self.widths[i - 1](h)))
        return self.head(self.basis(h).flatten(1), label)
