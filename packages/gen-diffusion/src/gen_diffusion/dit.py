"""A transformer on the patches of a picture: `(x, c_noise, **conditions) -> y`, to be wrapped in `Preconditioned`.

    DiT(3, patch=2, **SIZES["S"], num_classes=10)

| size | width | depth | heads | parameters | multiply-adds for 32 x 32 x 4, patch 2 / 4 / 8 |
|------|-------|-------|-------|------------|------------------------------------------------|
| S    | 384   | 12    | 6     | 33 M       | 6.1 G / 1.4 G / 0.36 G                         |
| B    | 768   | 12    | 12    | 130 M      | 23 G / 5.6 G / 1.4 G                           |
| L    | 1024  | 24    | 16    | 458 M      | 81 G / 20 G / 5.0 G                            |
| XL   | 1152  | 28    | 16    | 675 M      | 119 G / 29 G / 7.4 G                           |

[Peebles23] Scalable diffusion models with transformers, arXiv:2212.09748: sizes from table 1, blocks from section 3.2.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gen_core.description import describable
from gen_diffusion.condition import Condition, Context, with_dense

SIZES: dict[str, dict[str, int]] = {
    "S": {"width": 384, "depth": 12, "heads": 6},
    "B": {"width": 768, "depth": 12, "heads": 12},
    "L": {"width": 1024, "depth": 24, "heads": 16},
    "XL": {"width": 1152, "depth": 28, "heads": 16},
}


def positions(h: int, w: int, width: int, device: torch.device | None = None) -> Float[Tensor, "n width"]:
    """One vector per place of an h x w grid, row by row: half of it sines and cosines of the row, half of the column.

    >>> positions(2, 3, 8)[4].allclose(torch.cat([positions(2, 1, 8)[1, :4], positions(1, 2, 8)[1, 4:]]))
    True
    """
    frequencies = 10_000 ** -(torch.arange(width // 4, device=device) / (width // 4))
    waves = lambda n: torch.cat(
        [torch.outer(torch.arange(n, device=device), frequencies).sin(),
         torch.outer(torch.arange(n, device=device), frequencies).cos()], 1
    )  # fmt: skip
    rows, columns = repeat(waves(h), "h c -> (h w) c", w=w), repeat(waves(w), "w c -> (h w) c", h=h)
    return torch.cat([rows, columns], 1)


def attend(
    q: Float[Tensor, "b n c"],
    k: Float[Tensor, "b m c"],
    v: Float[Tensor, "b m c"],
    heads: int,
    mask: Bool[Tensor, "b 1 1 m"] | None = None,
) -> Float[Tensor, "b n c"]:
    """Every head's queries look at that head's keys, where the mask lets them."""
    q, k, v = (rearrange(t, "b n (heads c) -> b heads n c", heads=heads) for t in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), "b heads n c -> b n (heads c)")


def linear(c_in: int, c_out: int) -> nn.Linear:
    """A layer that starts with weights of variance 2 / (c_in + c_out) and no offset."""
    layer = nn.Linear(c_in, c_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def zero(layer: nn.Linear) -> nn.Linear:
    """The same layer with all its parameters at 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """Attention, a look at the tokens if there are any, and a small network on each patch, beside a path of sums.

    Gates and the tokens' last weights start at 0, so that the block starts as the identity (adaLN-Zero).
    """

    def __init__(self, width: int, heads: int, context_dim: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero(nn.Linear(width, 6 * width))
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.mlp = nn.Sequential(linear(width, 4 * width), nn.GELU("tanh"), linear(4 * width, width))
        self.query = linear(width, width) if context_dim else None
        if context_dim:
            self.tokens, self.read = linear(context_dim, 2 * width), zero(nn.Linear(width, width))

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        condition: Float[Tensor, "b c"],
        tokens: Float[Tensor, "b m e"] | None = None,
        mask: Bool[Tensor, "b 1 1 m"] | None = None,
        seen: Bool[Tensor, "b 1 1 n"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """`mask` tells the real tokens, `seen` the patches that may be looked at; None is all."""
        gate, shift, scale, gate_mlp, shift_mlp, scale_mlp = self.modulation(condition)[:, None].chunk(6, 2)
        q, k, v = self.qkv(shift + (1 + scale) * self.norm(x)).chunk(3, 2)
        x = x + gate * self.out(attend(q, k, v, self.heads, seen))
        if self.query is not None:
            k, v = self.tokens(tokens).chunk(2, 2)
            x = x + self.read(attend(self.query(self.norm(x)), k, v, self.heads, mask))
        return x + gate_mlp * self.mlp(shift_mlp + (1 + scale_mlp) * self.norm(x))


@describable
class DiT(nn.Module):
    """Patches to tokens, blocks on them, tokens to patches; its first output is exactly 0.

    Args:
        channels: of the pictures.
        patch: pixels on a side of a patch; halving it makes four times as many tokens.
        width: features of a token, a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: of the attention.
        num_classes: 0 without classes; otherwise labels are 0 ... num_classes - 1, and num_classes is the null class.
        context_dim: size of the tokens that a cross-attention in each block looks at; 0 without tokens.
        dense_channels: of a picture that is aligned with x and goes in beside it; 0 without one.

    Raises:
        ValueError: unless `width` is a multiple of 4 and of `heads`; at the call, if the patches do not cover the
            picture, and on conditions that the network was not built for.
    """

    def __init__(
        self,
        channels: int = 1,
        *,
        patch: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        num_classes: int = 0,
        context_dim: int = 0,
        dense_channels: int = 0,
    ):
        super().__init__()
        if width % 4 or width % heads:
            raise ValueError(f"width must be a multiple of 4 and of heads={heads}, got {width}")
        self.channels, self.dense_channels, self.patch, self.width = channels, dense_channels, patch, width
        self.condition = Condition(width, num_classes, context_dim)
        self.context = Context(context_dim)
        self.stem = linear((channels + dense_channels) * patch**2, width)
        self.blocks = nn.ModuleList(Block(width, heads, context_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero(nn.Linear(width, 2 * width))
        self.head = zero(nn.Linear(width, channels * patch**2))

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
        h, w, p = x.shape[2] // self.patch, x.shape[3] // self.patch, self.patch
        if x.shape[2:] != (h * p, w * p):
            raise ValueError(
                f"patches of {p} x {p} do not cover pictures of {x.shape[2]} x {x.shape[3]}; "
                f"pad them to multiples of {p}"
            )
        tokens, mask, pooled = self.context(len(x), context, context_mask)
        condition = F.silu(self.condition(c_noise, label, pooled))
        patches = rearrange(
            with_dense(x, dense, self.channels, self.dense_channels), "b c (h p) (w q) -> b (h w) (p q c)", p=p, q=p
        )
        y = self.stem(patches) + positions(h, w, self.width, x.device).to(x.dtype)
        for block in self.blocks:
            y = block(y, condition, tokens, mask)
        shift, scale = self.modulation(condition)[:, None].chunk(2, 2)
        y = self.head(shift + (1 + scale) * self.norm(y))
        return rearrange(y, "b (h w) (p q c) -> b c (h p) (w q)", h=h, p=p, q=p)
