"""`gen diffusion train` and `gen diffusion sample`."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated

import numpy as np
import rich
import torch
import tyro

from gen_apps import data
from gen_apps.energy import Place, metered
from gen_core import (
    EMA,
    Arrays,
    Checkpoint,
    Evaluate,
    Interrupted,
    Jsonl,
    Loader,
    Progress,
    Run,
    Trainer,
    every,
    pictures,
    quality,
    report,
    seed_all,
    select_device,
)
from gen_core.callbacks import bar
from gen_core.checkpoint import latest, load_tensors
from gen_core.config import differences, from_dict, to_dict
from gen_core.ema import power
from gen_core.schedule import warmup_cosine
from gen_core.summary import summary
from gen_diffusion import MLP, DiffusionTask, Preconditioned, UNet, cfg, churn, draw, heun, karras


@dataclass(frozen=True)
class Network:
    """The denoiser: a U-Net for pictures, a residual MLP for points."""

    width: int = 32
    """Features at full resolution."""
    multipliers: tuple[int, ...] = (1, 2)
    """Pictures: features at each resolution, in units of the width; each one more halves the size."""
    blocks: int = 2
    """Residual blocks per resolution (pictures), or in all (points)."""
    attention: tuple[int, ...] = (1,)
    """Pictures: resolutions with self-attention, 0 being the full one."""
    dropout: float = 0.1
    """Pictures: share of features dropped in training."""

    def __post_init__(self):
        if min(self.width, self.blocks, *self.multipliers) < 1 or self.width % 4:
            raise ValueError(f"--network.width must be a multiple of 4, blocks and multipliers at least 1, got {self}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"--network.dropout must lie in [0, 1), got {self.dropout}")


@dataclass(frozen=True)
class Optim:
    """How it is trained."""

    steps: int = 1500
    """Updates."""
    batch_size: int = 64
    """Samples per update, over all processes."""
    lr: float = 4e-3
    """Peak learning rate of AdamW: linear warm-up over a twentieth, then half a cosine to 0."""
    weight_decay: float = 0.0
    clip: float | None = 1.0
    """Largest norm of a gradient."""
    ema: float = 0.10
    """Width of the power-function average of weights that is sampled from, relative to the steps so far."""
    p_drop: float = 0.1
    """Share of labels dropped, which teaches the unconditional denoiser that guidance needs."""

    def __post_init__(self):
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--optim.{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.p_drop <= 1:
            raise ValueError(f"--optim.p-drop is a share, from 0 to 1, got {self.p_drop}")
        if not self.lr > 0:
            raise ValueError(f"--optim.lr must be positive, got {self.lr}")


@dataclass(frozen=True)
class Sampler:
    """How it is sampled: Heun's method on Karras's noise levels."""

    steps: int = 18
    """Noise levels; each costs two network evaluations (four with guidance)."""
    guidance: float = 1.0
    """Classifier-free guidance: 0 ignores the label, 1 is the conditional model, more exaggerates the class."""
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    """Largest noise level; has to dwarf the data."""
    rho: float = 7.0
    """1 spaces the levels evenly; larger values put more of them at low noise."""
    churn: float = 0.0
    """Noise added back on the way (0 is the ordinary differential equation)."""

    def __post_init__(self):
        karras(self.steps, self.sigma_min, self.sigma_max, self.rho)
        churn(self.churn)


@dataclass(frozen=True)
class Machine:
    """Where it runs: no part of the run's identity, which may be resumed elsewhere."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: str = "auto"
    """auto, bf16 or fp32."""
    micro_batch: int | None = None
    """Samples per forward pass and process, to fit memory."""


@dataclass(frozen=True)
class Train:
    """Train a diffusion model, sample it, measure the samples against held-out data, write a report."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")] = "digits"
    """digits, points:moons (rings, grid, swiss-roll), a folder of pictures with one sub-folder a class, or hub:NAME."""
    out: Path | None = None
    """Directory to write; by default runs/diffusion-DATA, and a hash of the flags if any differ from the defaults.
    The same command again continues the same run."""
    resume: Path | None = None
    """Continue this run with its own configuration."""
    size: int = 0
    """Pixels of a picture; 0 is 8 for digits and 32 otherwise."""
    seed: int = 0
    network: Network = field(default_factory=Network)
    optim: Optim = field(default_factory=Optim)
    sampler: Sampler = field(default_factory=Sampler)
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        if self.size < 0:
            raise ValueError(f"--size is a number of pixels, or 0 for the usual one, got {self.size}")


@dataclass(frozen=True)
class Sample:
    """Draw samples of a trained run: a picture, and an .npz file with the arrays x and label."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    n: int = 64
    """Samples."""
    label: int | None = None
    """Class of all samples; by default the classes take turns."""
    steps: int | None = None
    """Noise levels; each costs two network evaluations (four with guidance). By default those of the run."""
    guidance: float | None = None
    """Classifier-free guidance: 1 is the conditional model, more exaggerates the class."""
    churn: float | None = None
    """Noise added back on the way; 0 is the ordinary differential equation."""
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


