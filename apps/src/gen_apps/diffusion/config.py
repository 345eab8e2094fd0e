"""The flags of `gen diffusion train`, and the run that they name."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gen_apps import identity
from gen_apps.data import Source
from gen_apps.diffusion.model import Network
from gen_apps.diffusion.objective import Objective
from gen_apps.diffusion.samplers import Sampler
from gen_apps.energy import Place
from gen_apps.identity import Machine, placed
from gen_core import Run


@dataclass(frozen=True)
class Optim:
    """How it is trained."""

    steps: int = 1500
    """Updates."""
    batch_size: int = 64
    """Samples per update, over all processes."""
    lr: float = 4e-3
    """Peak learning rate of AdamW: linear warm-up over a twentieth, then half a cosine to 0."""
    weight_decay: float = 0.0
    clip: float | None = 1.0
    """Largest norm of a gradient."""
    ema: float = 0.10
    """Width of the power-function average of weights that is sampled from, relative to the steps so far."""
    p_drop: float = 0.1
    """Share of labels dropped, which teaches the unconditional denoiser that guidance needs."""

    def __post_init__(self):
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--optim.{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.p_drop <= 1:
            raise ValueError(f"--optim.p-drop is a share, from 0 to 1, got {self.p_drop}")
        if not self.lr > 0:
            raise ValueError(f"--optim.lr must be positive, got {self.lr}")


@dataclass(frozen=True)
class Train(Source):
    """Train a diffusion model, sample it, measure the samples against held-out data, write a report."""

    out: Path | None = None
    """Directory to write; by default runs/diffusion-DATA, and a hash of the flags if any differ from the defaults.
    The same command again continues the same run."""
    resume: Path | None = None
    """Continue this run with its own configuration."""
    seed: int = 0
    network: Network = field(default_factory=Network)
    objective: Objective = field(default_factory=Objective)
    optim: Optim = field(default_factory=Optim)
    sampler: Sampler = field(default_factory=Sampler)
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        super().__post_init__()
        self._choices()

    def _choices(self) -> dict[str, Any]:
        network = self.network.completed(self.data.startswith("points:"))
        return {"network": network, "objective": self.objective.completed(), "sampler": self.sampler.completed()}

    def completed(self) -> "Train":
        """With the defaults of all that was left to a choice."""
        return replace(self, **self._choices())

    def placed(self) -> tuple["Train", Path]:
        """The configuration of the run, completed, and its directory."""
        return placed(self, "diffusion train", Train.completed)


def read(run: Run) -> Train:
    """The completed configuration of a run.

    Raises:
        ValueError: for a run of another command.
    """
    return identity.read(run, Train, "diffusion train").completed()
