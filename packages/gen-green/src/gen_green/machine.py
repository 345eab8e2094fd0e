"""Processors and memory of this process and of its machine: /proc, and the limits of control groups.

In a container /proc/stat, the memory and the processor are the host's; a quota, a CPU set or a memory limit that is
lower is what the job has. Version 1 of control groups has a folder per controller or pair of them (cpu,cpuacct),
version 2 one for all, which is called unified where it stands beside version 1.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "text"]


@dataclass(frozen=True)
class Machine:
    """Processors and memory of a process, and of its machine.

    Args:
        cpus: logical CPUs of the machine.
        allowed: CPUs' worth that the cgroup's quota and CPU set leave to the job, at most `cpus`; a rank's own affinity
            does not count, for the ranks of a job share its allotment.
        cores: physical cores, as far as this machine sees them.
        packages: CPU packages (sockets).
        model: the name in /proc/cpuinfo, "" where there is none.
        virtual: whether this is a guest, which sees a slice of a package.
        memory: bytes available, the cgroup's limit if that is lower.
        usage: reads the cumulative CPU seconds of the cgroup whose quota makes it "the machine", which may be one
            around the own group; None without a quota.
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
        info = [line.partition(":") for line in text(root / "proc/cpuinfo").splitlines()]
        values = {key.strip(): value.strip() for key, _, value in reversed(info)}  # the first CPU's
        ids = [value.strip() for key, _, value in info if key.strip() in ("physical id", "core id")]
        sockets, cores = set(ids[::2]), set(zip(ids[::2], ids[1::2], strict=False))  # one follows the other
        stat = text(root / "proc/stat").splitlines()
        cpus = sum(line.startswith("cpu") and not line.startswith("cpu ") for line in stat) or os.cpu_count() or 1
        groups = _Cgroups(root)
        quota, limited = groups.quota()
        return cls(
            cpus=cpus,
            allowed=min(quota, groups.cpuset() or cpus, cpus),
            memory=min(_memory(root), groups.memory()),
            cores=len(cores) or cpus,
            packages=len(sockets) or 1,
            model=values.get("model name", ""),
            virtual="hypervisor" in values.get("flags", "").split(),
            usage=groups.usage(limited) if quota < cpus else None,
        )


class _Cgroups:
    """The limits on this process: its own group's and those of every group around it, the lowest counts."""

    def __init__(self, root: Path):
        self.base = root / "sys/fs/cgroup"
        self.paths: dict[str, str] = {}
        for line in text(root / "proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            self.paths |= dict.fromkeys(controllers.split(","), path)  # version 2 is the controller ""

    def top(self, controller: str) -> Path:
        """The mount of version 1 that has this controller, alone or with others; else that of version 2."""
        if controller not in self.paths:
            return unified if (unified := self.base / "unified").is_dir() else self.base
        pairs = (folder for folder in self.base.glob("*,*") if controller in folder.name.split(","))
        return alone if (alone := self.base / controller).is_dir() else next(pairs, alone)

    def folders(self, controller: str) -> list[Path]:
        """From the own group outwards; in a container the path may be the host's, then the mount's top is all."""
        top = self.top(controller)
        if not top.is_dir():
            return []
        own = [
            part for part in self.paths.get(controller, self.paths.get("", "/")).split("/") if part not in ("", "..")
        ]
        found = [top.joinpath(*own[:n]) for n in range(len(own), 0, -1)]
        return [*filter(Path.is_dir, found), top]

    def quota(self) -> tuple[float, Path]:
        """The lowest limit, in CPUs' worth per second, and the folder of the group that has it."""
        limits = [(float("inf"), self.top("cpu"))]
        for folder in self.folders("cpu"):
            quota, _, period = text(folder / "cpu.max").strip().partition(" ")
            quota = quota or text(folder / "cpu.cfs_quota_us").strip()
            period = period or text(folder / "cpu.cfs_period_us").strip()
            if quota.isdigit() and period.isdigit() and int(period):
                limits.append((int(quota) / int(period), folder))
        return min(limits, key=lambda limit: limit[0])

    def cpuset(self) -> int:
        """CPUs in the own group's set; 0 where there is none."""
        for folder in self.folders("cpuset"):
            listed = text(folder / "cpuset.cpus.effective") or text(folder / "cpuset.cpus")
            if ranges := [part.partition("-") for part in listed.strip().split(",") if part]:
                return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)
        return 0

    def memory(self) -> float:
        """Bytes; version 1 writes a number near 2^63 for no limit."""
        names = ("memory.max", "memory.limit_in_bytes")
        values = [text(folder / name).strip() for folder in self.folders("memory") for name in names]
        return min([float(value) for value in values if value.isdigit()], default=float("inf"))

    def usage(self, folder: Path) -> Callable[[], float] | None:
        """Reads the cumulative CPU seconds of the group with this folder of the controller cpu."""
        file = self.top("cpuacct") / folder.relative_to(self.top("cpu")) / "cpuacct.usage"
        if file.exists():
            return lambda: int(file.read_text()) / 1e9
        if "usage_usec" in text(stat := folder / "cpu.stat"):
            return lambda: int(stat.read_text().split("usage_usec", 1)[1].split(None, 1)[0]) / 1e6
        return None


def _memory(root: Path) -> float:
    for line in text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024.0
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return 8e9


def text(path: Path) -> str:
    """A file's text, "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
