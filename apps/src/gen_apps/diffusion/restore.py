"""`gen diffusion restore`."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from torch import Tensor

from gen_apps import pages
from gen_apps.diffusion import drawings, tasks
from gen_apps.diffusion.config import Restore
from gen_apps.diffusion.trained import TrainedDiffusion
from gen_apps.energy import Cost, metered
from gen_apps.results import Row, figure, table, write_results
from gen_apps.samples import requested_labels
from gen_core.callbacks import bar
from gen_core.files import whole
from gen_core.intervals import mean
from gen_core.runtime import generator
from gen_diffusion import (
    Gaussian,
    Linear,
    Observation,
    covered,
    daps,
    ddnm,
    ddrm,
    dps,
    initial_noise,
    karras,
    keyed,
    mgdm,
    pigdm,
    psnr,
    spread_over_error,
    ssim,
)
from gen_diffusion.explain import Counted

METHODS: dict[str, Callable[..., Tensor]] = {
    "dps": dps, "pigdm": pigdm, "ddrm": ddrm, "ddnm": ddnm, "daps": daps, "mgdm": mgdm
}  # fmt: skip
SHOWN = ("PSNR, mean", "SSIM, mean", "truth among the draws", "spread over error")  # in a terminal
SIZED = ("dps", "pigdm", "daps")  # methods that know the standard deviation of the data


def restore(config: Restore) -> None:
    trained = TrainedDiffusion.open(config.run, config.device)
    if len(trained.shape) != 3:
        raise ValueError(f"{config.run} was trained on points; restore needs a run on pictures")
    truth, A, y = _observed(config, trained)
    denoiser = Counted(trained.network)
    with bar("restoring", len(y) * config.draws) as advance, metered(config.place, len(y) * config.draws) as cost:
        start = time.perf_counter()
        draws = _draws(config, trained, denoiser, A, y, advance)
        seconds = (time.perf_counter() - start) / (len(y) * config.draws)
    least = A.pinv(y)
    rows: list[dict[str, Any]] = [{"name": config.method}]
    if truth is not None:
        rows[0] |= _near(draws.mean(1), truth, "mean") | _near(draws[:, 0], truth, "one draw") | _sure(draws, truth)
        rows.append({"name": "least squares"} | _near(least, truth, "mean"))
    rows[0] |= _spent(draws, denoiser.evaluations, seconds, cost)
    files = _write(config, trained, truth, A, y, least, draws, rows, cost)
    write_results(config.json, "diffusion restore", config, rows)
    rich.print(table("restored", rows, [name for name in SHOWN if name in rows[0]]))
    print("\n".join([*(f"{file}" for file in files), f"energy {cost.facts['energy']}"]))


def _observed(config: Restore, trained: TrainedDiffusion) -> tuple[Tensor | None, Linear, Tensor]:
    """The truth where it is known, (n, c, h, w), the operator, and what was seen of each."""
    if config.observed:
        A, y = tasks.seen(config, trained.shape)
        return None, A, y
    A = tasks.operator(config, trained.shape)
    truth = tasks.picture(config.image, trained.shape) if config.image else _held_out(config, trained)
    return truth, A, Gaussian(config.noise).draw(A(truth), generator(config.seed, "observation"))


def _held_out(config: Restore, trained: TrainedDiffusion) -> Tensor:
    half = trained.data()[1]
    if config.n > len(half):
        raise ValueError(f"--n must be at most {len(half)}, the held-out pictures, got {config.n}")
    return half[torch.randperm(len(half), generator=generator(config.seed, "restore"))[: config.n]][0]


def _draws(
    config: Restore, trained: TrainedDiffusion, denoiser: Any, A: Linear, y: Tensor, advance: Callable[[int], object]
) -> Tensor:
    """(n, draws, c, h, w): draw j of picture i is a function of the seed, i and j."""
    few = config.method == "mgdm"
    sigmas = karras(config.steps or (25 if few else 100), 0.01, 80.0)
    options = {"sigma_data": trained.network.sigma_data} if config.method in SIZED else {}
    done: list[Tensor] = []
    for part in torch.arange(len(y) * config.draws).split(config.batch):
        labels = requested_labels(config.label, len(part), trained.classes) if config.label is not None else None
        obs = Observation(A, y[part // config.draws].to(trained.device), Gaussian(config.noise))
        x = (sigmas[0] * initial_noise(part.tolist(), trained.shape, config.seed)).to(trained.device, torch.float32)
        with torch.no_grad():
            x0 = METHODS[config.method](
                partial(denoiser, **trained.conditions(labels)), obs, x, sigmas,
                generator=keyed(config.seed, part.tolist()), **options,
            )  # fmt: skip
        done.append(x0.cpu())
        advance(int(part[-1]) + 1)
    return torch.cat(done).unflatten(0, (len(y), config.draws))


def _near(x: Tensor, truth: Tensor, name: str) -> dict[str, Any]:
    x = x.clamp(-1, 1)  # as it is shown
    return {f"PSNR, {name}": _mean(psnr(x, truth), "dB"), f"SSIM, {name}": _mean(ssim(x, truth))}


def _sure(draws: Tensor, truth: Tensor) -> dict[str, Any]:
    return {
        "truth among the draws": _mean(covered(draws, truth)),
        "spread over error": _mean(spread_over_error(draws, truth)),
    }


def _spent(draws: Tensor, evaluations: int, seconds: float, cost: Cost) -> dict[str, Any]:
    n = draws.shape[0] * draws.shape[1]
    return {
        "spread": _mean(draws.var(1).flatten(1).mean(1).sqrt()),
        "evaluations": evaluations / n,
        "s/draw": figure(seconds, n=n, unit="s"),
        "J/draw": cost.per_sample,
    }


def _mean(values: Tensor, unit: str = "1") -> Row:
    """With an interval over the pictures, where there are several."""
    return mean(values).figure(unit) if len(values) > 1 else figure(values.item(), n=1, unit=unit)


def _write(
    config: Restore, trained: TrainedDiffusion, truth: Tensor | None, A: Linear, y: Tensor, least: Tensor,
    draws: Tensor, rows: list[dict[str, Any]], cost: Cost,
) -> list[Path]:  # fmt: skip
    """Arrays and the page."""
    out = config.out or trained.run.path / f"restore-{config.task}-{config.method}"
    arrays: dict[str, Any] = {
        "y": y,
        "draws": draws,
        "mean": draws.mean(1),
        "spread": draws.std(1),
        "least_squares": least,
    }
    if truth is not None:
        arrays["truth"] = truth
    npz, html = (out.with_name(out.name + end) for end in (".npz", ".html"))
    with whole(npz) as part:
        np.savez(part, **arrays)
    columns = {} if truth is None else {"truth": truth}
    columns |= {"seen": tasks.shown(config.task, A, y), "least squares": least, "mean": draws.mean(1)}
    pages.write(
        html,
        "restored",
        title=f"{config.task.capitalize()} by {config.method}, {trained.run.path.resolve().name}",
        config=config,
        step=trained.step,
        known=truth is not None,
        measured=y[0].numel(),
        of=int(np.prod(trained.shape)),
        right=(config.draws - 1) / (config.draws + 1),
        sheet=drawings.restored(columns, draws),
        columns=[name for name in rows[0] if name != "name"],
        rows=rows,
        cost=cost.facts,
    )
    return [npz, html]
