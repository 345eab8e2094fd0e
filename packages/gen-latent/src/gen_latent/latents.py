"""Walks through the latents of a model: between two codes, along one coordinate, and whether the way is smooth.

    way = slerp(z[:1], z[1:2], torch.linspace(0, 1, 10))       # (10, 1, d)
    largest_jump(vae.decode(way.flatten(0, 1)).mean)           # of the median step; above 3 the way is torn

[Shoemake85] Animating rotation with quaternion curves, SIGGRAPH 1985.
[White16] Sampling generative networks, arXiv:1609.04468.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def lerp(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"], t: Float[Tensor, "k"]) -> Float[Tensor, "k b d"]:
    """(1 - t) a + t b. Half-way between normal draws the norm is 1 / sqrt 2 of theirs: where no model was trained."""
    return torch.lerp(a, b, t.to(a)[:, None, None])


def slerp(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"], t: Float[Tensor, "k"]) -> Float[Tensor, "k b d"]:
    """Along the great circle at constant speed, the norm going linearly from |a| to |b| ([Shoemake85], [White16]).

    Raises:
        ValueError: for a code of 0, or two of opposite directions, between which no circle is the shortest.
    """
    size_a, size_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    if not (size_a > 0).all() or not (size_b > 0).all():
        raise ValueError("slerp turns one direction into another, and a code of 0 has none; use lerp")
    u, v = a / size_a, b / size_b
    angle = 2 * torch.atan2((u - v).norm(dim=1, keepdim=True), (u + v).norm(dim=1, keepdim=True))
    if (angle > torch.pi - 1e-3).any():
        raise ValueError("slerp has no shortest way between opposite directions; use lerp, or go by a third code")
    at = t.to(a)[:, None, None]
    # sinc keeps the ratio of sines finite where both codes point the same way
    bow = lambda share: share * torch.sinc(share * angle / torch.pi) / torch.sinc(angle / torch.pi)
    return (bow(1 - at) * u + bow(at) * v) * torch.lerp(size_a, size_b, at)


def traverse(z: Float[Tensor, "d"], j: int, values: Sequence[float]) -> Float[Tensor, "k d"]:
    """`z` with its coordinate `j` set to each of the values."""
    if not 0 <= j < len(z):
        raise ValueError(f"there are latents 0 to {len(z) - 1}, got {j}")
    way = z.repeat(len(values), 1)
    way[:, j] = torch.as_tensor(values).to(z)
    return way


def largest_jump(path: Float[Tensor, "k *shape"]) -> float:
    """The longest of the steps between neighbours on a path, in units of the median step."""
    if len(path) < 3:
        raise ValueError(f"a path has two steps at least, got {len(path)} points")
    step = path.diff(dim=0).flatten(1).norm(dim=1)
    return (step.max() / step.median().clamp_min(torch.finfo(step.dtype).tiny)).item()
