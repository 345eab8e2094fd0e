"""RAPL: the energy counters of CPU packages and DRAM, as Linux shows them under /sys/class/powercap.

A counter has 32 bits of 2^-14 J (262,144 J) on most processors: it wraps every 36 minutes at 120 W. A failed read is no
zero: counters are cumulative, so the baseline stays and the next good read holds everything.

[Khan18] RAPL in Action, ACM TOMPECS 3(2): packages within a few percent of the wall, DRAM less sure.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gen_green.counter import Counter
from gen_green.quantity import Kind
from gen_green.reading import Scope

__all__ = ["POWERCAP", "Rapl", "rapl"]

POWERCAP = Path("/sys/class/powercap")
RAPL_SPREAD = 1.05  # [Khan18]
DRAM_SPREAD = 1.2  # [Khan18]: off by up to 20 % before Haswell's DRAM units were documented
RANGE = 2.0**32 * 2.0**-14  # joules of a 32-bit counter, where max_energy_range_uj cannot be read
WATTS = 500.0  # of a package that does not tell its own limit
SAME = 1.0  # joules by which two readings of one mirrored counter may differ


class _Zone:
    """One energy_uj file, unwrapped."""

    def __init__(self, path: Path, clock: Callable[[], float], watts: float | None):
        self.path, self.clock = path, clock
        self.range = (_number(path / "max_energy_range_uj") or RANGE * 1e6) / 1e6
        self.watts = watts or (_number(path / "constraint_0_max_power_uw") or WATTS * 1e6) / 1e6
        self.joules, self.raw, self.time = 0.0, self.look(), clock()

    def look(self) -> float:
        return int((self.path / "energy_uj").read_bytes()) / 1e6

    def advance(self) -> list[str]:
        """Read once, add what passed; what to note."""
        now = self.clock()
        try:
            raw = self.look()
        except (OSError, ValueError):
            return ["gap"]  # the baseline stays: the next good read holds this energy too
        dt, passed = max(now - self.time, 0.0), raw - self.raw
        most = self.watts * dt
        notes = []
        if passed < 0:
            passed += self.range
            if not 0 <= passed <= 2 * (most + self.watts):  # no wrap: it started again (driver reload)
                passed, notes = raw, ["reset"]
        if passed + self.range <= most:
            notes.append("ambiguous")
        self.raw, self.time = raw, now
        self.joules += passed
        return notes


class Rapl:
    """Measured energy of one CPU package, or of its DRAM.

    Several zones are the package's dies: two that read alike when made and ever since mirror one counter.
    """

    kind: Kind = "measured"
    scope: Scope = "machine"

    def __init__(self, name: str, zones: Sequence[_Zone], spread: float = RAPL_SPREAD):
        self.name, self.zones, self.spread = name, zones, spread
        self.source = f"RAPL {name}"
        self.notes: list[str] = []
        self._mirrors = [any(abs(z.raw - other.raw) <= SAME for other in zones[:i]) for i, z in enumerate(zones)]

    def read(self) -> float:
        """Cumulative joules since the counter was made."""
        for zone in self.zones:
            self.notes += zone.advance()
        for i, zone in enumerate(self.zones):
            if self._mirrors[i]:
                self._mirrors[i] = any(abs(zone.raw - other.raw) <= SAME for other in self.zones[:i])
        return sum(zone.joules for zone, mirror in zip(self.zones, self._mirrors, strict=True) if not mirror)


def rapl(
    root: Path = POWERCAP,
    dram: bool = True,
    *,
    tdp: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Counter]:
    """A counter per package, and per DRAM where there is one: DRAM lies outside of its package, core and uncore inside.

    Args:
        root: powercap tree. The MMIO twin of a package serves only where the MSR one is missing; psys (the platform)
            only where there is no package.
        tdp: watts of a package, for telling a wrap from a reset; None is the package's own limit.

    Raises:
        PermissionError: with the command that makes the files readable.
    """
    found: dict[str, Path] = {}  # by folder name: real trees list a zone as a link at the top and nested as well
    for top in sorted(root.glob("*")) if root.is_dir() else []:
        for zone in [top, *sorted(top.glob("*-rapl*:*")), *sorted(top.glob("*:*/*:*"))]:
            if (zone / "energy_uj").exists() and (zone / "name").exists():
                found.setdefault(zone.name, zone)
    named: dict[str, dict[str, Path]] = {}  # name -> {folder name: zone}, MSR before MMIO
    for key, zone in sorted(found.items(), key=lambda item: ("mmio" in item[0], item[0])):
        name = (zone / "name").read_text().strip()
        if name == "dram":
            name = f"dram-{key.split(':')[1]}"
        named.setdefault(name, {})[key] = zone
    packages = {n: zones for n, zones in named.items() if n.startswith("package")}
    wanted = packages or {n: zones for n, zones in named.items() if n == "psys"}
    wanted |= {n: zones for n, zones in named.items() if dram and n.startswith("dram-")}
    opened: dict[str, list[_Zone]] = {}
    denied: dict[str, Path] = {}
    for name, zones in wanted.items():
        for zone in zones.values():  # the first that can be read
            try:
                made = _Zone(zone, clock, tdp)
            except PermissionError:
                denied[name] = zone / "energy_uj"
            except (OSError, ValueError):
                continue
            else:
                opened.setdefault(name.partition("-die")[0], []).append(made)
                denied.pop(name, None)
                break
    if denied:  # some of a machine's packages would be silently low
        raise PermissionError(
            f"RAPL is there but only root may read it: sudo chmod a+r {' '.join(map(str, denied.values()))}"
        )
    return [
        Rapl(name, zones, DRAM_SPREAD if name.startswith("dram") else RAPL_SPREAD) for name, zones in opened.items()
    ]


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
