"""`gen trajectory train`."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import rich
import torch

from gen_apps.energy import metered
from gen_apps.loop import loop
from gen_apps.trajectory.config import CAPTION, Model, Sampler, Train
from gen_apps.trajectory.measure import measure
from gen_core import (
    EMA,
    Arrays,
    Loader,
    Run,
    Trainer,
    quality,
    report,
    seed_all,
)
from gen_core.config import to_dict
from gen_core.ema import power
from gen_core.runtime import generator
from gen_core.summary import summary
from gen_diffusion.denoise import Preconditioned
from gen_diffusion.draw import draw
from gen_diffusion.guide import cfg
from gen_diffusion.loss import log_normal
from gen_diffusion.motion import TAGS, caption, draw_trajectories
from gen_diffusion.schedule import karras
from gen_diffusion.task import DiffusionTask
from gen_diffusion.text import Words, tokenise
from gen_diffusion.trajectory import plot

LEVELS = partial(log_normal, mean=0.8, std=1.6)  # higher than for pictures: see Director


def samples(
    denoiser: Preconditioned, words: Words, sampler: Sampler, captions: Sequence[str], frames: int, **how: Any
) -> torch.Tensor:
    """One trajectory for each caption."""
    text = tokenise(captions, words)
    guided = cfg(denoiser, sampler.guidance)
    return draw(guided, range(len(text)), (frames, 9), karras(sampler.steps), text=text, **how)


def train(config: Train) -> None:
    run, optim = config.directory(), config.optim
    training, held_out = (
        draw_trajectories(n, config.frames, generator=generator(config.seed, half))
        for half, n in (("training", config.trajectories), ("held out", config.samples))
    )
    model = Model(Words.fit([caption(range(TAGS))]), training.features.square().mean().sqrt().item())
    seed_all(config.seed, "weights")
    denoiser = model.denoiser(config.network)
    task = DiffusionTask(
        denoiser, conditions={"text": 0}, levels=LEVELS, p_drop=optim.p_drop, lr=optim.lr,
        weight_decay=optim.weight_decay,
    )  # fmt: skip
    ema = EMA("denoiser", power(optim.ema))
    loader, validation = (
        Loader(Arrays(part.features, tokenise(part.captions, model.words)), size, seed=config.seed)
        for part, size in ((training, optim.batch_size), (held_out, min(128, config.samples)))
    )
    text = torch.ones(1, CAPTION, dtype=torch.long)
    layers = summary(denoiser, torch.zeros(1, config.frames, 9), torch.ones(1), text=text)

    def drawn(t: Trainer, captions: Sequence[str]) -> torch.Tensor:
        with ema.swapped():
            return samples(
                denoiser, model.words, config.sampler, captions, config.frames, seed=config.seed, device=t.device
            )

    def picture(t: Trainer) -> None:
        if t.rank == 0:
            captions, folder = held_out.captions[:3], run / "samples"
            folder.mkdir(exist_ok=True)
            plot(drawn(t, captions), folder / f"step-{t.step:06d}.png", captions)

    def begin() -> None:
        record = Run.create(run, config.identity())
        record.write("model.json", to_dict(model))
        record.write("summary.txt", f"{layers}\n")

    trainer = loop(
        config, run, task, loader, ema, picture,
        begin=begin, go_on="the same command again goes on", validation=validation, clip=optim.clip,
    )  # fmt: skip
    if trainer.rank == 0:
        with metered(config.place, config.samples) as cost:
            x = drawn(trainer, held_out.captions)
        spent = {"training": json.loads((run / "energy.json").read_text()), "sampling": cost.facts}
        Run(run).write("energy.json", spent)
        measured = measure(x, held_out, config.seed)
        Run(run).write("quality.json", measured)
        rich.print(quality.table(measured))
        print(f"training: energy {spent['training']['energy']}; carbon {spent['training']['carbon']}")
        print(f"pictures {run / 'samples'}, report {report.build(run)}")
