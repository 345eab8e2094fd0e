"""The flags of `gen latent-diffusion train`, and the parts that they and a first stage make."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from gen_apps.autoencode.train import TrainedAutoEncoder
from gen_apps.diffusion.config import Optim
from gen_apps.diffusion.model import Model, Network
from gen_apps.diffusion.objective import Objective
from gen_apps.diffusion.samplers import Sampler
from gen_apps.energy import Place
from gen_apps.identity import Machine


@dataclass(frozen=True)
class TrainLatentDiffusion:
    """Train a diffusion model on the codes of an auto-encoder, decode its samples, measure them, write a report."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")] = ""
    """Run of `gen autoencode train`, whose data, encoder and decoder are used."""
    out: Path | None = None
    """Directory to write; by default runs/latent-diffusion-RUN, and a hash of the flags if any differ from the
    defaults. The same command again continues the same run."""
    resume: Path | None = None
    """Continue this run with its own configuration."""
    seed: int = 0
    network: Network = field(default_factory=Network)
    objective: Objective = field(default_factory=Objective)
    optim: Optim = field(default_factory=Optim)
    sampler: Sampler = field(default_factory=Sampler)
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)

    def first(self) -> TrainedAutoEncoder:
        """The first stage, whose codes have zero mean and unit deviation.

        Raises:
            ValueError: for one that is trained on damaged data or has one class left out.
        """
        if not self.data:
            raise ValueError("RUN is missing: train a first stage with gen autoencode train, and give its directory")
        stage = TrainedAutoEncoder.open(Path(self.data), self.machine.device)
        how = stage.config
        if how.noise or how.hide != "nothing" or how.leave_out is not None:
            raise ValueError(f"{self.data} was trained to mend data, or without a class; give one that only gives back")
        return stage

    def model(self, stage: TrainedAutoEncoder) -> Model:
        """What the denoiser is of: codes."""
        with torch.no_grad():
            code = stage.model.encode(torch.zeros(1, *stage.subject.shape, device=stage.device))
        return Model(tuple(code.shape[1:]), stage.subject.classes, 1.0)

    def completed(self, model: Model) -> Any:
        """Network, objective and sampler with the defaults of their choices."""
        flat = len(model.shape) == 1
        parts = self.network.completed(flat), self.objective.completed(), self.sampler.completed()
        parts[2].check(model.classes)
        return replace(self, network=parts[0], objective=parts[1], sampler=parts[2])
