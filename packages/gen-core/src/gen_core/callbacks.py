"""Callbacks: four hooks with Keras's names, called on every process.

    class LearningRate(Callback):
        def on_step_end(self, t, metrics):
            metrics["lr"] = t.optimizers["net"].param_groups[0]["lr"]

`metrics` is the step's dict of scalars, still on the device: a callback may add to it (as `Evaluate` does), and reads
it as floats by `t.read(metrics)`. A callback that samples or evaluates does so on all processes; what writes a file
looks at `t.rank`. Callbacks run by `order`: averages of weights (-20), evaluation (-10), yours (0), logs (10),
checkpoints (20), so that a checkpoint holds the state after everybody's step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from gen_core import checkpoint
from gen_core.data import Data

if TYPE_CHECKING:
    from gen_core.trainer import Trainer


@runtime_checkable
class Hooks(Protocol):
    """What the trainer calls: any object with these, such as `Callback` or gen-green's `Energy`."""

    order: int
    name: str

    def on_train_begin(self, t: Any) -> None: ...
    def on_step_end(self, t: Any, metrics: dict[str, Any]) -> None: ...
    def on_epoch_end(self, t: Any, metrics: dict[str, Any]) -> None: ...
    def on_train_end(self, t: Any) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Callback:
    """Four hooks and a state; override what you need."""

    order: int = 0
    name: str = ""  # of its state in a checkpoint; the class's name in lower case unless given

    def __init_subclass__(cls) -> None:
        cls.name = cls.__dict__.get("name") or cls.__name__.lower()

    def on_train_begin(self, t: Trainer) -> None:
        """After a checkpoint was loaded, before the first step."""

    def on_step_end(self, t: Trainer, metrics: dict[str, Any]) -> None:
        """`t.step` steps have been made."""

    def on_epoch_end(self, t: Trainer, metrics: dict[str, Any]) -> None:
        """Right after `on_step_end` of an epoch's last step, with that step's metrics."""

    def on_train_end(self, t: Trainer) -> None:
        """After the last step and its checkpoint; not after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors (kept in a file of their own) and JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave, or {} from a checkpoint without this callback."""


class every(Callback):  # reads as a verb: callbacks=[every(100, draw)]
    """Call `fn(t, metrics)` after every `n` steps, on all processes."""

    def __init__(self, n: int, fn: Callable[[Trainer, dict[str, Any]], None], order: int = 0):
        self.n, self.fn, self.order = n, fn, order

    def on_step_end(self, t: Trainer, metrics: dict[str, Any]) -> None:
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

    def on_step_end(self, t: Trainer, metrics: dict[str, Any]) -> None:
        if t.step % self.every:
            return
        if self.within is None:
            values = t.evaluate(self.data)
        else:
            with self.within():
                values = t.evaluate(self.data)
        metrics |= {self.prefix + name: value for name, value in values.items()}
        t.due = True


class Jsonl(Callback):
    """Write the metrics of every `every`-th step, and of each step with an evaluation, to metrics.jsonl.

    Resuming drops what was written after the checkpoint, so the file is that of an uninterrupted run (but for an
    evaluation that a signal cut short, which is not made up for).
    """

    order = 10

    def __init__(self, every: int = 10):
        self.every = every

    def on_train_begin(self, t: Trainer) -> None:
        if t.run is None:
            raise ValueError("Jsonl writes into a run directory: give the Trainer one")
        if t.rank == 0:
            t.run.rewind(t.step)

    def on_step_end(self, t: Trainer, metrics: dict[str, Any]) -> None:
        if t.step % self.every == 0 or t.due:
            values = t.read(metrics)
            if t.rank == 0 and t.run is not None:
                t.run.log(t.step, values)


class TensorBoard(Callback):
    """The same values as `Jsonl` as TensorBoard events in the run directory (extra `tensorboard`)."""

    order = 10

    def __init__(self, every: int = 10):
        self.every = every

    def on_train_begin(self, t: Trainer) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("TensorBoard events need tensorboard: pip install 'gen-core[tensorboard]'") from None
        if t.run is None:
            raise ValueError("TensorBoard writes into a run directory: give the Trainer one")
        self.writer = SummaryWriter(t.run.path / "tensorboard", purge_step=t.step + 1) if t.rank == 0 else None
        if self.writer:
            t.cleanup.callback(self.writer.close)

    def on_step_end(self, t: Trainer, metrics: dict[str, Any]) -> None:
        if t.step % self.every == 0 or t.due:
            for name, value in t.read(metrics).items():
                if self.writer:
                    self.writer.add_scalar(name, value, t.step, new_style=True, double_precision=True)


@contextmanager
def bar(text: str, total: int, done: int = 0, show: bool = True) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error, called with (done, text); silent when that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as shown:
        row = shown.add_task(text, total=total, completed=done)
        yield lambda done, text=text: shown.update(row, completed=done, description=text)


class Progress(Callback):
    """A bar with the metrics, steps per second and the time left; silent when the output is no terminal."""

    order = 10

    def __init__(self, steps: int, every: int = 10):
        self.steps, self.every = steps, every

    def on_train_begin(self, t: Trainer) -> None:
        self.start, self.first = time.monotonic(), t.step
        self.show = t.cleanup.enter_context(bar("", self.steps, t.step, show=t.rank == 0))

    def on_step_end(self, t: Trainer, metrics: dict[str, Any]) -> None:
        if t.step % self.every == 0 or t.step == self.steps:
            rate = (t.step - self.first) / (time.monotonic() - self.start)
            values = "  ".join(f"{name} {value:.4g}" for name, value in t.read(metrics).items())
            self.show(t.step, f"{values}  {rate:.1f} steps/s")


def _improves(value: float, best: float | None, by: float = 0.0) -> bool:
    """Whether `value` is below `best` by more than `by`; nan and infinities never are."""
    return math.isfinite(value) and (best is None or value < best - by)


class EarlyStopping(Callback):
    """Stop once a metric has not improved by more than `min_delta` at `patience` reports in a row."""

    def __init__(self, metric: str, patience: int, mode: Literal["min", "max"] = "min", min_delta: float = 0.0):
        self.metric, self.patience, self.mode, self.min_delta = metric, patience, mode, min_delta
        self.best, self.waited = None, 0

    def on_train_begin(self, t: Trainer) -> None:
        if self.waited >= self.patience:  # the run that is resumed had stopped
            t.stop()

    def on_step_end(self, t: Trainer, metrics: dict[str, Any]) -> None:
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

    def on_step_end(self, t: Trainer, metrics: dict[str, Any]) -> None:
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

    def on_train_end(self, t: Trainer) -> None:
        if t.rank == 0 and t.run is not None:
            from gen_core import report

            report.build(t.run)
