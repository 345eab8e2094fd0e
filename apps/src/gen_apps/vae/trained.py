"""A trained VAE: samples, codes, reconstructions."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gen_latent
from gen_apps.opening import Trained
from gen_apps.samples import BLOCK, in_blocks
from gen_apps.vae import build
from gen_apps.vae.config import TrainVAE
from gen_core.checkpoint import load_tensors, save_tensors
from gen_core.data import Arrays
from gen_core.runtime import generator
from gen_latent import VAE, Mixture

AGGREGATE = "aggregate.safetensors"


class TrainedVAE(Trained[TrainVAE]):
    """sample(n, labels, seed=...), encode(x, labels), decode(z, labels) and log-likelihood bounds by `network`."""

    kind = TrainVAE
    open_network = staticmethod(gen_latent.load)

    @property
    def classes(self) -> int:
        return super().classes if self.config.conditional else 0

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, *, seed: int = 0, prior: str = "aggregate", mean: bool = False
    ) -> Tensor:
        """`n` samples on the CPU, of latents from the fitted mixture or the model's own prior; see `draw`."""
        return draw(self.network, self.prior(prior), n, labels, noise=not mean, seed=seed, device=self.device)

    @torch.no_grad()
    def encode(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Means of the posteriors of `x`, on the CPU: shape (n, latents)."""
        return self.network.encode(x.to(self.device), **self.conditions(labels)).mean.cpu()

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Means of the likelihood given latents, on the CPU."""
        return self.network.decode(z.to(self.device), **self.conditions(labels)).mean.cpu()

    def prior(self, kind: str = "aggregate") -> Any:
        """The distribution that the latents of samples are drawn from."""
        if kind == "own":
            return self.network.prior
        file = self.run.path / AGGREGATE
        if not file.is_file():
            raise FileNotFoundError(f"{self.run.path} has no {AGGREGATE}; its training did not end: use --prior own")
        tensors = load_tensors(file)
        prior = Mixture(self.config.latents, len(tensors["logits"]))
        prior.load_state_dict(tensors)
        return prior.to(self.device)

    def groups(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Held-out data and samples in the range of pictures, see `Trained.groups`."""
        x, y = self.data()[1][:]
        return {"data": (2 * x - 1 if self.config.binarise else x, y), "samples": self._samples()}

    def _halves(self) -> tuple[Arrays, Arrays]:
        return build.halves(self.config)[:2]


@torch.no_grad()
def draw(
    vae: VAE,
    prior: Any,
    n: int,
    labels: Tensor | None = None,
    *,
    noise: bool = True,
    seed: int = 0,
    device: Any = "cpu",
) -> Tensor:
    """`n` samples on the CPU: latents of `prior`, then draws of the likelihood, or its means without `noise`."""

    def block(number: int, labels: Tensor | None) -> Tensor:
        z = prior.sample(BLOCK, generator(seed, "latents", number)).to(device)
        p = vae.decode(z, **({} if labels is None else {"label": labels.to(device)}))
        return (p.sample(generator(seed, "likelihood", number)) if noise else p.mean).cpu()

    return in_blocks(n, labels, block)


def fit_aggregate(run: Path, vae: VAE, x: Tensor, conditions: dict[str, Tensor], config: TrainVAE) -> Mixture:
    """Fit a mixture to draws of all posteriors, five of each, and write it beside the run's checkpoints."""
    q = vae.encode(x, **conditions)
    z = torch.cat([q.sample(generator(config.seed, "codes", i)) for i in range(5)])
    prior = Mixture.fitted(z, min(config.components, len(x) // 4), config.seed)
    save_tensors(run / AGGREGATE, prior.state_dict())
    return prior
