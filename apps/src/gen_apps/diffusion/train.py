"""`gen diffusion train`."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from gen_apps import data
from gen_apps.data import Subject
from gen_apps.diffusion import build
from gen_apps.diffusion.config import TrainDiffusion
from gen_apps.training import finish_run, fit
from gen_core import Loader, Training, pictures, quality, seed_all
from gen_core.ema import power
from gen_core.summary import summary


def train(config: TrainDiffusion, run: Path) -> None:
    training, held_out = data.of(config)
    optim, subject = config.optim, Subject.of(config.data, config.size, training)
    config.sampler.check(subject.classes)
    seed_all(config.seed, "weights")
    denoiser = build.denoiser(config.network, config.objective, subject, build.root_mean_square(training))
    task = build.task(
        config.objective, denoiser, subject.classes, p_drop=optim.p_drop, lr=optim.lr, weight_decay=optim.weight_decay
    )

    def samples(t: Training, labels: Tensor) -> Tensor:
        """Samples of these classes; each process draws as many."""
        mine = range(t.rank, len(labels) + t.world, t.world)[: -(-len(labels) // t.world)]
        of = labels if subject.classes else None
        x = build.draw_samples(config.sampler, denoiser, mine, subject.shape, of, seed=config.seed, device=t.device)
        return t.gather(x.to(t.device)).cpu().unflatten(0, (t.world, -1)).transpose(0, 1).flatten(0, 1)[: len(labels)]

    def preview(t: Training) -> None:
        labels = torch.arange(50) % max(1, subject.classes)
        x = samples(t, labels)
        if t.rank == 0:
            pictures.save(run / "samples" / f"step-{t.step:06d}.png", x, columns=10, labels=labels)

    trainer, averaged = fit(
        config, run, task, data.loader(config, training), network="denoiser",
        facts=asdict(subject), layers=summary(denoiser, torch.zeros(1, *subject.shape), torch.ones(1)),
       
        preview=preview, ema=power(config.optim.ema), validation=Loader(held_out, min(512, len(held_out))),
    )  # fmt: skip
    labels = held_out.tensors[-1]
    with averaged():
        finish_run(
            config, run, lambda: samples(trainer, labels), len(labels),
            lambda x: quality.assess(x, labels, training, held_out), labels=labels,
            writes=trainer.rank == 0,
        )  # fmt: skip
