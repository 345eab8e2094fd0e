"""`gen latent-diffusion train` and `gen latent-diffusion sample`."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from gen_apps.autoencode.train import TrainedAutoEncoder
from gen_apps.data import loader
from gen_apps.diffusion.model import Model
from gen_apps.diffusion.samplers import Sampler
from gen_apps.drawn import RunPath, asked, write
from gen_apps.energy import Place, metered
from gen_apps.identity import Machine, placed, read
from gen_apps.latent_diffusion.config import TrainLatentDiffusion
from gen_apps.training import fit, leave, weights
from gen_core import Run, quality, seed_all
from gen_core.metrics import frechet
from gen_core.summary import summary
from gen_diffusion import Preconditioned


def draw(
    sampler: Sampler,
    denoiser: Preconditioned,
    stage: TrainedAutoEncoder,
    of: Model,
    n: int,
    labels: Tensor | None,
    seed: int,
) -> Tensor:
    """`n` samples: codes by diffusion, decoded."""
    return sampler.draw(
        denoiser, range(n), of.shape, labels, seed=seed, device=stage.device, decode=stage.model.decode
    )  # fmt: skip


def train(config: TrainLatentDiffusion) -> None:
    config, run = placed(config, "latent-diffusion train")
    stage = config.first()
    of = config.model(stage)
    config = config.completed(of)
    training, held_out, _ = stage.config.halves()
    seed_all(config.seed, "weights")
    denoiser = of.denoiser(config.network, str(config.objective.view))
    optim = config.optim
    task = config.objective.task(
        denoiser,
        of.classes,
        p_drop=optim.p_drop,
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        encode=stage.model.encode,
    )
    turns, y = torch.arange(50) % max(1, of.classes), held_out.tensors[-1]

    def drawn(n: int) -> Tensor:
        labels = (turns if n == 50 else y) if of.classes else None
        return draw(config.sampler, denoiser, stage, of, n, labels, config.seed)

    trainer, ema = fit(
        "latent-diffusion train", config, run, task, loader(config, training), drawn,
        averaged="denoiser", model=of, held_out=held_out,
        layers=summary(denoiser, torch.zeros(1, *of.shape), torch.ones(1)),
    )  # fmt: skip
    if trainer.rank == 0:
        with ema.swapped():
            leave(config, run, drawn, training, held_out, y if of.classes else None)
        x, x_test = training[: len(held_out)][0], held_out[:][0]
        best = frechet(quality.flat(stage.give_back(x)), quality.flat(x_test))
        Run(run).write("first_stage.json", {"frechet of training data given back": best, "of": str(stage.run.path)})
        print(f"no samples can be expected nearer than the first stage gives training data back: frechet {best:.3g}")


@dataclass(frozen=True)
class SampleLatentDiffusion:
    """Draw samples of a trained run: a picture, and an .npz file with the arrays x and label."""

    run: RunPath
    """Directory of the run."""
    n: int = 64
    """Samples."""
    label: int | None = None
    """Class of all samples; by default the classes take turns."""
    guidance: float | None = None
    """Classifier-free guidance; by default that of the run."""
    seed: int = 0
    device: str = "auto"
    place: Place = field(default_factory=Place)
    out: Path | None = None
    """Where to write, without suffix; by default sample-seed-SEED in the run."""

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"--n must be at least 1 sample, got {self.n}")


def sample(config: SampleLatentDiffusion) -> None:
    run = Run.open(config.run)
    trained = read(run, TrainLatentDiffusion, "latent-diffusion train")
    stage, of = replace(trained, machine=Machine(config.device)).first(), Model.load(run)
    labels = asked(config.label, config.n, of.classes)
    denoiser = of.denoiser(trained.network, str(trained.objective.view))
    step, _ = weights(run, "latent-diffusion train", config.device, denoiser)
    sampler = Sampler(guidance=config.guidance).over(trained.sampler).completed(group="")
    sampler.check(of.classes, "")
    with metered(config.place, config.n) as cost, torch.no_grad():
        x = draw(sampler, denoiser, stage, of, config.n, labels, config.seed)
    write(run, step, config, x, labels, cost)
