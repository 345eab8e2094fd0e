"""Noise levels for sampling.

A schedule is a function `n -> sigmas` with `sigmas` of shape `(n + 1,)`: decreasing noise standard deviations in the
units of the data, the last one 0, in double precision on the CPU. Samplers walk its pairs.

[Karras22] Elucidating the design space of diffusion-based generative models, arXiv:2206.00364.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Float[Tensor, "levels"]:
    """`n` levels evenly spaced in sigma^(1/rho), then 0 ([Karras22] eq. 5).

    Args:
        n: number of steps, at least 2.
        sigma_min: last non-zero level, in units of the data.
        sigma_max: first level; must dwarf the spread of the data.
        rho: 1 is uniform spacing; larger values place more steps at low noise.

    Raises:
        ValueError: unless `n >= 2` and `0 < sigma_min < sigma_max`.

    >>> karras(3, 1.0, 4.0, rho=1.0).tolist()
    [4.0, 2.5, 1.0, 0.0]
    """
    if n < 2:
        raise ValueError(f"karras needs at least 2 steps to span a range, got n={n}")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"karras needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    hi, lo = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(hi + ramp * (lo - hi)) ** rho, ramp.new_zeros(1)])
