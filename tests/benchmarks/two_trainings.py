"""What a step of the default training takes: alone, and with another training beside it, by how OpenMP is set.

    uv run python tests/benchmarks/two_trainings.py [--rounds 3]        # on an idle machine

`gen diffusion train` on the digits, in processes of its own that start together: with one thread each, with what torch
does by itself (all cores, threads that spin), and as `gen` sets it. The settings take turns. Printed are milliseconds
a step between the 20th and the 100th step, the least of the rounds for one process, of two the slower one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gen_apps.threads import THREADS, WAITING

CORES = str(len(os.sched_getaffinity(0)))
SETTINGS = {
    "one thread each": {"OMP_NUM_THREADS": "1"},
    "all cores, spinning": {"OMP_NUM_THREADS": CORES, "GOMP_SPINCOUNT": "300000"},  # GNU's default
    "all cores, sleeping": {"OMP_NUM_THREADS": CORES, "OMP_WAIT_POLICY": "PASSIVE"},
    "all cores, 1,000 spins": {"OMP_NUM_THREADS": CORES, "GOMP_SPINCOUNT": "1000"},
    "gen": {},
}
FIRST, LAST, EVERY = 2, 10, 10  # lines of metrics.jsonl, one for 10 steps


def start(setting: dict[str, str], out: Path) -> subprocess.Popen[bytes]:
    env = {k: v for k, v in os.environ.items() if k not in THREADS + WAITING} | setting
    words = ["diffusion", "train", "--machine.device", "cpu", "--out", str(out)]
    command = [sys.executable, "-m", "gen_apps", *words]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lines(out: Path) -> int:
    file = out / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def measure(n: int, setting: dict[str, str]) -> float:
    """Milliseconds a step of the slowest of `n` trainings at once."""
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / str(i) for i in range(n)]
        processes = [start(setting, out) for out in outs]
        times: list[dict[int, float]] = [{} for _ in outs]
        try:
            while not all(LAST in seen for seen in times):
                assert all(p.poll() is None for p in processes), "a training ended early"
                for out, seen in zip(outs, times, strict=True):
                    seen.setdefault(lines(out), time.perf_counter())
                time.sleep(0.01)
        finally:
            for p in processes:
                p.kill()
                p.wait()
    return max(1000 * (seen[LAST] - seen[FIRST]) / (LAST - FIRST) / EVERY for seen in times)


def main(rounds: int) -> None:
    found = {(name, n): float("inf") for name in SETTINGS for n in (1, 2)}
    for _ in range(rounds):
        for name, n in found:
            found[name, n] = min(found[name, n], measure(n, SETTINGS[name]))
    best = min(found[name, 1] for name in SETTINGS)
    each = found["one thread each", 2]
    print(f"{'ms a step':24}{'alone':>8}{'of best':>9}{'two':>8}{'of one thread each':>20}")
    for name in SETTINGS:
        one, two = found[name, 1], found[name, 2]
        print(f"{name:24}{one:8.1f}{one / best:9.2f}{two:8.1f}{two / each:20.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    main(parser.parse_args().rounds)
