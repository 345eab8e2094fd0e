"""Several sources in one stream of batches, in ratios of tokens; everything is a function of (seed, step).

    sources = {"en": Packed(english, 2048), "fr": Packed(french, 2048), "code": Packed(code, 2048)}
    data = Mixture(sources, {"en": 0.4, "fr": 0.4, "code": 0.2}, batch_size=64, seed=0)
    trainer.fit(data, steps)
    data.seen(steps)["fr"]          # Seen(rows=..., tokens=..., epochs=...)

The k-th row of a source with share p of the rows is due at time (k - 1/2) / p, k = 1, 2, ..., and rows are taken in the
order they are due: Webster's apportionment, in which every source is always about one row from its share. The k-th row
is then the next of the source's own shuffled epochs. So neither needs a history: resuming, and any number of processes,
give the same batches, and new ratios from some step on change how fast a source is read, not its order.

[Faysse24] CroissantLLM: a truly bilingual French-English language model, arXiv:2402.00786.
"""

import hashlib
import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, default_collate

from gen_core.data import Loader
from gen_core.runtime import generator

Ratios = Mapping[str, float | int]


@runtime_checkable
class Source(Protocol):
    """Rows of tokens: `Packed` or `Windows`. `tokens` is how many all of them hold."""

    @property
    def tokens(self) -> int | float: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Seen:
    """How much of a source has been read; tokens by the mean of its rows, so exact after whole epochs."""

    rows: int
    tokens: float
    epochs: float


def ratios_of_epochs(sources: Mapping[str, Source], epochs: Ratios) -> dict[str, float]:
    """The ratios with which, when one source has been read `epochs` times, every other has been read its own."""
    if sources.keys() != epochs.keys():
        raise ValueError(f"epochs are given for {sorted(epochs)}, the sources are {sorted(sources)}; name the same")
    return {name: source.tokens * epochs[name] for name, source in sources.items()}


