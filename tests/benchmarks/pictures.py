"""Pictures larger than memory: images per second and memory of a folder, beside a DataLoader over PIL.

    python tests/benchmarks/pictures.py --n 100000 --workers 0 2

Small colour pictures (48 x 40, PNG) are drawn into a temporary folder of ten classes and read at 32 x 32, with random
flips and without. Both sides open, cut, resize and flip alike; the peer's `Dataset` opens a file for each sample, as
torchvision's ImageFolder does. They take turns, so that a machine that drifts drifts for both. Memory is what the
process holds for itself (RssAnon): mapped pages of the cache are the system's, which takes them back at need.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from gen_core import Loader, folder
from gen_core.runtime import generator
from gen_core.transforms import flip

SIZE, BATCH, ROUNDS = 32, 64, 5


def draw(root: Path, n: int) -> None:
    """`n` pictures of coarse coloured noise, which compress as photographs do."""
    rng = np.random.default_rng(0)
    for i in range(n):
        place = root / f"class {i % 10}"
        place.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
        coarse.resize((48, 40), Image.Resampling.BILINEAR).save(place / f"{i:06d}.png", compress_level=1)


class Files(Dataset):
    """The peer: a file for each sample."""

    def __init__(self, root: Path, flips: bool):
        self.files, self.flips = sorted(root.rglob("*.png")), flips
        self.classes = sorted({file.parent.name for file in self.files})

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        with Image.open(self.files[i]) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            box = (left, top, left + side, top + side)
            pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=box))
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
        if self.flips and torch.rand(()) < 0.5:
            x = x.flip(-1)
        return x, self.classes.index(self.files[i].parent.name)


def rate(batches, count: int) -> float:
    """Images per second, after the first two batches, in which workers start."""
    batches = iter(batches)
    for _ in range(2):
        next(batches)
    start = time.perf_counter()
    read = sum(len(x) for x, _ in islice(batches, count))
    return read / (time.perf_counter() - start)


def anonymous() -> float:
    """Memory of this process alone, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--count", type=int, default=50, help="batches of a round")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        root = Path(place) / "pictures"
        root.mkdir()
        draw(root, args.n)
        with_cache(root, Path(place) / "cache", args)


def with_cache(root: Path, cache: Path, args: argparse.Namespace) -> None:
    os.environ["GEN_CACHE"] = str(cache)
    before = anonymous()
    for name in ("first start", "second start"):
        start = time.perf_counter(), time.process_time()
        data = folder(root, SIZE)
        spent = time.perf_counter() - start[0], time.process_time() - start[1]
        print(f"{name}: {spent[0]:.1f} s, {spent[1]:.1f} s of CPU, {anonymous() - before:.0f} MB of memory")
    bytes_ = sum(file.stat().st_size for file in cache.glob("*.pixels"))
    print(f"{len(data):,} pictures, {bytes_ / 1e6:.0f} MB as bytes, {4 * bytes_ / 1e6:.0f} MB as floats")
    for x, _ in islice(Loader(data, BATCH).batches(), len(data) // BATCH):
        assert x.shape[1:] == (3, SIZE, SIZE)
    print(f"after an epoch: {anonymous() - before:.0f} MB")
    for flips in (False, True):
        for workers in args.workers:
            ours = lambda: Loader(data, BATCH, workers=workers, transform=flip if flips else None).batches()  # noqa: B023
            peer = lambda: DataLoader(
                Files(root, flips), BATCH, shuffle=True, num_workers=workers, generator=generator("order")  # noqa: B023
            )  # fmt: skip
            pairs = [(rate(ours(), args.count), rate(peer(), args.count)) for _ in range(ROUNDS)]
            us, them = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            what = f"{'flips, ' if flips else ''}{workers} workers"
            print(f"{what}: {us:,.0f} images/s, DataLoader over PIL {them:,.0f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
