"""`gen latent-diffusion train` and `gen latent-diffusion sample`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen_apps.data import Subject, loader
from gen_apps.diffusion import build
from gen_apps.diffusion.flags import Sampler
from gen_apps.latent_diffusion.config import SampleLatentDiffusion, TrainLatentDiffusion
from gen_apps.latent_diffusion.trained import TrainedLatentDiffusion, complete, open_stage
from gen_apps.samples import requested_labels, write_pictures
from gen_apps.training import finish_run, fit
from gen_core import Loader, Run, Training, pictures, quality, seed_all
from gen_core.ema import power
from gen_core.scales import text
from gen_core.summary import summary


def train(config: TrainLatentDiffusion, run: Path) -> None:
    stage = open_stage(config.data, config.machine.device)
    code = stage.encode(torch.zeros(1, *stage.shape))
    subject = Subject(tuple(code.shape[1:]), stage.facts["classes"], None)
    config = complete(config, points=code.ndim == 2)
    config.sampler.check(subject.classes)
    training, held_out = stage.data()
    seed_all(config.seed, "weights")
    denoiser, optim = build.denoiser(config.network, config.objective, subject, sigma_data=1.0), config.optim
    task = build.task(
        config.objective, denoiser, subject.classes, p_drop=optim.p_drop, lr=optim.lr,
        weight_decay=optim.weight_decay, encode=stage.network.encode,
    )  # fmt: skip
    y = held_out.tensors[-1]

    def drawn(labels: Tensor) -> Tensor:
        return build.draw_samples(
            config.sampler, denoiser, range(len(labels)), subject.shape, labels if subject.classes else None,
            seed=config.seed, device=stage.device, decode=stage.network.decode,
        )  # fmt: skip

    def preview(t: Training) -> None:
        if t.rank == 0:
            x = drawn(torch.arange(50) % max(1, subject.classes))
            pictures.save(run / "samples" / f"step-{t.step:06d}.png", x, columns=10)

    trainer, averaged = fit(
        config, run, task, loader(config, training), network="denoiser",
        facts=asdict(subject), layers=summary(denoiser, torch.zeros(1, *subject.shape), torch.ones(1)),
       
        preview=preview, ema=power(config.optim.ema), validation=Loader(held_out, min(512, len(held_out))),
    )  # fmt: skip
    if trainer.rank:
        return
    labels = y if subject.classes else None
    reference = quality.Reference.of(training, held_out)
    back = reference.measure("training data given back", stage.reconstruct(training[: len(held_out)][0]))
    best = back.figures["frechet"].figure()

    def measure(x: Tensor) -> dict[str, Any]:
        drawn = reference.measure("samples", x, labels)
        return reference.tabulate([drawn, reference.training_data(), reference.gaussian(), back])

    with averaged():
        finish_run(config, run, lambda: drawn(y), len(y), measure, labels=labels)
    Run(run).write("first_stage.json", {"frechet of training data given back": best, "of": str(stage.run.path)})
    print(f"no samples can be expected nearer than the first stage gives training data back: frechet {text(best)}")


def sample(config: SampleLatentDiffusion) -> None:
    trained = TrainedLatentDiffusion.open(config.run, config.device)
    labels = requested_labels(config.label, config.n, trained.classes)
    sampler = Sampler(guidance=config.guidance).over(trained.config.sampler).completed(group="")
    sampler.check(trained.classes, "")
    write_pictures(config, trained, labels, lambda: trained.sample(config.n, labels, seed=config.seed, sampler=sampler))
