"""Every sensor is a counter of joules that only grows; energy is the difference of two reads.

    for counter in detect():          # measured where possible, modelled otherwise, never both for one part
        print(counter.name, counter.kind, counter.source, counter.read())

Sensors: RAPL (Linux powercap: CPU packages, DRAM) and NVML (NVIDIA GPUs). Models that are counters too are in
`gen_green.models`. A counter never goes back and never raises in mid-run: it keeps its last good value, and what
happened is in `notes` ("gap": a read failed, and the next good one holds the energy; "ambiguous": long enough for a
wrap more than was seen; "reset": the sensor started again, what it had not told is lost; "gauge": power was read at the
window's edges only).

[Khan18] RAPL in Action, ACM TOMPECS 3(2): packages within a few percent of the wall, DRAM less sure.
[Yang24] Accurate and Convenient Energy Measurements for GPUs, SC24, arXiv:2312.02741: NVML within 5 %, sampled.
"""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from gen_green.models import Machine, Scope, Tree, cpu_model, idle_model, memory_model
from gen_green.quantity import Kind

__all__ = ["POWERCAP", "Attributed", "Counter", "Gauge", "Nvml", "Rapl", "detect", "nvml", "rapl"]

POWERCAP = Path("/sys/class/powercap")
RAPL_SPREAD = 1.05  # [Khan18]
DRAM_SPREAD = 1.2  # [Khan18]: off by up to 20 % before Haswell's DRAM units were documented
NVML_SPREAD = 1.05  # [Yang24]
NVML_STEP = 0.1  # seconds between updates of the energy counter
RANGE = 2.0**32 * 2.0**-14  # joules of a 32-bit counter, where max_energy_range_uj cannot be read
WATTS = 500.0  # of a package that does not tell its own limit
SAME = 1.0  # joules by which two readings of one mirrored counter may differ


