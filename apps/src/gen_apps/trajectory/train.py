"""`gen trajectory train`."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gen_apps.training import finish_run, fit
from gen_apps.trajectory import build
from gen_apps.trajectory.config import TrainTrajectory
from gen_apps.trajectory.measure import measure
from gen_core import Arrays, Loader, Training, seed_all
from gen_core.config import to_dict
from gen_core.ema import power
from gen_core.runtime import generator
from gen_core.summary import summary
from gen_diffusion.motion import TAGS, caption, draw_trajectories
from gen_diffusion.task import DiffusionTask
from gen_diffusion.text import Words, tokenise
from gen_diffusion.trajectory import plot


def train(config: TrainTrajectory, run: Path) -> None:
    optim = config.optim
    training, held_out = (
        draw_trajectories(n, config.frames, generator=generator(config.seed, half))
        for half, n in (("training", config.trajectories), ("held out", config.samples))
    )
    words = Words.fit([caption(range(TAGS))])
    seed_all(config.seed, "weights")
    denoiser = build.denoiser(config.network, words, training.features.square().mean().sqrt().item())
    task = DiffusionTask(
        denoiser, conditions={"text": 0}, levels=build.LEVELS, p_drop=optim.p_drop, lr=optim.lr,
        weight_decay=optim.weight_decay,
    )  # fmt: skip
    known, new = (Arrays(part.features, tokenise(part.captions, words)) for part in (training, held_out))

    def drawn(captions: Sequence[str]) -> Tensor:
        device = next(denoiser.parameters()).device
        return build.draw_samples(
            denoiser, words, config.sampler, captions, config.frames, seed=config.seed, device=device
        )

    def preview(t: Training) -> None:
        if t.rank == 0:
            captions, folder = held_out.captions[:3], run / "samples"
            folder.mkdir(exist_ok=True)
            plot(drawn(captions), folder / f"step-{t.step:06d}.png", captions)

    text = torch.ones(1, build.CAPTION, dtype=torch.long)
    trainer, averaged = fit(
        config, run, task, Loader(known, optim.batch_size, seed=config.seed), network="denoiser",
        facts={"words": to_dict(words)},
        layers=summary(denoiser, torch.zeros(1, config.frames, 9), torch.ones(1), text=text),
        preview=preview, ema=power(config.optim.ema),
        validation=Loader(new, min(128, len(new))),
    )  # fmt: skip
    if trainer.rank == 0:
        with averaged():
            finish_run(
                config, run, lambda: drawn(held_out.captions), config.samples,
                lambda x: measure(x, held_out, config.seed),
            )  # fmt: skip
