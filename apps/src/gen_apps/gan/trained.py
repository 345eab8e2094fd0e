"""A trained GAN: samples of its generator."""

import torch
from torch import Tensor, nn

import gen_latent
from gen_apps.gan import build
from gen_apps.gan.config import TrainGAN
from gen_apps.opening import Trained
from gen_apps.samples import BLOCK, in_blocks
from gen_core.data import Arrays
from gen_core.runtime import generator


class TrainedGAN(Trained[TrainGAN]):
    """sample(n, labels, seed=...) and decode(z, labels), z being the generator's noise."""

    kind = TrainGAN
    open_network = staticmethod(gen_latent.load)

    @property
    def classes(self) -> int:
        return super().classes if self.config.conditional else 0

    def sample(self, n: int, labels: Tensor | None = None, *, seed: int = 0) -> Tensor:
        """`n` samples on the CPU; pictures within [-1, 1]."""
        return draw(self.network, self.config.latents, n, labels, seed=seed)

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples of given noise, on the CPU."""
        return self.network(z.to(self.device), **self.conditions(labels)).cpu()

    def _halves(self) -> tuple[Arrays, Arrays]:
        return build.halves(self.config)[:2]


@torch.no_grad()
def draw(net: nn.Module, latents: int, n: int, labels: Tensor | None = None, *, seed: int = 0) -> Tensor:
    """`n` samples on the CPU; pictures within [-1, 1]."""
    device = next(net.parameters()).device

    def block(number: int, labels: Tensor | None) -> Tensor:
        z = torch.randn(BLOCK, latents, generator=generator(seed, "latents", number)).to(device)
        x = net(z, **({} if labels is None else {"label": labels.to(device)})).cpu()
        return x.clamp(-1, 1) if x.ndim == 4 else x

    return in_blocks(n, labels, block)
