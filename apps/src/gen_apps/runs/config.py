"""The flags of the commands that look at a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gen_apps.command import Measures, RunPath


@dataclass(frozen=True)
class Report:
    """Build the page of a run again."""

    run: RunPath
    """Directory of the run."""


@dataclass(frozen=True)
class Summary:
    """Print the layers of a run's network."""

    run: RunPath
    """Directory of the run."""


@dataclass(frozen=True)
class Embed:
    """Draw data, and the samples of a run, in one map; of an auto-encoder, the codes of its data."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|DATA")]
    """A run, whose samples and held-out data are drawn together (a language model has neither), or DATA as for
    training."""
    method: Literal["pca", "tsne", "umap"] = "pca"
    """pca is a projection; tsne and umap keep neighbours (umap needs the extra gen-core[umap])."""
    n: int = 500
    """Points of each kind, at most."""
    size: Annotated[int | str, tyro.conf.arg(metavar="PIXELS|WIDTHxHEIGHT")] = 0
    """Pixels of a side of a picture, or as 24x32, where DATA is given; 0 is 8 for digits and 32 otherwise."""
    seed: int = 0
    """Key of the choice of points and of the map."""
    out: Path | None = None
    """Picture to write; by default embed-METHOD.png in the run, or in the working directory."""

    def __post_init__(self):
        if self.n < 4:
            raise ValueError(f"--n must be at least 4 points, got {self.n}")


@dataclass(frozen=True)
class ListRuns(Measures):
    """List the runs of a directory, newest first: command, data, steps, main figure, energy, age."""

    directory: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")] = Path("runs")
    """Directory that holds runs, at any depth."""


@dataclass(frozen=True)
class CompareRuns(Measures):
    """Write one page with what differs between runs: settings, figures, curves."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Directories of two runs or more."""
    out: Path = Path("runs-compared.html")
    """Page to write."""

    def __post_init__(self):
        if len(self.runs) < 2:
            raise ValueError(f"give at least two runs to compare, got {len(self.runs)}")


@dataclass(frozen=True)
class CheckRun:
    """Verify the hashes of all files in a run's checkpoints."""

    run: RunPath
    """Directory of the run."""
