"""How probable data are under a denoiser, by its probability-flow ODE; and what that means for data on a grid.

    x = dequantise(pictures, levels=17)                              # scikit-learn's digits, in [-1, 1]
    nats = log_likelihood(denoiser, x, karras(100)).value            # one per picture
    bits = bits_per_dim(nats, dims=64, levels=17)

Nats are of a density per unit of the data. Data on a grid of values have none: spread them over their bins first.

[Song21] Score-based generative modeling through stochastic differential equations, arXiv:2011.13456.
[Lipman23] Flow matching for generative modeling, arXiv:2210.02747.
[Theis16] A note on the evaluation of generative models, arXiv:1511.01844.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gen_diffusion.denoise import Denoiser
from gen_diffusion.noise import randn_like


@dataclass(frozen=True)
class LogLikelihood:
    """ln p in nats, and its standard error: 0 for an exact trace, nan where one probe cannot tell.

    The error is of the trace's estimate alone. From few probes it is itself uncertain: two of them cover the exact
    trace for 85 % of samples with 4 probes, for 94 % with 32.
    """

    value: Float[Tensor, "b"]
    stderr: Float[Tensor, "b"]


@torch.no_grad()
def log_likelihood(
    denoiser: Denoiser,
    x: Float[Tensor, "b *shape"],
    sigmas: Float[Tensor, "levels"],
    *,
    probes: int | None = None,
    probe: Literal["rademacher", "normal"] = "rademacher",
    sigma_data: float = 0.0,
    batch: int = 4096,
    generator: Generator | Sequence[Generator] | None = None,
    **cond: Any,
) -> LogLikelihood:
    """ln p(x; sigma_min) by the change of variables along the probability-flow ODE ([Song21] eq. 39).

    It is the density of data *at the last level above 0*: of clean data plus noise of that standard deviation. Give
    it such data, or a level that is small beside the data's finest structure.

    The ODE is dx/dsigma = (x - D) / sigma, solved by Heun up the levels, and its divergence is (d - tr dD/dx) / sigma.
    Levels that begin at infinity, as `flow` gives, mean the same path in y = (1 - t) x, t = sigma / (1 + sigma), where
    dy/dt = (y - D) / t ([Lipman23]). It ends at exactly N(0, I); a finite `sigma_max` leaves an error, as the
    data at that level are not quite N(0, sigma_max^2 I). Both are of second order in the number of levels.

    Args:
        x: data at the last level. A sample's result does not depend on the others, except for which probes it gets from
            a single generator.
        sigmas: decreasing levels as for `sample`; a last one of 0 is left out.
        probes: None takes the exact trace, at the price of d backward passes per level; k estimates it from k
            random vectors for each sample, the same at all levels. One probe cannot tell its standard error.
        probe: entries of +-1, or standard normal ones, whose estimate has the larger variance.
        sigma_data: widens the prior at the last level to N(0, (sigma_max^2 + sigma_data^2) I).
        batch: samples times vectors in one backward pass, but all samples at least; hand over fewer to save memory.
        generator: for the probes; one, or one per sample.

    Raises:
        ValueError: unless there are two decreasing levels above 0, and at least one probe.
    """
    levels = sigmas.to("cpu", torch.float64)
    levels = levels[: -1 if levels[-1] == 0 else None].flip(0)
    if len(levels) < 2 or levels[0] <= 0 or not (levels[1:] > levels[:-1]).all():
        raise ValueError(
            f"the likelihood needs two or more decreasing levels above 0, got {len(sigmas)} from {sigmas[0]:.3g} "
            f"to {sigmas[-1]:.3g}"
        )
    if probes is not None and probes < 1:
        raise ValueError(f"probes must be at least 1, got {probes}; None takes the exact trace")
    d, flow, finite = x[0].numel(), bool(levels[-1].isinf()), levels.isfinite()
    scale = torch.where(finite, 1 + levels, 1.0) if flow else torch.ones_like(levels)  # x = scale y
    time = torch.where(finite, levels / scale, 1.0)  # t, or sigma itself
    weight = _trapezoid(time) if flow else _trapezoid(levels.log()) * levels  # exact far away, where it is d / sigma
    vectors = None if probes is None else _probes(x, probes, probe, generator)

    def slope(y: Tensor, i: int) -> Tensor:
        return (y - denoiser(y * scale[i].item(), levels[i].to(x.dtype), **cond)) / time[i].item()

    y, total = x / scale[0].item(), torch.zeros((), dtype=x.dtype, device=x.device)
    for i in range(len(levels)):
        dy, divergence = _divergence(partial(slope, i=i), y, vectors, max(1, batch // len(x)))
        total = total + weight[i].item() * divergence
        if i + 1 < len(levels):
            h = (time[i + 1] - time[i]).item()
            y = y + h / 2 * (dy + slope(y + h * dy, i + 1))
    std = 1.0 if flow else math.hypot(levels[-1].item(), sigma_data)
    prior = -(y / std).square().flatten(1).sum(1) / 2 - d * math.log(std * math.sqrt(2 * math.pi))
    stderr = torch.zeros_like(prior)
    if probes is not None:
        stderr = total.std(1) / math.sqrt(probes) if probes > 1 else torch.full_like(prior, math.nan)
    return LogLikelihood(prior + total.mean(1) - d * math.log(scale[0].item()), stderr)


def dequantise(
    x: Float[Tensor, "b *shape"],
    levels: int,
    low: float = -1.0,
    high: float = 1.0,
    generator: Generator | Sequence[Generator] | None = None,
) -> Float[Tensor, "b *shape"]:
    """Data on `levels` equally spaced values from `low` to `high`, each spread evenly over its own bin ([Theis16] 3.1).

    The bins are centred on their values: the result lies within half a bin of `x`.
    """
    return x + (torch.special.ndtr(randn_like(x, generator)) - 0.5) * _bin(levels, low, high)


def bits_per_dim(
    nats: Float[Tensor, "*b"], dims: int, levels: int, low: float = -1.0, high: float = 1.0
) -> Float[Tensor, "*b"]:
    """Bits to code one dimension of the gridded data, from ln p of `dequantise(x, levels, low, high)`.

    P(bin) = p * width ^ dims for a density that is even over each bin; for any other the result is an upper bound of
    the model's own bits, on average over the dequantisation.

    Args:
        levels: 256 for pictures of 8 bits, 17 for scikit-learn's digits.

    >>> even = torch.tensor([-math.log(256 * 2 / 255)])  # on the 256 bins of 8 bits in [-1, 1]
    >>> bits_per_dim(even, dims=1, levels=256)
    tensor([8.])
    """
    return -nats / (dims * math.log(2)) - math.log2(_bin(levels, low, high))


def _bin(levels: int, low: float, high: float) -> float:
    if levels < 2 or not low < high:
        raise ValueError(f"need at least 2 levels and low < high, got levels={levels}, low={low}, high={high}")
    return (high - low) / (levels - 1)


def _trapezoid(nodes: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Weights of the trapezoidal rule."""
    half, end = nodes.diff() / 2, nodes.new_zeros(1)
    return torch.cat([half, end]) + torch.cat([end, half])


