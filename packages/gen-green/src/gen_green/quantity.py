"""A number that knows where it comes from: value, unit, kind, source, year and multiplicative spread.

    power = Quantity(250.0, "W", "measured", "NVML", 2024, spread=1.05)
    grid = Quantity(475.0, "g/kWh", "assumed", "world, IEA", 2019, spread=2.5)
    print(power * Quantity(3600.0, "s", "measured", "clock"))  # 900 kJ, within a factor 1.05 (measured: NVML; clock)

A spread s says that the truth lies between value / s and value * s in 8 cases of 10 (p10 to p90 of a lognormal), so
1 is exact. Logarithms of independent spreads add in quadrature over a product; over a sum each weighs with its part.
A result is of the weakest kind among its parts (measured, modelled, assumed), and as old as the oldest.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

__all__ = ["Kind", "Quantity", "product_spread", "si", "sum_spread", "weakest"]

Kind = Literal["measured", "modelled", "assumed"]
_KINDS: tuple[str, ...] = get_args(Kind)  # from the strongest to the weakest
_PREFIXES = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}
NOTHING_KNOWN = math.log(1e6)  # a difference of equals has no relative error; its spread ends here
_SCALABLE = ("J", "Wh", "W", "g", "gCO2e", "L", "s", "FLOP")  # units that take a prefix


@dataclass(frozen=True)
class Quantity:
    """A value with its provenance.

    Args:
        value: in `unit`.
        unit: factors separated by spaces, at most one "/": "J", "g/kWh", "J/sample".
        kind: measured by a sensor, modelled from something that was measured, or assumed.
        source: the sensor, table or paper, for a reader.
        year: of the data, where there is one.
        spread: geometric, at least 1: the truth lies within value / spread and value * spread, 8 times in 10.

    Raises:
        ValueError: for another kind, or a spread below 1.
    """

    value: float
    unit: str
    kind: Kind
    source: str
    year: int | None = None
    spread: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"a quantity is {', '.join(_KINDS[:-1])} or {_KINDS[-1]}, got kind {self.kind!r}")
        if not self.spread >= 1:
            raise ValueError(f"a spread is a factor of at least 1 (exact), got {self.spread}")

    def __mul__(self, other: "Quantity | float") -> "Quantity":
        """Units multiply and cancel ("kWh" times "g/kWh" is "g", "W" times "s" is "J"); a float is an exact factor."""
        if not isinstance(other, Quantity):
            return Quantity(self.value * other, self.unit, self.kind, self.source, self.year, self.spread)
        spread = product_spread(self.spread, other.spread)
        return self._with(other, self.value * other.value, _unit(self.unit, other.unit), spread)

    __rmul__ = __mul__

    def __truediv__(self, other: "Quantity | float") -> "Quantity":
        if not isinstance(other, Quantity):
            return self * (1 / other)
        top, _, bottom = other.unit.partition("/")
        spread = product_spread(self.spread, other.spread)
        return self._with(other, self.value / other.value, _unit(self.unit, f"{bottom}/{top}"), spread)

    def __add__(self, other: "Quantity") -> "Quantity":
        """The sum of two independent quantities of one unit."""
        if not isinstance(other, Quantity):
            return NotImplemented
        if self.unit != other.unit:
            raise ValueError(f"cannot add {other.unit!r} to {self.unit!r}; convert one of them first")
        spread = sum_spread((self.value, other.value), (self.spread, other.spread))
        return self._with(other, self.value + other.value, self.unit, spread)

    def _with(self, other: "Quantity", value: float, unit: str, spread: float) -> "Quantity":
        sources = dict.fromkeys([*self.source.split("; "), *other.source.split("; ")])
        years = [year for year in (self.year, other.year) if year is not None]
        kind = weakest((self.kind, other.kind))
        return Quantity(value, unit, kind, "; ".join(filter(None, sources)), min(years, default=None), spread)

    @property
    def low(self) -> float:
        return self.value / self.spread

    @property
    def high(self) -> float:
        return self.value * self.spread

    def __str__(self) -> str:
        factor = f", within a factor {self.spread:.3g}" if self.spread > 1 else ""
        year = f", {self.year}" if self.year else ""
        return f"{si(self.value, self.unit)}{factor} ({self.kind}: {self.source}{year})"


def weakest(kinds: Iterable[str]) -> Kind:
    """The kind of what was made of parts of these kinds; nothing at all is measured exactly.

    >>> weakest(["measured", "assumed", "modelled"])
    'assumed'
    """
    return cast(Kind, _KINDS[max((_KINDS.index(kind) for kind in kinds), default=0)])


def product_spread(*spreads: float) -> float:
    """The spread of a product of independent lognormals: logarithms add in quadrature.

    >>> round(product_spread(1.5, 1.2, 1.3), 4)
    1.6757
    """
    return math.exp(math.hypot(*map(math.log, spreads)))


def sum_spread(values: Sequence[float], spreads: Sequence[float]) -> float:
    """The spread of a sum of independent quantities, to first order in the logarithms of theirs.

    >>> sum_spread([100.0, 0.0], [1.5, 9.0]), round(sum_spread([1.0, 1.0], [1.5, 1.5]), 3)
    (1.5, 1.332)
    """
    total = sum(values)
    if not total:
        return max(spreads, default=1.0)
    logs = [v / total * math.log(s) for v, s in zip(values, spreads, strict=True)]
    return math.exp(min(math.hypot(*logs), NOTHING_KNOWN))


def si(value: float, unit: str = "", digits: int = 3) -> str:
    """`value` to `digits` significant digits with an SI prefix; grams from a million on are tonnes.

    >>> si(2e-6, "kg"), si(2.1310848, "kWh"), si(0.0), si(999.96, "J"), si(2.04e9, "g"), si(56.039, "g/kWh")
    ('2.00 mg', '2.13 kWh', '0', '1.00 kJ', '2.04 kt', '56.0 g/kWh')
    """
    top, slash, bottom = unit.partition("/")
    if len(top) > 1 and top[0] in "nµmkMGTP" and top[1:] in _SCALABLE:
        value *= 10.0 ** next(power for power, prefix in _PREFIXES.items() if prefix == top[0])
        top = top[1:]
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {top}{slash}{bottom}".strip()
    if top in ("g", "gCO2e") and abs(value) >= 1e6:
        value, top = value / 1e6, "t" + top[1:]
    power = int(f"{value:.{digits - 1}e}".partition("e")[2])  # after rounding: 999.96 is 1.00e3
    scale = 0
    if top in (*_SCALABLE, "t", "tCO2e"):
        scale = min(max(3 * (power // 3), -9), 0 if top == "s" else 15)
    short = value / 10.0**scale
    fits = 0 <= power - scale < 6 if scale == -9 else -5 <= power - scale < 6
    number = f"{short:.{max(digits - 1 - (power - scale), 0)}f}" if fits else f"{short:.{digits - 1}e}"
    return f"{number} {_PREFIXES[scale]}{top}{slash}{bottom}".strip()


def _unit(a: str, b: str) -> str:
    """The unit of a product: equal factors above and below cancel, and W s is J."""
    (top_a, _, bottom_a), (top_b, _, bottom_b) = a.partition("/"), b.partition("/")
    top, bottom = [*top_a.split(), *top_b.split()], [*bottom_a.split(), *bottom_b.split()]
    for factor in list(bottom):
        if factor in top:
            top.remove(factor)
            bottom.remove(factor)
    if "W" in top and "s" in top:
        top.remove("s")
        top[top.index("W")] = "J"
    return " ".join(top) + ("/" + " ".join(bottom) if bottom else "")
