"""How near restored pictures are to the truth, and whether their draws spread as far as they err.

[Wang04] Image quality assessment: from error visibility to structural similarity, IEEE Trans. Image Process. 13:600.
[Fortin14] Why should ensemble spread match the RMSE of the ensemble mean?, J. Hydrometeorol. 15:1708.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def psnr(x: Float[Tensor, "n *shape"], truth: Float[Tensor, "n *shape"], span: float = 2.0) -> Float[Tensor, "n"]:
    """Peak signal-to-noise ratio in decibels, 10 log10(span^2 / mean squared error), of each sample.

    Args:
        span: largest minus smallest possible value.
    """
    return 10 * (span**2 / (x - truth).square().flatten(1).mean(1)).log10()


def ssim(x: Float[Tensor, "n c h w"], truth: Float[Tensor, "n c h w"], span: float = 2.0) -> Float[Tensor, "n"]:
    """Structural similarity, 1 for equal pictures ([Wang04] eq. 13), the mean over where its window fits inside.

    The window is Gaussian with a standard deviation of 1.5 and 11 pixels a side, of small pictures the largest odd
    number that fits.
    """
    side = min(11, *(n - 1 + n % 2 for n in x.shape[2:]))
    line = torch.exp(-0.5 * ((torch.arange(side) - side // 2) / 1.5) ** 2)
    window = (torch.outer(line, line) / line.sum() ** 2).to(x)[None, None]
    local = lambda u: F.conv2d(u.flatten(0, 1)[:, None], window).unflatten(0, x.shape[:2])
    a, b = local(x), local(truth)
    va, vb, vab = local(x * x) - a * a, local(truth * truth) - b * b, local(x * truth) - a * b
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return ((2 * a * b + c1) * (2 * vab + c2) / ((a**2 + b**2 + c1) * (va + vb + c2))).flatten(1).mean(1)


def covered(draws: Float[Tensor, "n draws *shape"], truth: Float[Tensor, "n *shape"]) -> Float[Tensor, "n"]:
    """The share of the truth's values between the lowest and the highest of m draws; (m - 1) / (m + 1) is right."""
    inside = (draws.amin(1) <= truth) & (truth <= draws.amax(1))
    return inside.double().flatten(1).mean(1)


def spread_over_error(draws: Float[Tensor, "n draws *shape"], truth: Float[Tensor, "n *shape"]) -> Float[Tensor, "n"]:
    """Standard deviation of m draws over the error of their mean, both root mean squares; 1 is right ([Fortin14]).

    The error is divided by sqrt(1 + 1 / m), since the mean of few draws is off by their spread as well.
    """
    spread = draws.var(1).flatten(1).mean(1).sqrt()
    error = (draws.mean(1) - truth).square().flatten(1).mean(1).sqrt()
    return spread / error * math.sqrt(1 + 1 / draws.shape[1])
