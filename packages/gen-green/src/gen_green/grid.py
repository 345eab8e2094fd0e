"""Grams of CO2 equivalent per kWh of electricity, at a place and a time.

An `Intensity` is a function `(start, end) -> CarbonIntensity`: the mean over a window of times in seconds since 1970.
A `CarbonIntensity` is a `Quantity` in g/kWh that also knows its basis: "lifecycle" (with upstream methane, building of
plants) or "direct" (what leaves the chimney); the two never mix. It is the constant `Intensity` of itself.

    country("FR").value                                   # 56.039, 2023, lifecycle
    trace([0, 3600], [100, 500])(0, 7200).value           # 300
    electricity_maps("FR", token)()                       # now, over the network

Nothing here touches the network unless a zone and a token were named. Live services are in `live.py`.

Factors by source: medians of IPCC AR5 WG3 annex III (2014), as Electricity Maps uses them (config/defaults.yaml).
"""

import bisect
import datetime
import functools
import itertools
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from gen_green.quantity import Quantity, weakest
from gen_green.tables import nearest, read, rows

if TYPE_CHECKING:
    from gen_green.live import CO2Signal, ElectricityMaps

__all__ = [
    "DIRECT",
    "LIFECYCLE",
    "CarbonIntensity",
    "GridError",
    "Intensity",
    "best_start",
    "co2_signal",
    "constant",
    "country",
    "electricity_maps",
    "mix",
    "read_trace",
    "trace",
    "world",
]

Basis = Literal["lifecycle", "direct"]

TABLE_SPREAD = 1.3  # France in five tools: 41.4, 51.3, 56.0, 57 and 67.5 g/kWh, a factor 1.28 either way
WORLD_SPREAD = 2.5  # an unknown place
MIX_SPREAD = 1.13  # mix x factors against the table over 13 countries: 0.88 to 1.13


class GridError(RuntimeError):
    """A service of carbon intensities could not answer."""


@dataclass(frozen=True)
class CarbonIntensity(Quantity):
    """A `Quantity` in g/kWh with the basis of its emission factors.

    Args:
        basis: "lifecycle" or "direct".
        place: country or zone.
        note: generation or consumption, grid losses, estimation.
    """

    basis: Basis = "lifecycle"
    place: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.value >= 0 and math.isfinite(self.value)):
            raise ValueError(f"a carbon intensity is a finite number of g/kWh of at least 0, got {self.value}")
        if self.basis not in ("lifecycle", "direct"):
            raise ValueError(f"an intensity's basis is 'lifecycle' or 'direct', got {self.basis!r}")

    def __call__(self, start: float = 0.0, end: float = 0.0) -> "CarbonIntensity":
        """Itself: constant in time."""
        return self

    def __add__(self, other: Quantity) -> Quantity:
        if isinstance(other, CarbonIntensity):
            one_basis([self, other])
        return super().__add__(other)


class Intensity(Protocol):
    """Mean carbon intensity over the window from `start` to `end`, in seconds since 1970."""

    def __call__(self, start: float, end: float, /) -> CarbonIntensity: ...


def one_basis(intensities: Iterable[CarbonIntensity]) -> Basis:
    """The basis that all of them have.

    Raises:
        ValueError: where lifecycle and direct figures meet.
    """
    found: set[Basis] = {intensity.basis for intensity in intensities}
    if len(found) > 1:
        raise ValueError("lifecycle and direct intensities do not mix; take all of them on one basis")
    return found.pop() if found else "lifecycle"


def constant(
    g_per_kwh: float, basis: Basis = "lifecycle", *, source: str = "given", year: int | None = None, spread: float = 1.0
) -> CarbonIntensity:
    """An intensity that the user states, of kind "assumed"."""
    return CarbonIntensity(g_per_kwh, "g/kWh", "assumed", source, year, spread, basis)


def country(code_or_name: str) -> CarbonIntensity:
    """A year's mean of a country, by ISO 3166 code or English name, from the shipped table (Our World in Data, Ember).

    Raises:
        ValueError: for a place that the table lacks; it names the nearest.

    >>> france = country("FR")
    >>> france.value, france.year, france.basis, country("fra") == france == country("France")
    (56.039, 2023, 'lifecycle', True)
    """
    known = _countries()
    key = code_or_name.strip().casefold()
    if key not in known:
        row = known[nearest(key, known)]
        raise ValueError(
            f"no carbon intensity is known for {code_or_name!r}; the nearest name is {row['name']!r} ({row['code']}), "
            "and constant(g_per_kwh) takes any figure"
        )
    return _intensity(known[key])


