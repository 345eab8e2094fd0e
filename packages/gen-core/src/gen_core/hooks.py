"""Protocols of callbacks and of the trainer that calls them between its steps."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.optim import Optimizer

from gen_core.data import Data
from gen_core.run import Run
from gen_core.step import Step
from gen_core.task import Task


@runtime_checkable
class Hooks(Protocol):
    """Methods that the trainer calls: any object with these, such as `Callback` or gen-green's `Energy`."""

    order: int
    name: str

    def on_train_begin(self, t: Any) -> None: ...
    def on_step_end(self, t: Any, metrics: dict[str, Any]) -> None: ...
    def on_epoch_end(self, t: Any, metrics: dict[str, Any]) -> None: ...
    def on_train_end(self, t: Any) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Training(Step, Protocol):
    """`Trainer`, as far as a hook may know it; `step` counts the step that has just been made."""

    task: Task
    run: Run | None
    seed: int
    optimizers: dict[str, Optimizer]
    callbacks: list[Hooks]
    due: bool
    """Set it where this step's metrics should be logged whatever the interval of the logs."""
    batch_size: int | None
    """Samples of a step, over all processes; None where the data do not say."""
    cleanup: ExitStack
    """Resources that callbacks opened; closed however training ends."""

    def read(self, metrics: dict[str, Any]) -> dict[str, float]:
        """Metrics as floats, averaged over processes; on every process at the same steps."""
        ...

    def grad_norm(self, optimizer: str) -> Tensor | None:
        """Norm of the gradient of that optimiser's last update, before clipping; on every process."""
        ...

    def evaluate(self, data: Data) -> dict[str, float]:
        """Mean of `task.evaluate` over every sample; on every process."""
        ...

    def save(self) -> Path:
        """Write a checkpoint of this step; on every process."""
        ...

    def stop(self) -> None:
        """End training after this step, on every process."""
        ...
