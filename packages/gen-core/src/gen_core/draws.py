"""Random numbers as functions of (seed, step): the same rows on any number of processes."""

from collections.abc import Callable

import torch
from torch import Tensor

from gen_core.runtime import key

BLOCK = 64  # steps whose keys are computed together, hashing being the slow part


def rows(
    draw: Callable[..., Tensor],
    shape: tuple[int, ...],
    dtype: torch.dtype | None,
    generator: torch.Generator,
    rank: int,
    world: int,
) -> Tensor:
    """The rows of process `rank`, `shape` of them, in one `draw` for the batch of all `world` processes."""
    n, *rest = shape
    drawn = draw(n * world, *rest, generator=generator, device=generator.device, dtype=dtype)
    return drawn if world == 1 else drawn[rank * n : (rank + 1) * n]


class StepKeys:
    """The key of torch's global streams at each step of one process."""

    def __init__(self, seed: int, rank: int):
        self.seed, self.rank = seed, rank
        self._first, self._keys = 0, list[int]()

    def __getitem__(self, step: int) -> int:
        if not 0 <= step - self._first < len(self._keys):
            self._first = step // BLOCK * BLOCK
            steps = range(self._first, self._first + BLOCK)
            self._keys = [key(self.seed, "step", number, self.rank) for number in steps]
        return self._keys[step - self._first]
