"""Losses and weights that are not finite end training, and are never saved."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from gen_core.checkpoint import latest, uncompiled
from gen_core.run import Run


class NonFiniteLoss(ValueError):
    """A loss became infinite or not a number; the last checkpoint is from before."""


def check_losses(losses: Sequence[tuple[int, str, Tensor]], run: Run | None, clip: float | None) -> None:
    """Raise NonFiniteLoss for the first (step, optimiser, loss) that is not finite."""
    for step, name, value in losses:
        if not math.isfinite(value):
            raise NonFiniteLoss(f"the loss of {name!r} is {value.item()} at step {step}; {_remedy(run, clip)}")


def check_weights(task: nn.Module, state: dict[str, Tensor], step: int, run: Run | None, clip: float | None) -> None:
    """Raise NonFiniteLoss for parameters in `state`: a finite loss may have had a gradient that is not."""
    for name in map(uncompiled, dict(task.named_parameters())):
        if name in state and not state[name].isfinite().all():
            raise NonFiniteLoss(f"{name} is not finite after step {step}; {_remedy(run, clip)}")


def _remedy(run: Run | None, clip: float | None) -> str:
    change = f"a lower learning rate or {'clip=1.0' if clip is None else f'a clip below {clip:g}'}"
    if (last := latest(run.path) if run else None) is None:
        return f"train again with {change}"
    return (
        f"the last good checkpoint is {last}; start from it in another run directory with {change} "
        "(Trainer.start_from, or --start-from of a command)"
    )
