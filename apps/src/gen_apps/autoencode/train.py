"""`gen autoencode train`."""

from dataclasses import dataclass
from pathlib import Path

import torch

from gen_apps import strips
from gen_apps.autoencode.config import TrainAutoEncoder
from gen_apps.data import loader, subset
from gen_apps.identity import placed, read
from gen_apps.training import Subject, fit, subject, weights
from gen_core import Run, embed, report, seed_all
from gen_core.checkpoint import load_tensors, save_tensors
from gen_core.runtime import generator
from gen_core.summary import summary
from gen_latent import AutoEncoder, corrupt
from gen_latent.task import AutoEncoderTask

SCALE = "scale.safetensors"


def train(config: TrainAutoEncoder) -> None:
    config, run = placed(config, "autoencode train")
    training, held_out, of = config.halves()
    seed_all(config.seed, "weights")
    model = config.model(of)
    task = AutoEncoderTask(
        model, noise=config.noise, mask=config.mask(), lr=config.optim.lr, weight_decay=config.optim.weight_decay
    )
    few = damaged(config, held_out[strips.spread(len(held_out))][0])

    def give_back(x: torch.Tensor) -> torch.Tensor:
        return model(x.to(next(model.parameters()).device)).cpu()

    def look(step: int) -> None:
        if few.ndim == 4:
            strips.add(run, "given back", step, few, give_back(few))

    trainer, ema = fit(
        "autoencode train", config, run, task, loader(config, training), None,
        averaged="model", model=of, layers=summary(model, torch.zeros(1, *of.shape)), held_out=held_out, look=look,
    )  # fmt: skip
    if trainer.rank == 0:
        with ema.swapped(), torch.no_grad():
            x, *_, y = subset(training)[:]
            x = x.to(trainer.device)
            model.fit_scale(x.split(512))
            save_tensors(run / SCALE, {"mean": model.mean, "std": model.std})
            strips.join(run, "given back")
            seen = strips.spread(len(x), 1000)
            codes, labels = model.encode(x[seen]).flatten(1).cpu(), y[seen]
            if codes.shape[1] > 1:
                (run / "pictures").mkdir(exist_ok=True)
                embed.scatter(embed.pca(codes).z, labels.tolist(), path=run / "pictures" / "codes by PCA.png")
            error = (give_back(damaged(config, held_out[:][0])) - held_out[:][0]).square().mean().item()
        print(f"squared error per value of {len(held_out)} held-out samples {error:.5f}; report {report.build(run)}")


def damaged(config: TrainAutoEncoder, x: torch.Tensor) -> torch.Tensor:
    """As in training, by the run's seed."""
    mask = config.mask()
    seen = None if mask is None else mask(torch.zeros(len(x)), x)
    return corrupt(x, noise=config.noise, mask=seen, generator=generator(config.seed, "damage"))


@dataclass(frozen=True)
class TrainedAutoEncoder:
    """The averaged weights of a run's newest checkpoint, and the scale of its codes."""

    run: Run
    config: TrainAutoEncoder
    subject: Subject
    model: AutoEncoder
    step: int
    device: torch.device

    @classmethod
    def open(cls, path: Path, device: str = "auto") -> "TrainedAutoEncoder":
        run = Run.open(path)
        config, of = read(run, TrainAutoEncoder, "autoencode train"), subject(run)
        model = config.model(of)
        step, where = weights(run, "autoencode train", device, model)
        if not (run.path / SCALE).is_file():
            raise FileNotFoundError(f"{run.path} has no {SCALE}; its training did not end: train it on with --resume")
        scale = load_tensors(run.path / SCALE)
        model.mean.copy_(scale["mean"])
        model.std.copy_(scale["std"])
        return cls(run, config, of, model, step, where)

    @torch.no_grad()
    def give_back(self, x: torch.Tensor) -> torch.Tensor:
        """The reconstruction, on the CPU."""
        return torch.cat([self.model(part.to(self.device)).cpu() for part in x.split(512)])

    @torch.no_grad()
    def codes(self, x: torch.Tensor) -> torch.Tensor:
        """Of each sample one row, on the CPU."""
        return torch.cat([self.model.encode(part.to(self.device)).flatten(1).cpu() for part in x.split(512)])
