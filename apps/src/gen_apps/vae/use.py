"""`gen vae sample`, `interpolate` and `nll`: what a trained run is used for."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from gen_apps.drawn import RunPath, asked, named, write
from gen_apps.energy import Place, metered
from gen_apps.vae.trained import TrainedVAE, draw
from gen_core import pictures
from gen_core.runtime import generator
from gen_latent import active_units, effective_sample_size, elbo, nll
from gen_latent.latents import largest_jump, lerp, slerp


@dataclass(frozen=True)
class SampleVAE:
    """Draw samples of a trained run: a picture, and an .npz file with the arrays x and label."""

    run: RunPath
    """Directory of the run."""
    n: int = 64
    """Samples."""
    label: int | None = None
    """Class of all samples, of a conditional model; by default the classes take turns."""
    prior: Literal["aggregate", "own"] = "aggregate"
    """Latents of the mixture that was fitted to the codes, or of the prior in training."""
    mean: bool = False
    """Show the likelihood's mean instead of a draw of it: smoother than any data."""
    seed: int = 0
    """Sample i is a function of the seed, i and its label alone, whatever n."""
    device: str = "auto"
    place: Place = field(default_factory=Place)
    out: Path | None = None
    """Where to write, without suffix; by default sample-seed-SEED in the run."""

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"--n must be at least 1 sample, got {self.n}")


def sample(config: SampleVAE) -> None:
    trained = TrainedVAE.open(config.run, config.device)
    labels = asked(config.label, config.n, trained.subject.classes if trained.config.conditional else 0)
    with metered(config.place, config.n) as cost:
        x = draw(
            trained.model, trained.prior(config.prior), config.n, labels,
            noise=not config.mean, seed=config.seed, device=trained.device,
        )  # fmt: skip
    write(trained.run, trained.step, config, 2 * x - 1 if trained.config.binarise else x, labels, cost)


@dataclass(frozen=True)
class InterpolateVAE:
    """Walk between the codes of held-out samples: a picture with a path in each row, its ends reconstructions."""

    run: RunPath
    """Directory of the run."""
    n: int = 8
    """Paths."""
    steps: int = 10
    """Points of a path, its ends included."""
    kind: Literal["slerp", "lerp"] = "slerp"
    """slerp keeps the norm of the codes, lerp shrinks it on the way."""
    seed: int = 0
    """Of the choice of ends."""
    device: str = "auto"
    out: Path | None = None
    """Picture to write; by default interpolation.png in the run."""

    def __post_init__(self):
        if self.n < 1 or self.steps < 3:
            raise ValueError(f"--n must be at least 1 path and --steps 3, got {self.n} and {self.steps}")


@torch.no_grad()
def interpolate(config: InterpolateVAE) -> None:
    trained = TrainedVAE.open(config.run, config.device)
    _, held_out, _ = trained.config.halves()
    order = torch.randperm(len(held_out), generator=generator(config.seed, "ends"))
    if len(order) < 2 * config.n:
        raise ValueError(f"--n {config.n} paths take {2 * config.n} held-out samples, but there are {len(order)}")
    x, *_, label = held_out[order[: 2 * config.n]]
    label = label.to(trained.device) if trained.config.conditional else None
    z = trained.model.encode(x.to(trained.device), **named(label)).mean
    t = torch.linspace(0, 1, config.steps, device=trained.device)
    way = (slerp if config.kind == "slerp" else lerp)(z[: config.n], z[config.n :], t).transpose(0, 1)
    along = None if label is None else label[: config.n].repeat_interleave(config.steps)
    y = trained.model.decode(way.flatten(0, 1), **named(along)).mean.cpu()
    jumps = [largest_jump(path) for path in y.unflatten(0, (config.n, config.steps))]
    out = config.out or trained.run.path / "interpolation.png"
    pictures.save(out, 2 * y - 1 if trained.config.binarise else y, columns=config.steps)
    print(
        f"{out}: {config.n} paths by {config.kind}; the largest jump is {max(jumps):.2f} times its path's median step"
    )


@dataclass(frozen=True)
class NLLVAE:
    """Bound ln p(x) of held-out data: the ELBO, and the importance-weighted bound of many draws."""

    run: RunPath
    """Directory of the run."""
    k: int = 5000
    """Draws of the latents per sample."""
    n: int = 297
    """Held-out samples, at most."""
    seed: int = 0
    device: str = "auto"

    def __post_init__(self):
        if self.k < 1 or self.n < 1:
            raise ValueError(f"--k and --n must be at least 1, got {self.k} and {self.n}")


@torch.no_grad()
def bound(config: NLLVAE) -> None:
    trained = TrainedVAE.open(config.run, config.device)
    _, held_out, _ = trained.config.halves()
    x, *_, label = (part.to(trained.device) for part in held_out[: config.n])
    cond = named(label if trained.config.conditional else None)
    draws = lambda: generator(config.seed, "bound")
    log_w = trained.model.log_weights(x, min(100, config.k), generator=draws(), **cond)
    values = nll(trained.model, x, config.k, min(500, config.k), generator=draws(), **cond)
    found = {
        "samples": len(x),
        "k": config.k,
        "nll": values.mean().item(),
        "nll, standard error": values.std().item() / math.sqrt(len(x)) if len(x) > 1 else math.nan,
        "minus elbo": -elbo(log_w).mean().item(),
        f"effective draws of {len(log_w)}": effective_sample_size(log_w).mean().item(),
        "active units": active_units(trained.model.encode(x, **cond).mean),
        "latents": trained.config.latents,
    }
    if trained.subject.levels is not None and trained.config.likelihood != "gaussian":
        found["bits per dimension"] = found["nll"] / math.log(2) / x[0].numel()
    trained.run.write("nll.json", found)
    print("; ".join(f"{name} {value:.4g}" for name, value in found.items()) + " (nats per sample)")
