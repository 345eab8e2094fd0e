"""A small residual network for points: `(x, c_noise, label) -> y`, to be wrapped in `Preconditioned`."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gen_core.description import describable
from gen_diffusion.condition import Condition


class Block(nn.Module):
    """h + W_2 silu(shift + (1 + scale) norm(W_1 h)), with shift and scale read from the condition."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.affine = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(width, width)

    def forward(self, h: Float[Tensor, "b c"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        scale, shift = self.affine(condition).chunk(2, 1)
        return h + self.outer(F.silu(shift + (1 + scale) * self.norm(self.inner(h))))


@describable
class MLP(nn.Module):
    """Residual blocks on vectors, each told the noise level and the class; its first output is exactly 0.

    Args:
        dim: size of a sample.
        width: features of the blocks.
        depth: number of blocks.
        num_classes: 0 without classes; otherwise labels are 0 ... num_classes - 1, and num_classes is the null class.
    """

    def __init__(self, dim: int = 2, width: int = 64, depth: int = 3, num_classes: int = 0):
        super().__init__()
        self.condition = Condition(width, num_classes)
        self.stem = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, x: Float[Tensor, "b d"], c_noise: Float[Tensor, "b"], label: Int[Tensor, "b"] | None = None
    ) -> Float[Tensor, "b d"]:
        condition = F.silu(self.condition(c_noise, label))
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, condition)
        return self.head(F.silu(h))
