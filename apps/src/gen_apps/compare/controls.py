"""Controls of the comparison: a mixture of Gaussians, a memoriser and a collapsed sampler."""

import torch
from torch import Tensor

from gen_apps.compare.families import Sampled
from gen_core.runtime import generator
from gen_diffusion.mixture import fit_mixture

NOISE = 0.04  # of the memoriser, on data in [-1, 1]


def mixture(x: Tensor, seed: int) -> Sampled:
    """A mixture of 30 Gaussians."""
    fit = fit_mixture(x, 30, seed)

    def draw(n: int) -> tuple[Tensor, float]:
        points, _ = fit.sample(n)
        order = torch.randperm(n, generator=generator(seed, "order"))  # they come sorted by component
        return torch.from_numpy(points).float()[order].reshape(n, *x.shape[1:]), 0.0

    size = sum(part.size for part in (fit.means_, fit.covariances_, fit.weights_))
    return Sampled(f"GMM-{fit.n_components}", draw, size)


def memoriser(x: Tensor, seed: int) -> Sampled:
    """Training data with a little noise: what a good distance alone cannot tell from a good model."""

    def draw(n: int) -> tuple[Tensor, float]:
        return x[:n] + NOISE * torch.randn(n, *x.shape[1:], generator=generator(seed, "memoriser")), 0.0

    return Sampled("memoriser", draw)


def collapsed(x: Tensor, y: Tensor | None, seed: int) -> Sampled:
    """Real data of half of the classes, or of one half of the plane of largest variance: good samples, few kinds."""
    if y is not None and len(y.unique()) > 1:
        kept = y < (len(y.unique()) + 1) // 2
    else:
        flat = x.flatten(1) - x.flatten(1).mean(0)
        _, _, v = torch.pca_lowrank(flat, q=1)
        kept = (flat @ v)[:, 0] > 0
    few = x[kept]
    return Sampled("collapsed", lambda n: (few[torch.arange(n) % len(few)], 0.0))
