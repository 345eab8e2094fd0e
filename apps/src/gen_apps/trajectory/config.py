"""The flags of the `gen trajectory` commands."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from gen_apps.command import SampleCommand, TrainCommand
from gen_apps.diffusion.config import DiffusionOptim
from gen_apps.options import Count, Number, flag, given


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
    """Conditioning on the caption: by tokens before the frames, by scales and shifts, or by attention in each block."""

    def __post_init__(self):
        if min(self.width, self.depth, self.heads, self.patch) < 1:
            raise ValueError(f"--network.width, depth, heads and patch must be at least 1, got {self}")


@dataclass(frozen=True)
class Sampler:
    """Sampling: Heun's method on Karras's noise levels."""

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
class TrainTrajectory(TrainCommand):
    """Train DIRECTOR on drawn trajectories: sample it by new captions, tag the samples, write a report."""

    command: ClassVar[str] = "trajectory train"
    named_by: ClassVar[tuple[str, ...]] = ()

    trajectories: int = 16_384
    """Trajectories to train on, of one to four motions each."""
    frames: int = 300
    """Frames of a trajectory, at 25 a second: at least 60, and a multiple of the patch."""
    samples: int = 256
    """Samples that are measured, each for a caption of its own."""
    network: Network = field(default_factory=Network)
    optim: DiffusionOptim = field(default_factory=lambda: DiffusionOptim(lr=2e-3))
    sampler: Sampler = field(default_factory=Sampler)

    def __post_init__(self):
        if self.frames < 60 or self.frames % self.network.patch:
            raise ValueError(f"--frames must be at least 60 and a multiple of the patch, got {self.frames}")
        if self.samples < 4:
            raise ValueError(f"--samples must be at least 4, got {self.samples}")
        if self.trajectories < self.optim.batch_size:
            raise ValueError(f"--trajectories must fill a batch of {self.optim.batch_size}, got {self.trajectories}")


@dataclass(frozen=True)
class SampleTrajectory(SampleCommand):
    """Draw trajectories that do what a prompt says: a picture, and an .npz file with the arrays features and poses."""

    prompt: str = "the camera pushes in, then trucks left"
    """Motions, joined by "and" within a segment and by "then" between segments."""
    n: int = 3
    """Samples."""
    steps: Count = None
    """Noise levels, as in the run by default; each costs four network evaluations."""
    guidance: Number = None
    """Classifier-free guidance, as in the run by default: 0 ignores the prompt, more keeps closer to it."""

    def __post_init__(self):
        super().__post_init__()
        in_range("", self.steps, self.guidance)

    def sampler(self, trained: Sampler) -> Sampler:
        """The run's own, but for what is given."""
        return replace(trained, **{k: v for k, v in given(self).items() if k in ("steps", "guidance")})
