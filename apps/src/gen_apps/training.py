"""Training as every train command does it: `fit` runs the loop into a run directory, `finish_run` measures the result.

trainer, averaged = fit(config, run, task, loader, network="model", facts=..., layers=..., preview=preview)
with averaged():
    finish_run(config, run, draw, len(held_out), measure)
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rich
import torch
from torch import Tensor

from gen_apps import threads
from gen_apps.command import TrainCommand
from gen_apps.energy import metered
from gen_apps.identity import identity, lengthen
from gen_apps.results import write_results
from gen_core import (
    EMA,
    Checkpoint,
    Data,
    Evaluate,
    Interrupted,
    Jsonl,
    Progress,
    Rates,
    Run,
    Task,
    TensorBoard,
    Trainer,
    Training,
    Wandb,
    every,
    quality,
    report,
)
from gen_core.checkpoint import latest, step
from gen_core.ema import Decay
from gen_core.files import whole
from gen_core.networks import describe
from gen_core.schedule import Schedule, warmup_cosine

Preview = Callable[[Training], None]


class Batches(Data, Protocol):
    """Data that know the size of a global batch."""

    batch_size: int


LOGS: dict[str, Callable[[int], Any]] = {"tensorboard": TensorBoard, "wandb": lambda every: Wandb("gen", every)}


def interval(steps: int) -> int:
    """Steps between two previews, evaluations and checkpoints: about six in all, and one at the end if it divides.

    >>> interval(3000), interval(1500), interval(7)
    (500, 250, 1)
    """
    return max(1, steps // next((n for n in (6, 5, 7, 4) if steps % n == 0), 6))


def fit(
    config: TrainCommand,
    run: Path,
    task: Task,
    data: Batches,
    *,
    network: str,
    facts: Mapping[str, Any],
    layers: object,
    preview: Preview | None = None,
    validation: Data | None = None,
    ema: Decay | None = None,
    schedule: Callable[[int], Schedule] = lambda steps: warmup_cosine(steps // 20, steps),
    callbacks: Sequence[Any] = (),
    files: Callable[[Path], object] = lambda run: None,
) -> tuple[Trainer, Callable[[], AbstractContextManager[Any]]]:
    """Train as `config` says, from the run's newest checkpoint if it has one.

    Args:
        network: the module of the task that is averaged and opened later; model.json describes it.
        facts: further entries of model.json, such as the shape of a sample and the number of classes.
        layers: the text of summary.txt.
        preview: called on every process about six times and at the end, with the averaged weights in place.
        validation: held-out data for `task.evaluate`; None for a task without.
        ema: decay of the average of weights; None uses the last ones.
        schedule: number of steps -> factor on the learning rates; by default a warm-up of a twentieth of the steps,
            then half a cosine to 0.
        callbacks: the command's own.
        files: writes further files of a new run, on the first process.

    Returns:
        The trainer, and a function whose context has the averaged weights in place.
    """
    threads.resume(run)
    steps, machine = config.optim.steps, config.machine
    often, logged = interval(steps), max(1, steps // 200)
    average = None if ema is None else EMA(network, ema)
    averaged = nullcontext if average is None else average.swapped

    def show(t: Training) -> None:
        if preview is not None:
            with averaged(), torch.no_grad():
                preview(t)

    watching: list[Any] = [*([] if average is None else [average]), *callbacks]
    if validation is not None:
        watching.append(Evaluate(validation, often, within=averaged))
    watching += [
        every(often, lambda t, _: show(t)),
        config.place.callback(data.batch_size, often),
        Rates(logged),
        Progress(steps),
        Jsonl(logged),
        *([] if config.log == "none" else [LOGS[config.log](logged)]),
        Checkpoint(every=often),
    ]
    trainer = Trainer(
        task,
        run,
        seed=config.seed,
        device=machine.device,
        precision=machine.precision,
        micro_batch=machine.micro_batch,
        clip=config.optim.clip,
        schedule=schedule(steps),
        callbacks=watching,
    )
    if trainer.rank == 0:
        former = lengthen(Run(run), config)
        record = Run.create(run, identity(config))
        described = describe(task.get_submodule(network))
        record.write("model.json", {"module": network, "network": described, **facts})
        record.write("summary.txt", f"{layers}\n")
        files(run)
        if former is not None:
            at = min(former, _latest_step(run))
            before, after = (config.optim.lr * schedule(n)(at) for n in (former, steps))
            print(f"training on from step {at} to {steps}: the learning rate changes from {before:.3g} to {after:.3g}")
        done = _latest_step(run)
        print(f"{run}: {steps} steps on {trainer.device}" + (f", {done} of them done" if done else ""), flush=True)
    trainer.barrier()
    if config.start_from is not None:
        trainer.start_from(config.start_from, optimizers=config.start_optimizer)
    try:
        trainer.fit(data, steps)
    except Interrupted:
        print(f"stopped at step {trainer.step}; continue with: gen {config.command} --resume {run}", file=sys.stderr)
        raise
    if steps % often:
        show(trainer)
    return trainer, averaged


def finish_run(
    config: TrainCommand,
    run: Path,
    draw: Callable[[], Tensor],
    n: int,
    measure: Callable[[Tensor], Mapping[str, Any]],
    *,
    labels: Tensor | None = None,
    writes: bool = True,
) -> None:
    """Draw samples; write samples.npz, quality.json, energy.json, report.html and what --json names.

    Args:
        draw: the samples, with the weights that they are drawn with in place.
        n: their number.
        measure: samples -> the table of quality.json.
        labels: of the samples, stored beside them.
        writes: False on processes that only help to draw.
    """
    with metered(config.place, n) as cost, torch.no_grad():
        x = draw()
    if not writes:
        return
    record = Run(run)
    record.write("energy.json", {"training": training_cost(run), "sampling": cost.facts})
    with whole(run / "samples.npz") as part:
        np.savez(part, x=x.numpy(), label=(torch.zeros(n).long() if labels is None else labels).numpy())
    measured = measure(x)
    rich.print(quality.table(measured))
    conclude(config, run, measured, f"samples {run / 'samples.npz'}")


def training_cost(run: Path) -> dict[str, Any]:
    """Cost of training, in words, from energy.json as the meter or `finish_run` wrote it."""
    cost = json.loads((run / "energy.json").read_text())
    return cost.get("training", cost)


def conclude(config: TrainCommand, run: Path, measured: Mapping[str, Any], *results: str) -> None:
    """Write the table of quality.json and the page of a finished run, and print what training cost and where all is.

    Args:
        measured: columns, rows and notes, as `gen_core.report.build` takes them.
        results: sentences about the command's own files.
    """
    Run(run).write("quality.json", measured)
    write_results(config.json, config.command, config, measured["rows"])
    cost = training_cost(run)
    print(f"training alone: energy {cost['energy']}; carbon {cost['carbon']}")
    print(", ".join([*results, f"report {report.build(run)}"]))


def _latest_step(run: Path) -> int:
    newest = latest(run)
    return 0 if newest is None else step(newest)
