"""The front against its definition, break-even in closed form, and models of the digits."""

import math
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen_green.pareto import break_even, front, marginal, plot, worthwhile

VALUES = st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan, math.inf, -math.inf])  # few, so that ties are common


def definition(points, maximise, minimise):
    """O(n^2), word by word."""
    costs = [[-p[k] for k in maximise] + [p[k] for k in minimise] for p in points]
    whole = [i for i, c in enumerate(costs) if not any(x != x for x in c)]

    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    return [i for i in whole if not any(dominates(costs[j], costs[i]) for j in whole)]


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=12))
def test_the_front_is_its_definition(points):
    for maximise, minimise in (([0], [1]), ([0, 2], [1]), ([], [0, 1, 2]), ([1], [])):
        assert front(points, maximise, minimise) == definition(points, maximise, minimise)


def test_ties_stay_and_names_work():
    runs = [{"acc": 0.9, "J": 1.0}, {"acc": 0.9, "J": 1.0}, {"acc": 0.8, "J": 1.0}, {"acc": math.nan, "J": 0.0}]
    assert front(runs, maximise=["acc"], minimise=["J"]) == [0, 1] and front([], minimise=["J"]) == []
    with pytest.raises(ValueError, match="at least one objective"):
        front(runs)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 1e6)), min_size=1, max_size=20),
    st.sampled_from([0.25, 2.0, 64.0]),
)
def test_a_wrong_power_reorders_nothing(points, scale):
    """Joules of one machine are off by one factor (here powers of two, exact in binary); the front stays."""
    assert front([(q, e * scale) for q, e in points], [0], [1]) == front(points, [0], [1])


def test_break_even_in_closed_form():
    """A CPU at 2 J per item against a GPU at 0.2 J that costs 990 J more to start: at 550 items."""
    n = break_even((10.0, 2.0), (1000.0, 0.2))
    assert n == break_even((1000.0, 0.2), (10.0, 2.0)) == pytest.approx(550)
    assert 10 + 2 * n == pytest.approx(1000 + 0.2 * n)
    assert math.isnan(break_even((10.0, 0.1), (1000.0, 0.2))), "better at every size"
    assert math.isnan(break_even((1.0, 1.0), (2.0, 1.0)))


def test_marginal_quality_stops_training():
    quality, joules = [0.5, 0.8, 0.9, 0.905, 0.906], [0.0, 1e3, 2e3, 3e3, 5e3]
    assert marginal(quality, joules) == pytest.approx([0.3, 0.1, 0.005, 0.0005])
    steps = [worthwhile(quality[:n], joules[:n], least=0.05) for n in range(1, 6)]
    assert steps == [True, True, True, False, False]
    assert [worthwhile(quality[:n], joules[:n], least=0.05, patience=2) for n in range(1, 6)] == [True] * 4 + [False]
    with pytest.raises(ValueError, match="increase"):
        marginal([0.1, 0.2], [1.0, 1.0])
    with pytest.raises(ValueError, match="patience"):
        worthwhile(quality, joules, 0.05, patience=0)


def test_the_plot_draws_what_the_front_says(tmp_path):
    pytest.importorskip("matplotlib")
    runs = [{"acc": 0.9, "kJ": 1.0, "name": "a", "s": 1.5}, {"acc": 0.95, "kJ": 9.0, "name": "b", "s": 1.5}]
    figure = plot([*runs, {"acc": 0.8, "kJ": 2.0, "s": 1.0}], "kJ", "acc", tmp_path / "front.png", spread="s")
    (axes,) = figure.axes
    line = next(line for line in axes.lines if line.get_label() == "front")
    assert list(line.get_xdata()) == [1.0, 9.0] and list(line.get_ydata()) == [0.9, 0.95]
    assert axes.get_xscale() == "log" and (tmp_path / "front.png").stat().st_size > 1000
    assert [text.get_text() for text in axes.texts] == ["a", "b"]


@pytest.mark.slow
def test_models_of_the_digits():
    """k-NN, logistic regression and three widths of MLP on 1797 digits, by modelled joules (CPU seconds x watts)."""
    datasets, threadpoolctl = pytest.importorskip("sklearn.datasets"), pytest.importorskip("threadpoolctl")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier

    x, y = datasets.load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16.0, y, test_size=0.5, random_state=0)
    models = {"k-NN": KNeighborsClassifier(3), "logistic": LogisticRegression(max_iter=100)}
    models |= {f"MLP {w}": MLPClassifier((w,), max_iter=20, random_state=0) for w in (16, 64, 256)}
    runs = []
    for name, model in models.items():
        began = time.process_time()
        with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            accuracy = model.fit(x_train, y_train).score(x_test, y_test)
        runs.append({"name": name, "accuracy": accuracy, "seconds": time.process_time() - began})
    fronts = [
        front([{**r, "J": r["seconds"] * watts} for r in runs], maximise=["accuracy"], minimise=["J"])
        for watts in (4.0, 12.0, 280.0)
    ]
    assert fronts[0] == fronts[1] == fronts[2] and 1 <= len(fronts[0]) <= 5
    assert max(r["accuracy"] for r in runs) == max(runs[i]["accuracy"] for i in fronts[0]) > 0.9
