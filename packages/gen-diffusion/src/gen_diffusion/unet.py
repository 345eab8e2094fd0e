"""A U-Net for pictures of 8 x 8 to 256 x 256: `(x, c_noise, **conditions) -> y`, to be wrapped in `Preconditioned`.

Residual blocks at each resolution, self-attention where it is asked for, one skip connection per resolution. Each
block's second normalisation is scaled and shifted by the condition, and each block's last convolution starts at 0, as
in [Dhariwal21]; tokens join the keys and values of the attention, as in [Nichol21].

From the picture to the head there is a path of sums and of convolutions that no normalisation interrupts. The
convolutions on it start with weights that keep the mean square (variance 1 / fan-in, where PyTorch's own start at a
third of that and lose a factor 20 over six resolutions), the blocks beside it start at 0 and add one unit each.

    UNet(3, 128, (1, 2, 2, 2), blocks=3, attention=(1,), dropout=0.1)                          # 32 x 32
    UNet(3, 192, (1, 2, 3, 4), attention=(1, 2, 3), num_classes=1000)                          # 64 x 64
    UNet(3, 128, (1, 1, 2, 2, 4, 4), attention=(4, 5), context_dim=512, dense_channels=3)      # 256 x 256

[Dhariwal21] Diffusion models beat GANs on image synthesis, arXiv:2105.05233.
[Nichol21] GLIDE: photorealistic image generation and editing with text-guided diffusion models, arXiv:2112.10741.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gen_core.description import describable
from gen_diffusion.condition import Condition, Context, with_dense


def zero(module: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with all its parameters at 0."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


def norm(channels: int) -> nn.GroupNorm:
    """At least four channels in a group, at most 32 groups; never statistics across the batch."""
    return nn.GroupNorm(math.gcd(channels // 4, 32), channels)


def conv(c_in: int, c_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that starts by keeping the mean square of its input."""
    layer = nn.Conv2d(c_in, c_out, size, stride, padding=size // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    nn.init.zeros_(cast(Tensor, layer.bias))
    return layer


class Attention(nn.Module):
    """Each pixel looks at all others, and at the tokens if there are any, in heads of about 32 channels."""

    def __init__(self, channels: int, context_dim: int):
        super().__init__()
        self.heads = min((h for h in range(1, channels + 1) if channels % h == 0), key=lambda h: abs(channels / h - 32))
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.tokens = nn.Linear(context_dim, 2 * channels) if context_dim else None
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        tokens: Float[Tensor, "b n e"] | None = None,
        mask: Bool[Tensor, "b 1 1 n"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        split = "b (qkv heads c) h w -> qkv b heads (h w) c"
        q, k, v = rearrange(self.qkv(self.norm(x)), split, qkv=3, heads=self.heads)
        if self.tokens is not None:
            kv = rearrange(self.tokens(tokens), "b n (kv heads c) -> kv b heads n c", kv=2, heads=self.heads)
            k, v = torch.cat([k, kv[0]], 2), torch.cat([v, kv[1]], 2)
            mask = None if mask is None else F.pad(mask, (q.shape[2], 0), value=True)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return x + self.out(rearrange(y, "b heads (h w) c -> b (heads c) h w", h=x.shape[2]))


class Beside(NamedTuple):
    """What all blocks are told beside their features."""

    condition: Float[Tensor, "b c"]
    tokens: Float[Tensor, "b n e"] | None
    mask: Bool[Tensor, "b 1 1 n"] | None


class Block(nn.Module):
    """Two convolutions beside a skip connection, told the condition; then attention, if any."""

    def __init__(self, c_in: int, c_out: int, c_condition: int, dropout: float, attention: bool, context_dim: int):
        super().__init__()
        self.norm_in, self.conv_in = norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.affine = nn.Linear(c_condition, 2 * c_out)
        self.norm_out, self.conv_out = norm(c_out), zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.dropout = nn.Dropout(dropout)
        self.skip = conv(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.attention = Attention(c_out, context_dim) if attention else None

    def forward(self, x: Float[Tensor, "b c_in h w"], beside: Beside) -> Float[Tensor, "b c_out h w"]:
        h = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = rearrange(self.affine(beside.condition), "b (two c) -> two b c 1 1", two=2)
        h = F.silu(self.norm_out(h) * (1 + scale) + shift)
        h = self.skip(x) + self.conv_out(self.dropout(h))
        return h if self.attention is None else self.attention(h, beside.tokens, beside.mask)


class Stage(nn.Module):
    """The blocks at one resolution, on the way down or up; `block` are the last arguments of each one."""

    def __init__(self, c_in: int, c_out: int, blocks: int, *block: Any):
        super().__init__()
        sizes = [c_in] + [c_out] * blocks
        self.blocks = nn.ModuleList(Block(i, o, *block) for i, o in pairwise(sizes))

    def forward(self, h: Float[Tensor, "b c_in h w"], beside: Beside) -> Float[Tensor, "b c_out h w"]:
        for block in self.blocks:
            h = block(h, beside)
        return h


@describable
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
        context_dim: size of the tokens that the attention also looks at; 0 without tokens.
        dense_channels: of a picture that is aligned with x and goes in beside it; 0 without one.

    Raises:
        ValueError: if `attention` names a resolution that is not there, or is empty though there are tokens to look
            at; at the call, if the height or width cannot be halved that often, and on conditions that the network
            was not built for.
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
        context_dim: int = 0,
        dense_channels: int = 0,
    ):
        super().__init__()
        if extra := set(attention) - set(range(len(multipliers))):
            raise ValueError(f"attention at resolutions {sorted(extra)}, but there are only {len(multipliers)}, from 0")
        if context_dim and not attention:
            raise ValueError(f"context_dim={context_dim} needs attention to read it; name a resolution in attention")
        c = [width * m for m in multipliers]
        c_condition = 4 * width
        self.channels, self.dense_channels = channels, dense_channels
        self.condition = Condition(c_condition, num_classes, context_dim)
        self.context = Context(context_dim)
        self.stem = conv(channels + dense_channels, c[0], 3)
        self.encoders, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.decoders, self.grow = nn.ModuleList(), nn.ModuleList()
        for i in range(len(c) - 1):
            block = (c_condition, dropout, i in attention, context_dim)
            self.encoders.append(Stage(c[i], c[i], blocks, *block))
            self.shrink.append(conv(c[i], c[i + 1], 3, stride=2))
            self.grow.append(conv(c[i + 1], c[i], 3))
            self.decoders.append(Stage(2 * c[i], c[i], blocks, *block))
        self.middle = Stage(c[-1], c[-1], blocks, c_condition, dropout, len(c) - 1 in attention, context_dim)
        self.head = nn.Sequential(norm(c[0]), nn.SiLU(), zero(nn.Conv2d(c[0], channels, 3, padding=1)))

    def forward(
        self,
        x: Float[Tensor, "b channels h w"],
        c_noise: Float[Tensor, "b"],
        *,
        label: Int[Tensor, "b"] | None = None,
        context: Float[Tensor, "b l e"] | None = None,
        context_mask: Bool[Tensor, "b l"] | None = None,
        dense: Float[Tensor, "b k _ _"] | None = None,
    ) -> Float[Tensor, "b channels h w"]:
        factor = 2 ** len(self.shrink)
        if x.shape[2] % factor or x.shape[3] % factor:
            raise ValueError(
                f"pictures of {x.shape[2]} x {x.shape[3]} cannot be halved to {len(self.shrink) + 1} "
                f"resolutions; pad them to multiples of {factor} or use fewer multipliers"
            )
        h = self.stem(with_dense(x, dense, self.channels, self.dense_channels))
        h = h.contiguous(memory_format=torch.channels_last)  # convolutions run two to three times as fast
        tokens, mask, pooled = self.context(len(x), context, context_mask)
        beside = Beside(F.silu(self.condition(c_noise, label, pooled)), tokens, mask)
        seen = []
        for encoder, shrink in zip(self.encoders, self.shrink, strict=True):
            seen.append(encoder(h, beside))
            h = shrink(seen[-1])
        h = self.middle(h, beside)
        for decoder, grow in zip(reversed(self.decoders), reversed(self.grow), strict=True):
            h = grow(F.interpolate(h, scale_factor=2.0, mode="nearest"))
            h = decoder(torch.cat([h, seen.pop()], 1), beside)
        return self.head(h)
