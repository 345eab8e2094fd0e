"""The argument of `Task.step`: the trainer, as far as a step may know it.

def step(self, batch: Any, t: Step) -> dict[str, Tensor]:
    (x,) = batch
    return {"loss": t.minimize("net", self.loss, x, t.randn_like(x))}
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from gen_core.runtime import Part


@runtime_checkable
class Step(Protocol):
    """`Trainer` is one; a test of a task may have its own, as a subclass of this."""

    step: int
    """Steps done before this one."""
    rank: int
    """Number of this process, from 0."""
    world: int
    """Processes that train together."""
    micro_batch: int | None
    """Rows of a forward pass; None is all."""
    device: torch.device

    def minimize(
        self, optimizer: str, loss: Callable[..., Tensor], *batch: Any, weight: Callable[..., Any] | None = None
    ) -> Tensor:
        """Update by one optimiser; the loss before it, the same on every process. See `Trainer.minimize`."""
        ...

    def randn_like(self, x: Tensor) -> Tensor:
        """Standard normal noise of `x`'s shape, one draw for the global batch."""
        ...

    def randn(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal noise by shape, otherwise as `randn_like`; the first dimension is this process's rows."""
        ...

    def rand(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Uniform on [0, 1), otherwise as `randn`."""
        ...

    def reduce(self, x: Any, op: str = "mean") -> Any:
        """Mean, sum, min or max over processes of tensors in nested dicts and tuples."""
        ...

    def gather(self, x: Any) -> Any:
        """Rows of every process, in the order of ranks."""
        ...

    def key(self, *parts: Part) -> int:
        """A key of (seed, step, parts), for streams of your own."""
        ...
