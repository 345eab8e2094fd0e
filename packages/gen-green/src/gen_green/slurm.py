"""Energy of Slurm jobs from the accounting text that `sacct` prints: one `Reading` per job.

    sacct --user me --starttime 2025-01-01 --parsable2 \\
        --format JobID,State,ElapsedRaw,TotalCPU,AllocCPUS,NNodes,ReqMem,AllocTRES,ConsumedEnergyRaw

    total = sum(jobs(text).values(), Reading(0.0))

Where the cluster measures energy (ConsumedEnergyRaw), that counts. Else Green Algorithms' model does: CPU seconds used
x watts per core, memory allocated x 0.3725 W/GB, GPUs at their full power. Jobs that failed used their energy too.
Slurm's M and G are powers of 1024; watts are per 1e9 bytes.
"""

import re
from collections.abc import Mapping

from gen_green.hardware import GB, cpu_core, factor, gpu
from gen_green.quantity import Quantity
from gen_green.reading import Part, Reading

__all__ = ["jobs"]

NEEDED = ("JobID", "TotalCPU")
UNITS = {"": 2**20, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}  # a bare number is in megabytes


def jobs(text: str, core: Quantity | None = None, device: Quantity | None = None) -> dict[str, Reading]:
    """A `Reading` by job, in the order of the text.

    Args:
        text: of `sacct --parsable2` (columns split by |, with a header). Steps are part of their job.
        core: watts of one core in use, 12 where nobody knows; `hardware.cpu_core(name)` gives a processor's.
        device: watts of one GPU, 200 where nobody knows; `hardware.gpu(name)`.

    Raises:
        ValueError: for a text without rows or without the columns that are needed.
    """
    lines = [line.rstrip("\n").split("|") for line in text.splitlines() if line.strip()]
    header = lines[0] if lines else []
    if len(lines) < 2 or not set(NEEDED) <= set(header) or not {"ElapsedRaw", "Elapsed"} & set(header):
        raise ValueError(
            "sacct's text needs a header, a row, and the columns JobID, ElapsedRaw and TotalCPU split by |"
        )
    core, device = core or cpu_core("Any"), device or gpu("Any")
    found: dict[str, Reading] = {}
    measured: dict[str, float] = {}
    for values in lines[1:]:
        row = dict(zip(header, values, strict=False))
        job = row["JobID"].partition(".")[0]  # 123, 123_4 of an array; 123.batch and 123.0 are steps
        joules = _number(row.get("ConsumedEnergyRaw", ""))
        measured[job] = max(measured.get(job, 0.0), joules)
        if job == row["JobID"]:
            found[job] = _modelled(row, core, device)
    for job, joules in measured.items():
        if joules > 0 and job in found:
            part = Part(joules, "measured", "Slurm's ConsumedEnergy", 1.1)
            found[job] = Reading(found[job].seconds, {"node": part}, label=job)
    return found


def _modelled(row: Mapping[str, str], core: Quantity, device: Quantity) -> Reading:
    elapsed = _number(row.get("ElapsedRaw", "")) or duration(row.get("Elapsed", ""))
    allocated = dict(item.split("=", 1) for item in row.get("AllocTRES", "").split(",") if "=" in item)
    gpus = max((_number(n) for name, n in allocated.items() if name.startswith("gres/gpu")), default=0.0)
    memory = memory_bytes(allocated.get("mem") or row.get("ReqMem", ""), _number(row.get("AllocCPUS", "")) or 1.0)
    each = factor("memory power")
    parts = {
        "cpu": Part(duration(row["TotalCPU"]) * core.value, core.kind, core.source, core.spread),
        "memory": Part(elapsed * memory / GB * each.value, "modelled", f"{each.value} W/GB allocated", each.spread),
        "gpu": Part(elapsed * gpus * device.value, device.kind, device.source, device.spread),
    }
    kept = {name: part for name, part in parts.items() if part.joules > 0}
    return Reading(elapsed, kept, label=row["JobID"])


def duration(text: str) -> float:
    """Seconds of [days-][hours:]minutes:seconds[.milliseconds]; 0 for nothing.

    >>> duration("1-02:03:04"), duration("05:06.250"), duration("")
    (93784.0, 306.25, 0.0)
    """
    days, _, clock = text.strip().rpartition("-")
    seconds = 0.0
    for field in clock.split(":"):
        seconds = 60 * seconds + _number(field)
    return 86_400 * _number(days) + seconds


def memory_bytes(text: str, cpus: float = 1.0) -> float:
    """Bytes of "64G", "4000M", or the older "4000Mc" (per CPU) and "64Gn" (per node, taken as one).

    >>> memory_bytes("64G") / 2**30, memory_bytes("4000Mc", 4) / 2**20
    (64.0, 16000.0)
    """
    match = re.fullmatch(r"([\d.]+)([KMGT]?)([cn]?)", text.strip())
    if not match:
        return 0.0
    return float(match[1]) * UNITS[match[2]] * (cpus if match[3] == "c" else 1.0)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
