"""The fallback CPU model against RAPL readings of four CPUs (codecarbon's, MIT licence: see the csv)."""

import csv
import statistics
from pathlib import Path

import pytest

from gen_green.models import IDLE, SLOPE, SPREAD


@pytest.fixture(scope="module")
def machines():
    """(load, watts over TDP) by machine."""
    text = (Path(__file__).parent / "data" / "power_model.csv").read_text()
    found: dict[str, list[tuple[float, float]]] = {}
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        found.setdefault(row["machine"], []).append((float(row["load"]), float(row["watts"]) / float(row["tdp_w"])))
    return found


def error(machines, curve):
    """Mean absolute error of power over TDP, averaged over machines."""
    return statistics.fmean(statistics.fmean(abs(curve(u) - p) for u, p in points) for points in machines.values())


def test_fixed_coefficients_err_less_than_the_bar_and_codecarbons_curve(machines):
    assert sum(map(len, machines.values())) == 86 and len(machines) == 4
    assert error(machines, lambda u: IDLE + SLOPE * u) == pytest.approx(0.137, abs=1e-3)  # the bar: 0.18
    assert error(machines, lambda u: 0.1 + 0.9 * u**3) == pytest.approx(0.236, abs=1e-3)
    assert error(machines, lambda u: 1.0) == pytest.approx(0.492, abs=1e-3)


def test_the_stated_spread_covers_eight_of_ten_points_of_machines_not_seen(machines):
    errors, ratios = [], []
    for name, points in machines.items():
        others = [point for other, rest in machines.items() if other != name for point in rest]
        slope, intercept = statistics.linear_regression(*zip(*others, strict=True))
        errors.append(statistics.fmean(abs(intercept + slope * u - p) for u, p in points))
        ratios += [p / (intercept + slope * u) for u, p in points]
    tenths = statistics.quantiles(ratios, n=10, method="inclusive")
    assert statistics.fmean(errors) == pytest.approx(0.172, abs=1e-3)
    assert (tenths[0], tenths[-1]) == pytest.approx((0.57, 1.74), abs=0.01)
    assert statistics.fmean(1 / SPREAD <= r <= SPREAD for r in ratios) >= 0.80
