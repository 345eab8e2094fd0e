"""What a meter costs by being there: system calls per window, time and modules to import, megabytes installed.

    uv run python tests/benchmarks/green_weight.py [--peers PYTHON_WITH_ALL] [--install]

For the peers: /tmp/peers/bin/pip install codecarbon==3.3.2 carbontracker==2.4.7 zeus==0.16.0
`--install` puts each alone into a fresh environment and weighs that. System calls are counted where strace is.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

IMPORT = "import sys, time; a = time.perf_counter(); import {}; print(time.perf_counter() - a, len(sys.modules))"
PEERS = {
    "codecarbon": "codecarbon==3.3.2",
    "carbontracker.tracker": "carbontracker==2.4.7",
    "zeus.monitor": "zeus==0.16.0",
}
WINDOW = """
import os, sys
from gen_green import Meter, detect
counters = detect({scope!r}, warn=False)
with Meter(counters) as m: pass
m.reading
os.path.exists("/window")
with Meter(counters) as m:
    os.path.exists("/between")
    sum(range(10**5))
    os.path.exists("/between")
os.path.exists("/window")
print(len(counters))
"""


def calls(scope: str) -> tuple[int, list[str], int]:
    """(sensors, calls of a window, calls between its two reads) of one process, by strace."""
    with tempfile.NamedTemporaryFile("r") as log:
        command = ["strace", "-f", "-o", log.name, sys.executable, "-c", WINDOW.format(scope=scope)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = [line.split(None, 1)[1] for line in log.read().splitlines()]
    marks = [i for i, line in enumerate(lines) if '"/window"' in line]
    inner = [i for i, line in enumerate(lines) if '"/between"' in line]
    window = [line.partition("(")[0] for i, line in enumerate(lines) if marks[0] < i < marks[1] and i not in inner]
    memory = ("brk", "mmap", "munmap")
    between = [line for line in lines[inner[0] + 1 : inner[1]] if not line.startswith(memory)]
    return int(done.stdout), [name for name in window if name not in memory], len(between)


def imports(python: str, module: str, environment: dict[str, str]) -> tuple[float, int]:
    """Median milliseconds of seven and modules, with the bytecode there."""
    found = []
    for _ in range(8):
        command = [python, "-W", "ignore", "-c", IMPORT.format(module)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            return float("nan"), 0
        found.append(done.stdout.split()[-2:])
    return 1000 * statistics.median(float(seconds) for seconds, _ in found[1:]), int(found[-1][1])


def installed(requirement: str) -> tuple[int, float]:
    """(packages, megabytes) that an environment gains."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        site = next(Path(folder).glob("lib/python*/site-packages"))
        before = sum(f.stat().st_size for f in site.rglob("*") if f.is_file()), len(list(site.glob("*.dist-info")))
        pip = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
        after = sum(f.stat().st_size for f in site.rglob("*") if f.is_file()), len(list(site.glob("*.dist-info")))
    return after[1] - before[1], (after[0] - before[0]) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", metavar="PYTHON", help="a Python that has the peers")
    parser.add_argument("--install", action="store_true", help="weigh fresh environments (downloads the peers)")
    args = parser.parse_args()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    if shutil.which("strace"):
        for scope in ("machine", "tree"):
            sensors, window, between = calls(scope)
            opened = window.count("openat") + window.count("open")
            names = json.dumps({name: window.count(name) for name in dict.fromkeys(window)})
            print(
                f"{scope}: {sensors} sensors; a window opens {opened} files, in {len(window)} calls {names}; "
                f"{between} calls between its reads"
            )
    print(f"{'import':<24}{'ms':>8}{'modules':>9}")
    for module, python in [("gen_green", sys.executable), *((name, args.peers) for name in PEERS if args.peers)]:
        milliseconds, modules = imports(python, module, environment)
        print(f"{module:<24}{milliseconds:>8.0f}{modules:>9}")
    if args.install:
        print(f"{'installed':<24}{'packages':>9}{'MB':>8}")
        green = Path(__file__).parents[2] / "packages/gen-green"
        for requirement in [str(green), *PEERS.values()]:
            packages, size = installed(requirement)
            print(f"{Path(requirement).name:<24}{packages:>9}{size:>8.1f}")


if __name__ == "__main__":
    main()
