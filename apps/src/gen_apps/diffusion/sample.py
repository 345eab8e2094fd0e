"""`gen diffusion sample`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from gen_apps.diffusion.samplers import Sampler
from gen_apps.diffusion.trained import Trained
from gen_apps.energy import Place, metered
from gen_apps.options import given
from gen_core import pictures
from gen_core.callbacks import bar


@dataclass(frozen=True)
class Sample:
    """Draw samples of a trained run: a picture, and an .npz file with the arrays x and label.

    They are drawn as in the run, but for the options that are given.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    n: int = 64
    """Samples."""
    label: int | None = None
    """Class of all samples; by default the classes take turns."""
    sampler: Annotated[Sampler, tyro.conf.arg(name="")] = field(default_factory=Sampler)
    seed: int = 0
    """Sample i is a function of the seed and i alone, whatever n and the batch."""
    batch: int = 256
    """Samples at a time, to fit memory."""
    device: str = "auto"
    place: Place = field(default_factory=Place)
    out: Path | None = None
    """Where to write, without suffix; by default sample-seed-SEED in the run."""

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"--n must be at least 1 sample, got {self.n}")
        if self.batch < 1:
            raise ValueError(f"--batch must be at least 1 sample, got {self.batch}")


def sample(config: Sample) -> None:
    trained = Trained.open(config.run, config.device)
    model, run = trained.model, trained.run
    if config.label is not None and not 0 <= config.label < model.classes:
        classes = f"0..{model.classes - 1}" if model.classes else "which has none"
        raise ValueError(f"--label must be a class of the run, {classes}, got {config.label}")
    sampler = config.sampler.over(trained.config.sampler).completed(group="", asked=given(config.sampler))
    sampler.check(model.classes, group="")
    classes = torch.arange(config.n) % max(1, model.classes)
    labels = classes if config.label is None else torch.full_like(classes, config.label)
    with bar("sampling", config.n) as advance, metered(config.place, config.n) as cost:
        x = sampler.draw(
            trained.denoiser, range(config.n), model.shape, labels if model.classes else None,
            seed=config.seed, batch=config.batch, device=trained.device, progress=advance,
        )  # fmt: skip
    out = config.out or run.path / f"sample-seed-{config.seed}"
    picture, arrays, energy = (out.with_name(out.name + end) for end in (".png", ".npz", ".energy.json"))
    columns = 10 if config.label is None and model.classes == 10 else None
    pictures.save(picture, x, columns=columns, labels=labels)
    np.savez(arrays, x=x.numpy(), label=labels.numpy())
    energy.write_text(json.dumps(cost.facts, indent=1) + "\n")
    run.log(trained.step, cost.metrics)
    print(f"{picture} and .npz: {config.n} samples of step {trained.step}")
    print("; ".join(f"{name} {cost.facts[name]}" for name in ("energy", "carbon", "per sample")))
