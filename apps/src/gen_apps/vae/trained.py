"""A run of `gen vae train`, ready for use, and how samples are drawn of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen_apps.drawn import BLOCK, blocks, named
from gen_apps.identity import read
from gen_apps.training import Subject, subject, weights
from gen_apps.vae.config import TrainVAE
from gen_core import Run
from gen_core.checkpoint import load_tensors, save_tensors
from gen_core.runtime import generator
from gen_latent import VAE, Mixture

AGGREGATE = "aggregate.safetensors"


def aggregate(vae: VAE, x: Tensor, label: Tensor | None, config: TrainVAE) -> Mixture:
    """A mixture fitted to draws of all posteriors, five of each."""
    q = vae.encode(x, **named(label))
    z = torch.cat([q.sample(generator(config.seed, "codes", i)) for i in range(5)])
    return Mixture.fitted(z, min(config.components, len(x) // 4), config.seed)


@torch.no_grad()
def draw(
    vae: VAE, prior: Any, n: int, label: Tensor | None = None, *, noise: bool = True, seed: int = 0, device: Any = "cpu"
) -> Tensor:
    """`n` samples on the CPU: latents of `prior`, then draws of the likelihood, or its means without `noise`."""

    def block(number: int, label: Tensor | None) -> Tensor:
        z = prior.sample(BLOCK, generator(seed, "latents", number)).to(device)
        p = vae.decode(z, **named(label, device))
        return (p.sample(generator(seed, "likelihood", number)) if noise else p.mean).cpu()

    return blocks(n, label, block)


@dataclass(frozen=True)
class TrainedVAE:
    """The averaged weights of a run's newest checkpoint."""

    run: Run
    config: TrainVAE
    subject: Subject
    model: VAE
    step: int
    device: torch.device

    @classmethod
    def open(cls, path: Path, device: str = "auto") -> "TrainedVAE":
        run = Run.open(path)
        config = read(run, TrainVAE, "vae train")
        of = subject(run)
        model = config.model(of)
        step, where = weights(run, "vae train", device, model)
        return cls(run, config, of, model, step, where)

    def prior(self, kind: str = "aggregate") -> Any:
        """Where the latents of samples come from."""
        if kind == "own":
            return self.model.prior
        file = self.run.path / AGGREGATE
        if not file.is_file():
            raise FileNotFoundError(f"{self.run.path} has no {AGGREGATE}; its training did not end: use --prior own")
        tensors = load_tensors(file)
        prior = Mixture(self.config.latents, len(tensors["logits"]))
        prior.load_state_dict(tensors)
        return prior.to(self.device)


def keep(run: Path, prior: Mixture) -> None:
    """Beside the checkpoints of the run."""
    save_tensors(run / AGGREGATE, prior.state_dict())
