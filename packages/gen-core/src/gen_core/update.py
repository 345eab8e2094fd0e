"""The gradient of one update, from the pieces of its batch."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn

from gen_core.micro import part
from gen_core.processes import Processes

_NOTHING = nullcontext()


def backward(
    processes: Processes, model: nn.Module, loss: Callable[..., Tensor], pieces: Sequence[tuple[tuple, Any]]
) -> Tensor:
    """Add up the gradients of the pieces, average them over processes with the last one, and return this one's loss.

    Args:
        model: the task behind its wrapper, which calls `loss`.
        pieces: (rows, share of their mean), as `shares` gives them.
    """
    total: Any = 0.0
    for number, (rows, share) in enumerate(pieces, 1):
        processes.empty = share == 0
        with _NOTHING if processes.world == 1 or number == len(pieces) else processes.no_sync(model):
            value = model(loss, *rows)
            if value.ndim:
                raise ValueError(f"a loss is the mean over its rows, a scalar; got shape {tuple(value.shape)}")
            if share is not None:
                value = part(value, share)
            value.backward()
        total = value.detach() if len(pieces) == 1 else total + value.detach()
    return total
