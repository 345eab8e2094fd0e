"""Carbon intensities that vary in time: step functions, files of them, and the best hour to start.

trace([0, 3600], [100, 500])(0, 7200).value                     # 300 g/kWh, the mean of two hours
best_start([0, 3600, 7200], [300, 100, 200], duration=3600)      # 1
"""

import bisect
import datetime
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen_green.intensity import Basis, CarbonIntensity, Intensity, constant, one_basis
from gen_green.quantity import weakest
from gen_green.tables import read

__all__ = ["best_start", "read_trace", "seconds", "trace"]

BEYOND_SPREAD = 1.3  # more, where a series is asked beyond its ends


@dataclass(frozen=True)
class _Trace:
    """A step function of time; `values[i]` holds from `times[i]` until the next one."""

    times: tuple[float, ...]
    values: tuple[CarbonIntensity, ...]

    def __call__(self, start: float = 0.0, end: float = 0.0) -> CarbonIntensity:
        times, values = self.times, self.values
        first = max(bisect.bisect_right(times, start) - 1, 0)  # left-closed: a step holds at its own time
        last = max(bisect.bisect_left(times, end), first + 1)
        if end > start:
            edges = [start, *times[first + 1 : last], end]
            spans = [b - a for a, b in itertools.pairwise(edges)]
            mean = math.fsum(s * v.value for s, v in zip(spans, values[first:last], strict=True)) / math.fsum(spans)
        else:
            mean = values[first].value
        used, inside = values[first:last], start >= times[0] and end <= _end(times)
        return CarbonIntensity(
            mean,
            "g/kWh",
            weakest(v.kind for v in used) if inside else "assumed",  # outside, the series' ends hold on
            used[0].source,
            used[0].year,
            max(v.spread for v in used) * (1.0 if inside else BEYOND_SPREAD),
            used[0].basis,
            used[0].place,
            used[0].note if inside else "beyond the series: its end holds on",
        )


def _end(times: Sequence[float]) -> float:
    """Where the last step ends: it is as long as the one before it, or endless when alone."""
    return 2 * times[-1] - times[-2] if len(times) > 1 else math.inf


def trace(
    times: Sequence[float],
    values: Sequence[CarbonIntensity | float],
    *,
    source: str = "series",
    basis: Basis = "lifecycle",
) -> Intensity:
    """An intensity in steps: `values[i]` holds from `times[i]` (included) to `times[i + 1]`.

    Args:
        times: seconds since 1970 (or of any clock that the caller keeps to), increasing.
        values: g/kWh, as many; plain numbers are on `basis`.

    Raises:
        ValueError: for no values, unequal lengths, times that do not increase, or values on two bases.
    """
    _check_series(times, values)
    steps = tuple(v if isinstance(v, CarbonIntensity) else constant(v, basis, source=source) for v in values)
    one_basis(steps)
    return _Trace(tuple(times), steps)


def _check_series(times: Sequence[float], values: Sequence[Any]) -> None:
    if not len(times) == len(values) > 0:
        raise ValueError(f"a series needs as many times as values and at least one, got {len(times)} and {len(values)}")
    if not all(a < b for a, b in itertools.pairwise(times)):
        raise ValueError("the times of a series must increase; sort them, and drop what is there twice")


def read_trace(path: str | Path, basis: Basis = "lifecycle") -> Intensity:
    """The series of a csv: times in its first column (seconds since 1970, or ISO 8601, in UTC unless it says
    otherwise), and g/kWh in the first column that is named after an intensity, else in the second.

    Raises:
        FileNotFoundError, ValueError: in one sentence, for a file that is missing, empty or holds something else.
    """
    table = read(Path(path))
    columns = list(table[0])
    named = [c for c in columns[1:] if "intensity" in c.lower()] or columns[1:]
    try:
        pairs = [(seconds(row[columns[0]]), float(row[named[0]])) for row in table if row[named[0]]]
    except (ValueError, IndexError):
        raise ValueError(f"{path} is no series; its first column holds times and another one g/kWh") from None
    return trace([t for t, _ in pairs], [v for _, v in pairs], source=Path(path).name, basis=basis)


def seconds(text: str) -> float:
    """Seconds since 1970 of a number or an ISO 8601 date, in UTC unless it says otherwise.

    >>> seconds("1970-01-01T01:00:00.000Z"), seconds("3600"), seconds("1970-01-01 02:00+01:00")
    (3600.0, 3600.0, 3600.0)
    """
    try:
        return float(text)
    except ValueError:
        moment = datetime.datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def best_start(times: Sequence[float], values: Sequence[float], duration: float) -> int:
    """The index of the time at which a steady load of `duration` seconds emits least; the earliest where several do.

    Args:
        times, values: a series as for `trace`; the last step is as long as the one before it.

    Raises:
        ValueError: for a duration of 0 or below, or one that fits nowhere.

    >>> best_start([0, 1, 2, 3], [300, 100, 200, 50], 2)
    2
    """
    _check_series(times, values)
    if not duration > 0:
        raise ValueError(f"a load lasts longer than 0 s, got {duration}")
    end, slack = _end(times), 1e-9 * duration
    fits = [i for i, t in enumerate(times) if t + duration <= end + slack]
    if not fits:
        raise ValueError(f"{duration:g} s fit nowhere into a series of {end - times[0]:g} s; take a longer forecast")
    ends = [*times[1:], end]
    integral = [0.0, *itertools.accumulate(v * (b - a) for v, a, b in zip(values, times, ends, strict=True))]

    def grams(i: int) -> float:
        """g/kWh x s from `times[i]` on."""
        stop = min(times[i] + duration, end)
        j = bisect.bisect_left(ends, stop)
        return integral[j] - integral[i] + values[j] * (stop - times[j])

    costs = {i: grams(i) for i in fits}
    least = min(costs.values())
    return next(i for i, cost in costs.items() if cost <= least + 1e-12 * abs(least))
