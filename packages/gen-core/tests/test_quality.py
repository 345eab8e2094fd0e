"""The table of quality.json: the metrics of the samples themselves, at one scale, with intervals."""

import json
import math

import pytest
import torch

from gen_core import Arrays, digits
from gen_core.metrics import frechet, kid, memorisation, nearest_neighbour, prdc
from gen_core.quality import Reference, assess, difference, flat, table
from gen_core.scales import scale, text


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def points() -> Reference:
    return Reference.of(Arrays(normal(120, 2, seed=1)), Arrays(normal(120, 2, seed=2)), draws=8)


@pytest.mark.parametrize("shape", [(60, 2), (40, 3, 4, 4)], ids=["points", "more pixels than samples"])
def test_every_figure_is_that_of_the_samples(shape):
    """The figures come from one matrix of distances; the metrics of the rows are the truth."""
    train, test, x = (0.4 * normal(*shape, seed=i) for i in range(3))
    x = 1.2 * x
    found = Reference.of(Arrays(train), Arrays(test), draws=1).measure("x", x).figures
    a, b, seen = flat(x), flat(test), flat(train)
    own = nearest_neighbour(a, b)
    true = {
        "frechet": frechet(a, b),
        "kid": kid(a, b),
        **prdc(b, a)._asdict(),
        "memorisation": memorisation(a, seen, b),
    }
    true |= {"two-sample": own.distance, "nearest-samples": own.a, "nearest-held-out": own.b}
    assert {name: e.value for name, e in found.items()} == pytest.approx(true, rel=1e-9, abs=1e-9)


def test_the_figures_of_the_same_samples_are_the_same_in_every_table_and_for_pictures_in_0_1():
    """Real digits: the distance of pixels in [0, 1], and not of [-1, 1], where it would be four times as large."""
    train, test = digits("train"), digits("test")
    floor = Reference.of(train, test, draws=1).training_data()
    x, x_test = train[:][0], test[:][0]
    among = torch.randperm(899, generator=torch.Generator().manual_seed(0))  # all but one of the held-out ones
    assert floor.n == 898
    assert floor.figures["frechet"].value == pytest.approx(frechet(x, x_test[among[:898]]) / 4, rel=0.02)
    table = assess(x[:50], None, train, test, draws=1)
    assert table["rows"][1]["frechet"]["value"] == floor.figures["frechet"].value
    assert table["rows"][1]["frechet-features"]["value"] == floor.figures["frechet-features"].value


def test_a_sampler_of_twice_the_right_spread_and_a_copier_fail_the_two_sample_test():
    shape = (100, 1, 8, 8)
    train, test = 0.1 * normal(*shape, seed=1), 0.1 * normal(*shape, seed=2)
    reference = Reference.of(Arrays(train), Arrays(test), draws=2)
    wide, copies = reference.measure("wide", 0.2 * normal(*shape, seed=3)), reference.measure("copies", test)
    shares = lambda m: [m.figures[c].value for c in ("nearest-samples", "nearest-held-out", "two-sample")]
    assert shares(wide) == pytest.approx([0, 1, 1], abs=0.03)
    assert shares(copies) == [0, 0, 1]
    assert shares(reference.training_data())[2] < 0.7


def test_no_interval_leaves_what_a_figure_can_be(points):
    measured = [points.measure("few kinds", 0.1 * normal(120, 2)), points.training_data(), points.gaussian()]
    for figures in (m.figures for m in measured):
        for name, e in figures.items():
            assert scale(name).low <= e.low <= e.value <= e.high <= scale(name).high, name


def test_a_difference_of_two_samplers_has_the_interval_of_the_difference(points):
    """One sampler beside itself with a little noise: most of the doubt is common to both and falls out."""
    x = normal(120, 2, seed=3)
    a, b, other = (points.measure("x", y) for y in (x, x + 0.01 * normal(120, 2, seed=4), x + 3))
    found, far = difference(a, b, "frechet"), difference(other, a, "frechet")
    assert found.value == a.figures["frechet"].value - b.figures["frechet"].value
    assert found.high - found.low < 0.3 * (a.figures["frechet"].high - a.figures["frechet"].low)
    assert found.low < 0.01 and far.low > 0
    assert difference(a, a, "recall").low == difference(a, a, "recall").high == 0


