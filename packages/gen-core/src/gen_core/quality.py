"""Quality of samples, each figure with its interval and beside honest bars.

    table = assess(samples, labels, train, test)         # of Arrays
    run.write("quality.json", table)                     # the report shows it

    reference = Reference.of(train, test)                # the same figures, of many samplers
    a, b = (reference.measure(name, x) for name, x in drawn.items())
    difference(a, b, "frechet")                          # with its own interval, of paired half samples

A distance alone says little: the same figures are given for real pictures that the model was trained on (the floor
that n samples can reach) and for a Gaussian fitted to each pixel (what no model may lose to). A memorised training
set would beat both, so the memorisation ratio stands beside them.

Nothing here depends on the seed of a run: the same samples have the same figures in every command.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gen_core.classifier import convolutions, hidden_units
from gen_core.data import Arrays
from gen_core.distances import (
    distance_blocks,
    frechet_distance,
    kernel_distance,
    manifolds,
    nearest,
    radii,
    same_set,
    squared_distances,
)
from gen_core.intervals import Estimate, proportion
from gen_core.metrics import PRDC, NearestNeighbour, frechet
from gen_core.runtime import generator
from gen_core.scales import scale, text

LARGE = 16  # pixels of a side from which a classifier of pictures has convolutions
COLUMNS = (  # every figure, in the order of tables
    "frechet",
    "frechet-features",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
    "two-sample",
    "nearest-samples",
    "nearest-held-out",
    "memorisation",
    "label",
)
NOTES = {
    "": "Every figure compares n samples with n held-out ones; intervals are 95 %. Pictures are in [0, 1].",
    "frechet": "frechet: of pixels or coordinates; it grows as n falls, so compare it with the training data in the "
    "table. kid: unbiased, 0 for one distribution.",
    "frechet-features": "frechet-features: the same distance on the 64 hidden units of a perceptron that tells the "
    "classes of the training data.",
    "precision": "precision, recall, density, coverage: by balls that reach to the 5th neighbour (fewer below 12 "
    "samples); all near 1 for one distribution.",
    "two-sample": "nearest-samples, nearest-held-out: share of each set whose nearest neighbour is of the same set. "
    "two-sample: .5 plus the mean distance of the two from .5, which is ideal; 1 is worst. Samples that spread too far "
    "have one share near 0 and the other near 1; copies have 0 and 0.",
    "memorisation": "memorisation: median distance to the nearest training sample over that to the nearest held-out "
    "one; near 1 for new samples, near 0 for copies.",
    "label": "label: share of samples that 5 nearest neighbours in the training data give the class asked for; of the "
    "training data, accuracy of the same classifier on the held-out data, its ceiling.",
}


@dataclass(frozen=True)
class Measured:
    """The figures of one set of samples."""

    name: str
    n: int
    figures: dict[str, Estimate]
    differences: dict[str, list[float]]
    """Half the differences between complementary half samples, the same halves for every set of n samples."""

    def row(self) -> dict[str, Any]:
        """The row of quality.json."""
        return {"name": self.name, "n": self.n, **{name: e.figure() for name, e in self.figures.items()}}


def difference(a: Measured, b: Measured, column: str) -> Estimate:
    """A figure of `a` minus that of `b`, with an interval that counts what both owe to the same held-out data once."""
    paired = [x - y for x, y in zip(a.differences[column], b.differences[column], strict=True)]
    return Estimate.of(a.figures[column].value - b.figures[column].value, paired, min(a.n, b.n))


@dataclass(frozen=True)
class Reference:
    """Held-out data that samples are measured against, and training data that they may have been copied from."""

    data: Arrays  # all training data
    train: Float[Tensor, "m d"]
    test: Float[Tensor, "n d"]
    y_train: Int[Tensor, "m"] | None
    y_test: Int[Tensor, "n"] | None
    shape: tuple[int, ...]  # of a sample
    draws: int

    @classmethod
    def of(cls, train: Arrays, test: Arrays, *, most: int = 2000, draws: int = 25) -> "Reference":
        """
        Args:
            most: held-out samples that are used, and half of the training data: neighbours cost the square.
            draws: half samples behind each interval (`gen_core.intervals.bootstrap`).
        """
        n = min(len(train), len(test), most)
        (x, y), (x_test, y_test) = _some(train, max(n, min(len(train), 2 * most))), _some(test, n)
        if n < 4:
            raise ValueError(f"quality needs 4 held-out and training samples at least, got {n}; hold out more data")
        return cls(train, flat(x), flat(x_test), y, y_test, tuple(x.shape[1:]), draws)

    def measure(self, name: str, samples: Float[Tensor, "n ..."], labels: Int[Tensor, "n"] | None = None) -> Measured:
        """Compare samples, at most as many as held-out data; `labels` are the classes that were asked for."""
        return self._measure(name, flat(samples[: len(self.test)]), labels)

    def training_data(self) -> Measured:
        """Figures of as many real samples. They have no memorisation: they are their own nearest neighbours."""
        return self._measure("training data", self.train[: len(self.test)], self.y_test, own=True)

    def gaussian(self) -> Measured:
        """Figures of independent pixels or coordinates of the right mean and variance."""
        noise = torch.randn(self.test.shape, generator=generator("quality", "gaussian"), dtype=torch.float64)
        name = "Gaussian per pixel" if len(self.shape) == 3 else "Gaussian per coordinate"
        return self._measure(name, noise * self.train.std(0) + self.train.mean(0), None)

    def _measure(self, name: str, x: Tensor, labels: Tensor | None, own: bool = False) -> Measured:
        compared = _Compared(x, self.test[: len(x)], None if own else self.train, self._judge.features)
        whole = torch.arange(len(x))
        values = compared.figures(whole, whole)
        halves = [[compared.figures(*half) for half in pair] for pair in self._halves(len(x))]
        differences = {c: [(one[c] - other[c]) / 2 for one, other in halves] for c in values}
        bounds = {c: (scale(c).low, scale(c).high) for c in values}
        figures = {c: Estimate.of(v, differences[c], len(x), bounds=bounds[c]) for c, v in values.items()}
        ends = [c for c, v in values.items() if bounds[c] == (0, 1) and v in (0, 1)]  # where half samples do not differ
        figures |= {c: proportion(values[c], len(x)) for c in ends}
        if labels is not None and self._judge.classify is not None:
            right = self._judge.classify(self.test if own else x) == labels[: len(x)].cpu()
            figures["label"] = proportion(right.double().mean().item(), len(right))
        return Measured(name, len(x), figures, differences)

    def _halves(self, n: int) -> Iterator[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
        """Complementary half samples of both sets, in the order of the data."""
        for draw in range(self.draws):
            g = generator("quality", "halves", draw)
            (a, b), (a_test, b_test) = ((o[: n // 2].sort()[0], o[n // 2 :][: n // 2].sort()[0])
                                        for o in (torch.randperm(n, generator=g) for _ in range(2)))  # fmt: skip
            yield (a, a_test), (b, b_test)

    def tabulate(self, measured: Sequence[Measured]) -> dict[str, Any]:
        """Rows of figures, the names of those that any row has, and what they mean."""
        columns = [c for c in COLUMNS if any(c in m.figures for m in measured)]
        return {"columns": columns, "rows": [m.row() for m in measured], "notes": self.notes(columns)}

    def notes(self, columns: Sequence[str]) -> list[str]:
        """What the figures of these names mean."""
        return [note for name, note in {**NOTES, **self._judge.notes}.items() if not name or name in columns]

    @cached_property
    def _judge(self) -> "_Judge":
        y = self.y_train
        if y is None or len(y.unique()) < 2:
            return _Judge()
        if len(self.shape) == 3 and min(self.shape[1:]) >= LARGE:
            return self._convolutions()
        return self._small(y)

    def _small(self, y: Tensor) -> "_Judge":
        """A perceptron's hidden units, of pictures; classes by 5 nearest neighbours in the training data."""
        from sklearn.neighbors import KNeighborsClassifier

        model, n = KNeighborsClassifier(5).fit(self.train.numpy(), y.numpy()), len(self.test)
        features = hidden_units(self.train[:n], y[:n]) if len(self.shape) == 3 else None
        return _Judge(features, lambda x: torch.as_tensor(model.predict(x.numpy())))

    def _convolutions(self) -> "_Judge":
        """Hidden units and classes of convolutions that were trained on all training data."""
        net = convolutions(self.data)
        whole = lambda x: 2 * x.unflatten(1, self.shape) - 1
        classify = lambda x: net.classify(whole(x))
        right = proportion((classify(self.test) == self.y_test).double().mean().item(), len(self.test))
        which = (
            f"two convolutions trained on the {len(self.data):,} training pictures, which give the right class to "
            f"{text(right.figure())} of the held-out ones"
        )
        return _Judge(
            lambda x: net.features(whole(x)),
            classify,
            {
                "frechet-features": f"frechet-features: the same distance on the 64 hidden units of {which}.",
                "label": f"label: share of samples that have the class asked for by {which}, a ceiling.",
            },
        )


