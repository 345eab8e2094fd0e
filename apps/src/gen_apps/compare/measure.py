"""The figures of the table: each sampler against held-out data."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gen_apps.compare.families import Sampled
from gen_apps.energy import Place, metered
from gen_core.classifier import hidden_units, two_sample
from gen_core.metrics import bootstrap, frechet, kid, memorisation, prdc
from gen_core.runtime import generator

COLUMNS = {  # name: (heading, whether more is better)
    "features": ("Fréchet, features", False),
    "frechet": ("Fréchet, pixels", False),
    "kid": ("KID", False),
    "precision": ("precision", True),
    "recall": ("recall", True),
    "density": ("density", True),
    "coverage": ("coverage", True),
    "c2st": ("C2ST", False),
    "novelty": ("novelty", True),
    "bits": ("bits/dim", False),
    "evaluations": ("evaluations", False),
    "joules": ("J/sample", False),
}
DRAWS = 8  # half samples behind an interval


@dataclass(frozen=True)
class Bench:
    """Held-out data, training data, and what they are seen by."""

    train: Tensor
    test: Tensor
    features: Callable[[Tensor], Tensor] | None
    n: int
    place: Place
    seed: int

    @classmethod
    def of(cls, train: Tensor, labels: Tensor | None, test: Tensor, place: Place, seed: int) -> "Bench":
        """As many samples of all sets, so that their distances are biased alike; pictures in [0, 1]."""
        n = min(len(train), len(test))
        a, b = (scaled(x[:n]) for x in (train, test))
        classes = labels is not None and len(labels.unique()) > 1 and a.ndim == 4
        features = hidden_units(a, labels[:n], seed=seed) if classes and labels is not None else None
        return cls(a, b, features, n, place, seed)

    def row(self, sampler: Sampled, held_out: Tensor) -> tuple[dict[str, Any], Tensor]:
        """The figures of a sampler, and its samples."""
        with metered(self.place, self.n) as cost, torch.no_grad():
            x, evaluations = sampler.draw(self.n)
        drawn, real = scaled(x), sampler.name == "real data"
        values: dict[str, Any] = {}
        f = self.features
        if f is not None:
            values["features"] = self._interval("features", frechet, f(drawn), f(self.test))
        values["frechet"] = self._interval("frechet", frechet, drawn, self.test)
        values["kid"] = kid(drawn, self.test)
        values |= prdc(self.test, drawn, 5)._asdict()
        values["recall"] = self._interval("recall", lambda a, b: prdc(b, a, 5).recall, drawn, self.test)
        values["c2st"] = two_sample(drawn, self.test, seed=self.seed)
        if not real:
            values["novelty"] = memorisation(drawn, self.train, self.test)
            values["joules"] = cost.metrics["sampling/joules_per_sample"]
        if evaluations:
            values["evaluations"] = evaluations
        if sampler.bits is not None:
            values["bits"] = sampler.bits(held_out)
        row = {"name": sampler.name, "n": self.n, "parameters": sampler.parameters, "values": values}
        return row | {"training": sampler.training}, x

    def _interval(self, name: str, metric: Callable[[Tensor, Tensor], float], a: Tensor, b: Tensor) -> dict[str, Any]:
        return asdict(bootstrap(metric, a, b, draws=DRAWS, generator=generator(self.seed, name)))


def scaled(x: Tensor) -> Tensor:
    """Pictures in [0, 1], points as they are."""
    return ((x.clamp(-1, 1) + 1) / 2 if x.ndim == 4 else x).float()


def value(row: dict[str, Any], column: str) -> float | None:
    """A figure without its interval."""
    found = row["values"].get(column)
    return found["value"] if isinstance(found, dict) else found


def cell(row: dict[str, Any], column: str) -> str:
    """As it stands in the table."""
    found = row["values"].get(column)
    if found is None:
        return "–"
    if isinstance(found, dict):
        return f"{found['value']:.3f} ± {(found['high'] - found['low']) / 2:.2f}"
    form = {"kid": ".4f", "evaluations": ".0f", "joules": ".2g"}.get(column, ".3f")
    return f"{found:{form}}"
