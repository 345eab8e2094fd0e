"""What it costs to measure samples: `gen_core.metrics.prdc` beside the package prdc 0.2, and all of `quality.assess`.

    OMP_NUM_THREADS=1 python tests/benchmarks/quality_speed.py          # a minute; --pictures adds 2,000 colour ones

Seconds of processor time, the least of three interleaved runs, k = 5, one core; the values agree to rounding:

    n       d       ours    prdc    ratio
    50      2       .0013   .0227   .06
    200     64      .0033   .0234   .14
    1,000   1       .0272   .0769   .35
    1,000   2       .0264   .0727   .36
    1,000   64      .0372   .0789   .47
    1,000   2,048   .3465   .4705   .74
    4,000   2       .3473   .8415   .41
    4,000   64      .5186   .9824   .53

`quality.assess` of 2,000 pictures of 3 x 32 x 32: 76 s, most of it singular values of half samples.
"""

import io
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout

import torch
from prdc import compute_prdc

from gen_core import Arrays, quality
from gen_core.metrics import prdc

SIZES = [(50, 2), (200, 64), (1000, 1), (1000, 2), (1000, 64), (1000, 2048), (4000, 2), (4000, 64)]
CLASSES = list("0123456789")


def seconds(f: Callable[[], object]) -> float:
    begun = time.process_time()
    f()
    return time.process_time() - begun


def beside_the_package(n: int, d: int) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(n, d, dtype=torch.float64, generator=g),
        1.1 * torch.randn(n, d, dtype=torch.float64, generator=g),
    )

    def package() -> list[float]:
        with redirect_stdout(io.StringIO()):
            return list(compute_prdc(a.numpy(), b.numpy(), 5).values())

    apart = max(abs(x - y) for x, y in zip(prdc(a, b), package(), strict=True))
    pairs = [(seconds(lambda: prdc(a, b)), seconds(package)) for _ in range(3)]
    ours, theirs = (min(times) for times in zip(*pairs, strict=True))
    print(f"n={n:<5} d={d:<5} ours {ours:.4f}   prdc {theirs:.4f}   ratio {ours / theirs:.2f}   apart {apart:.0e}")


def pictures(n: int = 2000) -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 10
    train, test, x = (torch.randn(n, 3, 32, 32, generator=g) / 3 + y[:, None, None, None] / 10 - 0.5 for _ in range(3))
    found = lambda: quality.assess(x, y, Arrays(train, y, classes=CLASSES), Arrays(test, y, classes=CLASSES))
    print(f"quality.assess of {n} pictures 3 x 32 x 32: {seconds(found):.0f} s")


if __name__ == "__main__":
    for size in SIZES:
        beside_the_package(*size)
    if "--pictures" in sys.argv:
        pictures()