class Mixture:
    """Data for a trainer from several sources of rows ([Faysse24] section 3.3 mixes four).

    Args:
        sources: rows of one length, by name.
        ratios: of tokens, by name, in any unit (0 leaves a source out); or [(step, ratios), ...], each in force from
            its step on, the first from step 0.
        batch_size: of the global batch; each process gets its `batch_size / world` rows.
        seed: of the order in every source.

    Raises:
        ValueError: for ratios of other names, negative or all 0, steps that do not rise from 0, an empty source.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        ratios: Ratios | Sequence[tuple[int, Ratios]],
        *,
        batch_size: int,
        seed: int = 0,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 row, got {batch_size}")
        if empty := [name for name, source in sources.items() if not len(source)]:
            raise ValueError(f"source {empty[0]!r} has no rows; leave it out")
        self.sources, self.batch_size, self.seed = dict(sources), batch_size, seed
        schedule = [(0, ratios)] if isinstance(ratios, Mapping) else list(ratios)
        steps = [step for step, _ in schedule]
        if not steps or steps[0] != 0 or steps != sorted(set(steps)):
            raise ValueError(f"ratios come into force at rising steps from 0 on, got steps {steps}")
        self._phases = [(step, self._shares(mapping)) for step, mapping in schedule]
        self._orders: dict[str, tuple[int, Tensor]] = {}

    def _shares(self, ratios: Ratios) -> list[float]:
        """Shares of the rows: those of the tokens over the tokens in a row, by source."""
        if ratios.keys() != self.sources.keys():
            raise ValueError(f"ratios name {sorted(ratios)}, the sources are {sorted(self.sources)}; name the same")
        if not (all(0 <= r < math.inf for r in ratios.values()) and any(ratios.values())):
            raise ValueError(f"ratios are finite, at least 0 and not all 0, got {dict(ratios)}")
        rows = [ratios[name] * len(source) / source.tokens for name, source in self.sources.items()]
        return [r / sum(rows) for r in rows]

    def __len__(self) -> int:
        """Steps that take as many rows as there are."""
        return max(sum(map(len, self.sources.values())) // self.batch_size, 1)

    @property
    def order_hash(self) -> str:
        """Changes when another seed, size, source or ratio gives another order."""
        sizes = {name: len(source) for name, source in self.sources.items()}
        text = f"{self.batch_size} {self.seed} {sizes} {self._phases}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def rows(self, step: int) -> list[tuple[str, int]]:
        """(source, index in it) of every row of the global batch at `step`."""
        names = list(self.sources)
        counts, (since, shares) = self._before(step)
        here, heap = _apportion(shares, (step - since) * self.batch_size)
        counts = _add(counts, here)
        out = []
        for i in islice(_turns(shares, heap), self.batch_size):
            out.append((names[i], self._index(names[i], counts[i])))
            counts[i] += 1
        return out

    def seen(self, step: int) -> dict[str, Seen]:
        """What the first `step` steps have read of every source."""
        counts, (since, shares) = self._before(step)
        here, _ = _apportion(shares, (step - since) * self.batch_size)
        rows = dict(zip(self.sources, _add(counts, here), strict=True))
        return {n: Seen(rows[n], rows[n] / len(s) * s.tokens, rows[n] / len(s)) for n, s in self.sources.items()}

    def batches(self, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Any]:
        """Endless batches from step `start`: this process's rows of each."""
        if self.batch_size % world:
            raise ValueError(f"batch_size {self.batch_size} does not divide among {world} processes; use a multiple")
        return self._batches(start, rank, self.batch_size // world)

    def _batches(self, step: int, rank: int, n: int) -> Iterator[Any]:
        while True:
            rows = self.rows(step)[rank * n : (rank + 1) * n]
            yield default_collate([self.sources[name][index] for name, index in rows])
            step += 1

    def once(self, rank: int = 0, world: int = 1) -> Iterator[tuple[int | None, Any]]:
        """Every row of every source once, as `gen_core.Loader.once` gives them."""
        rows: Any = ConcatDataset(list(self.sources.values()))  # type: ignore[arg-type]  # anything with rows will do
        return Loader(rows, min(self.batch_size, len(rows))).once(rank, world)

    def _before(self, step: int) -> tuple[list[int], tuple[int, list[float]]]:
        """Rows read of every source in the phases that ended by `step`, and the phase that is in force."""
        counts = [0] * len(self.sources)
        phases = [phase for phase in self._phases if phase[0] <= step]
        for (begin, shares), (end, _) in pairwise(phases):
            counts = _add(counts, _apportion(shares, (end - begin) * self.batch_size)[0])
        return counts, phases[-1]

    def _index(self, name: str, k: int) -> int:
        """The k-th row read of a source: a place in the permutation keyed by (seed, source, epoch)."""
        epoch, place = divmod(k, len(self.sources[name]))
        if self._orders.get(name, (-1,))[0] != epoch:
            order = torch.randperm(len(self.sources[name]), generator=generator(self.seed, "mixture", name, epoch))
            self._orders[name] = epoch, order
        return int(self._orders[name][1][place])


def _add(a: list[int], b: list[int]) -> list[int]:
    return [x + y for x, y in zip(a, b, strict=True)]


def _due(share: float, k: int) -> float:
    """When the k-th row (from 0) of a source is due."""
    return (k + 0.5) / share


def _apportion(shares: list[float], first: int) -> tuple[list[int], list[tuple[float, int, int]]]:
    """Rows of every source among the first `first`, and the heap of (due, source, k) of their next ones.

    Near time t some t rows are due, so it starts a few rows before `first` and takes those one by one.
    """
    time = max(first - len(shares), 0)
    counts = [math.floor(share * time + 0.5) for share in shares]
    for i, share in enumerate(shares):  # agree with _due to the last bit
        while share and _due(share, counts[i]) <= time:
            counts[i] += 1
        while counts[i] and _due(share, counts[i] - 1) > time:
            counts[i] -= 1
    heap = [(_due(share, counts[i]), i, counts[i]) for i, share in enumerate(shares) if share]
    heapq.heapify(heap)
    for i in islice(_turns(shares, heap), first - sum(counts)):
        counts[i] += 1
    return counts, heap


def _turns(shares: list[float], heap: list[tuple[float, int, int]]) -> Iterator[int]:
    """The sources of the rows to come, moving the heap on."""
    while True:
        _, i, k = heap[0]
        heapq.heapreplace(heap, (_due(shares[i], k + 1), i, k + 1))
        yield i
