"""Where no sensor is: models that are counters too, because they are affine in something that is.

Power of a CPU is taken as TDP (idle + slope u) at load u, idle .20 and slope .55: so energy is
TDP (idle dt + slope d(busy) / CPUs) over a window, exactly, from two reads of the clock and of cumulative busy time.
Nothing samples in between, a stopped process costs nothing, and a child that ended still counts.

The coefficients are a rounded fit to RAPL readings of four CPUs at 86 loads (codecarbon's repository, MIT). Fitted
to three machines and asked for the fourth, power errs by factors 0.57 to 1.74 (p10 to p90): the scale of TDP, not the
shape of the curve, is what a model cannot know, and `SPREAD` says so.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from gen_green.quantity import Kind, Quantity, product_spread, weakest

__all__ = ["CpuModel", "Machine", "MemoryModel", "Tree", "cpu_model", "idle_model", "memory_model"]

GB = 1e9  # bytes; not 2^30: the published watts are per GB
IDLE, SLOPE = 0.20, 0.55  # of TDP
SPREAD = 1.75  # p10 to p90 over machines that the fit has not seen
WATTS_PER_GB = 0.3725  # Green Algorithms (2021), of memory available
MEMORY_SPREAD = 2.3  # 0.284 (Boavizta) to 0.85 W/GB (codecarbon, 5 W per guessed DIMM)
Scope = Literal["machine", "tree"]


@dataclass(frozen=True)
class Machine:
    """What a process may use, and of what.

    Args:
        cpus: logical CPUs of the machine.
        allowed: CPUs' worth that the cgroup's quota and CPU set leave to this process, at most `cpus`.
        cores: physical cores, as far as this machine sees them.
        packages: CPU packages (sockets).
        model: the name in /proc/cpuinfo, "" where there is none.
        virtual: whether this is a guest, which sees a slice of a package.
        memory: bytes available, the cgroup's limit if that is lower.
        usage: reads the cgroup's cumulative CPU seconds, where a quota makes the cgroup "the machine"; else None.
    """

    cpus: int
    allowed: float
    memory: float
    cores: int = 1
    packages: int = 1
    model: str = ""
    virtual: bool = False
    usage: Callable[[], float] | None = None

    @classmethod
    def here(cls, root: Path = Path("/")) -> "Machine":
        """This machine, from its /proc and /sys/fs/cgroup (versions 1 and 2) below `root`."""
        info = [line.partition(":") for line in _text(root / "proc/cpuinfo").splitlines()]
        values = {key.strip(): value.strip() for key, _, value in reversed(info)}  # the first CPU's
        ids = [value.strip() for key, _, value in info if key.strip() in ("physical id", "core id")]
        sockets, cores = set(ids[::2]), set(zip(ids[::2], ids[1::2], strict=False))  # one follows the other
        stat = _text(root / "proc/stat").splitlines()
        cpus = sum(line.startswith("cpu") and not line.startswith("cpu ") for line in stat) or os.cpu_count() or 1
        groups = _Cgroups(root)
        allowed = min(groups.quota(), groups.cpuset() or cpus, cpus)
        if root == Path("/") and hasattr(os, "sched_getaffinity"):
            allowed = min(allowed, len(os.sched_getaffinity(0)))
        return cls(
            cpus=cpus,
            allowed=allowed,
            memory=min(_memory_total(root), groups.memory()),
            cores=len(cores) or cpus,
            packages=len(sockets) or 1,
            model=values.get("model name", ""),
            virtual="hypervisor" in values.get("flags", "").split(),
            usage=groups.usage() if groups.quota() < cpus else None,
        )


class _Cgroups:
    """The limits on this process: its own group's and those of every group around it, the lowest counts."""

    def __init__(self, root: Path):
        self.base = root / "sys/fs/cgroup"
        self.paths: dict[str, str] = {}
        for line in _text(root / "proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            self.paths |= dict.fromkeys(controllers.split(","), path)  # version 2 is the controller ""

    def folders(self, controller: str) -> list[Path]:
        """From the own group outwards; in a container the path may be the host's, then the mount's top is all."""
        top = self.base / controller if controller in self.paths else self.base
        if not top.is_dir():
            return []
        own = [
            part for part in self.paths.get(controller, self.paths.get("", "/")).split("/") if part not in ("", "..")
        ]
        found = [top.joinpath(*own[:n]) for n in range(len(own), 0, -1)]
        return [*filter(Path.is_dir, found), top]

    def quota(self) -> float:
        """CPUs' worth per second."""
        limits = [float("inf")]
        for folder in self.folders("cpu"):
            quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
            quota = quota or _text(folder / "cpu.cfs_quota_us").strip()
            period = period or _text(folder / "cpu.cfs_period_us").strip()
            if quota.isdigit() and period.isdigit() and int(period):
                limits.append(int(quota) / int(period))
        return min(limits)

    def cpuset(self) -> int:
        """CPUs in the own group's set; 0 where there is none."""
        for folder in self.folders("cpuset"):
            listed = _text(folder / "cpuset.cpus.effective") or _text(folder / "cpuset.cpus")
            if ranges := [part.partition("-") for part in listed.strip().split(",") if part]:
                return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)
        return 0

    def memory(self) -> float:
        """Bytes; version 1 writes a number near 2^63 for no limit."""
        names = ("memory.max", "memory.limit_in_bytes")
        values = [_text(folder / name).strip() for folder in self.folders("memory") for name in names]
        return min([float(value) for value in values if value.isdigit()], default=float("inf"))

    def usage(self) -> Callable[[], float] | None:
        """Reads the group's cumulative CPU seconds."""
        for folder in self.folders("cpuacct"):
            if (file := folder / "cpuacct.usage").exists():
                return lambda: int(file.read_text()) / 1e9
        for folder in self.folders("cpu"):
            if "usage_usec" in _text(stat := folder / "cpu.stat"):
                return lambda: int(stat.read_text().split("usage_usec", 1)[1].split(None, 1)[0]) / 1e6
        return None


