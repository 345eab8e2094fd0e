"""Pictures of `gen em`: the steps, clusters, states over time, and a smoothed series."""

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gen_latent import Fit

COLOURS = ("#2a6f97", "#d1495b", "#6a994e", "#e09f3e", "#7b5ea7", "#3d3d3d")
MUTED = "#8a8a86"


def _colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def _axes(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.subplots(rows, columns, **options)
    for each in np.atleast_1d(axes):
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=8)
    return figure, axes


def curves(fit: Fit) -> Figure:
    """The log-likelihood of each iteration; and its rise, of which that of Q is a part."""
    figure, (left, right) = _axes(8, 3, 1, 2)
    values = fit.log_likelihoods
    left.plot(range(len(values)), values, "o-", ms=3, color=_colour(0))
    left.set_title("ln p(data) after each iteration, nats", fontsize=9, loc="left")
    rises = np.maximum(np.diff(values), 1e-12)
    of_q = np.maximum([step.q_new - step.q for step in fit.steps], 1e-12)
    at = np.arange(1, len(rises) + 1)
    right.semilogy(at, rises, "o-", ms=3, color=_colour(0), label="rise of ln p(data)")
    right.semilogy(at, of_q, "o-", ms=3, color=_colour(1), label="rise of Q, never more")
    right.set_title("rise in each iteration, nats", fontsize=9, loc="left")
    right.legend(frameon=False, fontsize=8)
    for each in (left, right):
        each.set_xlabel("iteration", fontsize=8)
        each.xaxis.get_major_locator().set_params(integer=True)
    return figure


def clusters(x: Tensor, before: Any, after: Any) -> Figure:
    """Data and components before and after EM, in the plane of the data's two largest principal directions."""
    centre = x.mean(0)
    axes_ = torch.linalg.svd(x - centre, full_matrices=False).Vh[:2]
    plane = (axes_ if len(axes_) > 1 else torch.cat([axes_, torch.zeros_like(axes_)])).mT
    points = ((x - centre) @ plane).numpy()
    figure, both = _axes(8, 3.6, 1, 2, sharex=True, sharey=True)
    for axes, model, title in zip(both, (before, after), ("where EM began", "where it ended"), strict=True):
        posterior = model.posterior(x).numpy()
        shade = posterior @ np.array([_rgb(k) for k in range(posterior.shape[1])])
        axes.scatter(*points.T, s=9, c=shade.clip(0, 1), linewidths=0)
        for k, (mean, cov) in enumerate(zip(model.emission.mean, model.emission.cov, strict=True)):
            outline = _ellipse((mean - centre) @ plane, plane.mT @ cov @ plane)
            axes.plot(*outline, color=_colour(k), lw=1.5)
        axes.set_title(title, fontsize=9, loc="left")
    return figure


def _rgb(k: int) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return to_rgb(_colour(k))


def _ellipse(mean: Tensor, cov: Tensor) -> np.ndarray:
    """The outline that holds 95 % of a Gaussian in the plane."""
    angle = torch.linspace(0, 2 * math.pi, 100, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(cov)
    circle = math.sqrt(5.991) * torch.stack([angle.cos(), angle.sin()])
    return (mean[:, None] + vectors @ (values.clamp_min(0).sqrt()[:, None] * circle)).numpy()


def states(x: Tensor, posterior: Tensor) -> Figure:
    """A series, and the probability of each state over time."""
    figure, (top, bottom) = _axes(8, 4, 2, 1, sharex=True, height_ratios=(3, 2))
    top.plot(x.numpy(), lw=0.9, color=MUTED)
    top.set_title("the series", fontsize=9, loc="left")
    k = posterior.shape[1]
    labels = [f"state {i + 1}" for i in range(k)]
    bottom.stackplot(range(len(x)), posterior.T.numpy(), colors=[_colour(i) for i in range(k)], labels=labels)
    bottom.set(ylim=(0, 1))
    bottom.set_title("probability of each state, given the whole series", fontsize=9, loc="left")
    bottom.set_xlabel("time", fontsize=8)
    figure.legend(*bottom.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right lower")
    return figure


def band(y: Tensor, mean: Tensor, deviation: Tensor) -> Figure:
    """Observations, and the smoothed mean with two deviations around it, for each column (at most 6)."""
    columns = min(6, y.shape[1])
    figure, axes = _axes(8, 1 + 2.4 * columns, columns, 1, sharex=True)
    t = np.arange(len(y))
    for i, each in enumerate(np.atleast_1d(axes)):
        low, high = (mean - 2 * deviation)[:, i], (mean + 2 * deviation)[:, i]
        each.fill_between(t, low.numpy(), high.numpy(), color=_colour(0), alpha=0.25, lw=0, label="± 2 deviations")
        each.plot(t, mean[:, i].numpy(), color=_colour(0), lw=1.2, label="smoothed mean, then forecast")
        each.plot(t, y[:, i].numpy(), ".", ms=3, color=_colour(1), label="observed")
    np.atleast_1d(axes)[0].legend(frameon=False, fontsize=8, loc="upper left")
    np.atleast_1d(axes)[-1].set_xlabel("time", fontsize=8)
    return figure