def train(config: Train) -> None:
    config, run = _place(config)
    training, held_out = data.load(config.data, config.size)
    machine, optim, steps = config.machine, config.optim, config.optim.steps
    model = Model.of(training)
    seed_all(config.seed, "weights")
    denoiser = model.denoiser(config.network)
    task = DiffusionTask(
        denoiser, num_classes=model.classes, p_drop=optim.p_drop, lr=optim.lr, weight_decay=optim.weight_decay
    )
    ema, often = EMA("denoiser", power(optim.ema)), max(1, steps // 6)
    loader = Loader(training, optim.batch_size, seed=config.seed)
    validation = Loader(held_out, min(512, len(held_out)))
    layers = summary(denoiser, torch.zeros(1, *model.shape), torch.ones(1))

    def samples(t: Trainer, labels: torch.Tensor) -> torch.Tensor:
        mine = range(t.rank, len(labels) + t.world, t.world)[: -(-len(labels) // t.world)]  # as many on each process
        with ema.swapped():
            x = _draw(denoiser, model, config.sampler, labels, mine, config.seed, t.device)
        return t.gather(x.to(t.device)).cpu().unflatten(0, (t.world, -1)).transpose(0, 1).flatten(0, 1)[: len(labels)]

    def picture(t: Trainer, _: dict) -> None:
        labels = torch.arange(50) % max(1, model.classes)
        x = samples(t, labels)
        if t.rank == 0:
            pictures.save(run / "samples" / f"step-{t.step:06d}.png", x, columns=10, labels=labels)

    trainer = Trainer(
        task,
        run,
        seed=config.seed,
        device=machine.device,
        precision=machine.precision,
        micro_batch=machine.micro_batch,
        clip=optim.clip,
        schedule=warmup_cosine(steps // 20, steps),
        callbacks=[
            ema,
            Evaluate(validation, often, within=ema.swapped),
            every(often, picture),
            config.place.callback(optim.batch_size, often),
            Progress(steps),
            Jsonl(every=max(1, steps // 200)),
            Checkpoint(every=often),
        ],
    )
    if trainer.rank == 0:
        record = Run.create(run, _identity(config))
        record.write("model.json", asdict(model))
        record.write("summary.txt", f"{layers}\n")
    trainer.barrier()
    try:
        trainer.fit(loader, steps)
    except Interrupted:
        print(f"stopped at step {trainer.step}; go on with: gen diffusion train --resume {run}", file=sys.stderr)
        raise
    if steps % often:
        picture(trainer, {})

    labels = held_out.tensors[-1]
    with metered(config.place, len(labels)) as cost:
        x = samples(trainer, labels)
    if trainer.rank == 0:
        spent = {"training": json.loads((run / "energy.json").read_text()), "sampling, this process": cost.facts}
        Run(run).write("energy.json", spent)
        np.savez(run / "samples.npz", x=x.numpy(), label=labels.numpy())
        measured = quality.assess(x, labels, training, held_out, seed=config.seed)
        Run(run).write("quality.json", measured)
        rich.print(quality.table(measured))
        print(f"training: energy {spent['training']['energy']}; carbon {spent['training']['carbon']}")
        print(f"samples {run / 'samples.npz'}, report {report.build(run)}")


def sample(config: Sample) -> None:
    run = Run.open(config.run)
    trained = from_dict(Train, run.config())
    model = from_dict(Model, json.loads((run.path / "model.json").read_text()))
    newest = latest(run.path)
    if newest is None:
        raise FileNotFoundError(
            f"{run.path} has no checkpoint yet; train it first: gen diffusion train --resume {run.path}"
        )
    if config.label is not None and not 0 <= config.label < model.classes:
        raise ValueError(f"--label must be a class of the run, 0..{model.classes - 1}, got {config.label}")
    given = {k: v for k in ("steps", "guidance", "churn") if (v := getattr(config, k)) is not None}
    device = select_device(config.device)
    denoiser = model.denoiser(trained.network)
    denoiser.load_state_dict(load_tensors(newest / "ema.safetensors"))
    classes = torch.arange(config.n) % max(1, model.classes)
    labels = classes if config.label is None else torch.full_like(classes, config.label)
    with bar("sampling", config.n) as advance, metered(config.place, config.n) as cost:
        x = _draw(
            denoiser.to(device).eval(), model, replace(trained.sampler, **given), labels, range(config.n), config.seed,
            device, config.batch, advance,
        )  # fmt: skip
    out = config.out or run.path / f"sample-seed-{config.seed}"
    picture, arrays, energy = (out.with_name(out.name + end) for end in (".png", ".npz", ".energy.json"))
    columns = 10 if config.label is None and model.classes == 10 else None
    pictures.save(picture, x, columns=columns, labels=labels)
    np.savez(arrays, x=x.numpy(), label=labels.numpy())
    energy.write_text(json.dumps(cost.facts, indent=1) + "\n")
    run.log(int(newest.name.removeprefix("step-")), cost.metrics)
    print(f"{picture} and .npz: {config.n} samples of {newest.name}")
    print("; ".join(f"{name} {cost.facts[name]}" for name in ("energy", "carbon", "per sample")))


@dataclass(frozen=True)
class Model:
    """What a trained denoiser is of: it rebuilds the network without the data."""

    shape: tuple[int, ...]
    """Of one sample: (channels, height, width) in [-1, 1], or (2,)."""
    classes: int
    sigma_data: float
    """Root mean square of the training data."""

    @classmethod
    def of(cls, training: Arrays) -> "Model":
        x, *_ = training[:]
        return cls(tuple(x.shape[1:]), len(training.classes), x.square().mean().sqrt().item())

    def denoiser(self, network: Network) -> Preconditioned:
        n = network
        if len(self.shape) == 1:
            net: torch.nn.Module = MLP(self.shape[0], width=n.width, depth=n.blocks, num_classes=self.classes)
        else:
            net = UNet(
                self.shape[0], n.width, n.multipliers, blocks=n.blocks, attention=n.attention, dropout=n.dropout,
                num_classes=self.classes,
            )  # fmt: skip
        return Preconditioned(net, self.sigma_data)


def _draw(
    denoiser: Preconditioned,
    model: Model,
    sampler: Sampler,
    labels: torch.Tensor,
    indices: range,
    seed: int,
    device: torch.device,
    batch: int = 256,
    progress: Callable[[int], object] | None = None,
) -> torch.Tensor:
    """Samples `indices`, each of its label."""
    sigmas = karras(sampler.steps, sampler.sigma_min, sampler.sigma_max, sampler.rho)
    step = churn(sampler.churn) if sampler.churn else heun
    label = {"label": labels[torch.tensor(indices) % len(labels)]} if model.classes else {}
    guided = cfg(denoiser, sampler.guidance)
    return draw(
        guided, indices, model.shape, sigmas, step, seed=seed, batch=batch, device=device, progress=progress, **label
    )


def _identity(config: Train) -> Train:
    """What a run's config.json holds: everything that decides its result, nothing about where it ran."""
    return replace(config, out=None, resume=None, machine=Machine(), place=Place())


def _place(config: Train) -> tuple[Train, Path]:
    """The configuration of the run, and its directory."""
    if config.resume is not None:
        if config.out is not None:
            raise ValueError(f"--resume goes on in {config.resume}; drop --out {config.out}")
        stored = from_dict(Train, Run.open(config.resume).config())
        if other := differences(to_dict(_identity(config)), to_dict(Train())):
            raise ValueError(
                f"--resume takes the run's own configuration, so drop the other flags ({'; '.join(other)})"
            )
        return replace(stored, machine=config.machine, place=config.place), config.resume
    if config.out is not None:
        return config, config.out
    name = f"diffusion-{re.sub(r'[^A-Za-z0-9]+', '-', config.data).strip('-')}"
    wanted = to_dict(_identity(config))
    if wanted != to_dict(Train(data=config.data)):
        name += f"-{blake2b(json.dumps(wanted).encode(), digest_size=2).hexdigest()}"
    return config, Path("runs") / name