@functools.cache
def _countries() -> dict[str, dict[str, str]]:
    table = rows("intensity")
    known = {row[column].casefold(): row for column in ("name", "iso3", "code") for row in table}
    return {**known, "uk": known["gb"], "great britain": known["gb"], "usa": known["us"]}


def _intensity(row: dict[str, str]) -> CarbonIntensity:
    basis, everywhere = cast(Basis, row["basis"]), row["code"] == "WORLD"
    return CarbonIntensity(
        float(row["g_per_kwh"]),
        "g/kWh",
        "assumed" if everywhere else "modelled",
        f"{row['name']}: {row['source']}, {row['licence']}",
        int(row["year"]),
        WORLD_SPREAD if everywhere else TABLE_SPREAD,
        basis,
        row["code"],
        row["note"],
    )


def world() -> CarbonIntensity:
    """The world's mean, for a computation whose place nobody named: kind "assumed", within a factor 2.5, said once."""
    value = _intensity(_countries()["world"])
    _say_once(
        f"no place was given, so electricity is taken at the world's mean of {value.value:g} g/kWh, within a factor "
        f"{value.spread:g}; name a country to do better"
    )
    return value


@functools.cache
def _say_once(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def _factors(basis: Basis, g: Mapping[str, float]) -> dict[str, CarbonIntensity]:
    source = "IPCC 2014 as in Electricity Maps"
    return {k: CarbonIntensity(v, "g/kWh", "modelled", source, 2014, MIX_SPREAD, basis) for k, v in g.items()}


_G = {"coal": 820, "gas": 490, "oil": 650, "nuclear": 12, "hydro": 24, "wind": 11, "solar": 45}
_G |= {"biomass": 230, "geothermal": 38, "unknown": 700}
LIFECYCLE: Mapping[str, CarbonIntensity] = _factors("lifecycle", _G)
DIRECT: Mapping[str, CarbonIntensity] = _factors("direct", dict.fromkeys(_G, 0) | {"coal": 760, "gas": 370, "oil": 406})


def mix(shares: Mapping[str, float], factors: Mapping[str, CarbonIntensity | float] = LIFECYCLE) -> CarbonIntensity:
    """The intensity of a generation mix.

    Args:
        shares: of each source, in any one unit (fractions, per cent, TWh).
        factors: g/kWh by source: `LIFECYCLE`, `DIRECT`, or one's own (plain numbers count as lifecycle).

    Raises:
        ValueError: for an unknown source, a negative share, no share at all, or factors on two bases.

    >>> mix({"nuclear": 70, "gas": 30}).value
    155.4
    """
    for source, share in shares.items():
        if source not in factors:
            raise ValueError(f"no emission factor is known for {source!r}; the nearest is {nearest(source, factors)!r}")
        if not share >= 0:
            raise ValueError(f"a share of generation is at least 0, got {share} for {source!r}")
    used = {s: f if isinstance(f := factors[s], CarbonIntensity) else constant(f) for s in shares}
    basis, total = one_basis(used.values()), math.fsum(shares.values())
    if not total > 0:
        raise ValueError("a generation mix needs at least one source with a share above 0")
    value = math.fsum(share * used[s].value for s, share in shares.items()) / total
    note = ", ".join(f"{s} {share / total:.1%}" for s, share in shares.items())
    kind, source = weakest(f.kind for f in used.values()), "; ".join(dict.fromkeys(f.source for f in used.values()))
    years = [f.year for f in used.values() if f.year]
    spread = max(f.spread for f in used.values())
    return CarbonIntensity(value, "g/kWh", kind, source, min(years, default=None), spread, basis, note=note)


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
            max(v.spread for v in used) * (1.0 if inside else TABLE_SPREAD),
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


def electricity_maps(zone: str, token: str, **options: Any) -> "ElectricityMaps":
    """Electricity Maps' API, version 3; `options` are those of `live.ElectricityMaps` (base_url, timeout, basis)."""
    from gen_green.live import ElectricityMaps

    return ElectricityMaps(zone, token, **options)


def co2_signal(zone: str, token: str, **options: Any) -> "CO2Signal":
    """The older CO2 Signal API (version 1, latest value only); `options` are those of `live.CO2Signal`."""
    from gen_green.live import CO2Signal

    return CO2Signal(zone, token, **options)