def _probes(
    x: Tensor, k: int, probe: str, generator: Generator | Sequence[Generator] | None
) -> Float[Tensor, "b k ..."]:
    if probe not in ("rademacher", "normal"):
        raise ValueError(f"probe is rademacher or normal, got {probe!r}")
    z = randn_like(x[:, None].expand(-1, k, *x.shape[1:]), generator)
    return torch.where(z < 0, -1.0, 1.0).to(z) if probe == "rademacher" else z


def _divergence(
    f: Callable[[Tensor], Tensor], y: Tensor, vectors: Float[Tensor, "b k ..."] | None, chunk: int
) -> tuple[Tensor, Float[Tensor, "b k"]]:
    """f(y), and v^T (df/dy) v for each sample's own vectors, or the trace of df/dy (then k = 1).

    Reverse mode, as every network that can be trained has it; the plain attention, as the fused ones cannot be batched.
    """
    with sdpa_kernel(SDPBackend.MATH):
        value, pull = torch.func.vjp(f, y)[:2]
        along = lambda v: (v * pull(v)[0]).flatten(1).sum(1)
        if vectors is not None:
            return value, torch.func.vmap(along, in_dims=1, out_dims=1, chunk_size=chunk)(vectors)
        index = torch.arange(y[0].numel(), device=y.device)
        unit = lambda j: (index == j).to(y).reshape(y.shape[1:]).expand_as(y)
        return value, torch.func.vmap(lambda j: along(unit(j)), chunk_size=chunk)(index).sum(0)[:, None]
