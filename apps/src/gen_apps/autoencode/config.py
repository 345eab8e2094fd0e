"""The flags of the `gen autoencode` commands."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from gen_apps.command import Averaged, Measures, RunPath, TrainOnData


@dataclass(frozen=True)
class TrainAutoEncoder(TrainOnData):
    """Train an auto-encoder on data, clean or corrupted: it learns to give them back; writes a report."""

    command: ClassVar[str] = "autoencode train"

    latents: int | None = None
    """Numbers of a code (16); with --halvings, channels of a map. With --noise or --hide nothing has to be squeezed, it
    is the damage that teaches, and there are as many as the width."""
    halvings: int = 0
    """Codes are maps, of pictures that were halved so often, for `gen latent-diffusion`; 0 makes them vectors."""
    codes: int = 0
    """Entries of a learned code book, which replace the vectors of the code; 0 for none. Needs --halvings."""
    width: int = 256
    """Features of a hidden layer; of maps, an eighth of it at full resolution."""
    noise: float = 0.0
    """Standard deviation of what is added to data in [-1, 1], to be taken away again; with --hide, some 0.2 keeps the
    network from learning a small set by heart."""
    hide: Literal["nothing", "right"] = "nothing"
    """Part of each picture that is hidden, to be filled in."""
    leave_out: int | None = None
    """A class that is not trained on, for `gen autoencode anomaly`."""
    optim: Averaged = field(default_factory=lambda: Averaged(lr=1e-3))

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("halvings", 0), ("codes", 0), ("width", 16), ("noise", 0.0)):
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name} must be at least {least:g}, got {getattr(self, name)}")
        if self.latents is not None and self.latents < 1:
            raise ValueError(f"--latents must be at least 1, got {self.latents}")
        if self.codes == 1 or (self.codes and not self.halvings):
            raise ValueError(f"--codes {self.codes} are of a map: give 2 at least, and --halvings")


@dataclass(frozen=True)
class Use(Measures):
    """The flags of a command that tries a run on its held-out data, and writes the figures to the run as JSON."""

    run: RunPath
    """Directory of the run."""
    device: str = "auto"
    out: Path | None = None
    """Picture to write; by default in the run, named by the command."""


@dataclass(frozen=True)
class Denoise(Use):
    """Take noise away from held-out data, beside the Wiener filter."""


@dataclass(frozen=True)
class Inpaint(Use):
    """Fill in what is hidden of held-out data: beside kernel regression, a Gaussian and the nearest neighbour."""


@dataclass(frozen=True)
class Anomaly(Use):
    """Find a class that was not trained on, beside PCA and neighbours."""


@dataclass(frozen=True)
class Compress(Use):
    """Measure what a short code loses, beside PCA of as many numbers."""
