"""`gen em mixture|hmm|kalman`: fit by EM, print every step, and explain what happened on one page."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich import print
from torch import Tensor

from gen_apps import pages, results
from gen_apps.em import draw, tables
from gen_apps.em.config import EMCommand, FitHMM, FitKalman, FitMixture
from gen_core import generator
from gen_core.scales import text
from gen_latent import HMM, Fit, Gaussians, LinearGaussianSSM, MixtureModel, fit_em, pad_sequences


def mixture(config: FitMixture) -> None:
    x = tables.read(config.data).flatten(0, -2)

    def start(i: int) -> MixtureModel:
        g = generator(config.seed, f"start {i}")
        return MixtureModel.start(
            Gaussians.start(x, config.components, covariance=config.covariance, floor=config.floor, generator=g)
        )

    fit = _best(config, start, x)
    found = fit.model.emission
    rows = [
        {"name": f"component {k}", "weight": weight, "mean": _values(mean), "deviation": _values(cov.diagonal().sqrt())}
        for k, (weight, mean, cov) in enumerate(zip(fit.model.weight.tolist(), found.mean, found.cov, strict=True), 1)
    ]
    _show(config, fit, len(x), rows, draw.clusters(x, fit.steps[0].model, fit.model))


def hmm(config: FitHMM) -> None:
    batch = _series(config.data)
    frames = batch.x[batch.seen.all(-1)]

    def start(i: int) -> HMM:
        g = generator(config.seed, f"start {i}")
        return HMM.start(Gaussians.start(frames, config.states, floor=config.floor, generator=g), persistence=0.9)

    fit = _best(config, start, batch)
    found = fit.model.emission
    rows = [
        {"name": f"state {k}", "stays": stays, "mean": _values(mean), "deviation": _values(cov.diagonal().sqrt())}
        for k, (stays, mean, cov) in enumerate(
            zip(fit.model.transition.diag().tolist(), found.mean, found.cov, strict=True), 1
        )
    ]
    first = int(batch.lengths[0])
    drawn = draw.states(batch.x[0, :first], fit.model.posterior(batch)[0, :first])
    _show(config, fit, int(batch.lengths.sum()), rows, drawn)


def kalman(config: FitKalman) -> None:
    batch = _series(config.data)
    fit = _best(config, lambda i: _state_space(config, batch.x, i), batch)
    first = int(batch.lengths[0])
    ahead = batch.x.new_full((config.forecast, batch.x.shape[2]), torch.nan)
    y = torch.cat([batch.x[0, :first], ahead])
    model, smoothed = fit.model, fit.model.smooth([y])
    mean = smoothed.mean[0] @ model.H.mT + model.d
    cov = model.H @ smoothed.cov[0] @ model.H.mT
    noise = model.R.diagonal()
    band = (cov.diagonal(dim1=1, dim2=2) + noise * y.isnan().all(1, keepdim=True)).sqrt()
    steps, starts = model.Q.diagonal().sqrt().tolist(), model.P.diagonal().sqrt().tolist()
    rows = [
        {"name": f"state {k}", "noise of the step": q, "deviation at the start": p}
        for k, (q, p) in enumerate(zip(steps, starts, strict=True), 1)
    ]
    rows += [{"name": f"value {k}", "noise of the observation": r} for k, r in enumerate(noise.sqrt().tolist(), 1)]
    _show(config, fit, int(batch.seen.sum()), rows, draw.band(y, mean, band))


def _state_space(config: FitKalman, x: Tensor, i: int) -> LinearGaussianSSM:
    """A level and a slope for each column, or `states` of everything; noise of a random size for each start."""
    g, p = generator(config.seed, f"start {i}"), x.shape[2]
    spread = torch.stack([v[~v.isnan()].var(correction=0) for v in x.flatten(0, 1).T]).clamp_min(1e-12)
    centre = x.flatten(0, 1).nanmean(0)
    size = 10 ** (-4 * torch.rand(2, generator=g, dtype=torch.float64))
    eye = torch.eye(p, dtype=torch.float64)
    if config.states == 0:
        f = torch.kron(eye, torch.tensor([[1.0, 1], [0, 1]], dtype=torch.float64))
        q = torch.stack([spread * size[0], spread * size[0] * 0.01], 1).flatten().diag()
        start = torch.stack([spread, spread * 0.01], 1).flatten().diag()
        m = torch.stack([x[:, 0].nanmean(0).nan_to_num(0.0), torch.zeros(p)], 1).flatten()
        h = torch.kron(eye, torch.tensor([[1.0, 0]], dtype=torch.float64))
        fixed, d = frozenset("mPFbHd"), torch.zeros(p)
    else:
        n = config.states
        f, q, start, m = 0.9 * torch.eye(n), torch.eye(n), torch.eye(n), torch.zeros(n)
        h = torch.randn(p, n, generator=g, dtype=torch.float64) * spread.sqrt()[:, None]
        fixed, d = frozenset("mP"), centre
    return LinearGaussianSSM(m, start, f, q, h, (spread * size[1]).diag(), d=d, fixed=fixed, floor=config.floor)


def _series(name: str):
    x = tables.read(name)
    return pad_sequences(x if x.ndim == 3 else [x])


def _values(x: Tensor) -> str:
    return ", ".join(f"{v:.4g}" for v in x.tolist())


def _best(config: EMCommand, start: Callable[[int], Any], data: Any) -> Fit:
    """The fit of the start that ends at the largest likelihood."""
    fits = [fit_em(start(i), data, steps=config.steps, tolerance=config.tolerance) for i in range(config.starts)]
    return max(fits, key=lambda fit: fit.log_likelihood)


def _show(config: EMCommand, fit: Fit, n: int, found: Sequence[Mapping[str, Any]], picture: Any) -> None:
    """Print and write the steps of a fit, and its page."""
    after = fit.log_likelihoods[1:]
    steps = [
        {
            "name": str(i),
            "log_likelihood": step.log_likelihood,
            "rise": rise - step.log_likelihood,
            "q": step.q,
            "q_new": step.q_new,
            "entropy": step.entropy,
        }
        for i, (step, rise) in enumerate(zip(fit.steps, after, strict=True), 1)
    ]
    total = {
        "name": "fit",
        "log_likelihood": {"value": fit.log_likelihood, "n": n, "unit": "nats"},
        "smallest_rise": {"value": fit.smallest_rise, "unit": "nats"},
        "iterations": len(fit.steps),
        "converged": str(fit.converged).lower(),
    }
    print(results.table("iteration", steps, digits=7), results.table("", [total], digits=7))
    print(results.table("found", found))
    results.write_results(config.json, f"em {config.kind}", config, [total, *found, *steps])
    columns = [name for name in dict.fromkeys(name for row in found for name in row) if name != "name"]
    out = pages.write(
        config.out or Path(f"em-{config.kind}-{Path(config.data).stem}.html"),
        "em",
        title=f"EM of a {NAMES[config.kind]} on {Path(config.data).stem}",
        kind=config.kind,
        fit=fit,
        n=n,
        steps=[[r["name"], *(f"{r[name]:,.7g}" for name in ("log_likelihood", "rise", "q", "q_new"))] for r in steps],
        curves=draw.curves(fit),
        picture=picture,
        columns=columns,
        found_rows=[[row["name"], *(text(row.get(name, "–"), 4) for name in columns)] for row in found],
        config=config,
    )
    print(f"page: {out}")


NAMES = {"mixture": "mixture", "hmm": "hidden Markov model", "kalman": "state-space model"}
