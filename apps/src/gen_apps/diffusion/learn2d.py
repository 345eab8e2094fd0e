"""`gen diffusion learn2d`: train on points in the plane, and explain what happened on one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich
import torch
from jaxtyping import Float
from torch import Tensor

from gen_apps import pages
from gen_apps.data import POINTS
from gen_apps.diffusion import build, lesson
from gen_apps.diffusion.config import Learn2d
from gen_apps.diffusion.flags import Objective, Sampler
from gen_apps.energy import metered
from gen_apps.results import Row, figure, table, write_results
from gen_core import EMA, Arrays, Loader, Progress, Trainer, generator, seed_all
from gen_core.ema import power
from gen_core.intervals import mean
from gen_core.scales import text
from gen_core.schedule import warmup_cosine
from gen_diffusion import MLP, GaussianMixture, Preconditioned, grid_mixture, initial_noise, keyed
from gen_diffusion.explain import evaluations, excess_loss, log_density_gap, trajectory
from gen_diffusion.loss import denoising_loss
from gen_diffusion.view import View

SAMPLERS = {  # by the name on the page
    "Euler = DDIM": Sampler(method="euler"),
    "Heun": Sampler(method="heun"),
    "Heun, flow time": Sampler(method="flow-heun"),
    "DPM-Solver++ 2M": Sampler(method="dpmpp-2m"),
    "DPM-Solver++ 2M SDE": Sampler(method="dpmpp-2m-sde"),
    "DDIM, η = 0.5": Sampler(method="ddim", eta=0.5),
    "ancestral (DDPM)": Sampler(method="ancestral"),
    "Heun with churn": Sampler(method="churn"),
}
LEVELS = Objective(level_mean=-2.6, level_std=1.6)  # down to the width of the grid's Gaussians, an eleventh of all
WALKERS = 5  # whose paths are drawn
SPREAD = 0.5  # standard deviation of every set of points


@torch.no_grad()
def learn2d(config: Learn2d) -> None:
    x0, _ = POINTS[config.name](100_000, generator(config.seed, "points"))
    exact = grid_mixture(SPREAD) if config.name == "grid" else None
    with metered(config.place, config.steps * config.batch_size) as cost:
        denoiser = _trained(config, x0, "F")
    others = {view: denoiser if view == "F" else _trained(config, x0, view) for view in config.views}

    drawn, lines, walks = {"data": (x0[: config.n], "")}, [], {}
    for name, chosen in SAMPLERS.items():
        sampler = build.within(chosen.completed(), config.budget)
        assert sampler is not None, "Learn2d refuses a budget that is too small"
        step, sigmas, weight = build.sampler_parts(sampler)
        start = sigmas[0].float() * initial_noise(range(WALKERS), (2,), config.seed)
        walks[name] = (trajectory(denoiser, start, sigmas, step, generator=keyed(config.seed, range(WALKERS))), sigmas)
        x = build.draw_samples(sampler, denoiser, range(config.n), (2,), None, seed=config.seed, batch=config.n)
        gap, evaluated = _gap(exact, x, config.seed), evaluations(step, sigmas, weight)
        drawn[name] = (x, f"{evaluated} evaluations" + "".join(f", gap {text(value, 2)}" for value in gap.values()))
        lines.append({"name": name, "steps": sampler.steps, "evaluations": evaluated, **gap})
    compared = [{"name": view, **_figures(other, exact, x0, config)} for view, other in others.items()]

    random = generator(config.seed, "page")
    parameters = sum(p.numel() for p in denoiser.parameters())
    out = pages.write(
        config.out or Path(f"learn2d-{config.name}.html"),
        "learn2d",
        title=f"Diffusion on {config.name}, from noise to samples",
        config=config,
        parameters=parameters,
        points=len(x0),
        energy=cost.facts["energy"],
        noise=lesson.NOISE,
        sampled=[_head("sampler", lines), *_cells(lines)],
        head=_head("view", compared),
        views=_cells(compared),
        **lesson.pictures(denoiser, exact, x0, walks, drawn, SPREAD, random),
    )
    for title, rows in (("sampler", lines), ("view", compared)):
        if rows:
            rich.print(table(title, rows))
    views = [row | {"name": f"view {row['name']}"} for row in compared]
    write_results(config.json, "diffusion learn2d", config, [*lines, *views])
    print(f"training: energy {cost.facts['energy']}; page {out}")


def _head(what: str, rows: Sequence[Row]) -> list[str]:
    """The names of the entries of rows for the page, with their units."""
    entries = {} if not rows else {name: entry for name, entry in rows[0].items() if name != "name"}
    unit = lambda entry: f", {entry['unit']}" if isinstance(entry, dict) and entry.get("unit") else ""
    return [what, *(name + unit(entry) for name, entry in entries.items())]


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    """The entries of rows for the page."""
    return [[text(entry) for entry in row.values()] for row in rows]


def _gap(exact: GaussianMixture | None, x: Tensor, seed: int) -> dict[str, Row]:
    """The entry of the gap to the exact density; none where that is not known."""
    if exact is None:
        return {}
    gap, error = log_density_gap(exact, x, generator(seed, "gap"))
    return {"gap": figure(gap, interval=(gap - 1.96 * error, gap + 1.96 * error), n=len(x), unit="nats")}


def _figures(
    denoiser: Preconditioned, exact: GaussianMixture | None, x0: Tensor, config: Learn2d
) -> dict[str, Mapping[str, Any]]:
    """Error of a denoiser over the training levels: beside the exact one, or by its own loss."""
    random = generator(config.seed, "views")
    z, noise = torch.randn(len(x0), generator=random), torch.randn(x0.shape, generator=random)
    task = build.task(LEVELS.completed(), denoiser, 0)
    if exact is None:
        sigma = task.levels(z)
        return {"loss": mean(task.weight(sigma) * denoising_loss(denoiser, x0, sigma, noise)).figure()}
    loss = excess_loss(denoiser, exact, x0, task.levels(z), noise, sigma_data=SPREAD)
    sampler = Sampler(method="heun").completed()
    heun = build.draw_samples(sampler, denoiser, range(config.n), (2,), None, seed=config.seed, batch=config.n)
    figures = {"excess of the loss": mean(loss.excess).figure(), "floor": mean(loss.floor).figure()}
    return {**figures, **_gap(exact, heun, config.seed)}


def _trained(config: Learn2d, x0: Float[Tensor, "n 2"], view: View) -> Preconditioned:
    """The averaged weights, on the CPU."""
    seed_all(config.seed, "weights")
    denoiser = Preconditioned(MLP(2, config.width, config.blocks), SPREAD, view)
    ema = EMA("denoiser", power(0.10))
    trainer = Trainer(
        build.task(LEVELS.completed(), denoiser, 0, lr=config.lr),
        seed=config.seed,
        device=config.device,
        clip=1.0,
        schedule=warmup_cosine(config.steps // 20, config.steps),
        callbacks=[ema, Progress(config.steps)],
    )
    with torch.enable_grad():
        trainer.fit(Loader(Arrays(x0), config.batch_size, seed=config.seed), config.steps)
    denoiser.cpu().load_state_dict(ema.average)
    return denoiser.eval()
