"""The figures of the table: each sampler against held-out data."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from gen_apps.compare.families import Sampled
from gen_apps.energy import Place, metered
from gen_core import Arrays
from gen_core.classifier import c2st
from gen_core.quality import COLUMNS as QUALITY
from gen_core.quality import Measured, Reference, difference, flat

FLOOR = "training data"
COLUMNS = (*(c for c in QUALITY if c != "label"), "c2st", "bits/dim", "evaluations", "J/sample")
DRAWS = 8  # half samples behind an interval
TOLD = 1000  # samples of both sets for c2st, at most: it trains five perceptrons on them

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """The data that every sampler is measured against."""

    reference: Reference
    held_out: Tensor
    place: Place

    @classmethod
    def of(cls, training: Arrays, held_out: Arrays, place: Place) -> "Bench":
        return cls(Reference.of(training, held_out, draws=DRAWS), held_out[:][0], place)

    @property
    def n(self) -> int:
        """Samples of each: as many as held-out data."""
        return len(self.reference.test)

    def floor(self) -> tuple[Measured, Row]:
        """Training data themselves: as near to the held-out data as so many samples can be."""
        measured = self.reference.training_data()
        return measured, measured.row() | {"c2st": self._c2st(self.reference.train[: self.n])}

    def row(self, sampler: Sampled) -> tuple[Measured, Row, Tensor]:
        """The figures of a sampler, the row of the table, and the samples."""
        with metered(self.place, self.n) as cost, torch.no_grad():
            x, evaluations = sampler.draw(self.n)
        measured = self.reference.measure(sampler.name, x)
        row = measured.row() | {"c2st": self._c2st(flat(x)), "J/sample": cost.per_sample}
        if evaluations:
            row["evaluations"] = evaluations
        if sampler.bits is not None:
            row["bits/dim"] = sampler.bits(self.held_out).figure()
        return measured, row, x

    def _c2st(self, x: Tensor) -> Row:
        return c2st(x[:TOLD], self.reference.test[:TOLD]).figure()


def differences(measured: dict[str, Measured]) -> list[Row]:
    """Every figure of every set minus that of every later one, each with the interval of the difference."""
    return [
        {"name": f"{a.name} minus {b.name}", "a": a.name, "b": b.name}
        | {c: difference(a, b, c).figure() for c in a.differences if c in b.differences}
        for a, b in combinations(measured.values(), 2)
    ]


def value(row: Row, column: str) -> float | None:
    """A figure without its interval."""
    found = row.get(column)
    return found["value"] if isinstance(found, dict) else found
