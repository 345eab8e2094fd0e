"""Points in the plane that a network learns in a minute: one function per data set, `(n, generator) -> points, labels`.

Points are independent draws of a distribution with mean 0 and standard deviation `std` (the root mean square over both
coordinates), by constants worked out here and not by the sample's own moments: a batch of 1 is as right as one of 1000.

    points, labels = moons(1000, torch.Generator().manual_seed(0))
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gen_diffusion.mixture import GaussianMixture

Points = tuple[Float[Tensor, "n 2"], Int[Tensor, "n"]]


def moons(n: int, generator: Generator | None = None, *, blur: float = 0.05, std: float = 0.5) -> Points:
    """Two interleaved half circles of radius 1, blurred by `blur` before scaling; the label is the moon.

    >>> points, labels = moons(4)
    >>> points.shape, labels.shape
    (torch.Size([4, 2]), torch.Size([4]))
    """
    labels = torch.randint(2, (n,), generator=generator)
    angle = math.pi * torch.rand(n, generator=generator)
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    points = torch.where(labels[:, None] == 0, upper, -upper)  # the lower moon is the upper one turned by half a turn
    variance = (0.5 + 0.25 + 0.5 - 1 / math.pi + 0.0625) / 2
    return _finish(points, variance, blur, std, generator), labels


def rings(n: int, generator: Generator | None = None, *, k: int = 3, blur: float = 0.05, std: float = 0.5) -> Points:
    """`k` circles of radius 1, 2, ... about the origin, equally likely; the label is the ring, the innermost first."""
    labels = torch.randint(k, (n,), generator=generator)
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    points = (1 + labels)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    variance = sum(r**2 for r in range(1, k + 1)) / k / 2
    return _finish(points, variance, blur, std, generator), labels


def swiss_roll(n: int, generator: Generator | None = None, *, blur: float = 0.2, std: float = 0.5) -> Points:
    """The spiral (t cos t, t sin t) for t in 1.5 pi to 4.5 pi; the label counts half turns, 0 to 2 from the inside."""
    t = math.pi * (1.5 + 3 * torch.rand(n, generator=generator))
    mean = torch.tensor([2.0, 2 / (3 * math.pi)])
    points = torch.stack([t * t.cos(), t * t.sin()], 1) - mean
    variance = (9.75 * math.pi**2 - mean.square().sum().item()) / 2
    labels = (t / math.pi - 1.5).long().clamp(0, 2)
    return _finish(points, variance, blur, std, generator), labels


def grid(n: int, generator: Generator | None = None, *, std: float = 0.5) -> Points:
    """25 Gaussians on a 5 x 5 lattice, their standard deviation an eighth of the spacing; the label is the Gaussian."""
    return grid_mixture(std).draw(n, generator)


def grid_mixture(std: float = 0.5) -> GaussianMixture:
    """The distribution of `grid`, which is also its exact denoiser."""
    side = torch.arange(-2.0, 3.0)
    scale = std / math.sqrt(2 + (1 / 8) ** 2)
    covs = (scale / 8) ** 2 * torch.eye(2).expand(25, 2, 2)
    return GaussianMixture(torch.full((25,), 1 / 25), scale * torch.cartesian_prod(side, side), covs)


def _finish(points: Tensor, variance: float, blur: float, std: float, generator: Generator | None) -> Tensor:
    """Centred points of known variance, blurred and scaled to `std`."""
    noise = torch.randn(points.shape, generator=generator)
    return std / math.sqrt(variance + blur**2) * (points + blur * noise)