class _Process(NamedTuple):
    parent: int
    own: float  # CPU seconds of its threads
    reaped: float  # CPU seconds of its children that ended and were waited for
    rss: float  # bytes


class Tree:
    """Cumulative CPU seconds, and bytes held, of a process and its descendants, also those that have ended.

    A child that ends passes its time to the parent that waits for it, so `getrusage` of this process and its children
    plus the live descendants is everything. What a daemon did before it left the tree stays counted: descendants are
    known by (pid, start time), which a reused pid does not share.

    Args:
        pid: of the root; None is this process.
        root: of the file system with /proc.
    """

    def __init__(self, pid: int | None = None, root: Path = Path("/")):
        self.pid, self.proc, self.mine = pid or os.getpid(), str(root / "proc"), pid is None
        self.seen: dict[tuple[int, int], _Process] = {}
        self.total = 0.0
        self._root = self._read_root()
        self.seconds()

    def seconds(self) -> float:
        """CPU seconds so far; what ran before this object existed is counted for the root only as it is waited for."""
        root, now = self._read_root(), self._descendants()
        growth = root.own - self._root.own
        ended = {key: was for key, was in self.seen.items() if key not in now}
        grown = {self.pid: root.reaped - self._root.reaped}
        for key, process in now.items():
            was = self.seen.get(key)
            growth += process.own - (was.own if was else 0.0)
            grown[key[0]] = process.reaped - (was.reaped if was else 0.0)
        parents = {key[0]: was.parent for key, was in ended.items()}
        for was in ended.values():  # its last reading is part of what the nearest living ancestor has just reaped
            heir = was.parent
            while heir in parents and heir not in grown:
                heir = parents[heir]
            if heir in grown:
                grown[heir] -= was.own + was.reaped
        self.total += max(growth, 0.0) + sum(max(seconds, 0.0) for seconds in grown.values())
        self.seen, self._root = now, root
        return self.total

    def held(self) -> float:
        """Bytes resident now, root and live descendants; pages that two of them share count twice."""
        own = _text(Path(self.proc, str(self.pid), "statm")).split()
        return int(own[1] if own else 0) * _page() + sum(process.rss for process in self._descendants().values())

    def _read_root(self) -> _Process:
        if not self.mine:
            return self._stat(self.pid)[1]
        try:
            import resource  # Unix
        except ImportError:
            t = os.times()
            return _Process(0, t.user + t.system, t.children_user + t.children_system, 0.0)
        own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return _Process(0, own.ru_utime + own.ru_stime, ended.ru_utime + ended.ru_stime, 0.0)

    def _descendants(self) -> dict[tuple[int, int], _Process]:
        if self.mine and not self.seen and not _has_children():
            return {}
        found: dict[int, tuple[int, _Process]] = {}
        for name in os.listdir(self.proc) if os.path.isdir(self.proc) else ():
            if name.isdigit() and int(name) != self.pid:
                try:
                    found[int(name)] = self._stat(int(name))
                except (OSError, IndexError):  # it ended meanwhile
                    continue
        members = {pid for pid, (start, _) in found.items() if (pid, start) in self.seen} | {self.pid}
        while more := {pid for pid, (_, p) in found.items() if p.parent in members and pid not in members}:
            members |= more
        return {(pid, found[pid][0]): found[pid][1] for pid in members if pid in found}

    def _stat(self, pid: int) -> tuple[int, _Process]:
        """(start time, process) from /proc/PID/stat; the name in parentheses may hold anything."""
        with open(f"{self.proc}/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        tick = 1 / os.sysconf("SC_CLK_TCK")
        user, system, children_user, children_system = (int(f) * tick for f in fields[11:15])
        rss = int(fields[21]) * _page()
        return int(fields[19]), _Process(int(fields[1]), user + system, children_user + children_system, rss)


def _has_children() -> bool:
    """Whether this process has a child that it has not waited for; asking changes nothing."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except OSError:
        pass
    return True


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
        scope=scope,
        clock=clock,
    )
    per_cpu = slope * watts.value / machine.cpus
    if scope == "tree":
        source = f"{slope:.2f} TDP x busy time of the process tree, {_shown(watts)}"
        return made(0.0, per_cpu, Tree(pid, root).seconds, source=source)
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
    """What the CPUs that this process may use draw whether it runs or not."""
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
        return MemoryModel(Tree(root=root).held, watts_per_gb, source=source, scope=scope, ended=_peak, clock=clock)
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


def _peak() -> float:
    """Peak resident bytes of the largest descendant that has ended and was waited for."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _memory_total(root: Path) -> float:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024.0
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * _page())
    except (ValueError, OSError, AttributeError):
        return 8 * GB


def _page() -> int:
    return os.sysconf("SC_PAGE_SIZE")


def _text(path: Path) -> str:
    """A file's text, "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
