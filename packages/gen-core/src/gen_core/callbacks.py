"""Callbacks: four hooks with Keras's names, called on every process.

    class LearningRate(Callback):
        def on_step_end(self, t, metrics):
            metrics["lr"] = t.optimizers["net"].param_groups[0]["lr"]

`metrics` is the step's dict of scalars, still on the device: a callback may add to it (as `Evaluate` does), and reads
it as floats by `t.read(metrics)`. A callback that samples or evaluates does so on all processes; what writes a file
looks at `t.rank`. Callbacks run by `order`: averages of weights (-20), evaluation (-10), yours (0), rates (5), logs
(10), checkpoints (20), so that a checkpoint holds the state after everybody's step.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

from gen_core import checkpoint
from gen_core.data import Data
from gen_core.hooks import Training


class Callback:
    """Four hooks and a state; override what you need."""

    order: int = 0
    name: str = ""  # of its state in a checkpoint; the class's name in lower case unless given

    def __init_subclass__(cls) -> None:
        cls.name = cls.__dict__.get("name") or cls.__name__.lower()

    def on_train_begin(self, t: Training) -> None:
        """After a checkpoint was loaded, before the first step."""

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        """`t.step` steps have been made."""

    def on_epoch_end(self, t: Training, metrics: dict[str, Any]) -> None:
        """Right after `on_step_end` of an epoch's last step, with that step's metrics."""

    def on_train_end(self, t: Training) -> None:
        """After the last step and its checkpoint; not after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors (kept in a file of their own) and JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, or {} from a checkpoint without this callback."""


class every(Callback):  # reads as a verb: callbacks=[every(100, draw)]
    """Call `fn(t, metrics)` after every `n` steps, on all processes."""

    def __init__(self, n: int, fn: Callable[[Training, dict[str, Any]], None], order: int = 0):
        self.n, self.fn, self.order = n, fn, order

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        if t.step % self.n == 0:
            self.fn(t, metrics)


class Evaluate(Callback):
    """Add `task.evaluate`'s means over `data` to the metrics, as `val/...`, every `every` steps.

    Args:
        within: a context to evaluate in, such as `ema.swapped`.
    """

    order = -10

    def __init__(self, data: Data, every: int, prefix: str = "val/", within: Callable | None = None):
        self.data, self.every, self.prefix, self.within = data, every, prefix, within

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        if t.step % self.every:
            return
        if self.within is None:
            values = t.evaluate(self.data)
        else:
            with self.within():
                values = t.evaluate(self.data)
        metrics |= {self.prefix + name: value for name, value in values.items()}
        t.due = True


class Rates(Callback):
    """Add learning rate, norm of the gradient and samples per second to the steps that are logged.

    `lr` is that of the first group of parameters, `grad_norm` the one before clipping, `samples_per_s` (`steps_per_s`
    for data without a batch size) the mean since the last such step, all that happened between them included. Several
    optimisers have `lr/NAME` and `grad_norm/NAME` each. Speed is no part of what a resumed run repeats bit for bit.

    Args:
        every: the interval of the logs.
        clock: seconds.
    """

    order = 5

    def __init__(self, every: int = 10, clock: Callable[[], float] = time.monotonic):
        self.every, self.clock = every, clock

    def on_train_begin(self, t: Training) -> None:
        self.last = self.clock(), t.step

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        if t.step % self.every and not t.due:
            return
        for name, optimizer in t.optimizers.items():
            suffix = f"/{name}" if len(t.optimizers) > 1 else ""
            metrics[f"lr{suffix}"] = optimizer.param_groups[0]["lr"]
            if (norm := t.grad_norm(name)) is not None:
                metrics[f"grad_norm{suffix}"] = norm
        before, self.last = self.last, (self.clock(), t.step)
        rate = (t.step - before[1]) / max(self.last[0] - before[0], 1e-9)
        metrics |= {"samples_per_s": rate * t.batch_size} if t.batch_size else {"steps_per_s": rate}


class Jsonl(Callback):
    """Write the metrics of every `every`-th step, and of each step with an evaluation, to metrics.jsonl.

    Resuming drops what was written after the checkpoint, so the file is that of an uninterrupted run (but for an
    evaluation that a signal cut short, which is not made up for).
    """

    order = 10

    def __init__(self, every: int = 10):
        self.every = every

    def on_train_begin(self, t: Training) -> None:
        if t.run is None:
            raise ValueError("Jsonl writes into a run directory: give the Trainer one")
        if t.rank == 0:
            t.run.rewind(t.step)

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        if t.step % self.every == 0 or t.due:
            values = t.read(metrics)
            if t.rank == 0 and t.run is not None:
                t.run.log(t.step, values)


class TensorBoard(Callback):
    """The same values as `Jsonl` as TensorBoard events in the run directory (extra `tensorboard`)."""

    order = 10

    def __init__(self, every: int = 10):
        self.every = every

    def on_train_begin(self, t: Training) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("TensorBoard events need tensorboard: pip install 'gen-core[tensorboard]'") from None
        if t.run is None:
            raise ValueError("TensorBoard writes into a run directory: give the Trainer one")
        self.writer = SummaryWriter(t.run.path / "tensorboard", purge_step=t.step + 1) if t.rank == 0 else None
        if self.writer:
            t.cleanup.callback(self.writer.close)

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        if t.step % self.every == 0 or t.due:
            for name, value in t.read(metrics).items():
                if self.writer:
                    self.writer.add_scalar(name, value, t.step, new_style=True, double_precision=True)


class Wandb(Callback):
    """The same values as `Jsonl` in Weights & Biases (extra `wandb`), with the run's configuration.

    A run that is resumed goes on in the record that it had there. Without a network, set WANDB_MODE=offline and later
    call `wandb sync`.

    Args:
        project: where the record is kept.
    """

    order = 10

    def __init__(self, project: str, every: int = 10):
        self.project, self.every = project, every
        self.id = ""  # of the record
        self.record: Any = None

    def on_train_begin(self, t: Training) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ImportError("Weights & Biases needs wandb: pip install 'gen-core[wandb]'") from None
        if t.run is None:
            raise ValueError("Wandb keeps its files in a run directory: give the Trainer one")
        if t.rank == 0:
            self.record = wandb.init(
                project=self.project, dir=t.run.path, name=t.run.path.name, config=t.run.config(),
                id=self.id or None, resume="allow" if self.id else None,
            )  # fmt: skip
            self.id = self.record.id
            t.cleanup.callback(self.record.finish)

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        if t.step % self.every == 0 or t.due:
            values = t.read(metrics)
            if t.rank == 0:
                self.record.log(values, step=t.step)

    def state_dict(self) -> dict[str, Any]:
        return {"id": self.id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.id = state.get("id", "")


@contextmanager
def bar(text: str, total: int, done: int = 0, show: bool = True) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error, called with (done, text); silent when that is no terminal and no notebook."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (show and _live(console))) as shown:
        row = shown.add_task(text, total=total, completed=done)
        yield lambda done, text=text: shown.update(row, completed=done, description=text)


def _live(console: Any) -> bool:
    """True where a bar can be redrawn: a terminal or a notebook."""
    return console.is_terminal or console.is_jupyter


class Progress(Callback):
    """A bar with the metrics, steps per second and the time left, in a terminal or a notebook.

    Elsewhere, as in the log of a cluster's job, it is a line now and then: no two within 5 seconds, and closer at first
    than later, so that an hour has some 30 of them and a week some 60; the last step has one.

    Args:
        clock: seconds.
    """

    order = 10

    def __init__(self, steps: int, every: int = 10, clock: Callable[[], float] = time.monotonic):
        self.steps, self.every, self.clock = steps, every, clock

    def on_train_begin(self, t: Training) -> None:
        from rich.console import Console

        self.start, self.first = self.clock(), t.step
        self.printed = self.start
        self.lines = t.rank == 0 and not _live(Console(stderr=True))
        self.show = t.cleanup.enter_context(bar("", self.steps, t.step, show=t.rank == 0))

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        if t.step % self.every == 0 or t.step == self.steps:
            values = "  ".join(f"{name} {value:.4g}" for name, value in t.read(metrics).items())
            now = self.clock()
            rate = (t.step - self.first) / max(now - self.start, 1e-9)
            self.show(t.step, f"{values}  {rate:.1f} steps/s")
            if self.lines and (t.step == self.steps or now - self.printed >= self._pause(now, rate)):
                left = timedelta(seconds=round((self.steps - t.step) / rate))
                print(f"step {t.step} of {self.steps}  {values}  {rate:.1f} steps/s  {left} left", file=sys.stderr)
                self.printed = now

    def _pause(self, now: float, rate: float) -> float:
        """Seconds between two lines: a quarter of the time so far, at most a 24th of the whole time, at least 5."""
        return max(5.0, min((now - self.start) / 4, (self.steps - self.first) / rate / 24))


def _improves(value: float, best: float | None, by: float = 0.0) -> bool:
    """True where `value` is below `best` by more than `by`; nan and infinities never are."""
    return math.isfinite(value) and (best is None or value < best - by)


class EarlyStopping(Callback):
    """Stop once a metric has not improved by more than `min_delta` at `patience` reports in a row."""

    def __init__(self, metric: str, patience: int, mode: Literal["min", "max"] = "min", min_delta: float = 0.0):
        self.metric, self.patience, self.mode, self.min_delta = metric, patience, mode, min_delta
        self.best, self.waited = None, 0

    def on_train_begin(self, t: Training) -> None:
        if self.waited >= self.patience:  # the run that is resumed had stopped
            t.stop()

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        if self.metric not in metrics:
            return
        value = t.read({self.metric: metrics[self.metric]})[self.metric] * (1 if self.mode == "min" else -1)
        if _improves(value, self.best, self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
            if self.waited >= self.patience:
                t.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state.get("best"), state.get("waited", 0)


class Checkpoint(Callback):
    """Save every `every` steps; keep the newest `keep` and, if `best` names a metric, the best one.

    A step at which `best` improves is saved as well. Old checkpoints go after the new one is complete; several of
    these callbacks, each with a `name` of its own, keep what any of them keeps.
    """

    order = 20

    def __init__(
        self,
        every: int,
        keep: int = 2,
        best: str | None = None,
        mode: Literal["min", "max"] = "min",
        name: str = "checkpoint",
    ):
        if keep < 1:
            raise ValueError(f"keep must be at least 1 checkpoint, got {keep}")
        self.name = name
        self.every, self.keep, self.metric, self.mode = every, keep, best, mode
        self.best, self.best_step = None, -1
        self.saved: list[int] = []

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        improved = False
        if self.metric and self.metric in metrics:
            value = t.read({self.metric: metrics[self.metric]})[self.metric] * (1 if self.mode == "min" else -1)
            if improved := _improves(value, self.best):
                self.best, self.best_step = value, t.step
        if improved or t.step % self.every == 0:
            self.saved = [*self.saved, t.step][-self.keep :]
            t.save()
            if t.rank == 0 and t.run is not None:
                every = [c for c in t.callbacks if isinstance(c, Checkpoint)]
                wanted = {f"step-{step:06d}" for c in every for step in {*c.saved, c.best_step}}
                checkpoint.prune(t.run.path, wanted)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "saved": self.saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self.best, self.best_step, self.saved = state["best"], state["best_step"], state["saved"]


class Report(Callback):
    """Build the run's report page when training ends."""

    order = 30

    def on_train_end(self, t: Training) -> None:
        if t.rank == 0 and t.run is not None:
            from gen_core import report

            report.build(t.run)
