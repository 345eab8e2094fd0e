"""A trained diffusion model: its denoiser, and samples."""

from typing import Any

import torch
from torch import Tensor

import gen_diffusion
from gen_apps.diffusion.build import draw_samples
from gen_apps.diffusion.config import TrainDiffusion
from gen_apps.diffusion.flags import Sampler
from gen_apps.opening import Trained


class TrainedDiffusion(Trained[TrainDiffusion]):
    """sample(n, labels, seed=..., sampler=...); `network` is the denoiser (x, sigma, label=...) -> E[x0 | x]."""

    kind = TrainDiffusion
    open_network = staticmethod(gen_diffusion.load)

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, *, seed: int = 0, sampler: Sampler | None = None, **where: Any
    ) -> Tensor:
        """`n` samples on the CPU; without `labels` the classes take turns.

        Args:
            sampler: a completed configuration; by default the run's own.
            where: batch and progress, as `gen_diffusion.draw` takes them.
        """
        if labels is None and self.classes:
            labels = torch.arange(n) % self.classes
        return draw_samples(
            sampler or self.config.sampler, self.network, range(n), self.shape, labels,
            seed=seed, device=self.device, **where,
        )  # fmt: skip
