"""Guidance: functions from denoiser to denoiser, so that any sampler runs any of them.

    x0 = sample(cfg(denoiser, weight=1.5), x, sigmas, label=label)

Convention: weight 0 is the unconditional denoiser, 1 the conditional one, more extrapolates. Ho & Salimans write the
same mixture with w + 1 in place of the weight: their w = 0.5 is 1.5 here.

[Ho22] Classifier-free diffusion guidance, arXiv:2207.12598.
[Kynkaanniemi24] Applying guidance in a limited interval improves sample and distribution quality, arXiv:2404.07724.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gen_diffusion.denoise import Denoiser, column

Weight = Callable[[Tensor], Tensor]  # noise levels -> guidance weights of the same shape


def cfg(denoiser: Denoiser, weight: float | Weight, null: Mapping[str, Any] | None = None) -> Denoiser:
    """Classifier-free guidance, D_u + weight (D_c - D_u) ([Ho22] eq. 6, there for eps).

    Where one weight holds for the whole batch and is exactly 0 or 1, only the denoiser that is needed is called.

    Args:
        weight: a number, or a function of the noise level such as `interval(2.0, 0.2, 5.0)`.
        null: the conditions of the unconditional branch. None leaves them all out, which the networks of this
            package read as their null class.
    """

    def guided(
        x: Float[Tensor, "b *shape"], sigma: Float[Tensor, ""] | Float[Tensor, "b"], **cond: Any
    ) -> Float[Tensor, "b *shape"]:
        w = weight(sigma) if callable(weight) else torch.tensor(weight)
        if w.ndim == 0 and w == 1:
            return denoiser(x, sigma, **cond)
        unconditional = denoiser(x, sigma, **(null or {}))
        if w.ndim == 0 and w == 0:
            return unconditional
        return torch.lerp(unconditional, denoiser(x, sigma, **cond), column(w, x))  # exact at w = 0 and 1

    return guided


def interval(weight: float, low: float, high: float) -> Weight:
    """`weight` on noise levels in (low, high], 1 elsewhere ([Kynkaanniemi24] eq. 5).

    >>> interval(3.0, 0.3, 5.0)(torch.tensor([0.3, 1.0, 5.0, 6.0])).tolist()
    [1.0, 3.0, 3.0, 1.0]
    """
    return lambda sigma: torch.where((low < sigma) & (sigma <= high), weight, 1.0).to(sigma)


def drop(label: Int[Tensor, "b"], dropped: Bool[Tensor, "b"], null: int) -> Int[Tensor, "b"]:
    """Labels with the chosen samples' own replaced by the null class: what teaches one network both denoisers.

    >>> drop(torch.tensor([0, 1, 2]), torch.tensor([True, False, True]), null=10).tolist()
    [10, 1, 10]
    """
    return label.masked_fill(dropped, null)
