"""Total variation: the classical restoration that posterior samplers are compared with.

[Chambolle11] Chambolle and Pock, A first-order primal-dual algorithm for convex problems with applications to imaging,
J. Math. Imaging Vis. 40:120.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gen_diffusion.operators import Linear


def total_variation(
    A: Linear, y: Float[Tensor, "n ..."], weight: float, iterations: int = 300
) -> Float[Tensor, "n c h w"]:
    """argmin_x |A x - y|^2 / 2 + weight sum |grad x|, by [Chambolle11] algorithm 1 from the least-squares solution.

    The gradient is that of forward differences, 0 at the far edges, and its length that of all channels together.
    """
    step = 0.99 / (A.norm() ** 2 + 8) ** 0.5  # 8 bounds the squared norm of the gradient in two dimensions
    x = A.pinv(y)
    bar, p, q = x, torch.zeros_like(_gradient(x)), torch.zeros_like(y)
    for _ in range(iterations):
        q = (q + step * (A(bar) - y)) / (1 + step)
        p = p + step * _gradient(bar)
        p = p / (p.square().sum((1, 2), keepdim=True).sqrt() / max(weight, 1e-12)).clamp_min(1)
        x, last = x - step * (A.T(q) - _divergence(p)), x
        bar = 2 * x - last
    return x


def _gradient(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 2 c h w"]:
    down = F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
    across = F.pad(x[..., 1:] - x[..., :-1], (0, 1))
    return torch.stack([down, across], 1)


def _divergence(p: Float[Tensor, "n 2 c h w"]) -> Float[Tensor, "n c h w"]:
    """Minus the transpose of the gradient."""
    down, across = p[:, 0, :, :-1, :], p[:, 1, ..., :-1]
    return F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0)) + F.pad(across, (0, 1)) - F.pad(across, (1, 0))
