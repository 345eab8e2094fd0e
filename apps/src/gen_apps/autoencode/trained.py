"""A trained auto-encoder: codes, their decoding, reconstructions."""

from pathlib import Path

import torch
from torch import Tensor

import gen_latent
from gen_apps.autoencode import build
from gen_apps.autoencode.config import TrainAutoEncoder
from gen_apps.data import subset
from gen_apps.opening import Trained
from gen_core.checkpoint import save_tensors
from gen_core.data import Arrays
from gen_latent import AutoEncoder

SCALE = "scale.safetensors"


def fit_scale(run: Path, model: AutoEncoder, x: Tensor) -> None:
    """Fit mean and deviation of the codes to data, and write them beside the run's checkpoints."""
    model.fit_scale(x.split(512))
    save_tensors(run / SCALE, {"mean": model.mean, "std": model.std})


class TrainedAutoEncoder(Trained[TrainAutoEncoder]):
    """encode(x), decode(z) and reconstruct(x); codes have zero mean and unit deviation."""

    kind = TrainAutoEncoder
    open_network = staticmethod(gen_latent.load)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes of `x`, on the CPU: vectors or maps."""
        return torch.cat([self.network.encode(part.to(self.device)).cpu() for part in x.split(512)])

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Samples with these codes, on the CPU."""
        return torch.cat([self.network.decode(part.to(self.device)).cpu() for part in z.split(512)])

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """decode(encode(x)), on the CPU."""
        return torch.cat([self.network(part.to(self.device)).cpu() for part in x.split(512)])

    def groups(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Codes of training data and of held-out data, by class: an auto-encoder has no samples."""
        parts = {"codes of training data": subset(self.data()[0])[:], "codes of held-out data": self.data()[1][:]}
        return {name: (self.encode(x), y) for name, (x, y) in parts.items()}

    def _halves(self) -> tuple[Arrays, Arrays]:
        return build.halves(self.config)[:2]
