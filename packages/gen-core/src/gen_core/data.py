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
from pathlib import Path
from typing import Any, Literal, Protocol, SupportsIndex, runtime_checkable

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
    """What the trainer needs: steps per epoch, endless batches from any step, and each sample once."""

    def __len__(self) -> int: ...

    def batches(self, start: int, rank: int, world: int) -> Iterator[Batch]: ...

    def once(self, rank: int, world: int) -> Iterator[tuple[int | None, Batch]]: ...


class Arrays(Dataset):
    """Tensors in memory, row `i` of each being sample `i`; indexed by an int, a slice or a batch of indices.

    Args:
        tensors: of equal length. uint8 tensors are pictures `(n, c, h, w)`: they come out as floats in [-1, 1].
        classes: names of the labels 0, 1, ..., if the last tensor holds labels.
    """

    def __init__(self, *tensors: Tensor, classes: Sequence[str] = ()):
        if len({len(t) for t in tensors}) != 1:
            raise ValueError(f"arrays of one data set have equal lengths, got {[len(t) for t in tensors]}")
        self.tensors, self.classes = tensors, tuple(classes)

    def __len__(self) -> int:
        return len(self.tensors[0])

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
    """What workers load. A signal to all processes is for the trainer: it still needs the workers to end its step."""
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


def digits(split: Split = "all", size: int = 8) -> Arrays:
    """scikit-learn's 1,797 handwritten digits, bundled with it: pictures `(n, 1, size, size)` in [-1, 1] and labels.

    `train` is the first half of a fixed permutation (898 pictures), `test` the rest (899). Other sizes than 8 are
    resized bilinearly. Source: E. Alpaydin and C. Kaynak, UCI repository, 1998.
    """
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 8 - 1  # 0..16 -> [-1, 1]
    y = torch.from_numpy(target)
    if size != 8:
        x = torch.nn.functional.interpolate(x, (size, size), mode="bilinear", antialias=True)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    part = {"train": order[:898], "test": order[898:], "all": order}[split]
    return Arrays(x[part], y[part], classes=[str(c) for c in range(10)])


def halves(dataset: Arrays, seed: int = 0) -> tuple[Arrays, Arrays]:
    """A keyed random half and the rest, of each class when the last tensor holds labels."""
    labels = dataset.tensors[-1] if dataset.classes else torch.zeros(len(dataset), dtype=torch.long)
    order = torch.randperm(len(dataset), generator=generator(seed, "halves"))
    order = order[labels[order].argsort(stable=True)]  # grouped by class, random within
    parts = order[0::2].sort().values, order[1::2].sort().values
    first, second = (Arrays(*(t[p] for t in dataset.tensors), classes=dataset.classes) for p in parts)
    return first, second


def folder(path: str | Path, size: int) -> Arrays:
    """Pictures of a folder, one sub-folder a class (sorted by name; none: one class), decoded once as bytes.

    Colour unless every picture is grey; transparency is laid on white. A picture of another shape is cropped to its
    central square and resized, which is said once; an unreadable one is named and skipped. n * channels * size^2
    bytes have to fit memory; for more, give `Loader` a data set of your own.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when no picture in it can be read.
    """
    from PIL import Image, UnidentifiedImageError

    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give digits, points:NAME, hub:NAME or a folder of pictures")
    groups = sorted(d for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))
    files = [(f, i) for i, d in enumerate(groups or [root]) for f in sorted(d.rglob("*")) if f.is_file()]
    suffixes = set(Image.registered_extensions())
    pictures, labels, broken, shapes = [], [], [], set()
    for file, label in files:
        if file.suffix.lower() not in suffixes:
            continue
        try:
            with Image.open(file) as image:
                image.load()
                shapes.add(image.size)
                pictures.append(_square(image, size))
                labels.append(label)
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
            broken.append(f"{file.relative_to(root)} ({error})")
    if not pictures:
        why = f"none of its {len(broken)} pictures can be read: {broken[0]}" if broken else "there is no picture in it"
        raise ValueError(f"{root} cannot be trained on: {why}")
    if broken:
        shown = ", ".join(broken[:3]) + (" ..." if len(broken) > 3 else "")
        warnings.warn(f"skipped {len(broken)} of {len(broken) + len(pictures)} pictures: {shown}", stacklevel=2)
    if shapes != {(size, size)}:
        first, *rest = sorted(shapes)
        sizes = f"{first[0]}x{first[1]}" + (f" to {rest[-1][0]}x{rest[-1][1]}" if rest else "")
        warnings.warn(f"pictures of {sizes} were cropped to squares and resized to {size}x{size}", stacklevel=2)
    return _pictures(pictures, labels, [d.name for d in groups] or [root.name])


def hub(name: str, size: int, split: str = "train") -> Arrays:
    """A data set of pictures from the Hugging Face hub, or a local copy of one, as `folder` gives it.

    Raises:
        ImportError: without the extra `hub`.
        ValueError: when it has no column of pictures.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("reading from the hub needs datasets: pip install 'gen-core[hub]'") from None
    rows = datasets.load_dataset(name, split=split)
    columns = {type(feature).__name__: column for column, feature in reversed(rows.features.items())}
    if "Image" not in columns:
        raise ValueError(f"{name} has no column of pictures; its columns are {', '.join(rows.features)}")
    pictures = [_square(image, size) for image in rows[columns["Image"]]]
    label = columns.get("ClassLabel")
    names = rows.features[label].names if label else [name]
    return _pictures(pictures, list(rows[label]) if label else [0] * len(pictures), names)


def _square(image: Any, size: int) -> np.ndarray:
    """The central square of a PIL image as bytes `(size, size)` or `(size, size, 3)`."""
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    elif image.mode.startswith("I;16"):  # 16 bits: PIL's own conversion clips instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    if image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
    return np.asarray(image)


def _pictures(pictures: list[np.ndarray], labels: list[int], classes: Sequence[str]) -> Arrays:
    if any(p.ndim == 3 for p in pictures):
        pictures = [p if p.ndim == 3 else np.repeat(p[..., None], 3, axis=2) for p in pictures]
        x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    else:
        x = torch.from_numpy(np.stack(pictures))[:, None]
    return Arrays(x, torch.tensor(labels), classes=classes)
