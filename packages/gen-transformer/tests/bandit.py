"""The smallest policies: a table of logits, with the problem whose optimum is known."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor, nn

REF = torch.tensor([0.40, 0.30, 0.15, 0.10, 0.05], dtype=torch.float64)
REWARD = torch.tensor([0.0, 0.3, 0.6, 1.0, 1.5], dtype=torch.float64)
BETA = 0.5
OPTIMUM = REF * (REWARD / BETA).exp() / (REF * (REWARD / BETA).exp()).sum()


class Bandit(nn.Module):
    """A language model whose next token never depends on anything."""

    def __init__(self, p: Tensor = REF):
        super().__init__()
        self.table = nn.Parameter(p.log().clone())
        self.config = SimpleNamespace(vocab=len(p), context=64, dim=1)

    def forward(self, ids: Tensor, *, doc: Tensor | None = None, cache: None = None) -> Tensor:
        return torch.ones(*ids.shape, 1, dtype=self.table.dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden * self.table

    def cache(self, batch: int, length: int) -> None:
        return None

    @property
    def p(self) -> Tensor:
        return self.table.detach().softmax(0)


class Baseline(nn.Module):
    """A critic with one value for all states."""

    def __init__(self):
        super().__init__()
        self.v = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, ids: Tensor, mask: Tensor, start: int) -> Tensor:
        return self.v * torch.ones(ids.shape[0], ids.shape[1] - start, dtype=self.v.dtype)


def reward(rollout) -> Tensor:
    return REWARD[rollout.ids[:, rollout.start]]


def variation(p: Tensor, q: Tensor) -> float:
    return (p - q).abs().sum().item() / 2


@contextmanager
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
