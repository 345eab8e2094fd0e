"""The flags of `gen autoencode train`, and the model that they and the data make."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gen_apps.data import Source
from gen_apps.energy import Place
from gen_apps.identity import Machine
from gen_apps.training import Optim, Subject
from gen_core import Arrays
from gen_latent import MLP, AutoEncoder, ConvDecoder, ConvEncoder, QuantizedAutoEncoder, VectorQuantizer


def right(x: Tensor) -> Tensor:
    """What is seen when the right half is hidden, for one sample."""
    seen = torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device)
    seen[:, x.shape[-1] // 2 :] = False
    return seen


HIDDEN: dict[str, Callable[[Tensor], Tensor] | None] = {"nothing": None, "right": right}


@dataclass(frozen=True)
class TrainAutoEncoder(Source):
    """Train an auto-encoder to give back data, clean or corrupted, and write a report."""

    out: Path | None = None
    """Directory to write; by default runs/autoencode-DATA, and a hash of the flags if any differ from the defaults.
    The same command again continues the same run."""
    resume: Path | None = None
    """Continue this run with its own configuration."""
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
    seed: int = 0
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-3))
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("halvings", 0), ("codes", 0), ("width", 16), ("noise", 0.0)):
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name} must be at least {least:g}, got {getattr(self, name)}")
        if self.latents is not None and self.latents < 1:
            raise ValueError(f"--latents must be at least 1, got {self.latents}")
        if self.codes == 1 or (self.codes and not self.halvings):
            raise ValueError(f"--codes {self.codes} are of a map: give 2 at least, and --halvings")

    def halves(self) -> tuple[Arrays, Arrays, Subject]:
        """Training data, without the class that is left out; all held-out data; what they are of."""
        train, test = self.load()
        subject = Subject.of(self.data, self.size, train)
        if self.leave_out is not None:
            if not 0 <= self.leave_out < subject.classes:
                raise ValueError(
                    f"--leave-out must be a class of {self.data}, 0..{subject.classes - 1}, got {self.leave_out}"
                )
            train = train.select((train.tensors[-1][:] != self.leave_out).nonzero()[:, 0])
        if len(subject.shape) == 1 and (self.halvings or self.hide != "nothing"):
            raise ValueError("--halvings and --hide are of pictures, not of points; leave them out")
        return train, test, subject

    def model(self, subject: Subject) -> AutoEncoder:
        """Untrained."""
        latents, width = self.latents or 16, self.width
        if not self.halvings and self.latents is None and (self.noise or self.hide != "nothing"):
            encoder = MLP(subject.shape, width, activation=nn.GELU, last=nn.GELU())
            return AutoEncoder(encoder, MLP(width, width, subject.shape, activation=nn.GELU), width)
        if not self.halvings:
            encoder = MLP(subject.shape, width, width, latents)
            return AutoEncoder(encoder, MLP(latents, width, width, subject.shape), latents)
        c, *sides = subject.shape
        size = math.gcd(*sides)  # which can be halved as often as both
        how: dict[str, Any] = {"width": max(8, width // 8), "spatial": self.halvings}
        parts = ConvEncoder(c, size, latents, **how), ConvDecoder(c, size, latents, **how)
        if not self.codes:
            return AutoEncoder(*parts, latents)
        book = VectorQuantizer(self.codes, latents, revive_below=0.01)
        return QuantizedAutoEncoder(*parts, book, latents)

    def mask(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """As `AutoEncoderTask` takes it."""
        hidden = HIDDEN[self.hide]
        return None if hidden is None else lambda u, x: hidden(x).expand_as(x)
