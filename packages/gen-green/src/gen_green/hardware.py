"""Power of hardware and emissions of its making, from the shipped tables.

    cpu("Intel(R) Xeon(R) CPU E5-2683 v4 @ 2.10GHz").value       # 120 W per package (socket)
    cpu_core("Xeon E5-2683 v4").value                            # 7.5 W per core, Green Algorithms
    device("NVIDIA H100 80GB HBM3").joules_per_flop              # 0.71e-12 by the data sheet
    embodied([Hardware("server", factor("server without gpu embodied (bloom)"), 1 / 8)], seconds)   # in footprint.py

Watts per package and watts per core are two columns and two functions: they never stand in for each other. TDP is a
limit,
not a draw: the most that a package drew under load was 0.57 to 0.97 of it on four processors.

[Boavizta] Bottom-up impact factors of components, doc.api.boavizta.org (manufacture of CPU, RAM and SSD).
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from gen_green.quantity import Quantity
from gen_green.tables import nearest, rows

__all__ = ["GB", "Device", "Hardware", "cpu", "cpu_core", "device", "dram", "factor", "gpu", "processor", "ssd"]

GB = 1e9  # bytes; a GiB is 7 % more
UNKNOWN_SPREAD = 2.5  # watts per core of the table go from 1.6 to 24 around 12
TDP_SPREAD = 1.05  # of the nominal figure itself; how far a load reaches it is the power model's affair


@dataclass(frozen=True)
class Device:
    """An accelerator as its data sheet has it.

    Args:
        name: of the table.
        watts: thermal design power of one device.
        flops: peak dense FLOP/s at `dtype` ("bf16", or "fp16" where there is no bf16); 0 where none is known.
    """

    name: str
    watts: Quantity
    flops: float
    dtype: str = "bf16"

    @property
    def joules_per_flop(self) -> float:
        """By the data sheet: a reference, not a bound."""
        return self.watts.value / self.flops if self.flops else float("nan")


@dataclass(frozen=True)
class Hardware:
    """Pieces of hardware with the emissions of their making, for `footprint.embodied`.

    Args:
        embodied: grams of CO2 equivalent per piece; its `source` names the system boundary.
        count: of pieces, or the share of one that the computation had.
    """

    name: str
    embodied: Quantity
    count: float = 1.0

    def __post_init__(self) -> None:
        if not (self.embodied.unit == "g" and self.embodied.value >= 0 and self.count >= 0):
            raise ValueError(f"{self.name} needs grams and a count of at least 0, got {self.embodied} and {self.count}")


def cpu(name: str, cores: int | None = None) -> Quantity:
    """Thermal design power of a processor, in watts per package (one socket).

    Args:
        name: as in /proc/cpuinfo, or of the table.
        cores: physical cores; for a processor that the table lacks, 12 W each (Green Algorithms' "Any"), assumed.

    Raises:
        ValueError: for an unknown name without `cores`; it names the nearest.

    >>> cpu("AMD EPYC 7763 64-Core Processor").value, cpu("AMD EPYC", cores=4).value
    (280.0, 48.0)
    """
    known = {key: row for key, row in _cpus().items() if row["tdp_w_per_package"]}
    row = known.get(_cpu_key(name))
    if row is not None:
        return _watts(row["tdp_w_per_package"], f"TDP of {row['name']}, {row['source']}", row)
    if cores is None:
        near = known[nearest(_cpu_key(name), known)]["name"]
        raise ValueError(f"no power is known for the processor {name!r}; the nearest name is {near!r}, or pass cores=")
    each = cpu_core("Any")
    source = f"{each.value:g} W per core of an unknown processor {name!r}, Green Algorithms v3.0"
    return Quantity(each.value * cores, "W", "assumed", source, each.year, UNKNOWN_SPREAD)


def cpu_core(name: str = "Any") -> Quantity:
    """Watts per core in use, as Green Algorithms v3.0 has them; "Any" is 12.

    Raises:
        ValueError: for a processor that this table lacks; it names the nearest.
    """
    known = {key: row for key, row in _cpus().items() if row["green_algorithms_w_per_core"]}
    row = _find(name, known, _cpu_key(name), "processor")
    spread = UNKNOWN_SPREAD if row["name"] == "Any" else TDP_SPREAD
    found = _watts(row["green_algorithms_w_per_core"], f"watts per core of {row['name']}, Green Algorithms v3.0", row)
    return Quantity(
        found.value, "W", "assumed" if row["name"] == "Any" else "modelled", found.source, found.year, spread
    )


def gpu(name: str) -> Quantity:
    """Thermal design power of an accelerator, in watts per device.

    Raises:
        ValueError: for an unknown name; it names the nearest.

    >>> gpu("Tesla V100-SXM2-16GB").value
    300.0
    """
    return device(name).watts


def device(name: str) -> Device:
    """An accelerator by the name that NVML or its data sheet gives.

    Raises:
        ValueError: for an unknown name; it names the nearest.
    """
    row = _find(name, _gpus(), _gpu_key(name), "accelerator")
    watts = _watts(row["tdp_w_per_device"], f"TDP of {row['name']}, {row['source']}", row)
    return Device(row["name"], watts, float(row["peak_dense_tflops"] or 0) * 1e12, row["peak_dtype"])


def factor(name: str) -> Quantity:
    """A factor of the shipped table: "memory power" (W/GB), "gpu embodied (bloom)" (g), "car km eu" (g), "pue aws" ...

    Raises:
        ValueError: for an unknown name; it names the nearest.
    """
    known = {row["name"].casefold(): row for row in rows("factors")}
    row = _find(name, known, name.strip().casefold(), "factor")
    unit = "" if row["unit"] == "1" else row["unit"]
    source = f"{row['source']} ({row['boundary']})"
    return Quantity(float(row["value"]), unit, "assumed", source, int(row["year"]), float(row["spread"]))


def processor(die_mm2: float) -> Quantity:
    """Grams of CO2 equivalent of making a packaged CPU: 0.0197 kg/mm2 of die, and 9.14 kg [Boavizta]."""
    return _made(0.0197 * die_mm2 + 9.14, "CPU, die and package")


def dram(gb: float, density: float) -> Quantity:
    """Emissions of making a memory module: 2.20 kg per cm2 of die at `density` GB/cm2, and 5.22 kg [Boavizta]."""
    return _made(2.20 * gb / density + 5.22, "memory module, dies and board")


def ssd(gb: float, density: float) -> Quantity:
    """Emissions of making an SSD: 2.20 kg per cm2 of die at `density` GB/cm2, and 6.34 kg [Boavizta]."""
    return _made(2.20 * gb / density + 6.34, "SSD, dies, board and case")


def _made(kilograms: float, boundary: str) -> Quantity:
    return Quantity(1000 * kilograms, "g", "modelled", f"Boavizta ({boundary}; cradle to gate)", 2023, 2.0)


def _watts(text: str, source: str, row: Mapping[str, str]) -> Quantity:
    return Quantity(float(text), "W", "modelled", source, int(row["year"]), TDP_SPREAD)


def _find(name: str, known: Mapping[str, dict[str, str]], key: str, what: str) -> dict[str, str]:
    if key not in known:
        near = known[nearest(key, known)]["name"]
        raise ValueError(f"no {what} is known as {name!r}; the nearest name is {near!r}")
    return known[key]


@functools.cache
def _cpus() -> dict[str, dict[str, str]]:
    table = rows("cpu")
    bare = {_cpu_key(row["name"].partition(" ")[2]): row for row in table}
    return {**bare, **{_cpu_key(row["name"]): row for row in table}}


@functools.cache
def _gpus() -> dict[str, dict[str, str]]:
    names = lambda row: [row["name"], *filter(None, row["aliases"].split(";"))]
    return {_gpu_key(name): row for row in rows("gpu") for name in names(row)}


def _cpu_key(name: str) -> str:
    """The model in lower case, without what makers add around it in /proc/cpuinfo.

    >>> _cpu_key("13th Gen Intel(R) Core(TM) i7-13700K @ 3.4GHz"), _cpu_key("AMD Ryzen 5 3600 6-Core Processor")
    ('intel core i7-13700k', 'amd ryzen 5 3600')
    """
    name = re.sub(r"\((r|tm)\)|@.*|with radeon.*|\b\d+-core\b|\b\d+th gen\b|\b(cpu|processor)\b", " ", name.casefold())
    return " ".join(name.split())


def _gpu_key(name: str) -> str:
    """
    >>> _gpu_key("NVIDIA A100-SXM4-80GB"), _gpu_key("NVIDIA GeForce RTX 4090"), _gpu_key("Tesla T4")
    ('a100 sxm4 80gb', 'rtx 4090', 't4')
    """
    words = re.split(r"[\s_-]+", name.casefold().strip())
    return " ".join(word for word in words if word not in ("nvidia", "geforce", "tesla", "amd", "google"))
