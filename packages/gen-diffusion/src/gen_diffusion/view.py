"""Six views of one denoiser: what networks are trained to answer, and how to turn each into each.

Let alpha = 1 / sqrt(1 + sigma^2) and s = sigma / sqrt(1 + sigma^2): the variance-preserving state alpha x0 + s n is
alpha x. Every view is a combination a x0 + b n of clean data and noise:

    view       a                        b                       where it is from
    x0         1                        0
    eps        0                        1                       [Ho20] eq. 12
    v          -s                       alpha                   [Salimans22] eq. 10: alpha n - s x0
    score      0                        -1 / sigma              [Song21]: grad ln p(x; sigma)
    velocity   -1                       1                       [Lipman23]: d/dt of (1 - t) x0 + t n
    F          sigma / (sigma_data T)   -sigma_data / T         [Karras22] eq. 8, T = sqrt(sigma^2 + sigma_data^2)

Together with alpha x, any of them gives the pair (x0, n) and with it all others. So x0 = c_skip x + c_out value, from
sigma = 0 to infinity. Where a view cannot know the answer (x0 says nothing of the noise at sigma = 0, eps nothing of
the data at infinity) it is given as 0, the mean of the noise, and of centred data.

Libraries differ in sign and direction: for data at t = 1 the velocity is x0 - n, minus this one.

[Ho20] Denoising diffusion probabilistic models, arXiv:2006.11239.
[Salimans22] Progressive distillation for fast sampling of diffusion models, arXiv:2202.00512.
[Song21] Score-based generative modeling through stochastic differential equations, arXiv:2011.13456.
[Lipman23] Flow matching for generative modeling, arXiv:2210.02747.
[Karras22] Elucidating the design space of diffusion-based generative models, arXiv:2206.00364.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

View = Literal["x0", "eps", "v", "score", "velocity", "F"]
VIEWS: tuple[View, ...] = get_args(View)
Level = int | float | Float[Tensor, ""] | Float[Tensor, "b"]  # one level for the batch, or one for each sample


def column(sigma: Level, x: Float[Tensor, "b *shape"]) -> Float[Tensor, "..."]:
    """`sigma` in the type and on the device of `x`, shaped `()` or `(b, 1, ..., 1)` so that it multiplies samples.

    >>> column(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 1, 1, 1])

    Raises:
        ValueError: for another shape, which would broadcast to something else; for a negative level or nan, looked for
            where that costs nothing: on the CPU, outside a compiled network.
    """
    given = torch.as_tensor(sigma, dtype=None if isinstance(sigma, Tensor) else x.dtype)
    if given.shape not in ((), (len(x),)):
        raise ValueError(f"sigma is a number or has one level for each of {len(x)} samples, got {tuple(given.shape)}")
    if given.device.type == "cpu" and not torch.compiler.is_compiling() and not (given >= 0).all():
        raise ValueError(f"sigma is a standard deviation, 0 or above; got {given.min().item()}")
    return spread(given, x)


def spread(value: Float[Tensor, ""] | Float[Tensor, "b"], x: Float[Tensor, "b *shape"]) -> Float[Tensor, "..."]:
    """Any number of a batch or of each sample, in the type and on the device of `x`, to multiply samples with."""
    return value.to(x).reshape(value.shape + (1,) * (x.ndim - 1) * value.ndim)


def angles(sigma: Float[Tensor, "*b"]) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """alpha = 1 / sqrt(1 + sigma^2) and s = sigma / sqrt(1 + sigma^2), which are 0 and 1 at infinity."""
    total = torch.hypot(sigma, torch.ones_like(sigma))
    return 1 / total, torch.where(sigma.isinf(), 1.0, sigma / total)


def coefficients(
    view: View, sigma: Float[Tensor, "*b"], sigma_data: float = 1.0
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """(c_skip, c_out) with x0 = c_skip x + c_out value; `x` is the noise itself at sigma = infinity.

    >>> c_skip, c_out = coefficients("eps", torch.tensor([0.5, 2.0]))
    >>> c_skip.tolist(), c_out.tolist()
    ([1.0, 1.0], [-0.5, -2.0])

    Raises:
        ValueError: for an unknown view.
    """
    end = sigma.isinf()
    if view == "x0":
        return torch.zeros_like(sigma), torch.ones_like(sigma)
    if view == "eps":
        return (~end).to(sigma), -sigma.masked_fill(end, 0)
    if view == "score":
        return (~end).to(sigma), sigma.masked_fill(end, 0) ** 2
    if view == "F":  # as below, in the form of [Karras22] table 1: fewer operations in every call of a denoiser
        total = torch.hypot(sigma, torch.full_like(sigma, sigma_data))
        return (sigma_data / total) ** 2, sigma_data * (sigma / total).masked_fill(end, 1)
    alpha, s = angles(sigma)
    a, b = _combination(view, sigma, sigma_data)
    determinant = alpha * b - s * a
    scale = alpha.masked_fill(end, 1)
    return _ratio(b * scale, determinant), _ratio(-s, determinant)


def convert(
    value: Float[Tensor, "b *shape"],
    x: Float[Tensor, "b *shape"],
    sigma: Level,
    source: View,
    to: View,
    sigma_data: float = 1.0,
) -> Float[Tensor, "b *shape"]:
    """What a network of view `to` would have answered at `x` where one of view `source` answered `value`.

    >>> x0, n, sigma = torch.ones(1, 3), torch.randn(1, 3), 2.0
    >>> torch.allclose(convert(x0, x0 + sigma * n, sigma, "x0", "eps"), n, atol=1e-6)
    True

    Args:
        x: x0 + sigma n, or n at sigma = infinity.
        sigma_data: of the view "F".
    """
    sigma = column(sigma, x)
    alpha, s = angles(sigma)
    u = torch.where(sigma.isinf(), x, alpha * x)
    if source == "score":  # a multiple of eps, 0 times infinity at the end of the axis
        source, value = "eps", torch.where(sigma.isinf(), x, -sigma * value)
    a, b = _combination(source, sigma, sigma_data)
    determinant = alpha * b - s * a
    x0 = value if source == "x0" else _ratio(b * u - s * value, determinant)
    n = value if source == "eps" else _ratio(alpha * value - a * u, determinant)
    if to == "score":
        return _ratio(-n, sigma)
    a, b = _combination(to, sigma, sigma_data)
    return a * x0 + b * n


def _combination(view: View, sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    """(a, b) of the table above."""
    zero, one = torch.zeros_like(sigma), torch.ones_like(sigma)
    if view == "x0":
        return one, zero
    if view == "eps":
        return zero, one
    if view == "velocity":
        return -one, one
    if view == "v":
        alpha, s = angles(sigma)
        return -s, alpha
    if view == "F":
        alpha, s = angles(sigma / sigma_data)
        return s / sigma_data, -alpha
    raise ValueError(f"there is no view {view!r} of a denoiser; the views are {', '.join(VIEWS)}")


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0: what cannot be known is given as its mean."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))
