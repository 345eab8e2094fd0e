"""A small U-Net for pictures of 8 x 8 to 64 x 64: `(x, c_noise, label) -> y`, to be wrapped in `Preconditioned`.

Residual blocks at each resolution, self-attention where it is asked for, one skip connection per resolution. Each
block's second normalisation is scaled and shifted by the condition, and each block's last convolution starts at 0, as
in [Dhariwal21].

[Dhariwal21] Diffusion models beat GANs on image synthesis, arXiv:2105.05233.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from gen_diffusion.condition import Condition


def zero(module: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with all its parameters at 0."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


def norm(channels: int) -> nn.GroupNorm:
    """At least four channels in a group, at most 32 groups; never statistics across the batch."""
    return nn.GroupNorm(math.gcd(channels // 4, 32), channels)


class Attention(nn.Module):
    """Each pixel looks at all others, in heads of about 32 channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.heads = math.gcd(channels, max(1, channels // 32))
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        split = "b (qkv heads c) h w -> qkv b heads (h w) c"
        q, k, v = rearrange(self.qkv(self.norm(x)), split, qkv=3, heads=self.heads)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(rearrange(y, "b heads (h w) c -> b (heads c) h w", h=x.shape[2]))


class Block(nn.Module):
    """Two convolutions beside a skip connection, told the condition; then attention, if any."""

    def __init__(self, c_in: int, c_out: int, c_condition: int, dropout: float, attention: bool):
        super().__init__()
        self.norm_in, self.conv_in = norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.affine = nn.Linear(c_condition, 2 * c_out)
        self.norm_out, self.conv_out = norm(c_out), zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.attention = Attention(c_out) if attention else nn.Identity()

    def forward(self, x: Float[Tensor, "b c_in h w"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "b c_out h w"]:
        h = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = rearrange(self.affine(condition), "b (two c) -> two b c 1 1", two=2)
        h = F.silu(self.norm_out(h) * (1 + scale) + shift)
        return self.attention(self.skip(x) + self.conv_out(self.dropout(h)))


class Stage(nn.Module):
    """The blocks at one resolution, on the way down or up."""

    def __init__(self, c_in: int, c_out: int, c_condition: int, blocks: int, dropout: float, attention: bool):
        super().__init__()
        sizes = [c_in] + [c_out] * blocks
        self.blocks = nn.ModuleList(Block(i, o, c_condition, dropout, attention) for i, o in pairwise(sizes))

    def forward(self, h: Float[Tensor, "b c_in h w"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "b c_out h w"]:
        for block in self.blocks:
            h = block(h, condition)
        return h


class UNet(nn.Module):
    """Down through the resolutions, and up again with what each one saw on the way; its first output is exactly 0.

    Args:
        channels: of the pictures.
        width: features at full resolution, a multiple of 4.
        multipliers: features at each resolution in units of `width`; each entry after the first halves the size.
        blocks: residual blocks per resolution and direction.
        attention: resolutions with self-attention, counted from 0, full size; `(1, 2)` means half and quarter size.
        dropout: inside the blocks.
        num_classes: 0 without classes; otherwise labels are 0 ... num_classes - 1, and num_classes is the null class.

    Raises:
        ValueError: if `attention` names a resolution that is not there; at the call, if the height or width cannot be
            halved that often.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2),
        *,
        blocks: int = 2,
        attention: Sequence[int] = (),
        dropout: float = 0.0,
        num_classes: int = 0,
    ):
        super().__init__()
        if extra := set(attention) - set(range(len(multipliers))):
            raise ValueError(f"attention at resolutions {sorted(extra)}, but there are only {len(multipliers)}, from 0")
        c = [width * m for m in multipliers]
        c_condition = 4 * width
        self.condition = Condition(c_condition, num_classes)
        self.stem = nn.Conv2d(channels, c[0], 3, padding=1)
        self.encoders, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.decoders, self.grow = nn.ModuleList(), nn.ModuleList()
        for i in range(len(c) - 1):
            attend = i in attention
            self.encoders.append(Stage(c[i], c[i], c_condition, blocks, dropout, attend))
            self.shrink.append(nn.Conv2d(c[i], c[i + 1], 3, stride=2, padding=1))
            self.grow.append(nn.Conv2d(c[i + 1], c[i], 3, padding=1))
            self.decoders.append(Stage(2 * c[i], c[i], c_condition, blocks, dropout, attend))
        self.middle = Stage(c[-1], c[-1], c_condition, blocks, dropout, len(c) - 1 in attention)
        self.head = nn.Sequential(norm(c[0]), nn.SiLU(), zero(nn.Conv2d(c[0], channels, 3, padding=1)))

    def forward(
        self,
        x: Float[Tensor, "b channels h w"],
        c_noise: Float[Tensor, "b"],
        label: Int[Tensor, "b"] | None = None,
    ) -> Float[Tensor, "b channels h w"]:
        factor = 2 ** len(self.shrink)
        if x.shape[2] % factor or x.shape[3] % factor:
            raise ValueError(
                f"pictures of {x.shape[2]} x {x.shape[3]} cannot be halved to {len(self.shrink) + 1} "
                f"resolutions; pad them to multiples of {factor} or use fewer multipliers"
            )
        condition = F.silu(self.condition(c_noise, label))
        h = self.stem(x).contiguous(memory_format=torch.channels_last)  # convolutions run two to three times as fast
        seen = []
        for encoder, shrink in zip(self.encoders, self.shrink, strict=True):
            seen.append(encoder(h, condition))
            h = shrink(seen[-1])
        h = self.middle(h, condition)
        for decoder, grow in zip(reversed(self.decoders), reversed(self.grow), strict=True):
            h = grow(F.interpolate(h, scale_factor=2.0, mode="nearest"))
            h = decoder(torch.cat([h, seen.pop()], 1), condition)
        return self.head(h)
