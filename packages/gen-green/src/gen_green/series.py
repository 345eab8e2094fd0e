"""Carbon intensities that vary in time: step functions, files of them, and the best hour to start.

trace([0, 3600], [100, 500])(0, 7200).value                     # 300 g/kWh, the mean of two hours
best_start([0, 3600, 7200], [300, 100, 200], duration=3600)      # 1
"""

import bisect
import datetime
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gen_green.intensity import Basis, CarbonIntensity, Intensity, blend, constant, one_basis
from gen_green.quantity import product_spread
from gen_green.tables import read

__all__ = ["best_start", "read_trace", "seconds", "trace", "usual_step"]

BEYOND_SPREAD = 1.3  # at least, where a series has no value; more where its values vary more
BEYOND = "beyond the series: its end holds on"
P90 = 1.2816  # standard deviations
NAMED: dict[Basis, tuple[str, ...]] = {
    "lifecycle": ("lifecycle", "life cycle", "life-cycle", "lca"),
    "direct": ("direct",),
}


@dataclass(frozen=True)
class _Trace:
    """A step function of time; `values[i]` holds from `times[i]` until the next one, and for `step` seconds at most."""

    times: tuple[float, ...]
    values: tuple[CarbonIntensity, ...]
    step: float = math.inf

    def __call__(self, start: float = 0.0, end: float = 0.0) -> CarbonIntensity:
        return blend(list(self._pieces(start, max(end, math.nextafter(start, math.inf)))))  # an instant has one piece

    def _pieces(self, start: float, end: float) -> Iterator[tuple[float, CarbonIntensity]]:
        """(seconds, intensity) within the window; where the series has no value, the one before it, less sure."""
        times, first = self.times, max(bisect.bisect_right(self.times, start) - 1, 0)
        if start < times[0]:
            yield min(times[0], end) - start, self._held(0, BEYOND)
        for i in range(first, max(bisect.bisect_left(times, end), first + 1)):
            last = i + 1 == len(times)
            until, following = self._until(i), math.inf if last else times[i + 1]
            if (known := min(until, end) - max(times[i], start)) > 0:
                yield known, self.values[i]
            if (missing := min(following, end) - max(until, start)) > 0:
                yield missing, self._held(i, BEYOND if last else self._missing)

    def _until(self, i: int) -> float:
        """End of the value at `times[i]`; a step that is a little longer than usual (a month) is whole."""
        if i + 1 == len(self.times):
            return self.times[i] + self.step if math.isfinite(self.step) else _end(self.times)
        whole = self.times[i + 1] - self.times[i] <= 1.5 * self.step
        return self.times[i + 1] if whole else self.times[i] + self.step

    def _held(self, i: int, note: str) -> CarbonIntensity:
        value = self.values[i]
        spread, said = product_spread(value.spread, self._drift), f"{value.note}; {note}" if value.note else note
        return replace(value, kind="assumed", spread=spread, note=said)

    @functools.cached_property
    def _missing(self) -> str:
        gaps = [b - self._until(i) for i, b in enumerate(self.times[1:])]
        return f"{math.fsum(gaps) / 3600:.4g} h are missing in the series, where the value before them holds on"

    @functools.cached_property
    def _drift(self) -> float:
        """The factor by which two values that lie far apart in the series differ, p10 to p90 of a lognormal."""
        logs = [math.log(v.value) for v in self.values if v.value]
        mean = math.fsum(logs) / max(len(logs), 1)
        variance = math.fsum((x - mean) ** 2 for x in logs) / max(len(logs), 1)
        return max(BEYOND_SPREAD, math.exp(P90 * math.sqrt(2 * variance)))


def _end(times: Sequence[float]) -> float:
    """End of the last step: it is as long as the one before it, or endless when alone."""
    return 2 * times[-1] - times[-2] if len(times) > 1 else math.inf


def usual_step(times: Iterable[float]) -> float:
    """Seconds between two neighbours in time, the median; infinite for fewer than two.

    >>> usual_step([0, 3600, 7200, 86_400])
    3600
    """
    ordered = sorted(set(times))
    steps = sorted(b - a for a, b in itertools.pairwise(ordered))
    return steps[(len(steps) - 1) // 2] if steps else math.inf


def trace(
    times: Sequence[float],
    values: Sequence[CarbonIntensity | float],
    *,
    source: str = "series",
    basis: Basis = "lifecycle",
    step: float = math.inf,
) -> Intensity:
    """An intensity in steps: `values[i]` holds from `times[i]` (included) to `times[i + 1]`.

    Args:
        times: seconds since 1970 (or of any clock that the caller keeps to), increasing.
        values: g/kWh, as many; plain numbers are on `basis`.
        step: seconds for which one value is known, where some may be missing: after it the value still holds, but is
            assumed, with a note and a wider spread.

    Raises:
        ValueError: for no values, unequal lengths, times that do not increase, or values on two bases.
    """
    _check_series(times, values)
    steps = tuple(v if isinstance(v, CarbonIntensity) else constant(v, basis, source=source) for v in values)
    one_basis(steps)
    return _Trace(tuple(times), steps, step)


def _check_series(times: Sequence[float], values: Sequence[Any]) -> None:
    if not len(times) == len(values) > 0:
        raise ValueError(f"a series needs as many times as values and at least one, got {len(times)} and {len(values)}")
    if not all(a < b for a, b in itertools.pairwise(times)):
        raise ValueError("the times of a series must increase; sort them, and drop what is there twice")


def read_trace(path: str | Path, basis: Basis = "lifecycle") -> Intensity:
    """The series of a csv: times in its first column (seconds since 1970, or ISO 8601, in UTC unless it says
    otherwise), and g/kWh in the first column on `basis` that is named after an intensity, else in the second.

    A column is on the basis that its name has ("direct", "life cycle", "LCA"), or on any where it has none. Where hours
    are missing, the value before them holds, with a note and a wider spread.

    Raises:
        FileNotFoundError, ValueError: in one sentence, for a file that is missing, empty or holds something else, or
            whose intensities are on the other basis.
    """
    table = read(Path(path))
    columns = list(table[0])
    column = _on_basis([c for c in columns[1:] if "intensity" in c.lower()] or columns[1:2], basis, path)
    try:
        rows = [(seconds(row[columns[0]]), row[column]) for row in table]
        pairs = [(t, float(value)) for t, value in rows if value]
    except (ValueError, IndexError):
        raise ValueError(f"{path} is no series; its first column holds times and another one g/kWh") from None
    times, values = [t for t, _ in pairs], [value for _, value in pairs]
    return trace(times, values, source=Path(path).name, basis=basis, step=usual_step(t for t, _ in rows))


def _on_basis(columns: Sequence[str], basis: Basis, path: str | Path) -> str:
    """The first column whose name has this basis, else the first one without any."""
    named = {c: {known for known, words in NAMED.items() if any(w in c.lower() for w in words)} for c in columns}
    for wanted in ({basis}, set[Basis]()):
        for column in columns:
            if named[column] == wanted:
                return column
    if not columns:
        raise ValueError(f"{path} is no series; its first column holds times and another one g/kWh")
    other = "direct" if basis == "lifecycle" else "lifecycle"
    raise ValueError(f"{path} has {columns[0]!r} and nothing on the basis {basis!r}; take basis={other!r}")


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
