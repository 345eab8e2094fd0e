"""How the error of a particle method falls with the number of particles N: Z is unbiased, N times its variance is flat.

    rows = convergence(twisted(denoiser, obs, sigmas), counts=(10, 100, 1000), log_z=exact, generator=generator)
    plot_convergence(rows).savefig("convergence.png")

Where N var(Z / Z*) still falls, N is too small for the method: a few lucky particles carry the weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_core.intervals import Estimate, mean
from gen_diffusion.resample import Resample, systematic
from gen_diffusion.smc import FeynmanKac, Particles, smc


@dataclass(frozen=True)
class Convergence:
    """Independent runs with `n` particles each; their number is the n of the estimates."""

    n: int
    z: Estimate
    """E[Z / Z*], which is 1."""
    n_variance: Estimate
    """N E[(Z / Z* - 1)^2]."""
    n_error: Estimate
    """N E|m - m*|^2 for the weighted mean m of the particles."""


def convergence(
    model: FeynmanKac,
    counts: Sequence[int] = (10, 30, 100, 300, 1000),
    runs: int = 100,
    *,
    log_z: float | None = None,
    target: Float[Tensor, "*shape"] | None = None,
    resample: Resample = systematic,
    ess: int | float = 0.5,
    batch: int = 20_000,
    generator: Generator | None = None,
) -> list[Convergence]:
    """Errors of `runs` independent runs for each number of particles, with intervals of 95 %.

    Args:
        log_z: ln Z*; by default the mean of Z over the runs with the most particles.
        target: the true mean; by default the mean over those runs.
        batch: particles in one call of the denoiser, at most (runs are not split).
    """
    each = {n: _runs(model, n, runs, max(1, batch // n), resample, ess, generator) for n in sorted(counts)}
    last = each[max(counts)]
    reference = (last[0].logsumexp(0) - torch.tensor(runs).log()) if log_z is None else log_z
    centre = last[1].mean(0) if target is None else target
    rows = []
    for n, (estimates, means) in each.items():
        z, gap = (estimates - reference).exp(), (means - centre).flatten(1)
        rows.append(Convergence(n, mean(z), mean(n * (z - 1) ** 2), mean(n * gap.square().sum(1))))
    return rows


def _runs(
    model: FeynmanKac,
    n: int,
    runs: int,
    together: int,
    resample: Resample,
    ess: int | float,
    generator: Generator | None,
) -> tuple[Float[Tensor, "runs"], Float[Tensor, "runs ..."]]:
    """ln Z and the weighted mean of each run."""
    parts: list[Particles] = []
    for done in range(0, runs, together):
        size = min(together, runs - done)
        parts.append(smc(model, n, runs=size, resample=resample, ess=ess, generator=generator))
    return torch.cat([part.log_z for part in parts]), torch.cat([part.mean() for part in parts])


def plot_convergence(rows: Sequence[Convergence]) -> Any:
    """Three panels against N: Z / Z* about 1, N var(Z / Z*) and N times the squared error of the mean, both flat.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    titles = {"z": "Z / Z*", "n_variance": "N var(Z / Z*)", "n_error": "N E|mean error|²"}
    n = [row.n for row in rows]
    for axes, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        estimates: list[Estimate] = [getattr(row, name) for row in rows]
        values = [e.value for e in estimates]
        ends = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
        axes.errorbar(n, values, yerr=ends, marker="o", markersize=4, linewidth=1.2, capsize=3)
        axes.set(xscale="log", xlabel="particles N", title=title)
        if name == "z":
            axes.axhline(1, color="0.6", linewidth=0.8)
        else:
            axes.set_ylim(0, 1.25 * max(e.high for e in estimates))
    return figure
