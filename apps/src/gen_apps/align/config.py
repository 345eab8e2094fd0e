"""The flags of `gen align ...`."""

from dataclasses import dataclass
from pathlib import Path

from gen_apps.command import Measures


@dataclass(frozen=True)
class Exact(Measures):
    """The flags of the commands whose problem has an exact optimum."""

    steps: int = 300
    """Updates of each method."""
    samples: int = 256
    """Completions of each update, in groups of 8."""
    lr: float = 0.05
    """Learning rate of Adam, which falls to 0 along a line."""
    beta: float = 1.0
    """Weight of the KL to the reference."""
    seed: int = 0
    out: Path | None = None
    """Page to write; by default align-NAME.html."""

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"--steps must be at least 1, got {self.steps}")
        if self.samples < 8 or self.samples % 8:
            raise ValueError(f"--samples are groups of 8, got {self.samples}; take a multiple of 8")
        for name in ("lr", "beta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True)
class Bandit(Exact):
    """Align a bandit of five arms by many methods, each beside its closed-form optimum."""

    beta: float = 0.5
    """Weight of the KL to the reference."""


@dataclass(frozen=True)
class TwoTokens(Exact):
    """Show on two tokens that a KL per token misses the optimum of whole completions."""
