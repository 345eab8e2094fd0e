"""How good samples are, each figure with its interval and beside honest bars.

    table = assess(samples, labels, train, test)         # of Arrays
    run.write("quality.json", table)                     # the report shows it

A distance alone says little: the same figures are given for real pictures that the model was trained on (the floor
that n samples can reach) and for a Gaussian fitted to each pixel (what no model may lose to). A memorised training
set would beat both, so the memorisation ratio stands beside them.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gen_core.data import Arrays
from gen_core.metrics import Estimate, bootstrap, frechet, kid, memorisation, nearest_neighbour_accuracy, prdc
from gen_core.runtime import generator, numpy_seed

NOTES = (
    "Every figure compares with the held-out half, at the sizes n given; intervals are 95 %.",
    "frechet: of pixels or coordinates; it grows as n falls, so compare it with the real training data in the table. "
    "features: the same distance on the hidden units of a small classifier. kid: unbiased, 0 for one distribution.",
    "two-sample: how often a nearest neighbour tells real from generated; .5 is ideal, 1 is worst.",
    "memorisation: median distance to the nearest training sample over that to the nearest held-out one; "
    "near 1 for new samples, near 0 for copies.",
    "label: share of samples that 5 nearest neighbours in the training data give the class asked for.",
)


def assess(
    fake: Float[Tensor, "n ..."],
    labels: Int[Tensor, "n"] | None,
    train: Arrays,
    test: Arrays,
    *,
    seed: int = 0,
    draws: int = 25,
    most: int = 2000,
) -> dict[str, Any]:
    """The table of quality.json: samples, training data and a per-pixel Gaussian against the held-out data.

    Args:
        fake: samples, in the range of the data; pictures are clamped to [-1, 1].
        labels: the classes they were asked for, if any.
        most: samples and held-out data that are measured, and half of the training data: neighbours cost the square.
        draws: half samples behind each interval (`gen_core.metrics.bootstrap`).
    """
    pictures = fake.ndim == 4

    def measured(x: Tensor) -> Tensor:
        x = x.detach().float().cpu()
        return (x.clamp(-1, 1) if pictures else x).flatten(1)

    (x_train, y_train), (x_test, y_test) = _both(train, 2 * most), _both(test, most)
    fake, labels = fake[:most], None if labels is None else labels[:most]
    x_train, x_test, x_fake = measured(x_train), measured(x_test), measured(fake)
    gaussian = torch.randn(len(x_fake), x_train.shape[1], generator=generator(seed, "gaussian"))
    gaussian = gaussian * x_train.std(0) + x_train.mean(0)
    classes = y_train is not None and len(y_train.unique()) > 1
    features = _features(x_train, y_train, seed) if pictures and classes and y_train is not None else None
    predict = _neighbours(x_train, y_train) if classes and y_train is not None else None

    def row(name: str, x: Tensor, asked: tuple[Tensor, Tensor] | None, own: bool = False) -> dict[str, Any]:
        values: dict[str, Estimate | None] = {}

        def measure(column: str, metric: Callable[[Tensor, Tensor], float], a: Tensor, b: Tensor) -> None:
            values[column] = bootstrap(metric, a, b, draws=draws, generator=generator(seed, name, column))

        measure("frechet", frechet, x, x_test)
        if features is not None:
            measure("features", frechet, features(x), features(x_test))
        measure("kid", kid, x, x_test)
        measure("precision", lambda a, b: prdc(b, a).precision, x, x_test)
        measure("recall", lambda a, b: prdc(b, a).recall, x, x_test)
        measure("two-sample", nearest_neighbour_accuracy, x, x_test)
        if not own:  # the training data are their own nearest neighbours
            measure("memorisation", lambda a, b: memorisation(a, x_train, b), x, x_test)
        if predict is not None and asked is not None:
            right = (predict(asked[0]) == asked[1]).double()[:, None]
            measure("label", lambda a, _: a.mean().item(), right, right)
        return {"name": name, "n": len(x), "values": {k: asdict(v) for k, v in values.items() if v is not None}}

    rows = [
        row("samples", x_fake, None if labels is None else (x_fake, labels.cpu())),
        row("training data", x_train, None if y_test is None else (x_test, y_test), own=True),
        row("Gaussian per pixel" if pictures else "Gaussian per coordinate", gaussian, None),
    ]
    names = [c for c in ("frechet", "features", "kid", "precision", "recall", "two-sample", "memorisation", "label")]
    columns = [c for c in names if any(c in r["values"] for r in rows)]
    notes = [*NOTES, "label of the training row: accuracy of the same classifier on the held-out data, its ceiling."]
    return {"columns": columns, "rows": rows, "notes": notes if "label" in columns else list(NOTES[:-1])}


def table(quality: Mapping[str, Any]) -> Any:
    """The same table for a terminal, as a rich renderable."""
    from rich.table import Table

    rows = quality["rows"]
    shown = Table(box=None, pad_edge=False)
    shown.add_column("against held-out data")
    for row in rows:
        shown.add_column(f"{row['name']} (n={row['n']})", justify="right")
    for column in quality["columns"]:
        cells = [row["values"].get(column) for row in rows]
        texts = ["–" if v is None else f"{v['value']:.3g} ± {(v['high'] - v['low']) / 2:.1g}" for v in cells]
        shown.add_row(column, *texts)
    return shown


def _both(data: Arrays, most: int) -> tuple[Tensor, Tensor | None]:
    """Data and labels, a keyed choice of them where there are more."""
    x, *rest = data[torch.randperm(len(data), generator=generator("quality"))[:most].sort().values]
    return x, rest[0] if rest else None


def _features(x: Tensor, y: Tensor, seed: int) -> Callable[[Tensor], Tensor]:
    """Hidden units of a perceptron of one layer that was trained to tell the classes."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier((64,), learning_rate_init=3e-3, max_iter=60, random_state=numpy_seed(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "not converged": features need no optimum
        net.fit(x.numpy(), y.numpy())
    w, b = (torch.as_tensor(v[0], dtype=torch.float32) for v in (net.coefs_, net.intercepts_))
    return lambda x: (x @ w + b).relu()


def _neighbours(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(5).fit(x.numpy(), y.numpy())
    return lambda x: torch.as_tensor(model.predict(x.numpy()))
