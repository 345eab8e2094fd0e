"""Provenance and its algebra."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen_green.quantity import Quantity, product_spread, si, sum_spread, weakest


def test_spreads_of_a_product_combine_in_quadrature_as_a_monte_carlo_does():
    spreads = (1.5, 1.2, 1.3)
    combined = product_spread(*spreads)
    assert combined == pytest.approx(1.6757, abs=5e-5)
    draw, logs = random.Random(0), [math.log(s) for s in spreads]
    variance = sum(sum(draw.gauss(0, s) for s in logs) ** 2 for _ in range(200_000)) / 200_000
    assert math.exp(math.sqrt(variance)) == pytest.approx(combined, rel=5e-3)


@pytest.mark.slow
def test_a_million_samples_agree_to_half_a_percent():
    draw, logs = random.Random(1), [math.log(s) for s in (1.5, 1.2, 1.3)]
    variance = sum(sum(draw.gauss(0, s) for s in logs) ** 2 for _ in range(10**6)) / 10**6
    assert math.exp(math.sqrt(variance)) == pytest.approx(1.6757, rel=5e-3)


def test_the_spread_of_a_sum_is_near_that_of_sampled_lognormals():
    values, spreads, draw = (100.0, 50.0, 10.0), (1.2, 1.3, 1.5), random.Random(0)
    sums = [
        sum(v * math.exp(draw.gauss(0, math.log(s))) for v, s in zip(values, spreads, strict=True))
        for _ in range(50_000)
    ]
    logs = [math.log(x) for x in sums]
    mean = sum(logs) / len(logs)
    sampled = math.exp(math.sqrt(sum((x - mean) ** 2 for x in logs) / len(logs)))
    assert sum_spread(values, spreads) == pytest.approx(sampled, rel=0.02)


def test_units_multiply_and_cancel_and_kinds_and_years_weaken():
    energy = Quantity(2.0, "kWh", "measured", "RAPL", 2025, 1.05)
    grid = Quantity(475.0, "g/kWh", "assumed", "world", 2019, 2.5)
    carbon = energy * grid
    assert (carbon.value, carbon.unit, carbon.kind, carbon.year) == (950, "g", "assumed", 2019)
    assert carbon.source == "RAPL; world" and carbon.spread == pytest.approx(product_spread(1.05, 2.5))
    assert (Quantity(5.0, "W", "measured", "a") * Quantity(3.0, "s", "measured", "b")).unit == "J"
    per = Quantity(6.0, "J", "modelled", "a") / Quantity(3.0, "sample", "measured", "b")
    assert (per.value, per.unit) == (2, "J/sample")
    assert (energy * 2).value == (2 * energy).value == 4 and (energy / 4).value == 0.5
    assert energy.low == pytest.approx(2 / 1.05) and energy.high == pytest.approx(2.1)


def test_only_equal_units_add():
    a, b = Quantity(1.0, "J", "measured", "a", spread=1.5), Quantity(1.0, "J", "modelled", "b", spread=1.5)
    assert (a + b).value == 2 and (a + b).kind == "modelled" and (a + b).spread == pytest.approx(1.332, abs=1e-3)
    with pytest.raises(ValueError, match="cannot add 'kWh' to 'J'"):
        a + Quantity(1.0, "kWh", "measured", "c")


def test_a_quantity_checks_its_kind_and_its_spread():
    with pytest.raises(ValueError, match="measured, modelled or assumed, got kind 'guessed'"):
        Quantity(1.0, "J", "guessed", "")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="factor of at least 1"):
        Quantity(1.0, "J", "measured", "", spread=0.5)
    assert weakest([]) == "measured"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2e-6, "kg", "2.00 mg"),
        (2e-6, "g", "2.00 µg"),
        (492.536318976, "g", "493 g"),
        (2.1310848, "kWh", "2.13 kWh"),
        (0.02549, "kWh", "25.5 Wh"),
        (999.6, "J", "1.00 kJ"),
        (-1500.0, "J", "-1.50 kJ"),
        (3.6e6, "J", "3.60 MJ"),
        (28763.48, "g", "28.8 kg"),
        (2.04e9, "g", "2.04 kt"),
        (7.1e-13, "J", "7.10e-04 nJ"),
        (12345.0, "s", "12345 s"),
        (0.02, "s", "20.0 ms"),
        (0.0, "J", "0 J"),
        (math.nan, "J", "nan J"),
        (3.2e-4, "", "0.000320"),
    ],
)
def test_three_significant_digits_with_an_si_prefix(value, unit, text):
    assert si(value, unit) == text


@settings(deadline=None)
@given(st.floats(1e-12, 1e15))
def test_nothing_that_is_there_is_printed_as_nothing(value):
    number, _, unit = si(value, "J").partition(" ")
    scale = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}[unit[:-1]]
    assert float(number) * scale == pytest.approx(value, rel=6e-3)
