"""The flags of `gen vae train`, and the model that they and the data make."""

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from gen_apps.data import Source
from gen_apps.energy import Place
from gen_apps.identity import Machine
from gen_apps.options import Table, choice
from gen_apps.training import Optim, Subject, need_square
from gen_core import Arrays
from gen_latent import (
    MLP,
    VAE,
    Bernoulli,
    Categorical,
    ConvDecoder,
    ConvEncoder,
    Flow,
    Gaussian,
    LogisticMixture,
    Mixture,
    Standard,
    Vamp,
)

LIKELIHOODS: Table = {  # what makes the likelihood of a subject with so many values; numbers per coordinate
    "logistic-mixture": (lambda levels: partial(LogisticMixture, levels=levels, components=3), {"numbers": 9}),
    "categorical": (lambda levels: partial(Categorical, levels=levels), {"numbers": None}),
    "gaussian": (lambda levels: Gaussian(0.3), {"numbers": 1}),
    "bernoulli": (lambda levels: Bernoulli, {"numbers": 1}),
}
PRIORS: Table = {  # what makes the prior of d latents, of an encoder and some data
    "standard": (lambda d, encoder, x: Standard(d), {}),
    "mixture": (lambda d, encoder, x: Mixture(d, 30), {}),
    "vamp": (lambda d, encoder, x: Vamp(encoder, x[:30]), {}),
    "flow": (lambda d, encoder, x: Flow(d), {}),
}


@dataclass(frozen=True)
class Network:
    """Encoder and decoder."""

    kind: Literal["mlp", "conv"] | None = None
    """mlp for points and for pictures up to 8 pixels or that are not square, conv for others."""
    width: int = 256
    """Features of a hidden layer; of conv, a tenth of it at full resolution."""
    depth: int = 2
    """Hidden layers, of mlp."""
    dropout: float = 0.1
    """Share of features dropped in training, of mlp."""

    def __post_init__(self):
        if self.width < 16 or self.depth < 1:
            raise ValueError(f"--network.width is at least 16 and depth 1, got {self.width} and {self.depth}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"--network.dropout must lie in [0, 1), got {self.dropout}")

    def pair(self, shape: tuple[int, ...], latents: int, out: int, classes: int) -> tuple[Any, Any]:
        """An encoder to 2 `latents` numbers, and a decoder to `out` numbers per coordinate."""
        small = len(shape) == 1 or shape[1] != shape[2] or shape[1] <= 8
        if (self.kind or ("mlp" if small else "conv")) == "mlp":
            hidden, full = [self.width] * self.depth, (out * shape[0], *shape[1:])
            how: Any = {"dropout": self.dropout, "classes": classes}
            return MLP(shape, *hidden, 2 * latents, **how), MLP(latents, *hidden, full, **how)
        if len(shape) == 1:
            raise ValueError("--network.kind conv is not for points; leave it out")
        need_square("--network.kind conv", shape)
        c, size, width = shape[0], shape[1], max(8, self.width // 10 // 8 * 8)
        how = {"width": width, "classes": classes}
        return ConvEncoder(c, size, 2 * latents, **how), ConvDecoder(out * c, size, latents, **how)


@dataclass(frozen=True)
class TrainVAE(Source):
    """Train a variational auto-encoder, draw samples, measure them against held-out data, write a report."""

    out: Path | None = None
    """Directory to write; by default runs/vae-DATA, and a hash of the flags if any differ from the defaults.
    The same command again continues the same run."""
    resume: Path | None = None
    """Continue this run with its own configuration."""
    binarise: bool = False
    """Make every value 0 or 1, by its sign in [-1, 1]."""
    latents: int = 16
    """Dimensions of the latent."""
    likelihood: Annotated[str | None, choice(LIKELIHOODS)] = None
    """logistic-mixture for pictures, gaussian (its deviation learned) for points, bernoulli for --binarise."""
    prior: Annotated[str, choice(PRIORS)] = "standard"
    """Of the latents while training. Samples are drawn from a mixture that is fitted to the codes afterwards."""
    objective: Literal["elbo", "iwae", "dreg"] = "elbo"
    """The bound that is maximised."""
    k: int = 1
    """Draws of the latents per sample and step."""
    beta: float = 1.0
    """Weight of the KL; other values than 1 give no bound."""
    free_bits: float = 0.0
    """Nats that each latent may use for nothing."""
    conditional: bool = False
    """Give encoder and decoder the class."""
    components: int = 30
    """Of the mixture that is fitted to the codes."""
    seed: int = 0
    network: Network = field(default_factory=Network)
    optim: Optim = field(default_factory=Optim)
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        super().__post_init__()
        for name, value in (("beta", self.beta), ("free-bits", self.free_bits)):
            if not 0 <= value < math.inf:
                raise ValueError(f"--{name} must be at least 0 and finite, got {value}")
        for name in ("latents", "k", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        for name, table in (("likelihood", LIKELIHOODS), ("prior", PRIORS)):
            if (value := getattr(self, name)) is not None and value not in table:
                raise ValueError(f"--{name} must be one of {', '.join(table)}, got {value}")
        if self.likelihood == "bernoulli" and not self.binarise:
            raise ValueError(
                "--likelihood bernoulli is of 0s and 1s; add --binarise to make the data so, or choose "
                "logistic-mixture for grey levels, or gaussian"
            )

    def halves(self) -> tuple[Arrays, Arrays, Subject]:
        """Training data, held-out data, and what they are of."""
        train, test = self.load()
        subject = Subject.of(self.data, self.size, train)
        if self.binarise:
            train, test = (_binary(part) for part in (train, test))
            subject = Subject(subject.shape, subject.classes, 2)
        if self.conditional:
            subject.need_classes(self.data)
        return train, test, subject

    def model(self, subject: Subject, x: torch.Tensor | None = None) -> VAE:
        """Untrained; `x` are data that a prior may begin from."""
        usual = "bernoulli" if self.binarise else "gaussian" if subject.levels is None else "logistic-mixture"
        chosen = self.likelihood or usual
        make, how = LIKELIHOODS[chosen]
        if chosen in ("logistic-mixture", "categorical") and (self.binarise or subject.levels is None):
            raise ValueError(
                f"--likelihood {chosen} is of grey levels from -1 to 1, which {self.data} has not; use {usual}"
            )
        classes = subject.classes if self.conditional else 0
        encoder, decoder = self.network.pair(
            subject.shape, self.latents, how["numbers"] or subject.levels or 0, classes
        )
        x = torch.zeros(30, *subject.shape) if x is None else x
        if classes and self.prior == "vamp":
            raise ValueError("--prior vamp is not for a conditional model, whose encoder needs labels; use mixture")
        prior = PRIORS[self.prior][0](self.latents, encoder, x)
        return VAE(encoder, decoder, latents=self.latents, prior=prior, likelihood=make(subject.levels))


def _binary(part: Arrays) -> Arrays:
    x, *rest = part[:]
    return Arrays((x > 0).float(), *rest, classes=part.classes, content=part.content)
