"""What `gen-green run` adds to the command that it wraps, the start of its own interpreter included.

    uv run python tests/benchmarks/green_overhead.py

The command and the wrapped command take turns; printed is the least time of each, and the difference (the aim: .1 s).
"""

import subprocess
import sys
import time

ALONE = [sys.executable, "-c", "1"]
WRAPPED = [sys.executable, "-m", "gen_green", "run", "--grid", "FR", "--", *ALONE]


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(words, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    alone, wrapped = (
        min(times) for times in zip(*((seconds(ALONE), seconds(WRAPPED)) for _ in range(20)), strict=True)
    )
    print(f"alone {alone:.3f} s, wrapped {wrapped:.3f} s, added {wrapped - alone:.3f} s")
