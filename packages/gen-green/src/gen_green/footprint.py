"""A footprint is a reading times a place: energy, carbon and water.

    f = footprint(meter.reading, country("FR"), pue=1.2, psf=5, embodied=embodied([...], meter.reading.seconds))
    print(f.energy, f.carbon, f.water, f.per(reading.tokens, "token"))

With E the joules that the computers drew in one run (IT energy), I the grid's intensity and M the embodied share:

    energy  = E x PUE x PSF                              kWh, of the building
    carbon  = E x PUE x PSF x I + M x PSF                g of CO2 equivalent
    water   = E x PSF x (WUE + PUE x grid WUE)           L; WUE is per kWh of IT energy, so PUE multiplies off-site only
    SCI     = carbon / R                                 Software Carbon Intensity 1.1.0, Green Software Foundation

PUE (power usage effectiveness) multiplies here and nowhere else, and so does PSF (pragmatic scaling factor: how many
times the computation was run in all): never apply PSF to a total that was summed over a sweep.

[Luccioni23] Estimating the carbon footprint of BLOOM, JMLR 24(253), arXiv:2211.02001.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gen_green.grid import country, world
from gen_green.hardware import Hardware, factor
from gen_green.intensity import CarbonIntensity, Intensity, blend
from gen_green.quantity import Quantity, sum_spread, weakest

__all__ = [
    "KWH",
    "Footprint",
    "embodied",
    "equivalents",
    "footprint",
]

KWH = 3.6e6  # joules, exactly
YEAR = 365 * 86_400.0  # seconds
ENERGY_UNITS = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3600.0, "kWh": KWH, "MWh": 1e3 * KWH}


class Energy(Protocol):
    """Fields of a `Reading`; anything that has them has a footprint."""

    @property
    def seconds(self) -> float: ...

    @property
    def total(self) -> float: ...

    @property
    def spread(self) -> float: ...

    @property
    def joules(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Footprint:
    """Cost of one computation, `psf` times over.

    Args:
        it: kWh that the computers drew in one run.
        energy: kWh of the building, all runs.
        operational: g of CO2 equivalent of `energy`.
        embodied: g of the hardware's making, all runs; None where nobody stated it.
        water: L evaporated on site and at the power plants.
        intensity: of the grid, weighted by energy.
        pue, psf: as applied, once.
        seconds: of one run.
    """

    it: Quantity
    energy: Quantity
    operational: Quantity
    embodied: Quantity | None
    water: Quantity
    intensity: CarbonIntensity
    pue: float = 1.0
    psf: float = 1.0
    seconds: float = 0.0

    @property
    def carbon(self) -> Quantity:
        """g of CO2 equivalent, operational and embodied."""
        return self.operational + self.embodied if self.embodied else self.operational

    def per(self, n: float, unit: str = "unit") -> Quantity:
        """Software Carbon Intensity: g per functional unit (token, sample, request), (E x I + M) / R.

        Args:
            n: units that all runs together served.

        Raises:
            ValueError: for n of 0 or below.
        """
        if not n > 0:
            raise ValueError(f"carbon per {unit} needs a count above 0, got {n}")
        return self.carbon / Quantity(n, unit, "measured", "")

    def __add__(self, other: "Footprint") -> "Footprint":
        """Two computations; lifecycle and direct carbon do not add up.

        Raises:
            ValueError: for grids on two bases.
        """
        it = self.it + other.it
        runs = (self.it.value * self.psf + other.it.value * other.psf) / it.value if it.value else self.psf
        energy = self.energy + other.energy
        parts = [m for m in (self.embodied, other.embodied) if m]
        return Footprint(
            it,
            energy,
            self.operational + other.operational,
            sum(parts[1:], parts[0]) if parts else None,
            self.water + other.water,
            blend([(self.energy.value, self.intensity), (other.energy.value, other.intensity)]),
            energy.value / (it.value * runs) if it.value else self.pue,
            runs,
            self.seconds + other.seconds,
        )


def footprint(
    reading: Energy | Quantity | float | Sequence[Energy],
    grid: Intensity | str | None = None,
    pue: float | Quantity = 1.0,
    psf: float = 1.0,
    embodied: Quantity | None = None,
    wue: float | Quantity = 0.0,
    grid_wue: float | Quantity = 0.0,
    *,
    start: float = 0.0,
) -> Footprint:
    """Energy, carbon and water of a reading at a place.

    Args:
        reading: a `Reading`, a `Quantity` of energy, joules, or laps one after the other (then carbon is resolved in
            time: each lap at its own intensity).
        grid: an intensity, a country's code or name; without one, the world's mean, assumed, with a warning.
        pue: power usage effectiveness of the building, at least 1.
        psf: pragmatic scaling factor, above 0: how many times the computation was run.
        embodied: g of CO2 equivalent of one run, from `embodied(...)`.
        wue, grid_wue: L per kWh of IT energy on site, and per kWh that the power plants delivered.
        start: seconds since 1970 when the reading began, for a grid that varies.

    Raises:
        ValueError: in one sentence, for figures that cannot be.
    """
    applied, _, _ = _check(pue, "a PUE", 1), _check(wue, "a WUE", 0), _check(grid_wue, "a grid's WUE", 0)
    if not (psf > 0 and math.isfinite(psf)):
        raise ValueError(f"a PSF counts how often the computation was run, so it is above 0, got {psf}")
    if isinstance(grid, str):
        grid = country(grid)
    intensity = world() if grid is None else grid
    laps = list(reading) if isinstance(reading, Sequence) else [reading]
    if not laps:
        raise ValueError("a footprint needs at least one reading, got an empty list")
    energies, spans = [_kwh(lap) for lap in laps], [_seconds(lap) for lap in laps]
    at, weighed = start, []
    for energy, span in zip(energies, spans, strict=True):
        weighed.append((energy.value, intensity(at, at + span)))
        at += span
    it, mean = _one_meter(energies), blend(weighed)
    used = it * psf
    energy = used * pue
    return Footprint(
        it,
        energy,
        energy * mean,
        None if embodied is None else _grams(embodied) * psf,
        used * _litres_per_kwh(wue, grid_wue, pue),
        mean,
        applied,
        psf,
        math.fsum(spans),
    )


def _check(x: float | Quantity, name: str, least: float) -> float:
    value = x.value if isinstance(x, Quantity) else float(x)
    if not (value >= least and math.isfinite(value)):
        why = " (the building draws what its computers draw, and more)" if least else ""
        raise ValueError(f"{name} is a finite number of at least {least:g}{why}, got {value:g}")
    return value


def _litres_per_kwh(wue: float | Quantity, grid_wue: float | Quantity, pue: float | Quantity) -> Quantity:
    """WUE + PUE x grid WUE, per kWh of IT energy."""
    rate = lambda x: x if isinstance(x, Quantity) else Quantity(x, "L/kWh", "measured", "")  # as stated: exact
    return rate(wue) + rate(grid_wue) * pue


def _kwh(reading: Any) -> Quantity:
    """Joules of a reading, a quantity or a number, as kWh."""
    if isinstance(reading, Quantity):
        if reading.unit not in ENERGY_UNITS:
            raise ValueError(f"a footprint needs an energy in {', '.join(ENERGY_UNITS)}, got {reading.unit!r}")
        scale = ENERGY_UNITS[reading.unit] / KWH
        return Quantity(reading.value * scale, "kWh", reading.kind, reading.source, reading.year, reading.spread)
    if isinstance(reading, int | float):
        if not math.isfinite(reading):
            raise ValueError(f"a footprint needs a finite number of joules, got {reading}")
        return Quantity(reading / KWH, "kWh", "assumed", "given")
    parts = reading.joules.values()
    sources = dict.fromkeys(part.source for part in parts)
    kind = weakest(part.kind for part in parts)
    return Quantity(reading.total / KWH, "kWh", kind, "; ".join(sources), spread=reading.spread)


def _seconds(reading: Any) -> float:
    return 0.0 if isinstance(reading, Quantity | int | float) else reading.seconds


def _one_meter(energies: Sequence[Quantity]) -> Quantity:
    """The sum of laps. One meter errs alike in all: logarithms of spreads add with weights, not in quadrature."""
    total = math.fsum(e.value for e in energies)
    spread = math.exp(sum(e.value / total * math.log(e.spread) for e in energies)) if total else energies[0].spread
    sources = dict.fromkeys(e.source for e in energies)
    years = [e.year for e in energies if e.year]
    kind = weakest(e.kind for e in energies)
    return Quantity(total, "kWh", kind, "; ".join(sources), min(years, default=None), max(spread, 1.0))


def _grams(quantity: Quantity) -> Quantity:
    if quantity.unit != "g" or not quantity.value >= 0:
        raise ValueError(f"embodied carbon is a quantity of at least 0 g, got {quantity.value:g} {quantity.unit}")
    return quantity


def embodied(
    parts: Sequence[Hardware], seconds: float, lifetime_years: float = 4.0, utilisation: float = 0.85
) -> Quantity:
    """The share of the hardware's making that `seconds` of its use carry, in g of CO2 equivalent.

    Sum of count x g, times seconds / (lifetime x utilisation): what the machine idles away is shared among what it
    computes (the BLOOM paper's 6 years at 85 %: 11.2 t [Luccioni23]).

    Args:
        parts: each with its system boundary in its source.
        seconds: that all of `parts` were held; device seconds where `count` is 1 device.
        lifetime_years: of 365 days.
        utilisation: share of its life that the hardware works, in (0, 1].

    Raises:
        ValueError: for a lifetime of 0 or below, or a utilisation outside (0, 1].
    """
    if not (lifetime_years > 0 and 0 < utilisation <= 1 and seconds >= 0):
        raise ValueError(
            "embodied carbon needs a lifetime above 0 years, a utilisation in (0, 1] and seconds of at least 0, "
            f"got {lifetime_years:g}, {utilisation:g} and {seconds:g}"
        )
    share = seconds / (lifetime_years * YEAR * utilisation)
    grams = [part.embodied * (part.count * share) for part in parts]
    return Quantity(
        math.fsum(g.value for g in grams),
        "g",
        weakest(g.kind for g in grams),
        "; ".join(dict.fromkeys(g.source for g in grams)),
        min((g.year for g in grams if g.year), default=None),
        sum_spread([g.value for g in grams], [g.spread for g in grams]),
    )


def equivalents(grams: float) -> dict[str, float]:
    """Everyday things that emit as much, with Green Algorithms' reference values.

    Returns:
        kilometres of a car ("car km eu", 175 g; "car km us", 251 g) and of a train; months that one tree needs to take
        it up (11 kg a year); hours of streaming (36 g); flights, as the share of one passenger's.

    >>> round(equivalents(492.536318976)["car km eu"], 2)
    2.81
    """
    g = lambda name: factor(name).value
    flights = ("Paris-London", "Paris-Dublin", "NYC-San Francisco", "NYC-Melbourne")
    return {
        **{name: grams / g(name) for name in ("car km eu", "car km us", "train km")},
        "tree months": grams / g("tree year") * 12,
        "streaming hours": grams / g("streaming hour"),
        **{f"flight {name}": grams / g(f"flight {name}") for name in flights},
    }
