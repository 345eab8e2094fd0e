"""Modes that a sampler reaches, and how evenly: the measure of a collapse when the data's modes are known.

    found = nearest_mode(points, means, std=0.05)          # of 25 Gaussians; -1 for points that belong to none
    count_modes(found, 25)                                 # Modes(covered=25, good=0.989, divergence=0.005)

For pictures the modes are classes, and `found` is what a classifier says. Real samples score a share of good points of
`good_share(2)` = 98.89 %, not 100 %: a sampler above it is too narrow, which `too_narrow` tells. Their divergence from
uniform is about (modes - 1) / (2 n) nats rather than 0, so that figures of different n cannot be compared.

[Srivastava17] VEEGAN: reducing mode collapse in GANs using implicit variational learning, arXiv:1705.07761.
[Lin18] PacGAN: the power of two samples in generative adversarial networks, arXiv:1712.04086.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Modes(NamedTuple):
    """Figures as [Srivastava17] and [Lin18] report them."""

    covered: int
    """Modes with at least one good sample."""
    good: float
    """Share of the samples that belong to some mode."""
    divergence: float
    """KL divergence, in nats, of the good samples' modes from the uniform distribution."""


def nearest_mode(
    x: Float[Tensor, "n d"], means: Float[Tensor, "k d"], std: float, sigmas: float = 3.0
) -> Int[Tensor, "n"]:
    """The mean nearest to each point, -1 where it is more than `sigmas` standard deviations away."""
    distance, index = torch.cdist(x, means).min(1)
    return index.where(distance <= sigmas * std, -1)


def count_modes(index: Int[Tensor, "n"], modes: int) -> Modes:
    """Counts of `index`, the mode 0, 1, ... of each sample or -1 for none.

    >>> covered, good, divergence = count_modes(torch.tensor([0, 1, 2, -1]), 4)
    >>> covered, good, round(divergence, 4)
    (3, 0.75, 0.2877)

    Raises:
        ValueError: for an index of `modes` or more.
    """
    if len(index) and index.max() >= modes:
        raise ValueError(f"there are {modes} modes, counted from 0, but a sample was given to mode {int(index.max())}")
    counts = index[index >= 0].bincount(minlength=modes).double()
    share = counts / counts.sum()
    divergence = math.log(modes) - torch.special.entr(share).sum().item() if counts.sum() else math.inf
    return Modes(int((counts > 0).sum()), counts.sum().item() / max(1, len(index)), divergence)


def good_share(dimensions: int, sigmas: float = 3.0) -> float:
    """The mass of a Gaussian within `sigmas` of its mean: 1 - exp(-9 / 2) in the plane.

    >>> round(good_share(2), 4)
    0.9889
    """
    half = torch.tensor([dimensions / 2, sigmas**2 / 2], dtype=torch.float64)
    return torch.special.gammainc(half[0], half[1]).item()


def too_narrow(good: float, n: int, dimensions: int, sigmas: float = 3.0) -> bool:
    """True where more of `n` samples are good than of the data, by over three standard errors."""
    p = good_share(dimensions, sigmas)
    return good > p + 3 * math.sqrt(p * (1 - p) / n)
