"""What a network is told beside x: the noise level, a class, a sequence of tokens such as a text's, another picture.

Each of the three is optional, and leaving it out is the unconditional network: the null class, no tokens, a black
picture.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gen_core.description import describable


@describable
class Condition(nn.Module):
    """(c_noise, label, tokens' mean) -> one vector, for the network's blocks to scale and shift their features by.

    The level enters by sines and cosines of fixed frequencies, from well below one turn over the range of
    c_noise = ln(sigma) / 4 (about -1.5 to 1.1) to several turns. The class enters by a learned vector, the null class
    by one of its own: index `num_classes`. Tokens enter by their mean, which is 0 where there are none.

    Args:
        width: size of the result.
        num_classes: 0 for a network without classes.
        context_dim: size of a token; 0 for a network without tokens.

    Raises:
        ValueError: on a label for a network without classes, or one that is out of range (which is looked at where
            that costs nothing: on the CPU, outside a compiled network).
    """

    def __init__(self, width: int, num_classes: int = 0, context_dim: int = 0, frequencies: int = 16):
        super().__init__()
        self.num_classes = num_classes
        self.frequencies = nn.Buffer(2 * math.pi * torch.logspace(-3, 1, frequencies, base=2), persistent=False)
        self.level = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_classes + 1, width) if num_classes else None
        self.pooled = nn.Linear(context_dim, width, bias=False) if context_dim else None

    def forward(
        self,
        c_noise: Float[Tensor, "b"],
        label: Int[Tensor, "b"] | None = None,
        pooled: Float[Tensor, "b e"] | None = None,
    ) -> Float[Tensor, "b width"]:
        phase = c_noise[:, None] * self.frequencies
        condition = self.level(torch.cat([phase.cos(), phase.sin()], 1))
        if self.label is not None:
            condition = condition + self.label(self._checked(label, c_noise))
        elif label is not None:
            raise ValueError("this network was built with num_classes=0 and takes no label; drop the label")
        if self.pooled is not None and pooled is not None:
            condition = condition + self.pooled(pooled)
        return condition

    def _checked(self, label: Int[Tensor, "b"] | None, c_noise: Float[Tensor, "b"]) -> Int[Tensor, "b"]:
        if label is None:
            return torch.full(c_noise.shape, self.num_classes, device=c_noise.device)
        if label.device.type == "cpu" and not torch.compiler.is_compiling() and len(label):
            low, high = label.aminmax()
            if low < 0 or high > self.num_classes:
                raise ValueError(
                    f"labels from {low} to {high}, but this network has classes 0 to {self.num_classes - 1} "
                    f"and the null class {self.num_classes}"
                )
        return label


class Context(nn.Module):
    """Tokens for a network's attention to look at: a learned null token, then the real ones, normalised.

    The null token is always there, so attention is defined without any other, and a row whose mask is all False gives
    what a missing context gives.

    Args:
        dim: size of a token; 0 for a network without tokens, which this module then answers for.

    Raises:
        ValueError: on a context for a network without tokens, on tokens of another size, on a mask of another shape.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.norm = nn.LayerNorm(dim) if dim else None
        self.null = nn.Parameter(torch.randn(dim)) if dim else None

    def forward(
        self, b: int, context: Float[Tensor, "b l e"] | None, mask: Bool[Tensor, "b l"] | None
    ) -> tuple[Float[Tensor, "b n e"] | None, Bool[Tensor, "b 1 1 n"] | None, Float[Tensor, "b e"] | None]:
        """The tokens (n = 1 + l), which of them to look at (None: all), and the mean of the real ones (None: 0)."""
        if context is None:
            if mask is not None:
                raise ValueError("got a context_mask without a context; pass both or neither")
            return (None if self.null is None else self.null.expand(b, 1, -1)), None, None
        if self.norm is None or self.null is None:
            raise ValueError("this network was built with context_dim=0 and takes no context; drop the context")
        if context.shape[2] != self.dim:
            raise ValueError(
                f"context has tokens of size {context.shape[2]}, but this network was built with context_dim={self.dim}"
            )
        tokens, null = self.norm(context), self.null.expand(b, 1, -1)
        if mask is None:
            return torch.cat([null, tokens], 1), None, tokens.mean(1)
        if mask.shape != context.shape[:2]:
            raise ValueError(
                f"context_mask has shape {tuple(mask.shape)}, but there are {tuple(context.shape[:2])} tokens"
            )
        tokens = tokens.masked_fill(~mask[:, :, None], 0)  # whatever padding holds, even nan
        pooled = tokens.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        return torch.cat([null, tokens], 1), F.pad(mask, (1, 0), value=True)[:, None, None], pooled


def with_dense(
    x: Float[Tensor, "b c h w"], dense: Float[Tensor, "b k _ _"] | None, channels: int, dense_channels: int
) -> Float[Tensor, "b channels h w"]:
    """A network's input: x and the picture aligned with it, which is black where it is missing.

    Raises:
        ValueError: if one of them has another number of channels than the network was built for, or they differ in
            height or width.
    """
    b, c, h, w = x.shape
    if c != channels:
        raise ValueError(f"x has {c} channels, but this network was built with channels={channels}")
    if dense is None:
        return torch.cat([x, x.new_zeros(b, dense_channels, h, w)], 1) if dense_channels else x
    if not dense_channels:
        raise ValueError("this network was built with dense_channels=0 and takes no dense picture; drop dense")
    if dense.shape[1:] != (dense_channels, h, w):
        raise ValueError(
            f"dense has shape {tuple(dense.shape)}, but this network needs {dense_channels} channels of {h} x {w}, "
            f"as x has; resize it"
        )
    return torch.cat([x, dense], 1)
