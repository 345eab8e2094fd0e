"""The loop of every `train` command: its callbacks, the files of a new run, what a signal leaves to say."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from gen_core import EMA, Checkpoint, Data, Evaluate, Interrupted, Jsonl, Progress, Task, Trainer, every
from gen_core.schedule import Schedule, warmup_cosine


class Batches(Data, Protocol):
    """Data that know the size of a global batch."""

    batch_size: int


def loop(
    config: Any,
    run: Path,
    task: Task,
    loader: Batches,
    ema: EMA | None,
    picture: Callable[[Trainer], None],
    *,
    begin: Callable[[], object],
    go_on: str,
    validation: Data | None = None,
    clip: float | None = 1.0,
    schedule: Schedule | None = None,
    more: Sequence[Any] = (),
) -> Trainer:
    """Train as `config` says, or go on where the run stands.

    Args:
        config: with optim (steps, batch_size), machine, place and seed.
        picture: called on every process about six times, and at the end.
        begin: writes the run's configuration, on the first process.
        go_on: what a reader does after an interruption.
        validation: data for `task.evaluate`, with the averaged weights; None for a task without.
        ema: averages the weights that are used afterwards; None: the last ones are.
        clip: largest norm of a gradient.
        schedule: of the learning rate; by default a warm-up of a twentieth, then half a cosine to 0.
        more: callbacks of the command's own.
    """
    steps, machine = config.optim.steps, config.machine
    often = max(1, steps // next((n for n in (6, 5, 7, 4) if steps % n == 0), 6))
    callbacks: list[Any] = [*more] if ema is None else [ema, *more]
    if validation is not None:
        callbacks.append(Evaluate(validation, often, within=None if ema is None else ema.swapped))
    callbacks += [
        every(often, lambda t, _: picture(t)),
        config.place.callback(loader.batch_size, often),
        Progress(steps),
        Jsonl(every=max(1, steps // 200)),
        Checkpoint(every=often),
    ]
    trainer = Trainer(
        task,
        run,
        seed=config.seed,
        device=machine.device,
        precision=machine.precision,
        micro_batch=machine.micro_batch,
        clip=clip,
        schedule=schedule or warmup_cosine(steps // 20, steps),
        callbacks=callbacks,
    )
    if trainer.rank == 0:
        begin()
    trainer.barrier()
    try:
        trainer.fit(loader, steps)
    except Interrupted:
        print(f"stopped at step {trainer.step}; {go_on}", file=sys.stderr)
        raise
    if steps % often:
        picture(trainer)
    return trainer
