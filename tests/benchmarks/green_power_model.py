"""The fallback CPU model of gen-green against 86 RAPL readings of four CPUs, beside codecarbon's curve.

    uv run python tests/benchmarks/green_power_model.py

Each row is a curve from load u in [0, 1] to power over TDP: the mean absolute error in units of TDP, averaged over
machines, and the ratio of summed energies, model over measured. Fits are leave-one-machine-out: asked only for a
machine that they have not seen. The readings are codecarbon's, MIT licence.
"""

import csv
import statistics
from collections.abc import Callable
from pathlib import Path

from gen_green.models import IDLE, SLOPE, SPREAD

READINGS = Path(__file__).parents[2] / "packages/gen-green/tests/data/power_model.csv"
Point = tuple[float, float]  # load, watts over TDP


def points() -> dict[str, list[Point]]:
    """By machine."""
    lines = [line for line in READINGS.read_text().splitlines() if not line.startswith("#")]
    found: dict[str, list[Point]] = {}
    for row in csv.DictReader(lines):
        found.setdefault(row["machine"], []).append((float(row["load"]), float(row["watts"]) / float(row["tdp_w"])))
    return found


def fit(data: list[Point], shape: Callable[[float], float]) -> Callable[[float], float]:
    """Least squares of a + b shape(u)."""
    x, y = [shape(u) for u, _ in data], [p for _, p in data]
    slope, intercept = statistics.linear_regression(x, y)
    return lambda u: intercept + slope * shape(u)


def main() -> dict[str, float]:
    machines = points()
    held_out = lambda name: [p for other, data in machines.items() if other != name for p in data]
    curves: dict[str, Callable[[str], Callable[[float], float]]] = {
        f"gen-green, {IDLE} + {SLOPE} u": lambda name: lambda u: IDLE + SLOPE * u,
        "codecarbon, 0.1 + 0.9 u^3": lambda name: lambda u: 0.1 + 0.9 * u**3,
        "linear, 0.1 + 0.9 u": lambda name: lambda u: 0.1 + 0.9 * u,
        "half of TDP": lambda name: lambda u: 0.5,
        "TDP": lambda name: lambda u: 1.0,
        "affine, held out": lambda name: fit(held_out(name), lambda u: u),
        "a + b sqrt(u), held out": lambda name: fit(held_out(name), lambda u: u**0.5),
        "a + b u^3, held out": lambda name: fit(held_out(name), lambda u: u**3),
    }
    print(f"{sum(map(len, machines.values()))} points of {len(machines)} CPUs")
    print(f"{'':<28}{'error / TDP':>12}{'energy':>9}{'p10':>7}{'p90':>7}{'in x' + str(SPREAD):>9}")
    errors = {}
    for name, curve in curves.items():
        each, modelled, measured, ratios = [], 0.0, 0.0, []
        for machine, data in machines.items():
            model = curve(machine)
            each.append(statistics.fmean(abs(model(u) - p) for u, p in data))
            modelled, measured = modelled + sum(model(u) for u, _ in data), measured + sum(p for _, p in data)
            ratios += [p / model(u) for u, p in data]
        tenths = statistics.quantiles(ratios, n=10, method="inclusive")
        covered = statistics.fmean(1 / SPREAD <= r <= SPREAD for r in ratios)
        errors[name] = statistics.fmean(each)
        print(
            f"{name:<28}{errors[name]:>12.3f}{modelled / measured:>9.2f}"
            f"{tenths[0]:>7.2f}{tenths[-1]:>7.2f}{covered:>9.0%}"
        )
    print(
        "p10 and p90 of measured over modelled power; the last column is the share of points within the stated spread"
    )
    return errors


if __name__ == "__main__":
    main()
