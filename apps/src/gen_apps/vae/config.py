"""The flags of the `gen vae` commands."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from gen_apps.command import Measures, RunPath, SampleClasses, TrainOnData

Likelihood = Literal["logistic-mixture", "categorical", "gaussian", "bernoulli"]
Prior = Literal["standard", "mixture", "vamp", "flow"]


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


@dataclass(frozen=True)
class TrainVAE(TrainOnData):
    """Train a variational auto-encoder: draw samples, measure them against held-out data, write a report."""

    command: ClassVar[str] = "vae train"

    binarise: bool = False
    """Make every value 0 or 1, by its sign in [-1, 1]."""
    latents: int = 16
    """Dimensions of the latent."""
    likelihood: Likelihood | None = None
    """logistic-mixture for pictures, gaussian (its deviation learned) for points, bernoulli for --binarise."""
    prior: Prior = "standard"
    """Prior of the latents while training. Samples are drawn from a mixture that is fitted to the codes afterwards."""
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
    """Components of the mixture that is fitted to the codes."""
    network: Network = field(default_factory=Network)

    def __post_init__(self):
        super().__post_init__()
        for name, value in (("beta", self.beta), ("free-bits", self.free_bits)):
            if not 0 <= value < math.inf:
                raise ValueError(f"--{name} must be at least 0 and finite, got {value}")
        for name in ("latents", "k", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.likelihood == "bernoulli" and not self.binarise:
            raise ValueError(
                "--likelihood bernoulli is of 0s and 1s; add --binarise to make the data so, or choose "
                "logistic-mixture for grey levels, or gaussian"
            )


@dataclass(frozen=True)
class SampleVAE(SampleClasses):
    """Draw samples of a trained run: a picture, and an .npz file with the arrays x and label."""

    prior: Literal["aggregate", "own"] = "aggregate"
    """Latents of the mixture that was fitted to the codes, or of the prior in training."""
    mean: bool = False
    """Show the likelihood's mean instead of a draw of it: smoother than any data."""


@dataclass(frozen=True)
class InterpolateVAE(Measures):
    """Walk between the codes of held-out samples: a picture with a path in each row, its ends reconstructions."""

    run: RunPath
    """Directory of the run."""
    n: int = 8
    """Paths."""
    steps: int = 10
    """Points of a path, its ends included."""
    kind: Literal["slerp", "lerp"] = "slerp"
    """slerp keeps the norm of the codes, lerp shrinks it on the way."""
    seed: int = 0
    """Key of the choice of ends."""
    device: str = "auto"
    out: Path | None = None
    """Picture to write; by default interpolation.png in the run."""

    def __post_init__(self):
        if self.n < 1 or self.steps < 3:
            raise ValueError(f"--n must be at least 1 path and --steps 3, got {self.n} and {self.steps}")


@dataclass(frozen=True)
class NLLVAE(Measures):
    """Bound ln p(x) of held-out data: the ELBO, and the importance-weighted bound of many draws."""

    run: RunPath
    """Directory of the run."""
    k: int = 5000
    """Draws of the latents per sample."""
    n: int = 297
    """Held-out samples, at most."""
    seed: int = 0
    device: str = "auto"

    def __post_init__(self):
        if self.k < 1 or self.n < 2:
            raise ValueError(f"--k must be at least 1 draw and --n 2 samples, got {self.k} and {self.n}")
