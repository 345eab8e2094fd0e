"""Number of OpenMP threads of a command and their way to wait: set before torch, whose OpenMP reads it as it is loaded.

By default OpenMP takes every core, and a thread without work spins for milliseconds. Two trainings at once then spin on
the cores that the other one needs, and are several times slower than with one thread each. So a command takes the cores
that are free as it starts, and its threads spin for a few microseconds only: long enough for the gap between two
operations, too short to be in anybody's way.
"""

import json
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from time import perf_counter

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_DYNAMIC")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
OURS = "GEN_THREADS"
"""The number that `share` chose, where the user did not."""
SPINS = 1000
"""Spins before sleep of GNU's OpenMP, that of torch's wheels for Linux: some 10 microseconds."""


def share(environ: MutableMapping[str, str] = os.environ, loadavg: Path = Path("/proc/loadavg")) -> None:
    """Set the number of threads and how they wait, each unless the environment says it already."""
    if not any(name in environ for name in THREADS):
        environ["OMP_NUM_THREADS"] = environ[OURS] = str(free(cores(), others(loadavg)))
    if not any(name in environ for name in WAITING):
        environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT=str(SPINS))


def resume(run: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Compute with as many threads as the run was begun with, unless the user chose a number.

    Sums are rounded in another order by another number of threads, and a resumed run ends bit for bit as a whole one.
    """
    file = run / "environment.json"
    if OURS in environ and file.is_file() and (threads := json.loads(file.read_text()).get("threads")):
        import torch

        torch.set_num_threads(threads)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free(cores: int, others: int) -> int:
    """Cores left by `others` running threads, at least 1; all, where they may run on cores that are not ours."""
    return cores if cores < (os.cpu_count() or 1) else max(1, cores - others)


def others(loadavg: Path, seconds: float = 0.05) -> int:
    """Threads that ran beside this one, by the median of looks for some time; 0 where there is no /proc.

    It looks without a pause: a process that sleeps is not seen by another one that starts at the same time.
    """
    try:
        seen, end = [], perf_counter() + seconds
        while not seen or perf_counter() < end:
            seen.append(int(loadavg.read_text().split()[3].partition("/")[0]))
        return max(0, sorted(seen)[len(seen) // 2] - 1)
    except OSError:
        return 0
