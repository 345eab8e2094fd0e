"""The three families, trained by their own commands in folders of one run, and what each draws."""

import io
import json
import math
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen_apps.compare.config import Compare
from gen_apps.data import Subject
from gen_apps.diffusion import build as build_diffusion
from gen_apps.diffusion.config import Likelihood, TrainDiffusion
from gen_apps.diffusion.likelihood import likelihood
from gen_apps.diffusion.train import train as train_diffusion
from gen_apps.diffusion.trained import TrainedDiffusion
from gen_apps.gan import build as build_gan
from gen_apps.gan.config import TrainGAN
from gen_apps.gan.train import train as train_gan
from gen_apps.gan.trained import TrainedGAN
from gen_apps.identity import train_in
from gen_apps.recipes import defaults
from gen_apps.training import training_cost
from gen_apps.vae import build as build_vae
from gen_apps.vae.config import TrainVAE
from gen_apps.vae.train import train as train_vae
from gen_apps.vae.trained import TrainedVAE
from gen_core import Arrays
from gen_core.checkpoint import latest
from gen_core.intervals import Estimate, mean
from gen_core.runtime import generator
from gen_diffusion.explain import Counted
from gen_latent import nll

SHARED = ("data", "size", "channels", "held_out", "classes", "flip", "seed", "machine", "place")
PIXELS = 60_000  # of held-out data whose likelihood under the VAE is bounded, by 500 draws each


@dataclass(frozen=True)
class Sampled:
    """A sampler and its facts: a row of the table."""

    name: str
    draw: Callable[[int], tuple[Tensor, float]]
    """n -> n samples, and network evaluations per sample."""
    parameters: int = 0
    """That sampling uses."""
    bits: Callable[[Tensor], Estimate] | None = None
    """Held-out data -> bits per dimension, where there is a likelihood."""
    training: dict[str, Any] = field(default_factory=dict)
    """Cost of training, in words."""


def configurations(config: Compare) -> dict[str, Any]:
    """Of each family asked for: its own defaults for the data, but for the budget, and without labels."""
    shared = {name: getattr(config, name) for name in SHARED}
    budget = {"steps": config.steps, "batch_size": config.batch_size}
    vae, gan = defaults(TrainVAE, **shared), defaults(TrainGAN, **shared)
    diffusion = defaults(TrainDiffusion, **shared)
    all_: dict[str, Any] = {
        "vae": replace(vae, conditional=False, optim=replace(vae.optim, **budget)),
        "gan": replace(gan, conditional=False, optim=replace(gan.optim, **budget)),
        "diffusion": replace(
            diffusion,
            optim=replace(diffusion.optim, **budget, p_drop=1.0),
            sampler=replace(diffusion.sampler, guidance=0.0),
        ),
    }
    return {name: all_[name] for name in config.families}


def check(config: Compare, training: Arrays) -> None:
    """Build the networks of each family, so that none is trained before another is found impossible."""
    subject, two = Subject.of(config.data, config.size, training), training[:2][0]
    for name, its in configurations(config).items():
        if name == "vae":
            build_vae.model(its, subject, training[:30][0])
        elif name == "gan":
            build_gan.networks(its, subject)
        else:
            its = its.completed()
            build_diffusion.denoiser(its.network, its.objective, subject, 1.0)(two, torch.ones(len(two)))


def trained(config: Compare, run: Path) -> dict[str, Sampled]:
    """The families asked for, trained to `config.steps` if they are not yet."""
    make = {"vae": (_vae, train_vae), "gan": (_gan, train_gan), "diffusion": (_diffusion, train_diffusion)}
    found = {}
    for name, its in configurations(config).items():
        (opened_, train), folder = make[name], run / name
        newest = latest(folder)
        if newest is None or newest.name != f"step-{config.steps:06d}" or not (folder / "report.html").is_file():
            print(f"training {name}: {config.steps} steps of {config.batch_size} samples")
            with redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                train_in(train, replace(its, out=folder))
        found[name] = opened_(folder, config)
    return found


def _count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def _vae(run: Path, config: Compare) -> Sampled:
    trained = TrainedVAE.open(run, config.machine.device)

    def bits(x: Tensor) -> Estimate:
        x = x[: max(48, PIXELS // x[0].numel())]
        values = nll(trained.network, x.to(trained.device), 500, 100, generator=generator(config.seed, "nll"))
        return mean(values / (math.log(2) * x[0].numel()))

    return Sampled(
        "VAE",
        lambda n: (trained.sample(n, seed=config.seed), 1.0),
        _count(trained.network.decoder),
        None if trained.facts["levels"] is None else bits,
        training_cost(run),
    )


def _gan(run: Path, config: Compare) -> Sampled:
    trained = TrainedGAN.open(run, config.machine.device)
    draw = lambda n: (trained.sample(n, seed=config.seed), 1.0)
    return Sampled("GAN", draw, _count(trained.network), None, training_cost(run))


def _diffusion(run: Path, config: Compare) -> Sampled:
    trained = TrainedDiffusion.open(run, config.machine.device)

    def draw(n: int) -> tuple[Tensor, float]:
        labels = torch.zeros(n, dtype=torch.long) if trained.classes else None  # ignored: the guidance is 0
        counted = Counted(trained.network)
        x = replace(trained, network=counted).sample(n, labels, seed=config.seed)
        return x, counted.evaluations / n

    def bits(x: Tensor) -> Estimate:
        n = min(len(x), 48)
        with redirect_stdout(io.StringIO()):
            likelihood(Likelihood(
                run, n=n, probes=1, levels=20, unconditional=True, device=config.machine.device
            ))  # fmt: skip
        figure = json.loads((run / "likelihood.json").read_text())["rows"][0]["bits/dim"]
        low, high = figure["interval"]
        return Estimate(figure["value"], low, high, n)

    grey = trained.facts["levels"] is not None
    return Sampled("diffusion", draw, _count(trained.network), bits if grey else None, training_cost(run))
