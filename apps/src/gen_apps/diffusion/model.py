"""What is trained: the network's flags, what the data make of them, and the weights that a run has left."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Annotated, cast

from gen_apps.data import subset
from gen_apps.options import Count, Number, Table, choice, completed, made
from gen_core import Arrays, Run
from gen_core.config import from_dict
from gen_diffusion import MLP, Preconditioned, UNet, View
from gen_diffusion.dit import DiT

NETWORKS: Table = {  # what makes the network of a Model; its options, with their defaults
    "unet": (
        lambda model, **how: UNet(model.shape[0], num_classes=model.classes, **how),
        {"width": 32, "multipliers": (1, 2), "blocks": 2, "attention": (1,), "dropout": 0.1},
    ),
    "dit": (
        lambda model, **how: DiT(model.shape[0], num_classes=model.classes, **how),
        {"width": 64, "patch": 2, "depth": 6, "heads": 4},
    ),
    "mlp": (
        lambda model, *, blocks, **how: MLP(model.shape[0], depth=blocks, num_classes=model.classes, **how),
        {"width": 32, "blocks": 2},
    ),
}


@dataclass(frozen=True)
class Network:
    """The denoiser; an option that its kind does not use is refused."""

    kind: Annotated[str | None, choice(NETWORKS)] = None
    """For pictures unet (default) or dit; for points mlp, a residual one."""
    width: Count = None
    """Features, of the U-Net at full resolution (32; 64 for dit)."""
    multipliers: tuple[int, ...] | None = None
    """Of unet: features at each resolution, in units of the width; each one more halves the size (1 2)."""
    blocks: Count = None
    """Of unet: residual blocks per resolution; of mlp: in all (2)."""
    attention: tuple[int, ...] | None = None
    """Of unet: resolutions with self-attention, 0 being the full one (1)."""
    dropout: Number = None
    """Of unet: share of features dropped in training (0.1)."""
    patch: Count = None
    """Of dit: pixels on a side of a patch; a quarter of the tokens for each doubling (2)."""
    depth: Count = None
    """Of dit: blocks (6)."""
    heads: Count = None
    """Of dit: heads of the attention, which divide the width (4)."""

    def __post_init__(self):
        if self.width is not None and (self.width < 1 or self.width % 4):
            raise ValueError(f"--network.width must be a multiple of 4, got {self.width}")
        for name in ("blocks", "multipliers", "patch", "depth", "heads"):
            if (value := getattr(self, name)) is not None and min(value if name == "multipliers" else [value]) < 1:
                raise ValueError(f"--network.{name} must be at least 1, got {value}")
        if not 0 <= (self.dropout or 0) < 1:
            raise ValueError(f"--network.dropout must lie in [0, 1), got {self.dropout}")

    def completed(self, points: bool) -> "Network":
        """With the defaults of its kind, which the data decide."""
        kind = self.kind or ("mlp" if points else "unet")
        if points != (kind == "mlp"):
            raise ValueError(f"--network.kind {kind} is not for {'points' if points else 'pictures'}; leave it out")
        return completed(replace(self, kind=kind), "network", "kind", NETWORKS)


@dataclass(frozen=True)
class Model:
    """What a trained denoiser is of: it rebuilds the network without the data."""

    shape: tuple[int, ...]
    """Of one sample: (channels, height, width) in [-1, 1], or (2,)."""
    classes: int
    sigma_data: float
    """Root mean square of the training data."""

    @classmethod
    def of(cls, training: Arrays) -> "Model":
        x, *_ = subset(training)[:]
        return cls(tuple(x.shape[1:]), len(training.classes), x.square().mean().sqrt().item())

    def denoiser(self, network: Network, view: str) -> Preconditioned:
        """Untrained, of completed flags."""
        return Preconditioned(made(network, "kind", NETWORKS, self), self.sigma_data, cast(View, view))

    def save(self, run: Run) -> None:
        run.write("model.json", asdict(self))

    @classmethod
    def load(cls, run: Run) -> "Model":
        if not (run.path / "model.json").is_file():
            raise FileNotFoundError(f"{run.path} has no model.json, so gen diffusion train did not make it")
        return from_dict(cls, json.loads((run.path / "model.json").read_text()))
