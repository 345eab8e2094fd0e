"""Kernel regression of hidden values on visible ones: a strong baseline for in-painting.

    kernel_regression(train, x, mask)

[Nadaraya64] On estimating regression, Theory of Probability and Its Applications 9(1); [Watson64], Sankhya A 26(4).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MOST = 4000  # training samples that are used: their distances to one another have to fit memory
WIDTHS = (0.125, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0)  # tried, in units of the median distance to the nearest neighbour


def kernel_regression(
    train: Float[Tensor, "n ..."], x: Float[Tensor, "b ..."], mask: Bool[Tensor, "..."]
) -> Float[Tensor, "b ..."]:
    """Fill in where `mask` is False the mean of training samples, weighted by a Gaussian kernel of visible values.

    The width of the kernel is that of least error when each training sample is filled in from the others.

    Args:
        mask: of one sample, the same for all.
    """
    known = train[:MOST]
    visible = lambda samples: (samples * mask).flatten(1)
    among = torch.cdist(visible(known), visible(known)).fill_diagonal_(torch.inf)
    near = among.min(1).values.median().item()
    hidden = ~mask.expand_as(known[0])
    error = lambda width: (_mean(among, known, width) - known)[:, hidden].square().mean().item()
    width = min((near * share for share in WIDTHS), key=error)
    return torch.where(mask, x, _mean(torch.cdist(visible(x), visible(known)), known, width))


def _mean(distance: Float[Tensor, "b n"], of: Float[Tensor, "n ..."], width: float) -> Float[Tensor, "b ..."]:
    weight = (-0.5 * (distance / max(width, 1e-6)) ** 2).softmax(1)
    return (weight @ of.flatten(1)).unflatten(1, of.shape[1:])
