"""The flags of `gen gan train`, and the two networks that they and the data make."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from torch import nn

from gen_apps.data import Source
from gen_apps.energy import Place
from gen_apps.identity import Machine
from gen_apps.options import Table, choice
from gen_apps.training import Optim, Subject, need_square
from gen_core import Arrays
from gen_latent import (
    MLP,
    Augment,
    DCDiscriminator,
    DCGenerator,
    GANTask,
    ResidualDiscriminator,
    ResidualGenerator,
    hinge,
    least_squares,
    minimax,
    non_saturating,
    relativistic,
    wasserstein,
)
from gen_latent.augment import TRANSFORMS

LOSSES: Table = {  # each pair of losses
    "relativistic": (lambda: relativistic, {}),
    "non-saturating": (lambda: non_saturating, {}),
    "hinge": (lambda: hinge, {}),
    "least-squares": (lambda: least_squares, {}),
    "wasserstein": (lambda: wasserstein, {}),
    "minimax": (lambda: minimax, {}),
}


class Leaky(nn.LeakyReLU):
    """Of slope 0.2, as in the papers."""

    def __init__(self):
        super().__init__(0.2)


def _mlp(subject: Subject, latents: int, width: int, classes: int) -> tuple[nn.Module, nn.Module]:
    hidden, bounded = [width] * 3, nn.Tanh() if len(subject.shape) == 3 else None
    how: dict[str, Any] = {"activation": Leaky, "classes": classes}
    return MLP(latents, *hidden, subject.shape, last=bounded, **how), Critic(subject.shape, *hidden, 1, **how)


class Critic(MLP):
    """An MLP whose one output has no dimension of its own."""

    def forward(self, x, label=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x, label)[:, 0]


def _convolutional(generator: Any, discriminator: Any, **how: Any) -> Callable[..., tuple[nn.Module, nn.Module]]:
    def make(subject: Subject, latents: int, width: int, classes: int) -> tuple[nn.Module, nn.Module]:
        channels, size, *_ = subject.shape
        need_square("--network dcgan or residual", subject.shape)
        width = max(8, width // 8)
        return (
            generator(channels, size, latents, width, classes=classes, **how),
            discriminator(channels, size, width, classes=classes, **how),
        )

    return make


NETWORKS: Table = {  # what makes generator and discriminator of a subject
    "mlp": (_mlp, {}),
    "dcgan": (_convolutional(DCGenerator, DCDiscriminator), {}),
    "residual": (_convolutional(ResidualGenerator, ResidualDiscriminator, blocks=1), {}),
}


@dataclass(frozen=True)
class TrainGAN(Source):
    """Train a generator against a discriminator, draw samples, measure them against held-out data, write a report."""

    out: Path | None = None
    """Directory to write; by default runs/gan-DATA, and a hash of the flags if any differ from the defaults.
    The same command again continues the same run."""
    resume: Path | None = None
    """Continue this run with its own configuration."""
    latents: int = 64
    """Dimensions of the noise."""
    network: Annotated[str | None, choice(NETWORKS)] = None
    """mlp for points and for pictures up to 8 pixels or that are not square, residual for others; or dcgan."""
    width: int = 256
    """Features of a hidden layer; of dcgan and residual, an eighth of it at full resolution."""
    loss: Annotated[str, choice(LOSSES)] = "relativistic"
    """What the two players minimise."""
    gamma: float | None = None
    """Of the penalties R1 and R2 on the discriminator's gradient, at the start: more of it covers more of a small set,
    less of it is sharper (40 for pictures up to 8 pixels, 10 for larger ones, 1 for points)."""
    gamma_end: float | None = None
    """Of the penalties at the end, by the same factor at every step (half of the start, a tenth for points)."""
    augment: tuple[str, ...] = ()
    """What is done to all that the discriminator judges, adaptively: flip, rotate, shift, scale, colour, cutout."""
    conditional: bool = False
    """Give both players the class."""
    seed: int = 0
    optim: Optim = field(default_factory=lambda: Optim(lr=2e-3))
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)

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
        for name, table in (("loss", LOSSES), ("network", NETWORKS)):
            if (value := getattr(self, name)) is not None and value not in table:
                raise ValueError(f"--{name} must be one of {', '.join(table)}, got {value}")
        if unknown := set(self.augment) - set(TRANSFORMS):
            raise ValueError(f"--augment must be of {', '.join(TRANSFORMS)}, got {', '.join(sorted(unknown))}")
        if self.optim.weight_decay:
            raise ValueError("--optim.weight-decay is not for a GAN, whose penalties are --gamma; leave it at 0")

    def halves(self) -> tuple[Arrays, Arrays, Subject]:
        """Training data, held-out data, and what they are of."""
        train, test = self.load()
        subject = Subject.of(self.data, self.size, train)
        if self.conditional:
            subject.need_classes(self.data)
        return train, test, subject

    def networks(self, subject: Subject) -> tuple[nn.Module, nn.Module]:
        """Generator and discriminator, untrained."""
        flat = len(subject.shape) == 1
        small = flat or subject.shape[1] != subject.shape[2] or subject.shape[1] <= 8
        kind = self.network or ("mlp" if small else "residual")
        if flat and (kind != "mlp" or self.augment):
            raise ValueError(f"--network {kind} and --augment are not for points; leave them out")
        return NETWORKS[kind][0](subject, self.latents, self.width, subject.classes if self.conditional else 0)

    def penalties(self, subject: Subject) -> tuple[float, float]:
        """Gamma at the start and at the end."""
        if len(subject.shape) == 1:
            usual, share = 1.0, 0.1
        else:
            usual, share = 40.0 if subject.shape[1] <= 8 else 10.0, 0.5
        start = usual if self.gamma is None else self.gamma
        return start, start * share if self.gamma_end is None else self.gamma_end

    def task(self, generator: nn.Module, discriminator: nn.Module, subject: Subject) -> GANTask:
        """The game that they play."""
        (start, end), steps = self.penalties(subject), self.optim.steps
        gamma = (lambda step: start * (end / start) ** (step / steps)) if start else 0.0
        return GANTask(
            generator,
            discriminator,
            LOSSES[self.loss][0](),
            latents=self.latents,
            r1=gamma,
            r2=gamma,
            augment=Augment(self.augment) if self.augment else None,
            conditions=("label",) if self.conditional else (),
            lr=self.optim.lr,
        )
