"""Data in an order that is a function of (seed, step), for any worker number and any process count.

    data = Loader(digits("train"), batch_size=128)
    for pictures, labels in islice(data.batches(start=0, rank=0, world=1), 10): ...

`batches(start)` begins anywhere at once: resuming in the middle of an epoch is exact because the order of epoch `e`
is the permutation keyed by (seed, e), and whatever a sample's `transform` (or its dataset) draws is keyed by
(seed, e, index). An epoch drops its last `n mod batch_size` samples; another permutation drops others.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, Literal, Protocol, SupportsIndex, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from gen_core.processes import ignore_signals, signals_later
from gen_core.runtime import generator, seed_all

Batch = Any
Split = Literal["train", "test", "all"]


@runtime_checkable
class Data(Protocol):
    """Data as the trainer needs them: steps per epoch, endless batches from any step, and each sample once."""

    def __len__(self) -> int: ...

    def batches(self, start: int, rank: int, world: int) -> Iterator[Batch]: ...

    def once(self, rank: int, world: int) -> Iterator[tuple[int | None, Batch]]: ...


class Rows:
    """Some rows of a tensor that may be too large to copy: `rows[i]` is `tensor[index[i]]`."""

    def __init__(self, tensor: Tensor, index: Tensor):
        self.tensor, self.index, self.dtype = tensor, index, tensor.dtype
        self.shape = torch.Size([len(index), *tensor.shape[1:]])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Any) -> Tensor:
        return self.tensor[self.index[index]]

    def select(self, rows: Tensor) -> "Rows":
        return Rows(self.tensor, self.index[rows])


class Arrays(Dataset):
    """Tensors in memory, row `i` of each being sample `i`; indexed by an int, a slice or a batch of indices.

    Args:
        tensors: of equal length. uint8 tensors are pictures `(n, c, h, w)`: they come out as floats in [-1, 1].
        classes: names of the labels 0, 1, ..., if the last tensor holds labels.
        content: a hash of all of it, for data that may be other ones when a run is resumed.
    """

    def __init__(self, *tensors: Tensor | Rows, classes: Sequence[str] = (), content: str = ""):
        if len({len(t) for t in tensors}) != 1:
            raise ValueError(f"arrays of one data set have equal lengths, got {[len(t) for t in tensors]}")
        self.tensors = cast(tuple[Tensor, ...], tensors)  # Rows are indexed and measured alike
        self.classes, self.content = tuple(classes), content

    def __len__(self) -> int:
        return len(self.tensors[0])

    def select(self, rows: Tensor) -> "Arrays":
        """The samples of these indices, in this order; pictures are not copied."""
        parts = [
            t.select(rows) if isinstance(t, Rows) else Rows(t, rows) if t.dtype == torch.uint8 else t[rows]
            for t in self.tensors
        ]
        return Arrays(*parts, classes=self.classes, content=self.content)

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        rows = [t[index] for t in self.tensors]
        return tuple([x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x for x in rows])


class Loader:
    """A data set in global batches, shuffled by key.

    Args:
        dataset: anything with `__len__` and `__getitem__`. `Arrays` without a transform are cut batch by batch.
        batch_size: of the global batch; each process gets its `batch_size / world` rows.
        seed: of the order and of every sample's randomness.
        shuffle: False keeps the order of the data set.
        workers: processes that load samples ahead; any number gives the same batches.
        transform: `(sample, generator) -> sample`, with a generator keyed by (seed, epoch, index). The global
            streams of torch, numpy and python are keyed alike, for data sets that draw from those.
        collate: list of samples -> batch.

    Raises:
        ValueError: when there are fewer samples than one batch.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        seed: SupportsIndex = 0,
        shuffle: bool = True,
        workers: int = 0,
        transform: Callable[[Any, torch.Generator], Any] | None = None,
        collate: Callable[[list], Batch] = default_collate,
    ):
        if not 1 <= batch_size <= len(dataset):
            raise ValueError(f"batch_size must lie in 1..{len(dataset)} (the samples there are), got {batch_size}")
        self.dataset, self.batch_size, self.seed, self.shuffle = dataset, batch_size, seed, shuffle
        self.workers, self.transform, self.collate = workers, transform, collate

    def __len__(self) -> int:
        return len(self.dataset) // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The indices of an epoch, `(n,)`."""
        n = len(self.dataset)
        return torch.randperm(n, generator=generator(self.seed, "order", epoch)) if self.shuffle else torch.arange(n)

    @property
    def content_hash(self) -> str:
        """Changes when the samples are others, for data sets that say so; else empty."""
        return getattr(self.dataset, "content", "")

    @property
    def order_hash(self) -> str:
        """Changes when a seed, a length, a batch size or another version of torch gives another order."""
        text = f"{self.batch_size} {self.order(0)[:4096].tolist()} {len(self.dataset)}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def batches(self, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Endless batches from step `start`: this process's rows of each."""
        if self.batch_size % world:
            raise ValueError(f"batch_size {self.batch_size} does not divide among {world} processes; use a multiple")
        return self._load(self._rows(start, rank, self.batch_size // world))

    def once(self, rank: int = 0, world: int = 1) -> Iterator[tuple[int | None, Batch]]:
        """Every sample once, in the order of the data set: (number of the batch, batch), batches in turn by rank.

        A process whose turn falls behind the end gets batch 0 with the number None, so that all take as many turns.
        """
        total = -(-len(self.dataset) // self.batch_size)
        turns = [i * world + rank for i in range(-(-total // world))]
        numbers = [i if i < total else None for i in turns]
        chunks = torch.arange(len(self.dataset)).split(self.batch_size)
        return zip(numbers, self._load((-1, chunks[i or 0]) for i in numbers), strict=True)

    def _rows(self, start: int, rank: int, rows: int) -> Iterator[tuple[int, Tensor]]:
        """(epoch, indices) of this process's rows of every step from `start`."""
        first_epoch, batch = divmod(start, len(self))
        for epoch in count(first_epoch):
            order = self.order(epoch)
            for first in range(batch * self.batch_size + rank * rows, len(self) * self.batch_size, self.batch_size):
                yield epoch, order[first : first + rows]
            batch = 0

    def _load(self, indices: Iterator[tuple[int, Tensor]]) -> Iterator[Batch]:
        if isinstance(self.dataset, Arrays) and self.transform is None:
            return (self.dataset[rows] for _, rows in indices)
        keyed = _Keyed(self.dataset, self.seed, self.transform)
        samples = ([(epoch, i) for i in rows.tolist()] for epoch, rows in indices)
        if not self.workers:
            return (self.collate([keyed[pair] for pair in batch]) for batch in samples)
        return _batches(
            DataLoader(
                keyed,
                batch_sampler=samples,  # type: ignore[arg-type]  # any iterable of index lists, endless too
                num_workers=self.workers,
                collate_fn=self.collate,
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator(),  # making an iterator draws a seed: not from the global stream
                worker_init_fn=ignore_signals,
            )
        )


def _batches(loader: DataLoader) -> Iterator[Batch]:
    """Batches of workers. A signal to all processes is for the trainer, which still needs the workers for its step."""
    with signals_later():
        batches: Any = iter(loader)
    try:
        yield from batches
    finally:
        batches._shutdown_workers()
        for worker in batches._workers:  # one that hangs in a sample: it ignores the SIGTERM it was sent
            worker.kill()


class _Keyed(Dataset):
    """Samples whose randomness is a function of (seed, epoch, index), in whatever process they are loaded."""

    def __init__(self, dataset: Any, seed: SupportsIndex, transform: Callable | None):
        self.dataset, self.seed, self.transform = dataset, seed, transform

    def __getitem__(self, pair: tuple[int, int]) -> Any:
        epoch, index = pair
        seed_all(self.seed, "sample", epoch, index)
        sample = self.dataset[index]
        return self.transform(sample, generator(self.seed, "transform", epoch, index)) if self.transform else sample


# ---------------------------------------------------------------------- data sets


def digits(split: Split = "all", size: int | tuple[int, int] = 8) -> Arrays:
    """scikit-learn's 1,797 handwritten digits, bundled with it: pictures `(n, 1, height, width)` in [-1, 1] and labels.

    `train` is the first half of a fixed permutation (898 pictures), `test` the rest (899). Other sizes than 8 are
    resized bilinearly. Source: E. Alpaydin and C. Kaynak, UCI repository, 1998.
    """
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 8 - 1  # 0..16 -> [-1, 1]
    y = torch.from_numpy(target)
    shape = (size, size) if isinstance(size, int) else size
    if shape != (8, 8):
        x = torch.nn.functional.interpolate(x, shape, mode="bilinear", antialias=True)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    part = {"train": order[:898], "test": order[898:], "all": order}[split]
    return Arrays(x[part], y[part], classes=[str(c) for c in range(10)])


def split(dataset: Arrays, held_out: float = 0.5, seed: int = 0) -> tuple[Arrays, Arrays]:
    """(what to train on, what is held out): a keyed random share, of each class when the last tensor holds labels.

    Of a class with two samples or more at least one is on either side; a single one is trained on, which is said.

    Args:
        held_out: share of the samples, between 0 and 1.
    """
    n = len(dataset)
    if not 0 < held_out < 1 or n < 2:
        raise ValueError(f"a share between 0 and 1 of 2 samples at least can be held out, got {held_out} of {n}")
    labels = dataset.tensors[-1] if dataset.classes else torch.zeros(n, dtype=torch.long)
    order = torch.randperm(n, generator=generator(seed, "halves"))
    order = order[labels[order].argsort(stable=True)]  # grouped by class, random within
    counted = (torch.arange(n + 1, dtype=torch.float64) * held_out).floor()
    held = counted[1:] > counted[:-1]
    groups = held.split(labels.bincount(minlength=len(dataset.classes)).tolist())
    for group in groups:
        if len(group) > 1 and not group.any():
            group[-1] = True
        elif group.all():
            group[:1] = False
    if single := [name for name, group in zip(dataset.classes, groups, strict=False) if len(group) == 1]:
        shown = ", ".join(single[:3]) + (" ..." if len(single) > 3 else "")
        warnings.warn(f"{len(single)} classes have one sample, which is trained on: {shown}", stacklevel=2)
    first, second = (dataset.select(order[part].sort().values) for part in (~held, held))
    return first, second
