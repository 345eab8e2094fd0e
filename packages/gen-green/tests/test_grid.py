"""Intensities against the published figures, closed forms and brute force."""

import math
import random
import subprocess
import sys
import warnings

import pytest

from gen_green import grid
from gen_green.grid import (
    DIRECT,
    LIFECYCLE,
    CarbonIntensity,
    best_start,
    constant,
    country,
    mix,
    read_trace,
    trace,
    world,
)
from gen_green.series import seconds
from gen_green.tables import read, rows

OWID = {"FR": 56.039, "DE": 380.95, "US": 369.473, "CH": 34.843, "GB": 237.589, "IN": 713.441}  # g/kWh, 2023


@pytest.mark.parametrize(("code", "g"), OWID.items())
def test_countries_have_the_published_figures_with_provenance(code, g):
    found = country(code)
    assert (found.value, found.year, found.basis, found.unit) == (g, 2023, "lifecycle", "g/kWh")
    assert "CC-BY-4.0" in found.source and "Ember" in found.source
    assert "T&D" in found.note and found.kind == "modelled" and found.spread >= 1.28


def test_every_row_of_the_table_is_whole():
    table = rows("intensity")
    assert len(table) == 214
    for row in table:
        found = country(row["code"])
        assert found == country(row["iso3"]) == country(row["name"].upper())
        assert 0 <= found.value < 1400 and 2009 <= (found.year or 0) <= 2023
        assert row["licence"] == "CC-BY-4.0" and row["source"] and row["basis"] in ("lifecycle", "direct")
    assert country("uk") == country("GB") and country("usa") == country("us")


def test_an_unknown_country_names_the_nearest():
    with pytest.raises(ValueError, match=r"'Frnace'; the nearest name is 'France' \(FR\)"):
        country("Frnace")
    with pytest.raises(ValueError, match="nearest"):
        country("")


def test_without_a_place_the_world_is_assumed_and_said_once():
    grid._say_once.cache_clear()
    with pytest.warns(UserWarning, match="475 g/kWh, within a factor 2.5") as said:
        first = world()
        assert world() == first
    assert len(said) == 1
    assert (first.value, first.kind, first.basis) == (475.0, "assumed", "direct") and first.spread >= 2.5


