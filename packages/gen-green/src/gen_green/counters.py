"""Every sensor is a counter of joules that only grows; energy is the difference of two reads.

    for counter in detect():          # measured where possible, modelled otherwise, never both for one part
        print(counter.name, counter.kind, counter.source, counter.read())

Sensors: RAPL (Linux powercap: CPU packages, DRAM) and NVML (NVIDIA GPUs). Models that are counters too are in
`gen_green.models`. A counter never goes back and never raises in mid-run: it keeps its last good value, and what
happened is in `notes` ("gap": a read failed, and the next good one holds the energy; "ambiguous": long enough for a
wrap more than was seen; "reset": the sensor started again, what it had not told is lost; "gauge": power was read at the
window's edges only).
"""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from gen_green.counter import Counter
from gen_green.hwmon import HWMON, hwmon
from gen_green.machine import Machine
from gen_green.models import cpu_model, idle_model, memory_model
from gen_green.nvidia import nvml
from gen_green.powercap import POWERCAP, rapl
from gen_green.quantity import Kind
from gen_green.reading import Scope
from gen_green.tree import Tree

__all__ = ["POWERCAP", "Attributed", "Counter", "detect", "nvml", "rapl"]


class Attributed:
    """The share of a machine's measured CPU energy that a process tree's busy time has in the machine's.

    Args:
        counters: of the machine's packages.
        idle: watts that the machine draws idle, modelled; `gen_green.models.idle_model` counts them.
    """

    name = "cpu"
    kind: Kind = "modelled"
    scope: Scope = "tree"

    def __init__(
        self,
        counters: Sequence[Counter],
        tree: Callable[[], float],
        machine: Callable[[], float],
        idle: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.counters, self.tree, self.machine, self.idle, self.clock = counters, tree, machine, idle, clock
        self.source = f"{' + '.join(c.source for c in counters)} above idle, by share of busy time"
        self.spread, self.notes = 1.3, list[str]()  # busy seconds of two processes differ in watts by some 30 %
        self._joules, self._last = 0.0, self._look()

    def _look(self) -> tuple[float, float, float, float]:
        return self.clock(), sum(c.read() for c in self.counters), self.tree(), self.machine()

    def read(self) -> float:
        """Cumulative joules."""
        try:
            now = self._look()
        except (OSError, ValueError, IndexError):
            self.notes.append("gap")
            return self._joules
        for counter in self.counters:
            if noted := getattr(counter, "notes", None):
                self.notes += noted
                noted.clear()
        dt, joules, tree, machine = (max(b - a, 0.0) for a, b in zip(self._last, now, strict=True))
        if machine or tree:
            self._joules += max(joules - self.idle * dt, 0.0) * min(tree / max(machine, tree), 1.0)
        self._last = now
        return self._joules


def detect(
    scope: Scope = "machine",
    *,
    powercap: Path = POWERCAP,
    root: Path = Path("/"),
    dev: Path = Path("/dev"),
    sensors: Path = HWMON,
    tdp: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    warn: bool = True,
) -> list[Counter]:
    """A counter per part: CPU, its idle power, memory, each GPU; measured where possible, modelled otherwise.

    Args:
        scope: "machine" is all that runs here (within the container's limits); "tree" is this process and its
            descendants, with the idle power of the CPUs that they may use. GPUs are whole either way.
        powercap, root, dev, sensors: file trees to look at.
        tdp: watts of all CPU packages; None looks the CPU up.
        warn: say in one warning per sensor what would be measured if it could be read.
    """
    others = hwmon(sensors, clock=clock)
    if board := [c for c in others if c.name == "board"]:  # a Jetson's input: CPU, GPU and memory are within it
        return board
    machine = Machine.here(root)
    counters: list[Counter] = []
    try:
        gpus = nvml(dev=dev, clock=clock)
    except ImportError as error:
        gpus = []
        if warn:
            warnings.warn(f"{error} (no GPU is counted until then)", stacklevel=2)
    look = partial(rapl, powercap, clock=clock, tdp=tdp / machine.packages if tdp else None)
    meters: list[Counter] = []
    try:
        meters = look()
    except PermissionError as error:
        if warn:
            warnings.warn(f"{error} (until then what it would tell is modelled)", stacklevel=2)
        with suppress(PermissionError):  # only DRAM's files may be closed
            meters = look(dram=False)
    packages = [c for c in meters if not c.name.startswith("dram")]
    drams = [c for c in meters if c.name.startswith("dram")]
    idle = idle_model(tdp, machine=machine, clock=clock)
    if packages and scope == "machine":
        counters += packages
    elif packages:
        whole = idle.watts * machine.cpus / machine.allowed
        counters.append(Attributed(packages, Tree().seconds, _machine_busy(root), whole, clock))
        counters.append(idle)
    else:
        counters.append(cpu_model(tdp, idle=0.0, scope=scope, machine=machine, root=root, clock=clock))
        counters.append(idle)
    if drams and scope == "machine":
        counters += drams
    else:
        counters.append(memory_model(scope=scope, machine=machine, root=root, clock=clock))
    return counters + gpus + others


def _machine_busy(root: Path) -> Callable[[], float]:
    return cpu_model(1.0, root=root, machine=Machine(1, 1.0, 0.0)).busy
