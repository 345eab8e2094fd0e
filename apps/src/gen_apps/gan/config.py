"""The flags of the `gen gan` commands."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from gen_apps.command import Averaged, SampleClasses, TrainOnData

Loss = Literal["relativistic", "non-saturating", "hinge", "least-squares", "wasserstein", "minimax"]
Transform = Literal["flip", "rotate", "shift", "scale", "colour", "cutout"]


@dataclass(frozen=True)
class TrainGAN(TrainOnData):
    """Train a generator against a discriminator: draw samples, measure them against held-out data, write a report."""

    command: ClassVar[str] = "gan train"

    latents: int = 64
    """Dimensions of the noise."""
    network: Literal["mlp", "dcgan", "residual"] | None = None
    """mlp for points and for pictures up to 8 pixels or that are not square, residual for others; or dcgan."""
    width: int = 256
    """Features of a hidden layer; of dcgan and residual, an eighth of it at full resolution."""
    loss: Loss = "relativistic"
    """Losses of the two players."""
    gamma: float | None = None
    """Weight of the discriminator's gradient penalties at the start: a larger one covers more of a small set,
    a smaller one is sharper (40 for pictures up to 8 pixels, 10 for larger ones, 1 for points)."""
    gamma_end: float | None = None
    """Weight of the penalties at the end, by the same factor at every step (half of the start, a tenth for points)."""
    augment: tuple[Transform, ...] = ()
    """Adaptive changes to all pictures that the discriminator sees: flip, rotate, shift, scale, colour, cutout."""
    conditional: bool = False
    """Give both players the class."""
    optim: Averaged = field(default_factory=lambda: Averaged(clip=None))

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("latents", 1), ("width", 16)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        if self.gamma is None and self.gamma_end is not None:
            raise ValueError(f"--gamma-end {self.gamma_end} is where --gamma falls to; give both")
        start, end = self.gamma or 0.0, self.gamma_end
        if self.gamma is not None and not (0 <= start < math.inf and (end is None or 0 < end <= start or start == end)):
            raise ValueError(f"--gamma falls to --gamma-end above 0, or both are 0; got {self.gamma}, {self.gamma_end}")
        if self.optim.weight_decay:
            raise ValueError("--optim.weight-decay is not for a GAN, whose penalties are --gamma; leave it at 0")


@dataclass(frozen=True)
class SampleGAN(SampleClasses):
    """Draw samples of a trained run: a picture, and an .npz file with the arrays x and label."""
