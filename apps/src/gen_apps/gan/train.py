"""`gen gan train` and `gen gan sample`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen_apps.data import loader
from gen_apps.gan import build
from gen_apps.gan.config import SampleGAN, TrainGAN
from gen_apps.gan.trained import TrainedGAN, draw
from gen_apps.samples import requested_labels, write_pictures
from gen_apps.training import finish_run, fit
from gen_core import Training, pictures, quality, seed_all
from gen_core.ema import power
from gen_core.runtime import generator
from gen_core.summary import summary
from gen_latent.latents import slerp


def train(config: TrainGAN, run: Path) -> None:
    training, held_out, subject = build.halves(config)
    seed_all(config.seed, "weights")
    net, discriminator = build.networks(config, subject)
    one: dict[str, Any] = {"label": torch.zeros(1, dtype=torch.long)} if config.conditional else {}
    parts = ((net, torch.zeros(1, config.latents)), (discriminator, torch.zeros(1, *subject.shape)))
    turns = torch.arange(50) % max(1, subject.classes) if config.conditional else None
    y = held_out.tensors[-1] if config.conditional else None

    def preview(t: Training) -> None:
        if t.rank == 0:
            x = draw(net, config.latents, 50, turns, seed=config.seed)
            pictures.save(run / "samples" / f"step-{t.step:06d}.png", x, columns=10)

    trainer, averaged = fit(
        config, run, build.task(config, net, discriminator, subject),
        loader(config, training), network="generator", facts=asdict(subject),
        layers="\n\n".join(f"{summary(part, x, **one)}" for part, x in parts),
        preview=preview, ema=power(config.optim.ema),
    )  # fmt: skip
    if trainer.rank == 0:
        n = len(held_out)
        with averaged():
            _walk(run, net, config, turns)
            finish_run(
                config, run, lambda: draw(net, config.latents, n, y, seed=config.seed), n,
                lambda x: quality.assess(x, y, training, held_out), labels=y,
            )  # fmt: skip


@torch.no_grad()
def _walk(run: Path, net: nn.Module, config: TrainGAN, turns: Tensor | None) -> None:
    """Draw eight ways between two draws of the noise, one a row."""
    device = next(net.parameters()).device
    ends = torch.randn(2, 8, config.latents, generator=generator(config.seed, "ends")).to(device)
    if config.latents > 1:
        way = slerp(ends[0], ends[1], torch.linspace(0, 1, 10, device=device)).transpose(0, 1).flatten(0, 1)
        x = net(way, **({} if turns is None else {"label": turns[:8].repeat_interleave(10).to(device)}))
        if x.ndim == 4:
            pictures.save(run / "pictures" / "ways between two draws of the noise.png", x, columns=10)


def sample(config: SampleGAN) -> None:
    trained = TrainedGAN.open(config.run, config.device)
    labels = requested_labels(config.label, config.n, trained.classes)
    write_pictures(config, trained, labels, lambda: trained.sample(config.n, labels, seed=config.seed))
