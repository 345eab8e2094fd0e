"""`gen diffusion learn2d`: train on points in the plane, and explain what happened on one page."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import rich
import torch
import tyro
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from gen_apps import page
from gen_apps.data import POINTS
from gen_apps.diffusion import lesson
from gen_apps.diffusion.objective import Objective
from gen_apps.diffusion.samplers import Sampler
from gen_apps.energy import Place, metered
from gen_core import EMA, Arrays, Loader, Progress, Trainer, generator, seed_all
from gen_core.ema import power
from gen_core.schedule import warmup_cosine
from gen_diffusion import MLP, GaussianMixture, Preconditioned, grid_mixture, initial_noise, keyed
from gen_diffusion.explain import evaluations, excess_loss, log_density_gap, trajectory
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


@dataclass(frozen=True)
class Learn2d:
    """Train on 2-D points, and write one page that shows what diffusion is: noise, score, samplers, what they cost."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = "grid"
    """grid (25 Gaussians, whose exact denoiser is known), moons, rings or swiss-roll."""
    steps: int = 4000
    """Updates."""
    batch_size: int = 512
    """Points per update."""
    lr: float = 3e-3
    """Peak learning rate."""
    width: int = 64
    """Features of the network."""
    blocks: int = 3
    """Residual blocks of the network."""
    budget: int = 40
    """Network evaluations of each sampler, which decide its number of steps."""
    n: int = 4000
    """Samples of each sampler."""
    views: tuple[View, ...] = ()
    """Train once for each of these views as well, and list how far each is from the exact denoiser (or how well its
    loss does)."""
    seed: int = 0
    device: str = "auto"
    place: Place = field(default_factory=Place)
    out: Path | None = None
    """Page to write; by default learn2d-NAME.html."""

    def __post_init__(self):
        if self.name not in POINTS:
            raise ValueError(f"NAME must be one of {', '.join(POINTS)}, got {self.name}")
        for name, least in (("steps", 1), ("batch_size", 1), ("blocks", 1), ("budget", 4), ("n", 2), ("width", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"--lr must be positive, got {self.lr}")


@torch.no_grad()
def learn2d(config: Learn2d) -> None:
    x0, _ = POINTS[config.name](100_000, generator(config.seed, "points"))
    exact = grid_mixture(SPREAD) if config.name == "grid" else None
    with metered(config.place, config.steps * config.batch_size) as cost:
        denoiser = _trained(config, x0, "F")
    others = {view: denoiser if view == "F" else _trained(config, x0, view) for view in config.views}

    drawn, lines, walks = {"data": (x0[: config.n], "")}, [], {}
    for name, asked in SAMPLERS.items():
        sampler = asked.completed().within(config.budget)
        assert sampler is not None, "Learn2d refuses a budget that is too small"
        step, sigmas, weight = sampler.parts()
        start = sigmas[0].float() * initial_noise(range(WALKERS), (2,), config.seed)
        walks[name] = (trajectory(denoiser, start, sigmas, step, generator=keyed(config.seed, range(WALKERS))), sigmas)
        x = sampler.draw(denoiser, range(config.n), (2,), None, seed=config.seed, batch=config.n)
        gap, asks = _gap(exact, x, config.seed), evaluations(step, sigmas, weight)
        drawn[name] = (x, f"{asks} evaluations" + f", gap {gap}" * bool(exact))
        lines.append([name, sampler.steps, asks, *[gap] * bool(exact)])
    head = ["view", *["excess of the loss", "floor", "gap of Heun, nats"] * bool(exact), *["loss"] * (not exact)]
    compared = [[view, *_figures(other, exact, x0, config)] for view, other in others.items()]

    random = generator(config.seed, "page")
    parameters = sum(p.numel() for p in denoiser.parameters())
    out = page.write(
        config.out or Path(f"learn2d-{config.name}.html"),
        f"Diffusion on {config.name}, from noise to samples",
        page.text(
            f"""
            A network of {parameters:,} weights was trained for {config.steps:,} steps of {config.batch_size} points to
            remove noise from {len(x0):,} points of “{config.name}”. This page shows what it learned and how samples
            are made of it. Training took {cost.facts["energy"]}. Seed {config.seed}.
            """
        ),
        lesson.noise(x0, SPREAD, random),
        lesson.field(denoiser, exact, x0, SPREAD, random),
        lesson.denoiser(denoiser, exact, x0, SPREAD, random),
        lesson.reverse(walks, x0, SPREAD),
        lesson.final(drawn, lines, exact is not None, SPREAD),
        lesson.views(head, compared) if compared else "",
    )
    for title, rows in ((["sampler", "steps", "evaluations", *["gap, nats"] * bool(exact)], lines), (head, compared)):
        if rows:
            shown = Table(*title, box=None, pad_edge=False)
            for row in rows:
                shown.add_row(*map(str, row))
            rich.print(shown)
    print(f"training: energy {cost.facts['energy']}; page {out}")


def _gap(exact: GaussianMixture | None, x: Tensor, seed: int) -> str:
    if exact is None:
        return ""
    gap, error = log_density_gap(exact, x, generator(seed, "gap"))
    return f"{gap:.2f} ± {2 * error:.2f}"


def _figures(denoiser: Preconditioned, exact: GaussianMixture | None, x0: Tensor, config: Learn2d) -> list[str]:
    """How good a denoiser is, over the training levels: beside the exact one, or by its own loss."""
    random = generator(config.seed, "views")
    z, noise = torch.randn(len(x0), generator=random), torch.randn(x0.shape, generator=random)
    task = LEVELS.completed().task(denoiser, 0)
    if exact is None:
        return [f"{task.loss(x0, task.levels(z), noise):.4f}"]
    loss = excess_loss(denoiser, exact, x0, task.levels(z), noise, sigma_data=SPREAD)
    sampler = Sampler(method="heun").completed()
    heun = sampler.draw(denoiser, range(config.n), (2,), None, seed=config.seed, batch=config.n)
    return [f"{loss.excess.mean():.4f}", f"{loss.floor.mean():.4f}", _gap(exact, heun, config.seed)]


def _trained(config: Learn2d, x0: Float[Tensor, "n 2"], view: View) -> Preconditioned:
    """The averaged weights, on the CPU."""
    seed_all(config.seed, "weights")
    denoiser = Preconditioned(MLP(2, config.width, config.blocks), SPREAD, view)
    ema = EMA("denoiser", power(0.10))
    trainer = Trainer(
        LEVELS.completed().task(denoiser, 0, lr=config.lr),
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
