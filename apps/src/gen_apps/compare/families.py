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

from gen_apps import data
from gen_apps.diffusion.config import Optim as DiffusionOptim
from gen_apps.diffusion.config import Train as TrainDiffusion
from gen_apps.diffusion.likelihood import Likelihood, likelihood
from gen_apps.diffusion.model import Model
from gen_apps.diffusion.samplers import Sampler
from gen_apps.diffusion.train import train as train_diffusion
from gen_apps.diffusion.trained import Trained
from gen_apps.gan.config import TrainGAN
from gen_apps.gan.train import draw as draw_gan
from gen_apps.gan.train import opened
from gen_apps.gan.train import train as train_gan
from gen_apps.training import Optim, Subject
from gen_apps.vae.config import TrainVAE
from gen_apps.vae.train import train as train_vae
from gen_apps.vae.trained import TrainedVAE
from gen_apps.vae.trained import draw as draw_vae
from gen_core import Arrays
from gen_core.checkpoint import latest
from gen_core.intervals import Estimate, mean
from gen_core.runtime import generator
from gen_diffusion.explain import Counted
from gen_latent import nll

SHARED = ("data", "size", "channels", "held_out", "flip", "seed", "machine", "place")


@dataclass(frozen=True)
class Sampled:
    """What a row of the table is made of."""

    name: str
    draw: Callable[[int], tuple[Tensor, float]]
    """n -> n samples, and network evaluations per sample."""
    parameters: int = 0
    """That sampling uses."""
    bits: Callable[[Tensor], Estimate] | None = None
    """Held-out data -> bits per dimension, where there is a likelihood."""
    training: dict[str, Any] = field(default_factory=dict)
    """What training cost, in words."""


def configurations(config: Any) -> dict[str, Any]:
    """Of each family asked for: its own defaults, but for the budget, and without labels."""
    shared = {name: getattr(config, name) for name in SHARED}
    usual = {"steps": config.steps, "batch_size": config.batch_size}
    all_: dict[str, Any] = {
        "vae": TrainVAE(optim=Optim(**usual), **shared),
        "gan": TrainGAN(optim=Optim(**{**usual, "lr": TrainGAN().optim.lr}), **shared),
        "diffusion": TrainDiffusion(
            optim=DiffusionOptim(**usual, p_drop=1.0), sampler=Sampler(guidance=0.0), **shared
        ).completed(),
    }
    return {name: all_[name] for name in config.families}


def check(config: Any, training: Arrays) -> None:
    """Build the networks of each family, so that none is trained before another is found impossible."""
    of, model = Subject.of(config.data, config.size, training), Model.of(training)
    one = training[:2][0]
    for name, its in configurations(config).items():
        if name == "vae":
            its.model(of)
        elif name == "gan":
            its.networks(of)
        else:
            model.denoiser(its.network, str(its.objective.view))(one, torch.ones(len(one)))


def trained(config: Any, run: Path) -> dict[str, Sampled]:
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
                train(replace(its, out=folder))
        found[name] = opened_(folder, config)
    return found


def _count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def _spent(run: Path) -> dict[str, Any]:
    return json.loads((run / "energy.json").read_text())["training"]


def _vae(run: Path, config: Any) -> Sampled:
    of = TrainedVAE.open(run, config.machine.device)
    discrete = of.subject.levels is not None

    def bits(x: Tensor) -> Estimate:
        values = nll(of.model, x.to(of.device), 500, 100, generator=generator(config.seed, "nll"))
        return mean(values / (math.log(2) * x[0].numel()))

    return Sampled(
        "VAE",
        lambda n: (draw_vae(of.model, of.prior(), n, seed=config.seed, device=of.device), 1.0),
        _count(of.model.decoder),
        bits if discrete else None,
        _spent(run),
    )


def _gan(run: Path, config: Any) -> Sampled:
    how, net, _ = opened(run, config.machine.device)
    draw = lambda n: (draw_gan(net, how.latents, n, seed=config.seed), 1.0)
    return Sampled("GAN", draw, _count(net), None, _spent(run))


def _diffusion(run: Path, config: Any) -> Sampled:
    of = Trained.open(run, config.machine.device)
    asked = torch.zeros(1, dtype=torch.long) if of.model.classes else None  # ignored: the guidance is 0

    def draw(n: int) -> tuple[Tensor, float]:
        counted, labels = Counted(of.denoiser), None if asked is None else asked.expand(n)
        x = of.config.sampler.draw(
            counted, range(n), of.model.shape, labels, seed=config.seed, device=of.device
        )  # fmt: skip
        return x, counted.evaluations / n

    def bits(x: Tensor) -> Estimate:
        n = min(len(x), 48)
        with redirect_stdout(io.StringIO()):
            likelihood(Likelihood(
                run, n=n, probes=1, levels=20, unconditional=True, device=config.machine.device
            ))  # fmt: skip
        figure = json.loads((run / "likelihood.json").read_text())["figures"]["probability-flow ODE"]
        value, error = figure["bits/dim"]["value"], 1.96 * figure["bits/dim"]["stderr"]
        return Estimate(value, value - error, value + error, n)

    grey = data.grey_levels(config.data, config.size) is not None
    return Sampled("diffusion", draw, _count(of.denoiser), bits if grey else None, _spent(run))
