"""The flags of `gen trajectory train`, the run that they name, and the network that they describe."""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from gen_apps.diffusion.config import Optim
from gen_apps.energy import Place
from gen_apps.identity import Machine, directory
from gen_apps.options import flag
from gen_core import Run
from gen_core.config import from_dict, to_dict
from gen_diffusion.denoise import Preconditioned
from gen_diffusion.director import Director
from gen_diffusion.text import Texted, TextEncoder, Words

CAPTION = 64  # tokens of the longest caption, and features of a token


@dataclass(frozen=True)
class Network:
    """DIRECTOR, a transformer over frames."""

    width: int = 96
    """Features of a token, a multiple of 4 and of the heads."""
    depth: int = 4
    """Blocks."""
    heads: int = 4
    patch: int = 10
    """Frames to a token."""
    conditioning: Literal["in-context", "adaln", "cross-attention"] = "cross-attention"
    """How a caption enters: as tokens before the frames, as scales and shifts, or as what every block looks at."""

    def __post_init__(self):
        if min(self.width, self.depth, self.heads, self.patch) < 1:
            raise ValueError(f"--network.width, depth, heads and patch must be at least 1, got {self}")
        with torch.device("meta"):
            self.net()

    def net(self) -> Director:
        return Director(**asdict(self), context_dim=CAPTION)


@dataclass(frozen=True)
class Sampler:
    """How it is sampled: Heun's method on Karras's noise levels."""

    steps: int = 10
    """Noise levels; each costs four network evaluations."""
    guidance: float = 1.4
    """Classifier-free guidance: 0 ignores the caption, 1 is the conditional model, more keeps closer to the caption."""

    def __post_init__(self):
        in_range("sampler", self.steps, self.guidance)


def in_range(group: str, steps: int | None, guidance: float | None) -> None:
    """Refuse what cannot be sampled with, by the flags of a group; None is not given."""
    if steps is not None and steps < 2:
        raise ValueError(f"{flag(group, 'steps')} must be at least 2, got {steps}")
    if guidance is not None and not math.isfinite(guidance):
        raise ValueError(f"{flag(group, 'guidance')} must be finite, got {guidance}")


@dataclass(frozen=True)
class Train:
    """Train DIRECTOR on drawn trajectories, sample it by new captions, tag the samples, write a report."""

    out: Path | None = None
    """Directory to write; by default runs/trajectory, and a hash of the flags if any differ from the defaults.
    The same command again continues the same run."""
    trajectories: int = 16_384
    """Trajectories to train on, of one to four motions each."""
    frames: int = 300
    """Of a trajectory, at 25 a second: at least 60, and a multiple of the patch."""
    samples: int = 256
    """Samples that are measured, each for a caption of its own."""
    seed: int = 0
    network: Network = field(default_factory=Network)
    optim: Optim = field(default_factory=lambda: Optim(steps=1500, lr=2e-3))
    sampler: Sampler = field(default_factory=Sampler)
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        if self.frames < 60 or self.frames % self.network.patch:
            raise ValueError(f"--frames must be at least 60 and a multiple of the patch, got {self.frames}")
        if self.samples < 4:
            raise ValueError(f"--samples must be at least 4, got {self.samples}")
        if self.trajectories < self.optim.batch_size:
            raise ValueError(f"--trajectories must fill a batch of {self.optim.batch_size}, got {self.trajectories}")

    def identity(self) -> "Train":
        """What a run's config.json holds: everything that decides its result, nothing about where it ran."""
        return replace(self, out=None, machine=Machine(), place=Place())

    def directory(self) -> Path:
        return self.out or directory("trajectory", to_dict(self.identity()), to_dict(Train()))


def read(run: Run) -> Train:
    """The configuration of a run.

    Raises:
        ValueError: for a run of another command.
    """
    try:
        return from_dict(Train, run.config())
    except ValueError as error:
        raise ValueError(f"{run.path} is no run of gen trajectory train: {error}") from None


@dataclass(frozen=True)
class Model:
    """What a trained denoiser is of, beside its configuration."""

    words: Words
    sigma_data: float
    """Root mean square of the training data."""

    def denoiser(self, network: Network) -> Preconditioned:
        return Preconditioned(
            Texted(network.net(), TextEncoder(self.words.size, CAPTION, length=CAPTION)), self.sigma_data
        )

    @classmethod
    def load(cls, run: Run) -> "Model":
        return from_dict(cls, json.loads((run.path / "model.json").read_text()))
