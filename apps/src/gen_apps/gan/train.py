"""`gen gan train` and `gen gan sample`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen_apps.data import loader
from gen_apps.drawn import BLOCK, RunPath, asked, blocks, named, write
from gen_apps.energy import Place, metered
from gen_apps.gan.config import TrainGAN
from gen_apps.identity import placed, read
from gen_apps.training import fit, leave, subject, weights
from gen_core import Run, pictures, seed_all
from gen_core.runtime import generator
from gen_core.summary import summary
from gen_latent.latents import slerp


@torch.no_grad()
def draw(net: nn.Module, latents: int, n: int, label: Tensor | None = None, *, seed: int = 0) -> Tensor:
    """`n` samples on the CPU; pictures within [-1, 1]."""
    device = next(net.parameters()).device

    def block(number: int, label: Tensor | None) -> Tensor:
        z = torch.randn(BLOCK, latents, generator=generator(seed, "latents", number)).to(device)
        x = net(z, **named(label, device)).cpu()
        return x.clamp(-1, 1) if x.ndim == 4 else x

    return blocks(n, label, block)


def train(config: TrainGAN) -> None:
    config, run = placed(config, "gan train")
    training, held_out, of = config.halves()
    seed_all(config.seed, "weights")
    net, discriminator = config.networks(of)
    one: dict[str, Any] = {"label": torch.zeros(1, dtype=torch.long)} if config.conditional else {}
    parts = ((net, torch.zeros(1, config.latents)), (discriminator, torch.zeros(1, *of.shape)))
    layers = "\n\n".join(f"{summary(part, x, **one)}" for part, x in parts)
    classes = torch.arange(50) % max(1, of.classes) if config.conditional else None
    y = held_out.tensors[-1] if config.conditional else None
    trainer, ema = fit(
        "gan train", config, run, config.task(net, discriminator, of),
        loader(config, training),
        lambda n: draw(net, config.latents, n, classes, seed=config.seed),
        averaged="generator", clip=None, model=of, layers=layers,
    )  # fmt: skip
    if trainer.rank == 0:
        with ema.swapped():
            _walk(run, net, config, classes)
            leave(config, run, lambda n: draw(net, config.latents, n, y, seed=config.seed), training, held_out, y)


@torch.no_grad()
def _walk(run: Path, net: nn.Module, config: TrainGAN, classes: Tensor | None) -> None:
    """Eight ways between two draws of the noise, one a row."""
    device = next(net.parameters()).device
    ends = torch.randn(2, 8, config.latents, generator=generator(config.seed, "ends")).to(device)
    if config.latents > 1:
        way = slerp(ends[0], ends[1], torch.linspace(0, 1, 10, device=device)).transpose(0, 1).flatten(0, 1)
        x = net(way, **named(None if classes is None else classes[:8].repeat_interleave(10), device))
        if x.ndim == 4:
            pictures.save(run / "pictures" / "ways between two draws of the noise.png", x, columns=10)


@dataclass(frozen=True)
class SampleGAN:
    """Draw samples of a trained run: a picture, and an .npz file with the arrays x and label."""

    run: RunPath
    """Directory of the run."""
    n: int = 64
    """Samples."""
    label: int | None = None
    """Class of all samples, of a conditional model; by default the classes take turns."""
    seed: int = 0
    """Sample i is a function of the seed, i and its label alone, whatever n."""
    device: str = "auto"
    place: Place = field(default_factory=Place)
    out: Path | None = None
    """Where to write, without suffix; by default sample-seed-SEED in the run."""

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"--n must be at least 1 sample, got {self.n}")


def sample(config: SampleGAN) -> None:
    trained, net, step = opened(config.run, config.device)
    labels = asked(config.label, config.n, subject(Run(config.run)).classes if trained.conditional else 0)
    with metered(config.place, config.n) as cost:
        x = draw(net, trained.latents, config.n, labels, seed=config.seed)
    write(Run(config.run), step, config, x, labels, cost)


def opened(path: Path, device: str = "auto") -> tuple[TrainGAN, nn.Module, int]:
    """The configuration, the averaged generator and the step of a run."""
    run = Run.open(path)
    config = read(run, TrainGAN, "gan train")
    net, _ = config.networks(subject(run))
    step, _ = weights(run, "gan train", device, net)
    return config, net, step
