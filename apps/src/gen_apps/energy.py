"""The cost of a command: flags that say where it runs, and the facts that it writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gen_green import Energy, Meter, country, footprint
from gen_green.report import facts


@dataclass(frozen=True)
class Place:
    """Origin of the electricity."""

    grid: str | None = None
    """Country whose grid it is (FR, Germany, ...); by default the world's mean, which is an assumption and said so."""
    pue: float = 1.0
    """Power usage effectiveness of the building: 1 at home, 1.1 to 1.6 in a data centre."""

    def __post_init__(self):
        footprint(0.0, self.intensity(), pue=self.pue)

    def intensity(self) -> Any:
        """Grams of CO2 equivalent per kWh, with source, year and spread."""
        return country(self.grid or "WORLD")

    def callback(self, samples: int, every: int) -> Energy:
        """The meter of a training run of `samples` per step."""
        return Energy(samples=samples, every=every, grid=self.intensity(), pue=self.pue)


@dataclass
class Cost:
    """Cost of a part of a command; filled when it has ended."""

    facts: dict[str, Any] = field(default_factory=dict)
    """In words, for a reader."""
    metrics: dict[str, float] = field(default_factory=dict)
    """In numbers, for metrics.jsonl."""
    per_sample: dict[str, Any] = field(default_factory=dict)
    """Joules per sample, within the spread of their source."""


@contextmanager
def metered(place: Place, samples: int) -> Iterator[Cost]:
    """Measure what happens inside, which makes `samples` samples."""
    cost = Cost()
    with Meter(scope="tree") as meter:
        yield cost
        meter.lap(samples=samples)
    reading, spent = meter.reading, footprint(meter.reading, place.intensity(), pue=place.pue)
    cost.facts = facts(reading, spent)
    each = reading.per(max(1, samples))
    cost.per_sample = {"value": each.total, "interval": [each.low, each.high], "n": samples, "unit": "J"}
    cost.metrics = {
        "sampling/joules": reading.total,
        "sampling/joules_per_sample": reading.per_sample,
        "sampling/carbon_g": spent.carbon.value,
    }
