"""A trained model of camera trajectories: samples by prompt."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import gen_diffusion
from gen_apps.opening import Trained
from gen_apps.trajectory import build
from gen_apps.trajectory.config import Sampler, TrainTrajectory
from gen_core.config import from_dict
from gen_core.runtime import generator
from gen_diffusion.motion import caption, draw_trajectories, parse
from gen_diffusion.text import Words


class TrainedTrajectory(Trained[TrainTrajectory]):
    """generate(prompts, seed=...): trajectories of shape (n, frames, 9)."""

    kind = TrainTrajectory
    open_network = staticmethod(gen_diffusion.load)

    @property
    def words(self) -> Words:
        return from_dict(Words, self.facts["words"])

    def groups(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Features of held-out trajectories and of the samples for their captions; there are no classes."""
        held_out = draw_trajectories(
            self.config.samples, self.config.frames, generator=generator(self.config.seed, "held out")
        )
        return {"drawn trajectories": (held_out.features, None), "samples": self._samples()}

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], *, seed: int = 0, sampler: Sampler | None = None, **where: Any
    ) -> Tensor:
        """A trajectory for each prompt, on the CPU: features of shape (n, frames, 9), see gen_diffusion.trajectory."""
        captions = [caption(parse(prompt)) for prompt in prompts]
        return build.draw_samples(
            self.network, self.words, sampler or self.config.sampler, captions, self.config.frames, seed=seed,
            device=self.device, **where,
        )  # fmt: skip
