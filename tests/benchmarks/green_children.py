"""Twenty short-lived children: what gen-green and codecarbon count, against what the kernel accounts for.

    uv run python tests/benchmarks/green_children.py [--peer PYTHON_WITH_CODECARBON]

Each child burns 0.5 CPU-seconds and ends; one after the other, then all at once. The truth is getrusage's CPU time of
ended children at 100 W over the machine's CPUs, without idle power, which is what codecarbon's process mode models too
(force_cpu_power=100, 2 s between samples).
For the peer: python -m venv /tmp/peers && /tmp/peers/bin/pip install codecarbon==3.3.2
"""

import argparse
import json
import subprocess
import sys

WORK = """
import os, resource, subprocess, sys
def work():
    burn = "import time\\nwhile time.process_time() < .5: pass"
    a = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(20 // TOGETHER):
        children = [subprocess.Popen([sys.executable, "-S", "-c", burn]) for _ in range(TOGETHER)]
        for child in children:
            child.wait()
    b = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 100 / os.cpu_count() * (b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime)
"""
OURS = """
from gen_green import Meter, cpu_model
with Meter([cpu_model(100.0, idle=0, slope=1, scope="tree")]) as m:
    truth = work()
print(json.dumps([truth, m.reading.total]))
"""
THEIRS = """
import logging
logging.disable(logging.CRITICAL)
from codecarbon import OfflineEmissionsTracker
tracker = OfflineEmissionsTracker(country_iso_code="FRA", tracking_mode="process", measure_power_secs=2,
    force_cpu_power=100, save_to_file=False, allow_multiple_runs=True, log_level="critical")
tracker.start()
truth = work()
tracker.stop()
print(json.dumps([truth, tracker.final_emissions_data.cpu_energy * 3.6e6]))
"""


def measured(python: str, code: str, together: int) -> tuple[float, float]:
    """(truth, counted) in joules, with so many children at a time."""
    done = subprocess.run(
        [python, "-c", f"TOGETHER = {together}\n{WORK}import json\n{code}"], capture_output=True, text=True, check=True
    )
    truth, counted = json.loads(done.stdout.splitlines()[-1])
    return truth, counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="a Python that has codecarbon")
    args = parser.parse_args()
    rows = [("gen-green", sys.executable, OURS)] + ([("codecarbon", args.peer, THEIRS)] if args.peer else [])
    print(f"{'':<12}{'at a time':>10}{'truth J':>10}{'counted J':>11}{'share':>8}")
    for together in (1, 20):
        for name, python, code in rows:
            truth, counted = measured(python, code, together)
            print(f"{name:<12}{together:>10}{truth:>10.1f}{counted:>11.1f}{counted / truth:>8.3f}")


if __name__ == "__main__":
    main()