class Counter(Protocol):
    """Cumulative joules; it may have a `scope` ("machine" or "tree"), `notes` (a list) and a `resolution` (joules)."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def source(self) -> str: ...
    @property
    def spread(self) -> float: ...
    def read(self) -> float: ...


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


class Nvml:
    """Measured energy of one NVIDIA GPU since its driver was loaded (Volta and newer).

    Args:
        lib: the module pynvml, initialised.
        handle: of the whole GPU; a MIG slice has no counter of its own.
    """

    kind: Kind = "measured"
    scope: Scope = "machine"
    spread = NVML_SPREAD
    step = NVML_STEP  # a window that is not much longer is mostly this

    def __init__(self, lib: Any, handle: Any, name: str, source: str = "NVML total energy"):
        self.lib, self.handle, self.name, self.source = lib, handle, name, source
        self.notes: list[str] = []
        self._joules, self._raw = 0.0, self._look()
        try:
            self.resolution = NVML_STEP * lib.nvmlDeviceGetPowerManagementLimit(handle) / 1e3
        except lib.NVMLError:
            self.resolution = NVML_STEP * WATTS

    def _look(self) -> float:
        return self.lib.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1e3  # millijoules

    def read(self) -> float:
        """Cumulative joules since the counter was made."""
        try:
            raw = self._look()
        except self.lib.NVMLError:
            self.notes.append("gap")
            return self._joules
        if raw < self._raw:  # 64 bits of millijoules never wrap
            self.notes.append("reset")
            self._raw = 0.0
        self._joules += raw - self._raw
        self._raw = raw
        return self._joules


class Gauge:
    """A power sensor as a counter: trapezoids between reads, so read it often (`Meter(every=1)`)."""

    kind: Kind = "modelled"
    scope: Scope = "machine"
    spread = 2.0

    def __init__(self, name: str, watts: Callable[[], float], source: str, clock: Callable[[], float] = time.monotonic):
        self.name, self.watts, self.source, self.clock = name, watts, source, clock
        self.notes: list[str] = []
        self._joules, self._time, self._watts = 0.0, clock(), watts()

    def read(self) -> float:
        """Cumulative joules since the counter was made."""
        now = self.clock()
        try:
            watts = self.watts()
            self.notes.append("gauge")
        except Exception:  # whatever a vendor's library raises
            watts = self._watts
            self.notes.append("gap")
        self._joules += (watts + self._watts) / 2 * max(now - self._time, 0.0)
        self._time, self._watts = now, watts
        return self._joules


def nvml(
    devices: Sequence[int] | None = None,
    *,
    dev: Path = Path("/dev"),
    visible: str | None = None,
    lib: Any = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Counter]:
    """A counter per NVIDIA GPU, named by its UUID; nothing is imported unless the device node exists.

    Args:
        devices: indices as CUDA counts them, after CUDA_VISIBLE_DEVICES; None is all that are visible.
        visible: instead of the variable CUDA_VISIBLE_DEVICES: indices, UUIDs (or their beginnings), MIG names. CUDA
            counts as NVML does with CUDA_DEVICE_ORDER=PCI_BUS_ID, or where the GPUs are of one kind.
        lib: instead of pynvml.

    Raises:
        ImportError: when there is a GPU and pynvml is missing.
        ValueError: for a device that is not visible.
    """
    if not any((dev / node).exists() for node in ("nvidiactl", "nvidia0", "dxg")):
        return []
    if lib is None:
        try:
            import pynvml as lib  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ImportError("reading the GPU's energy needs nvidia-ml-py: pip install 'gen-green[nvidia]'") from None
    try:
        lib.nvmlInit()
    except lib.NVMLError:  # the node is there, the driver is not
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    handles = _visible(lib, named)
    if devices is not None:
        if wrong := [i for i in devices if not 0 <= i < len(handles)]:
            raise ValueError(
                f"device {wrong[0]} is not among the {len(handles)} that CUDA_VISIBLE_DEVICES={named} shows"
            )
        handles = [handles[i] for i in devices]
    counters: dict[str, Counter] = {}
    for handle, slice_ in handles:
        uuid, model = _str(lib.nvmlDeviceGetUUID(handle)), _str(lib.nvmlDeviceGetName(handle))
        name, source = f"gpu {uuid}", f"NVML total energy, {model}" + (", whole GPU of a MIG slice" if slice_ else "")
        if name in counters:  # two slices of one GPU
            continue
        try:
            counters[name] = Nvml(lib, handle, name, source)
        except lib.NVMLError:  # before Volta: power only
            watts = lambda handle=handle: lib.nvmlDeviceGetPowerUsage(handle) / 1e3
            try:
                counters[name] = Gauge(name, watts, source.replace("total energy", "power"), clock)
            except lib.NVMLError:
                continue
    return list(counters.values())


def _visible(lib: Any, named: str | None) -> list[tuple[Any, bool]]:
    """(handle of the whole GPU, whether a MIG slice was meant); like CUDA's, the list ends at the first wrong name."""
    everything = [lib.nvmlDeviceGetHandleByIndex(i) for i in range(lib.nvmlDeviceGetCount())]
    if named is None:
        return [(handle, False) for handle in everything]
    found: list[tuple[Any, bool]] = []
    for word in (word.strip() for word in named.split(",")):
        try:
            if word.isdigit() and int(word) < len(everything):
                found.append((everything[int(word)], False))
            elif word.startswith("MIG-GPU-"):  # MIG-GPU-<uuid>/<instance>/<compute instance>, drivers before 470
                parent = word.removeprefix("MIG-").partition("/")[0]
                found.append((lib.nvmlDeviceGetHandleByUUID(parent), True))
            elif word.startswith("MIG-"):
                part = lib.nvmlDeviceGetHandleByUUID(word)
                found.append((lib.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part), True))
            elif word.startswith("GPU-"):
                alike = [h for h in everything if _str(lib.nvmlDeviceGetUUID(h)).startswith(word)]
                if len(alike) != 1:
                    break
                found.append((alike[0], False))
            else:
                break
        except lib.NVMLError:
            break
    return found


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
    tdp: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    warn: bool = True,
) -> list[Counter]:
    """A counter per part: CPU, its idle power, memory, each GPU; measured where possible, modelled otherwise.

    Args:
        scope: "machine" is all that runs here (within the container's limits); "tree" is this process and its
            descendants, with the idle power of the CPUs that they may use. GPUs are whole either way.
        powercap, root, dev: file trees to look at.
        tdp: watts of all CPU packages; None looks the CPU up.
        warn: say in one warning per sensor what would be measured if it could be read.
    """
    machine = Machine.here(root)
    counters: list[Counter] = []
    try:
        gpus = nvml(dev=dev, clock=clock)
    except ImportError as error:
        gpus = []
        if warn:
            warnings.warn(f"{error} (no GPU is counted until then)", stacklevel=2)
    look = partial(rapl, powercap, clock=clock, tdp=tdp / machine.packages if tdp else None)
    sensors: list[Counter] = []
    try:
        sensors = look()
    except PermissionError as error:
        if warn:
            warnings.warn(f"{error} (until then what it would tell is modelled)", stacklevel=2)
        with suppress(PermissionError):  # only DRAM's files may be closed
            sensors = look(dram=False)
    packages = [c for c in sensors if not c.name.startswith("dram")]
    drams = [c for c in sensors if c.name.startswith("dram")]
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
    return counters + gpus


def _machine_busy(root: Path) -> Callable[[], float]:
    return cpu_model(1.0, root=root, machine=Machine(1, 1.0, 0.0)).busy


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _str(text: str | bytes) -> str:
    """NVML's older bindings give bytes."""
    return text.decode() if isinstance(text, bytes) else text
