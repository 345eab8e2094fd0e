"""A carbon intensity: grams of CO2 equivalent per kWh, with its basis.

An `Intensity` is a function `(start, end) -> CarbonIntensity`: the mean over a window of times in seconds since 1970.
A `CarbonIntensity` is a `Quantity` in g/kWh that also knows its basis: "lifecycle" (with upstream methane, building of
plants) or "direct" (what leaves the chimney); the two never mix. It is the constant `Intensity` of itself.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gen_green.quantity import Quantity, weakest

__all__ = ["Basis", "CarbonIntensity", "GridError", "Intensity", "blend", "constant", "one_basis"]

Basis = Literal["lifecycle", "direct"]


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


def blend(weighed: Sequence[tuple[float, CarbonIntensity]]) -> CarbonIntensity:
    """The mean intensity, weighted by energy (under a steady load: by time), never the plain mean.

    Series err alike in all of their hours: logarithms of spreads add with their grams as weights, not in quadrature.

    Args:
        weighed: (weight, intensity), weights of at least 0 in one unit; where all are 0, the first intensity.

    Raises:
        ValueError: where lifecycle and direct figures meet.

    >>> blend([(0.1, constant(100.0)), (1.9, constant(500.0))]).value
    480.0
    """
    used = [(weight, intensity) for weight, intensity in weighed if weight] or list(weighed[:1])
    found = [intensity for _, intensity in used]
    if len(found) == 1:
        return found[0]
    total, grams = math.fsum(weight for weight, _ in used), [weight * each.value for weight, each in used]
    logs = math.fsum(g * math.log(each.spread) for g, each in zip(grams, found, strict=True))
    return CarbonIntensity(
        math.fsum(grams) / total,
        "g/kWh",
        weakest(each.kind for each in found),
        _union(each.source for each in found),
        min((each.year for each in found if each.year), default=None),
        max(math.exp(logs / math.fsum(grams)), 1.0) if any(grams) else max(each.spread for each in found),
        one_basis(found),
        _union(each.place for each in found),
        _union(each.note for each in found),
    )


def _union(texts: Iterable[str]) -> str:
    """Their parts, split by "; ", each one once."""
    return "; ".join(dict.fromkeys(part for text in texts for part in text.split("; ") if part))
