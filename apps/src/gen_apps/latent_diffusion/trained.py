"""A trained latent diffusion model: a denoiser of codes, and the auto-encoder that they are of."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gen_diffusion
from gen_apps.autoencode.trained import TrainedAutoEncoder
from gen_apps.diffusion.build import draw_samples
from gen_apps.diffusion.flags import Sampler
from gen_apps.latent_diffusion.config import TrainLatentDiffusion
from gen_apps.opening import Trained
from gen_core.data import Arrays


def open_stage(run: str, device: str) -> TrainedAutoEncoder:
    """The first stage, whose codes have zero mean and unit deviation.

    Raises:
        ValueError: for one that is trained on damaged data or has one class left out.
    """
    if not run:
        raise ValueError("RUN is missing: train a first stage with gen autoencode train, and give its directory")
    stage = TrainedAutoEncoder.open(Path(run), device)
    how = stage.config
    if how.noise or how.hide != "nothing" or how.leave_out is not None:
        raise ValueError(f"{run} was trained to mend data, or without a class; give one that only gives back")
    return stage


def complete(config: TrainLatentDiffusion, points: bool) -> TrainLatentDiffusion:
    """The configuration with the defaults of its choices, for codes that are vectors (`points`) or maps."""
    network = config.network.completed(points)
    return replace(config, network=network, objective=config.objective.completed(), sampler=config.sampler.completed())


class TrainedLatentDiffusion(Trained[TrainLatentDiffusion]):
    """sample(n, labels, seed=...), encode(x) and decode(z); `network` is the denoiser of codes."""

    kind = TrainLatentDiffusion
    open_network = staticmethod(gen_diffusion.load)

    @cached_property
    def stage(self) -> TrainedAutoEncoder:
        return open_stage(self.config.data, str(self.device))

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, *, seed: int = 0, sampler: Sampler | None = None, **where: Any
    ) -> Tensor:
        """`n` samples on the CPU, codes by diffusion, decoded; without `labels` the classes take turns."""
        if labels is None and self.classes:
            labels = torch.arange(n) % self.classes
        return draw_samples(
            sampler or self.config.sampler.completed(), self.network, range(n), self.shape, labels, seed=seed,
            device=self.device, decode=self.stage.network.decode, **where,
        )  # fmt: skip

    def encode(self, x: Tensor) -> Tensor:
        """Codes of `x`, on the CPU."""
        return self.stage.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Samples with these codes, on the CPU."""
        return self.stage.decode(z)

    def data(self) -> tuple[Arrays, Arrays]:
        """The training half and the held-out half of the first stage's data."""
        return self.stage.data()