@dataclass(frozen=True)
class _Judge:
    """What features and classes of samples come from, as functions of `flat` samples, and notes that say it."""

    features: Callable[[Tensor], Tensor] | None = None
    classify: Callable[[Tensor], Tensor] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


class _Compared:
    """Two sets of samples and all distances between them, computed once; a part of both is a choice of entries."""

    def __init__(self, x: Tensor, test: Tensor, train: Tensor | None, features: Callable[[Tensor], Tensor] | None):
        pooled = torch.cat([x, test])
        self.x, self.test, self.norms = x, test, pooled.square().sum(1)
        self.d2 = squared_distances(pooled, pooled)
        self.seen = None if features is None else (features(x), features(test))
        self.to_train = None if train is None else nearest(distance_blocks(x, train)).sqrt()

    def figures(self, i: Int[Tensor, "n"], j: Int[Tensor, "n"]) -> dict[str, float]:
        """The figures of samples `i` beside held-out data `j`."""
        n, d, k = len(i), self.x.shape[1], min(5, len(self.x) // 2 - 1)
        both = torch.cat([i, len(self.x) + j])
        d2 = self.d2[both][:, both]
        cross = d2[:n, n:]
        values = {"frechet": frechet(self.x[i], self.test[j]) if d < n else frechet_distance(d2, n)}
        if self.seen is not None:
            values["frechet-features"] = frechet(self.seen[0][i], self.seen[1][j])
        values["kid"] = kernel_distance(d2, self.norms[both], n, d)
        real, fake = radii([(0, d2[n:, n:])], k), radii([(0, d2[:n, :n])], k)
        values |= PRDC(*manifolds(real, fake, [(0, cross.T)], k))._asdict()
        if self.to_train is not None:
            to_test = cross.amin(1).sqrt().quantile(0.5)
            values["memorisation"] = (self.to_train[i].quantile(0.5) / to_test).item()
        own = NearestNeighbour(*same_set([(0, d2)], n))
        return values | {"two-sample": own.distance, "nearest-samples": own.a, "nearest-held-out": own.b}


def flat(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n d"]:
    """Samples as every figure sees them: float64 rows on the CPU, pictures clamped to [-1, 1] and moved to [0, 1]."""
    x = x.detach().double().cpu()
    if broken := len(x) - int(x.flatten(1).isfinite().all(1).sum()):
        raise ValueError(f"{broken} of {len(x)} samples are not finite; drop them or mend the model")
    return ((x.clamp(-1, 1) + 1) / 2 if x.ndim == 4 else x).flatten(1)


def assess(
    fake: Float[Tensor, "n ..."],
    labels: Int[Tensor, "n"] | None,
    train: Arrays,
    test: Arrays,
    *,
    most: int = 2000,
    draws: int = 25,
) -> dict[str, Any]:
    """The table of quality.json: samples, training data and a per-pixel Gaussian against the held-out data.

    Args:
        fake: samples, in the range of the data.
        labels: the classes they were asked for, if any.
        most, draws: as in `Reference.of`.
    """
    reference = Reference.of(train, test, most=most, draws=draws)
    return reference.tabulate(
        [reference.measure("samples", fake, labels), reference.training_data(), reference.gaussian()]
    )


def table(quality: Mapping[str, Any]) -> Any:
    """The same table for a terminal, as a rich renderable."""
    from rich.table import Table

    rows = quality["rows"]
    shown = Table(f"n = {min(row['n'] for row in rows)}", box=None, pad_edge=False)
    for row in rows:
        shown.add_column(row["name"], justify="right")
    shown.add_column("best", style="dim", no_wrap=True)
    for column in quality["columns"]:
        best = (
            scale(column)
            .better.removesuffix(" is best")
            .replace("lower is better", "low")
            .replace("higher is better", "high")
        )
        shown.add_row(column, *(text(row.get(column)) for row in rows), best)
    shown.caption = "in brackets: 95 % intervals"
    return shown


def _some(data: Arrays, most: int) -> tuple[Tensor, Tensor | None]:
    """Data and labels, a keyed choice of them where there are more."""
    x, *rest = data[torch.randperm(len(data), generator=generator("quality"))[:most].sort().values]
    return x, rest[0] if rest else None