def test_rows_are_names_strings_and_figures_with_interval_n_and_unit(points):
    found = json.loads(json.dumps(points.tabulate([points.measure("x", normal(60, 2)), points.training_data()])))
    assert [(row["name"], row["n"]) for row in found["rows"]] == [("x", 60), ("training data", 120)]
    assert "memorisation" in found["rows"][0] and "memorisation" not in found["rows"][1]
    for row in found["rows"]:
        for name in row.keys() - {"name", "n"}:
            figure = row[name]
            assert figure.keys() == {"value", "interval", "n", "unit"} and name in found["columns"]
            assert figure["interval"][0] <= figure["value"] <= figure["interval"][1] and figure["n"] == row["n"]
    assert "label" not in found["columns"] and not any("5 nearest" in note for note in found["notes"])
    assert table(found).row_count == len(found["columns"])
    assert text({"value": -0.000123456, "interval": [-123.4, 1.0]}) == "-0 (-123–1)" and text(None) == "–"


def test_labels_that_were_asked_for_are_those_of_neighbours():
    """Two far classes: samples of the class asked for are all right, of the other one all wrong."""
    y = torch.arange(40) % 2
    train, test = (Arrays(normal(40, 2, seed=i) + 20 * y[:, None], y, classes=["a", "b"]) for i in (1, 2))
    reference = Reference.of(train, test, draws=1)
    x = normal(40, 2, seed=3) + 20 * y[:, None]
    right, wrong = (reference.measure("x", x, labels).figures["label"] for labels in (y, 1 - y))
    assert right.value == right.high == 1 > right.low > 0.9 and wrong.value == wrong.low == 0
    assert reference.training_data().figures["label"].value == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.measure("x", torch.full((9, 2), math.nan)), "9 of 9 samples are not finite; drop them"),
        (lambda p: Reference.of(Arrays(normal(3, 2)), Arrays(normal(9, 2))), "4 held-out and training samples"),
    ],
)  # fmt: skip
def test_errors_name_value_rule_and_remedy(points, call, message):
    with pytest.raises(ValueError, match=message):
        call(points)


def test_a_share_of_none_or_all_is_not_certain(points):
    """Half samples do not differ there; of n = 120 trials without a success, Wilson's interval ends near 4 / n."""
    found = points.measure("far away", 100 + normal(120, 2)).figures
    assert found["precision"].value == 0 and 0.01 < found["precision"].high < 0.05
    assert found["nearest-samples"].value == 1 and 0.95 < found["nearest-samples"].low < 0.99


@pytest.mark.parametrize(("size", "judge"), [(16, "two convolutions trained on the 60 training"), (8, "5 nearest")])
def test_the_notes_name_the_classifier_whose_features_and_classes_are_in_the_table(size, judge):
    """Two classes, bright above or below: of held-out data measured in place of samples, all are of their class."""
    y = torch.arange(60) % 2
    dark = 0.1 * normal(60, 1, size, size) - 0.5
    dark[y == 0, :, : size // 2] += 1
    dark[y == 1, :, size // 2 :] += 1
    data = Arrays(dark, y, classes=["above", "below"])
    reference = Reference.of(data, data, draws=1)
    found = reference.tabulate([reference.measure("x", dark, y), reference.measure("other", dark, 1 - y)])
    assert [row["label"]["value"] for row in found["rows"]] == [1, 0]
    assert found["rows"][0]["frechet-features"]["value"] == pytest.approx(0, abs=1e-6)
    notes = {name: [note for note in found["notes"] if note.startswith(name)] for name in ("label", "frechet-features")}
    assert len(notes["label"]) == len(notes["frechet-features"]) == 1 and judge in notes["label"][0]
    assert ("perceptron" in notes["frechet-features"][0]) == (size == 8)
    assert ("1 (0.940–1) of the held-out" in notes["frechet-features"][0]) == (size == 16)
