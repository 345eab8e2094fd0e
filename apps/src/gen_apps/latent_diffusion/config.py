"""The flags of the `gen latent-diffusion` commands."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import tyro

from gen_apps.command import SampleClasses, TrainCommand
from gen_apps.diffusion.config import DiffusionOptim
from gen_apps.diffusion.flags import Network, Objective, Sampler


@dataclass(frozen=True)
class TrainLatentDiffusion(TrainCommand):
    """Train a diffusion model on the codes of an auto-encoder: decode its samples, measure them, write a report."""

    command: ClassVar[str] = "latent-diffusion train"

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")] = ""
    """Run of `gen autoencode train`, whose data, encoder and decoder are used."""
    network: Network = field(default_factory=Network)
    objective: Objective = field(default_factory=Objective)
    optim: DiffusionOptim = field(default_factory=DiffusionOptim)
    sampler: Sampler = field(default_factory=Sampler)

    def data_name(self) -> str:
        return self.data


@dataclass(frozen=True)
class SampleLatentDiffusion(SampleClasses):
    """Draw samples of a trained run: a picture, and an .npz file with the arrays x and label."""

    guidance: float | None = None
    """Classifier-free guidance; by default that of the run."""
