"""Models in place of absent sensors; they are counters too, because they are affine in something that is.

Power of a CPU is taken as TDP (idle + slope u) at load u, idle .20 and slope .55: so energy is
TDP (idle dt + slope d(busy) / CPUs) over a window, exactly, from two reads of the clock and of cumulative busy time.
Nothing samples in between, a stopped process costs nothing, and a child that ended still counts.

The coefficients are a rounded fit to RAPL readings of four CPUs at 86 loads (codecarbon's repository, MIT). Fitted
to three machines and asked for the fourth, power errs by factors 0.57 to 1.74 (p10 to p90): the scale of TDP, not the
shape of the curve, is what a model cannot know, and `SPREAD` says so.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gen_green.machine import Machine
from gen_green.quantity import Kind, Quantity, product_spread, weakest
from gen_green.reading import Scope
from gen_green.tree import Tree, peak_of_ended

__all__ = ["CpuModel", "MemoryModel", "cpu_model", "idle_model", "memory_model"]

GB = 1e9  # bytes; not 2^30: the published watts are per GB
IDLE, SLOPE = 0.20, 0.55  # of TDP
SPREAD = 1.75  # p10 to p90 over machines that the fit has not seen
WATTS_PER_GB = 0.3725  # Green Algorithms (2021), of memory available
MEMORY_SPREAD = 2.3  # 0.284 (Boavizta) to 0.85 W/GB (codecarbon, 5 W per guessed DIMM)


class CpuModel:
    """Joules = watts dt + watts_per_cpu d(busy seconds): monotone, whatever clock and kernel do.

    Args:
        watts: drawn whatever runs.
        watts_per_cpu: that a fully busy logical CPU adds.
        busy: cumulative busy CPU seconds; where it fails, its last value is kept and the gap noted.
    """

    def __init__(
        self,
        name: str,
        watts: float,
        watts_per_cpu: float,
        busy: Callable[[], float],
        *,
        source: str,
        kind: Kind = "modelled",
        spread: float = SPREAD,
        scope: Scope = "machine",
        clock: Callable[[], float] = time.monotonic,
    ):
        self.name, self.watts, self.watts_per_cpu, self.busy, self.clock = name, watts, watts_per_cpu, busy, clock
        self.source, self.spread = source, spread
        self.kind: Kind = kind
        self.scope: Scope = scope
        self.notes: list[str] = []
        self._joules, self._time, self._busy = 0.0, clock(), busy()

    def read(self) -> float:
        """Cumulative joules."""
        now = self.clock()
        self._joules += self.watts * max(now - self._time, 0.0)
        self._time = now
        try:
            busy = self.busy()
        except (OSError, ValueError, IndexError):
            self.notes.append("gap")
            return self._joules
        self._joules += self.watts_per_cpu * max(busy - self._busy, 0.0)
        self._busy = busy
        return self._joules


class MemoryModel:
    """Joules = watts_per_gb times the bytes held, integrated from read to read (trapezoid).

    Args:
        held: bytes now.
        ended: peak bytes of the largest child that has ended, of which nothing else is left to read.
    """

    name = "memory"
    kind: Kind = "modelled"

    def __init__(
        self,
        held: Callable[[], float],
        watts_per_gb: float = WATTS_PER_GB,
        *,
        source: str,
        scope: Scope = "machine",
        ended: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.held, self.ended, self.watts_per_gb, self.clock = held, ended, watts_per_gb, clock
        self.source, self.spread, self.scope, self.notes = source, MEMORY_SPREAD, scope, list[str]()
        self._joules, self._time, self._held, self._ended = 0.0, clock(), held(), ended()

    def read(self) -> float:
        """Cumulative joules."""
        now = self.clock()
        try:
            held, ended = self.held(), self.ended()
        except (OSError, ValueError, IndexError):
            self.notes.append("gap")
            held, ended = self._held, self._ended
        mean = (held + self._held) / 2
        if ended > self._ended:  # a child larger than those before it came and went
            mean = max(mean, min(held, self._held) + ended)
        self._joules += self.watts_per_gb * mean / GB * max(now - self._time, 0.0)
        self._time, self._held, self._ended = now, held, ended
        return self._joules


def cpu_model(
    tdp: float | Quantity | None = None,
    idle: float = IDLE,
    slope: float = SLOPE,
    scope: Scope = "machine",
    *,
    machine: Machine | None = None,
    root: Path = Path("/"),
    pid: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> CpuModel:
    """CPU energy from busy time; see the module's text.

    Args:
        tdp: watts of all packages together; None looks the CPU up, or assumes, and says so.
        idle, slope: watts at load u are tdp (idle + slope u).
        scope: "machine" is busy time in /proc/stat, or the cgroup's where a quota makes that the machine, with idle
            power; "tree" is this process and its descendants without it (`idle_model` counts it, once per machine).
        pid: root of the tree, None for this process.

    Raises:
        ValueError: for a negative or zero TDP.
    """
    machine = machine or Machine.here(root)
    watts = _tdp(tdp, machine)
    made = partial(
        CpuModel,
        "cpu",
        kind=weakest(("modelled", watts.kind)),
        spread=product_spread(SPREAD, watts.spread),
        clock=clock,
    )
    per_cpu = slope * watts.value / machine.cpus
    if scope == "tree" or not (machine.usage or (root / "proc/stat").exists()):  # not Linux: only its own time is known
        source = f"{slope:.2f} TDP x busy time of the process tree, {_shown(watts)}"
        return made(0.0, per_cpu, Tree(pid, root).seconds, source=source, scope="tree")
    busy = machine.usage or partial(_busy, root)
    share = machine.allowed / machine.cpus if machine.usage else 1.0
    source = f"({idle:.2f} + {slope:.2f} load) TDP, {_shown(watts)}"
    return made(idle * share * watts.value, per_cpu, busy, source=source)


def idle_model(
    tdp: float | Quantity | None = None,
    idle: float = IDLE,
    *,
    machine: Machine | None = None,
    root: Path = Path("/"),
    clock: Callable[[], float] = time.monotonic,
) -> CpuModel:
    """Idle power of the CPUs that this process may use."""
    machine = machine or Machine.here(root)
    watts = _tdp(tdp, machine)
    return CpuModel(
        "cpu idle",
        idle * watts.value * machine.allowed / machine.cpus,
        0.0,
        lambda: 0.0,
        source=f"{idle:.2f} TDP x {machine.allowed:g} of {machine.cpus} CPUs, {_shown(watts)}",
        kind=weakest(("modelled", watts.kind)),
        spread=product_spread(SPREAD, watts.spread),
        clock=clock,
    )


def memory_model(
    gb: float | None = None,
    watts_per_gb: float = WATTS_PER_GB,
    scope: Scope = "machine",
    *,
    machine: Machine | None = None,
    root: Path = Path("/"),
    clock: Callable[[], float] = time.monotonic,
) -> MemoryModel:
    """Memory energy: watts per GB (1e9 bytes) of what the machine or its cgroup limit has, or what the tree holds.

    Raises:
        ValueError: for a negative size.
    """
    if gb is not None and not gb >= 0:
        raise ValueError(f"memory is at least 0 GB, got {gb}")
    if gb is None and scope == "tree":
        source = f"{watts_per_gb:g} W/GB (Green Algorithms) x resident memory of the process tree"
        return MemoryModel(
            Tree(root=root).held, watts_per_gb, source=source, scope=scope, ended=peak_of_ended, clock=clock
        )
    size = gb * GB if gb is not None else (machine or Machine.here(root)).memory
    source = f"{watts_per_gb:g} W/GB (Green Algorithms) x {size / GB:.3g} GB available"
    return MemoryModel(lambda: size, watts_per_gb, source=source, clock=clock)


def _tdp(tdp: float | Quantity | None, machine: Machine) -> Quantity:
    """Watts of all packages; a guest is charged its cores, never a package of which it has a slice."""
    if tdp is None:
        from gen_green import hardware

        if not machine.virtual:
            return hardware.cpu(machine.model, max(machine.cores // machine.packages, 1)) * machine.packages
        try:
            each = hardware.cpu_core(machine.model)
        except ValueError:
            each = hardware.cpu_core()
        name = machine.model or "a processor without a name"
        source = f"{each.value:g} W x {machine.cores} virtual cores of {name}, Green Algorithms"
        return Quantity(each.value * machine.cores, "W", each.kind, source, each.year, each.spread)
    if isinstance(tdp, Quantity):
        return tdp
    if not tdp > 0:
        raise ValueError(f"a TDP is positive, got {tdp} W; leave it out to look the CPU up")
    return Quantity(float(tdp), "W", "modelled", "as given")


def _shown(watts: Quantity) -> str:
    return f"TDP {watts.value:.3g} W ({watts.kind}: {watts.source})"


def _busy(root: Path) -> float:
    """Seconds that all CPUs together were busy: user, nice, system, irq, softirq; stolen time is another guest's."""
    with open(root / "proc/stat", "rb") as file:
        fields = file.readline().split()
    return sum(int(fields[i]) for i in (1, 2, 3, 6, 7)) / os.sysconf("SC_CLK_TCK")
