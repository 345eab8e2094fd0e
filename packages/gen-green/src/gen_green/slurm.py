"""Energy of Slurm jobs from the accounting text that `sacct` prints: one `Reading` per job.

    sacct --user me --starttime 2025-01-01 --duplicates --parsable2 \\
        --format JobID,State,ElapsedRaw,TotalCPU,AllocCPUS,NNodes,ReqMem,AllocTRES,ConsumedEnergyRaw

    total = sum(jobs(text).values(), Reading(0.0))

Where the cluster measures energy (ConsumedEnergyRaw), that counts. Else Green Algorithms' model does: CPU seconds used
x watts per core, memory allocated x 0.3725 W/GB, GPUs at their full power. Jobs that failed used their energy too, and
so did each start of a job that was requeued (`--duplicates` prints them all). Slurm's M and G are powers of 1024; watts
are per 1e9 bytes.
"""

import re
from collections.abc import Iterable, Mapping

from gen_green.hardware import GB, cpu_core, factor, gpu
from gen_green.quantity import Quantity
from gen_green.reading import Part, Reading

__all__ = ["jobs"]

NEEDED = ("JobID", "TotalCPU")
NO_VALUE = (2.0**32 - 2, 2.0**32 - 1)  # NO_VAL and INFINITE of 32 bits
NO_VALUE_64 = 2.0**63  # NO_VAL64 and INFINITE64 are above, as whatever was computed with them
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
    starts: list[list[dict[str, str]]] = []  # a job's row, then those of its steps; a requeued job has several
    for values in lines[1:]:
        row = dict(zip(header, values, strict=False))
        if "." not in row["JobID"]:  # 123, 123_4 of an array; 123.batch and 123.0 are steps
            starts.append([row])
        elif starts and starts[-1][0]["JobID"] == row["JobID"].partition(".")[0]:
            starts[-1].append(row)
    found: dict[str, Reading] = {}
    for row, *steps in starts:
        reading, job = _modelled(row, core, device), row["JobID"]
        if joules := _measured(row, steps):
            part = Part(joules, "measured", "Slurm's ConsumedEnergy", 1.1)
            reading = Reading(reading.seconds, {"node": part}, label=job)
        found[job] = found[job] + reading if job in found else reading
    return found


def _measured(job: Mapping[str, str], steps: Iterable[Mapping[str, str]]) -> float:
    """Joules of a job's own row; else, as Slurm computes that, of its extern step, which spans the others, or of all.

    Slurm's rule is in `_internal_step_complete` of src/slurmctld/step_mgr.c.
    """
    joules = {step["JobID"]: _number(step.get("ConsumedEnergyRaw", "")) for step in steps}
    extern = joules.get(f"{job['JobID']}.extern", 0.0)
    return _number(job.get("ConsumedEnergyRaw", "")) or extern or sum(joules.values())


def _modelled(row: Mapping[str, str], core: Quantity, device: Quantity) -> Reading:
    elapsed = _number(row.get("ElapsedRaw", "")) or duration(row.get("Elapsed", ""))
    allocated = dict(item.split("=", 1) for item in row.get("AllocTRES", "").split(",") if "=" in item)
    types = sum(_number(n) for name, n in allocated.items() if name.startswith("gres/gpu:"))  # gres/gpu:a100
    gpus = _number(allocated.get("gres/gpu", "")) or types
    cpus, nodes = (_number(row.get(column, "")) or 1.0 for column in ("AllocCPUS", "NNodes"))
    memory = memory_bytes(allocated.get("mem", "")) or memory_bytes(row.get("ReqMem", ""), cpus, nodes)
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


def memory_bytes(text: str, cpus: float = 1.0, nodes: float = 1.0) -> float:
    """Bytes of "64G", "4000M", or the older "4000Mc" (per CPU) and "64Gn" (per node).

    >>> memory_bytes("64G") / 2**30, memory_bytes("4000Mc", 4) / 2**20, memory_bytes("64Gn", 4, 2) / 2**30
    (64.0, 16000.0, 128.0)
    """
    match = re.fullmatch(r"([\d.]+)([KMGT]?)([cn]?)", text.strip())
    if not match:
        return 0.0
    return _number(match[1]) * UNITS[match[2]] * {"c": cpus, "n": nodes}.get(match[3], 1.0)


def _number(text: str) -> float:
    """0 for no number, and for the numbers by which Slurm says that there is none."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return 0.0 if number in NO_VALUE or not 0 <= number < NO_VALUE_64 else number
