"""A carbon intensity: grams of CO2 equivalent per kWh, with its basis.

An `Intensity` is a function `(start, end) -> CarbonIntensity`: the mean over a window of times in seconds since 1970.
A `CarbonIntensity` is a `Quantity` in g/kWh that also knows its basis: "lifecycle" (with upstream methane, building of
plants) or "direct" (what leaves the chimney); the two never mix. It is the constant `Intensity` of itself.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from gen_green.quantity import Quantity

__all__ = ["Basis", "CarbonIntensity", "GridError", "Intensity", "constant", "one_basis"]

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
