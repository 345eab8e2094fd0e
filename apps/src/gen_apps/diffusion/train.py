"""`gen diffusion train`."""

import json

import numpy as np
import rich
import torch

from gen_apps import data
from gen_apps.diffusion.config import Train
from gen_apps.diffusion.model import Model
from gen_apps.energy import metered
from gen_apps.identity import identity
from gen_apps.loop import loop
from gen_core import (
    EMA,
    Loader,
    Run,
    Trainer,
    pictures,
    quality,
    report,
    seed_all,
)
from gen_core.ema import power
from gen_core.files import whole
from gen_core.summary import summary


def train(config: Train) -> None:
    config, run = config.placed()
    training, held_out = config.load()
    optim, model = config.optim, Model.of(training)
    config.sampler.check(model.classes)
    seed_all(config.seed, "weights")
    denoiser = model.denoiser(config.network, str(config.objective.view))
    task = config.objective.task(
        denoiser, model.classes, p_drop=optim.p_drop, lr=optim.lr, weight_decay=optim.weight_decay
    )
    ema = EMA("denoiser", power(optim.ema))
    layers = summary(denoiser, torch.zeros(1, *model.shape), torch.ones(1))

    def samples(t: Trainer, labels: torch.Tensor) -> torch.Tensor:
        mine = range(t.rank, len(labels) + t.world, t.world)[: -(-len(labels) // t.world)]  # as many on each process
        with ema.swapped():
            asked = labels if model.classes else None
            x = config.sampler.draw(denoiser, mine, model.shape, asked, seed=config.seed, device=t.device)
        return t.gather(x.to(t.device)).cpu().unflatten(0, (t.world, -1)).transpose(0, 1).flatten(0, 1)[: len(labels)]

    def picture(t: Trainer) -> None:
        labels = torch.arange(50) % max(1, model.classes)
        x = samples(t, labels)
        if t.rank == 0:
            pictures.save(run / "samples" / f"step-{t.step:06d}.png", x, columns=10, labels=labels)

    def begin() -> None:
        record = Run.create(run, identity(config))
        model.save(record)
        record.write("summary.txt", f"{layers}\n")

    trainer = loop(
        config, run, task, data.loader(config, training), ema, picture,
        begin=begin, go_on=f"go on with: gen diffusion train --resume {run}",
        validation=Loader(held_out, min(512, len(held_out))), clip=optim.clip,
    )  # fmt: skip

    labels = held_out.tensors[-1]
    with metered(config.place, len(labels)) as cost:
        x = samples(trainer, labels)
    if trainer.rank == 0:
        spent = {"training": json.loads((run / "energy.json").read_text()), "sampling, this process": cost.facts}
        Run(run).write("energy.json", spent)
        with whole(run / "samples.npz") as part:
            np.savez(part, x=x.numpy(), label=labels.numpy())
        measured = quality.assess(x, labels, training, held_out)
        Run(run).write("quality.json", measured)
        rich.print(quality.table(measured))
        print(f"training: energy {spent['training']['energy']}; carbon {spent['training']['carbon']}")
        print(f"samples {run / 'samples.npz'}, report {report.build(run)}")
