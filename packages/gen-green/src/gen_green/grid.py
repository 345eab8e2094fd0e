"""Grams of CO2 equivalent per kWh of electricity, at a place and a time.

Every one of these gives an `Intensity` (see `intensity.py`), a function of a window in time:

    country("FR").value                                   # 56.039, 2023, lifecycle
    trace([0, 3600], [100, 500])(0, 7200).value           # 300
    electricity_maps("FR", token)()                       # now, over the network

Nothing here touches the network unless a zone and a token were named. Series are in `series.py`, services in
`live.py`.

Factors by source: medians of IPCC AR5 WG3 annex III (2014), as Electricity Maps uses them (config/defaults.yaml).
"""

import functools
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from gen_green.intensity import Basis, CarbonIntensity, GridError, Intensity, constant, one_basis
from gen_green.quantity import weakest
from gen_green.series import best_start, read_trace, trace
from gen_green.tables import nearest, rows

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

TABLE_SPREAD = 1.3  # France in five tools: 41.4, 51.3, 56.0, 57 and 67.5 g/kWh, a factor 1.28 either way
WORLD_SPREAD = 2.5  # an unknown place
MIX_SPREAD = 1.13  # mix x factors against the table over 13 countries: 0.88 to 1.13


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


def electricity_maps(zone: str, token: str, **options: Any) -> "ElectricityMaps":
    """Electricity Maps' API, version 3; `options` are those of `live.ElectricityMaps` (base_url, timeout, basis)."""
    from gen_green.live import ElectricityMaps

    return ElectricityMaps(zone, token, **options)


def co2_signal(zone: str, token: str, **options: Any) -> "CO2Signal":
    """The older CO2 Signal API (version 1, latest value only); `options` are those of `live.CO2Signal`."""
    from gen_green.live import CO2Signal

    return CO2Signal(zone, token, **options)
