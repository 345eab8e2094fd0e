"""The flags of the `gen autoencode` commands."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from gen_apps.command import Averaged, Measures, RunPath, TrainOnData


@dataclass(frozen=True)
class TrainAutoEncoder(TrainOnData):
    """Train an auto-encoder to give back data, clean or corrupted, and write a report."""

    command: ClassVar[str] = "autoencode train"

    latents: int | None = None
    """Numbers of a code (16); with --halvings, channels of a map. With --noise or --hide nothing has to be squeezed, it
    is the damage that teaches, and there are as many as the width."""
    halvings: int = 0
    """Codes are maps, of pictures that were halved so often, for `gen latent-diffusion`; 0 makes them vectors."""
    codes: int = 0
    """Of a learned code book that each vector of the code is replaced from; 0 for none. Needs --halvings."""
    width: int = 256
    """Features of a hidden layer; of maps, an eighth of it at full resolution."""
    noise: float = 0.0
    """Standard deviation of what is added to data in [-1, 1], to be taken away again; with --hide, some 0.2 keeps the
    network from learning a small set by heart."""
    hide: Literal["nothing", "right"] = "nothing"
    """What is hidden, to be filled in."""
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
    """Try a run on its held-out data; the figures are also written to the run, as JSON."""

    run: RunPath
    """Directory of the run."""
    device: str = "auto"
    out: Path | None = None
    """Picture to write; by default in the run, named by the command."""
