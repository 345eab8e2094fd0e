"""NVML: the energy counters of NVIDIA GPUs. The library is imported only where a device node exists.

The counter moves in steps of about 0.1 s, so a window shorter than some seconds is mostly step: its `resolution` says
how many joules that can be.

[Yang24] Accurate and Convenient Energy Measurements for GPUs, SC24, arXiv:2312.02741: NVML within 5 %, sampled.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gen_green.counter import Counter
from gen_green.quantity import Kind
from gen_green.reading import Scope

__all__ = ["Gauge", "Nvml", "nvml"]

NVML_SPREAD = 1.05  # [Yang24]
NVML_STEP = 0.1  # seconds between updates of the energy counter
WATTS = 700.0  # of a GPU that does not tell its own limit


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


def _str(text: str | bytes) -> str:
    """NVML's older bindings give bytes."""
    return text.decode() if isinstance(text, bytes) else text