def test_importing_reads_no_table_and_no_network_module():
    code = (
        "import sys, gen_green.grid; from gen_green.tables import rows; "
        "print(rows.cache_info().currsize, 'urllib.request' in sys.modules, 'http.client' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["0", "False", "False"]


def test_an_empty_table_is_said(tmp_path):
    empty, header = tmp_path / "empty.csv", tmp_path / "header.csv"
    empty.write_text("")
    header.write_text("time,g\n")
    for path in (empty, header):
        with pytest.raises(ValueError, match="has no rows"):
            read(path)
        with pytest.raises(ValueError, match="has no rows"):
            read_trace(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read(tmp_path / "none.csv")


def test_time_resolved_carbon_weighs_energy_not_hours():
    """1 kWh at 100 g, then 3 kWh at 500 g: 1600 g, where energy times the mean intensity gives 1200."""
    series = trace([0, 3600], [100, 500])
    energies = [1.0, 3.0]
    assert sum(e * series(3600.0 * i, 3600.0 * (i + 1)).value for i, e in enumerate(energies)) == 1600
    assert sum(energies) * series(0, 7200).value == 1200


def test_a_trace_is_a_left_closed_step_function():
    series = trace([0, 10, 20], [1, 2, 4])
    assert [series(t, t).value for t in (0, 9.99, 10, 19.99, 20, 29)] == [1, 1, 2, 2, 4, 4]
    assert series(5, 25).value == pytest.approx((5 * 1 + 10 * 2 + 5 * 4) / 20)
    assert series(0, 30).value == pytest.approx(7 / 3)
    beyond, before = series(100, 110), series(-10, 10)
    assert (beyond.value, beyond.kind, before.value) == (4, "assumed", 1)
    assert beyond.spread > series(0, 10).spread and "beyond" in beyond.note


def test_the_mean_of_a_trace_is_the_integral():
    rng = random.Random(0)
    times = sorted(rng.uniform(0, 100) for _ in range(20))
    values = [rng.uniform(0, 900) for _ in times]
    series = trace(times, values)
    for _ in range(50):
        a, b = sorted(rng.uniform(times[0], times[-1]) for _ in range(2))
        n = 20_000
        fine = math.fsum(series(t, t).value for t in (a + (b - a) * (i + 0.5) / n for i in range(0, n, 10))) / (n / 10)
        assert series(a, b).value == pytest.approx(fine, rel=0.02)


@pytest.mark.parametrize(
    ("times", "values", "said"),
    [([], [], "at least one"), ([0], [1, 2], "as many"), ([0, 0], [1, 2], "increase"), ([1, 0], [1, 2], "increase")],
)
def test_bad_series_are_said(times, values, said):
    with pytest.raises(ValueError, match=said):
        trace(times, values)


def test_a_series_from_a_csv(tmp_path):
    path = tmp_path / "FR.csv"
    path.write_text(
        "Datetime (UTC),Country,Carbon intensity (Life cycle)\n2025-01-01 00:00:00,France,100\n"
        "2025-01-01 01:00:00,France,500\n2025-01-01 02:00:00,France,\n"
    )
    start = seconds("2025-01-01T00:00Z")
    series = read_trace(path)
    assert series(start, start + 7200).value == 300 and series(start, start + 1).source == "FR.csv"
    path.write_text("a,b\nx,y\n")
    with pytest.raises(ValueError, match="is no series"):
        read_trace(path)


def test_factors_are_those_of_electricity_maps():
    lifecycle = {"coal": 820, "gas": 490, "oil": 650, "nuclear": 12, "hydro": 24, "wind": 11, "solar": 45}
    lifecycle |= {"biomass": 230, "geothermal": 38, "unknown": 700}
    assert {k: v.value for k, v in LIFECYCLE.items()} == lifecycle
    assert {k: v.value for k, v in DIRECT.items() if v.value} == {"coal": 760, "gas": 370, "oil": 406}


def test_a_mix_weighs_its_factors():
    assert mix({"nuclear": 70, "gas": 30}).value == pytest.approx(0.7 * 12 + 0.3 * 490)
    assert mix({"nuclear": 0.7, "gas": 0.3}, DIRECT).value == pytest.approx(0.3 * 370)
    assert mix({"nuclear": 0.7, "gas": 0.3}, DIRECT).basis == "direct"
    assert mix({"tidal": 1.0}, {"tidal": 20.0}).value == 20
    france = {"coal": 2.16, "gas": 31.43, "oil": 9.71, "nuclear": 335.65, "hydro": 53.19, "solar": 23.26, "wind": 48.61}
    france |= {"biomass": 9.5, "geothermal": 0.6}  # TWh in 2023, Our World in Data
    assert 0.875 < mix(france).value / country("FR").value < 1.135, "0.88 to 1.13 over 13 countries"


def test_bad_mixes_are_said():
    with pytest.raises(ValueError, match="do not mix"):
        mix({"coal": 1, "gas": 1}, {"coal": LIFECYCLE["coal"], "gas": DIRECT["gas"]})
    with pytest.raises(ValueError, match="do not mix"):
        trace([0, 1], [LIFECYCLE["coal"], DIRECT["coal"]])
    with pytest.raises(ValueError, match="do not mix"):
        country("FR") + world_quietly()
    with pytest.raises(ValueError, match="nearest is 'hydro'"):
        mix({"hidro": 1.0})
    with pytest.raises(ValueError, match="at least 0"):
        mix({"coal": -1.0})
    with pytest.raises(ValueError, match="above 0"):
        mix({})


def world_quietly():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return world()


@pytest.mark.parametrize("g", [-1.0, math.nan, math.inf])
def test_an_intensity_is_finite_and_not_negative(g):
    with pytest.raises(ValueError, match="at least 0"):
        constant(g)
    with pytest.raises(ValueError, match="basis"):
        CarbonIntensity(1.0, "g/kWh", "assumed", "x", basis="marginal")  # pyright: ignore[reportArgumentType]


ELECTRICITY_MAPS = """\
Datetime (UTC),Country,Zone name,Zone id,Carbon intensity gCO₂eq/kWh (direct),Carbon intensity gCO₂eq/kWh (Life cycle)
2025-01-01 00:00:00,France,France,FR,2.54,30.02
2025-01-01 01:00:00,France,France,FR,3.54,40.02
"""


@pytest.mark.parametrize("life_cycle", ["Life cycle", "LCA", "lifecycle"])
def test_the_column_on_the_basis_counts(tmp_path, life_cycle):
    """Electricity Maps' files hold the direct column first: 2.54 g/kWh of the chimney, 30.02 over the life cycle."""
    (path := tmp_path / "FR.csv").write_text(ELECTRICITY_MAPS.replace("Life cycle", life_cycle), encoding="utf-8")
    start = seconds("2025-01-01T00:00Z")
    for basis, g in (("lifecycle", 30.02), ("direct", 2.54)):
        found = read_trace(path, basis)(start, start + 3600)
        assert (found.value, found.basis) == (g, basis)


@pytest.mark.parametrize("column", ["Carbon intensity (direct)", "g/kWh direct"])
def test_a_file_on_the_other_basis_is_refused(tmp_path, column):
    (path := tmp_path / "FR.csv").write_text(f"time,{column}\n0,2.54\n")
    with pytest.raises(ValueError, match=r"nothing on the basis 'lifecycle'; take basis='direct'"):
        read_trace(path)
    assert read_trace(path, "direct")(0, 1).value == 2.54
    path.write_text("time\n0\n")
    with pytest.raises(ValueError, match="is no series"):
        read_trace(path)


def test_a_column_without_a_basis_is_on_the_stated_one(tmp_path):
    (path := tmp_path / "FR.csv").write_text("time,intensity direct,intensity\n0,2,30\n")
    assert (read_trace(path)(0, 1).value, read_trace(path, "direct")(0, 1).value) == (30, 2)


@pytest.mark.parametrize("absent", ["left out", "empty"])
def test_missing_hours_are_noted_and_less_sure(tmp_path, absent):
    """Hours 0 to 2 and 25 to 27 are there: from 3 to 25 the value of hour 2 holds, of which nobody knows."""
    (path := tmp_path / "a.csv").write_text(
        "time,intensity\n"
        + "".join(f"{3600 * h},{100 + h}\n" for h in range(3))
        + "".join(f"{3600 * h},\n" for h in range(3, 25) if absent == "empty")
        + "".join(f"{3600 * h},{100 + h}\n" for h in range(25, 28))
    )
    series = read_trace(path)
    known, missing, both = (series(3600 * a, 3600 * b) for a, b in ((0, 3), (3, 25), (2, 4)))
    assert known.note == "" and known.spread == series(25 * 3600, 28 * 3600).spread
    assert (missing.value, missing.kind) == (102, "assumed") and both.note == missing.note
    assert missing.note == "22 h are missing in the series, where the value before them holds on"
    assert missing.spread > both.spread > known.spread, "the share of the window that is missing widens it"
    assert series(10 * 3600, 10 * 3600).note == missing.note, "at an instant too"


def test_what_is_missing_may_differ_as_far_as_the_series_does():
    """Half at 100, half at 400 g/kWh: the logarithms' standard deviation is log 2, of a difference sqrt 2 as much."""
    series = trace([3600.0 * h for h in (0, 1, 2, 3, 9, 10)], [100, 400] * 3, step=3600)
    assert series(5 * 3600, 6 * 3600).spread == pytest.approx(2 ** (1.2816 * math.sqrt(2)))
    assert series(11 * 3600, 12 * 3600).spread == series(5 * 3600, 6 * 3600).spread, "beyond the end alike"


def test_months_are_of_unequal_length_and_none_is_missing():
    starts = [seconds(f"2025-{month:02}-01T00:00Z") for month in range(1, 13)]
    found = trace(starts, list(range(1, 13)), step=30 * 86_400)(starts[0], starts[-1])
    assert found.note == "" and found.kind == "assumed" and found.spread == 1


def test_a_mean_over_several_steps_has_the_provenance_of_all():
    a = CarbonIntensity(100.0, "g/kWh", "modelled", "a", 2024, 1.1, note="estimated")
    b = CarbonIntensity(300.0, "g/kWh", "modelled", "b", 2023, 1.5)
    found = trace([0, 1], [b, a])(0, 2)
    assert (found.source, found.year, found.note) == ("b; a", 2023, "estimated")
    assert math.log(found.spread) == pytest.approx((300 * math.log(1.5) + 100 * math.log(1.1)) / 400)


def brute(times, values, duration, resolution=60):
    """Every start, summed minute by minute."""
    end = 2 * times[-1] - times[-2]
    costs = {}
    for i, t in enumerate(times):
        if t + duration <= end:
            minutes = [t + m * resolution for m in range(int(duration // resolution))]
            costs[i] = sum(values[max(k for k, u in enumerate(times) if u <= m)] for m in minutes)
    return min(costs, key=lambda i: (costs[i], i))


@pytest.mark.parametrize("hours", [0.5, 1, 1.5, 4, 47, 48])
def test_best_start_is_brute_force_on_two_days(hours):
    rng = random.Random(hours)
    times = [3600.0 * i for i in range(48)]
    for _ in range(5):
        values = [float(rng.randint(30, 90)) for _ in times]  # integers, so ties are exact
        assert best_start(times, values, hours * 3600) == brute(times, values, hours * 3600)


def test_bad_loads_are_said():
    with pytest.raises(ValueError, match="fit nowhere"):
        best_start([0, 1], [1, 2], 3)
    with pytest.raises(ValueError, match="longer than 0"):
        best_start([0, 1], [1, 2], 0)
