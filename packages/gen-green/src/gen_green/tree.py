"""CPU seconds and memory of a process and all of its descendants, also of those that have ended."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from gen_green.machine import text

__all__ = ["Tree", "peak_of_ended"]

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096  # bytes


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
        own = text(Path(self.proc, str(self.pid), "statm")).split()
        rss = int(own[1]) * _PAGE if own else _peak("RUSAGE_SELF")
        return rss + sum(process.rss for process in self._descendants().values())

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
        rss = int(fields[21]) * _PAGE
        return int(fields[19]), _Process(int(fields[1]), user + system, children_user + children_system, rss)


def _has_children() -> bool:
    """True where this process has a child that it has not waited for; the test changes nothing."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except OSError:
        pass
    return True


def peak_of_ended() -> float:
    """Peak resident bytes of the largest descendant that has ended and was waited for."""
    return _peak("RUSAGE_CHILDREN")


def _peak(who: str) -> float:
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(getattr(resource, who)).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
