"""Flags of `gen em`, without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from gen_apps.command import Measures

Table = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]


@dataclass(frozen=True)
class EMCommand(Measures):
    """The flags of every command of EM."""

    kind: ClassVar[str]
    data: Table
    steps: int = 100
    """Most iterations of each start."""
    tolerance: float = 1e-6
    """Stop when an iteration raises the log-likelihood by less, in nats."""
    starts: int = 5
    """Random starts; the one that ends at the largest likelihood is shown."""
    seed: int = 0
    out: Path | None = None
    """Page to write; by default em-KIND-DATA.html."""

    def __post_init__(self):
        for name in ("steps", "starts"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if not self.tolerance >= 0:
            raise ValueError(f"--tolerance must be at least 0, got {self.tolerance}")


@dataclass(frozen=True)
class FitMixture(EMCommand):
    """Fit a mixture of Gaussians by EM: every step, and the clusters on one page."""

    kind: ClassVar[str] = "mixture"
    data: Table = "iris"
    """iris, or a table: a CSV file with numbers in columns, or an NPY file."""
    components: int = 3
    covariance: Literal["full", "diagonal", "spherical", "tied"] = "full"
    """tied: one matrix for all components."""
    floor: float = 1e-6
    """Smallest variance in any direction, in units of the data squared."""


@dataclass(frozen=True)
class FitHMM(EMCommand):
    """Fit a hidden Markov model with Gaussian states by EM: every step, and the states over time on one page."""

    kind: ClassVar[str] = "hmm"
    data: Table = "returns"
    """returns (of the S&P 500, monthly, in percent), or a series: CSV with a time per row, NPY (times, values) or
    (sequences, times, values). Rows without values are missing."""
    states: int = 2
    floor: float = 1e-6
    """Smallest variance in any direction, in units of the data squared."""


@dataclass(frozen=True)
class FitKalman(EMCommand):
    """Fit a linear-Gaussian state-space model by EM: every step, and the smoothed series on one page."""

    kind: ClassVar[str] = "kalman"
    data: Table = "prices"
    """prices (logarithm of the S&P 500, monthly), or a series: CSV with a time per row, NPY (times, values) or
    (sequences, times, values). Empty cells are missing values."""
    states: int = 0
    """States of a model of which everything is learned; 0 is a level and a slope for each column, of which the noise is
    learned."""
    floor: float = 1e-9
    """Smallest variance in any direction that is learned."""
    forecast: int = 12
    """Times to forecast after the end."""
