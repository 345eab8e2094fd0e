"""What is printed can be computed again from what is printed."""

import csv
import io
import json
import re

import pytest

from gen_green import report
from gen_green.footprint import footprint
from gen_green.grid import constant, country, trace
from gen_green.meter import Part, Reading
from gen_green.quantity import Quantity

READING = Reading(
    3600.0,
    {
        "cpu": Part(5.0e6, "measured", "RAPL package-0", 1.05),
        "gpu GPU-1": Part(2.0e6, "measured", "NVML", 1.05, resolution=70.0),
        "memory": Part(672_000.0, "modelled", "0.3725 W/GB", 2.3, "tree", flags=("gap",)),
    },
    samples=50_000,
)
MADE = Quantity(120.0, "g", "assumed", "a server's share", 2023, 2.0)


@pytest.mark.parametrize("style", ["markdown", "latex"])
@pytest.mark.parametrize(("psf", "made"), [(1, None), (5, None), (5, MADE)])
def test_the_statement_recomputes_from_the_numbers_that_it_prints(style, psf, made):
    f = footprint(READING, "FR", pue=1.2, psf=psf, embodied=made)
    said = report.statement(READING, f, style).replace("~", " ").replace(r"$\times$", "×")
    kwh, pue, times, grid, plus, grams = re.search(
        r"([\d.e-]+) × ([\d.]+) × ([\d.]+) × ([\d.]+)(?: \+ ([\d.]+) g embodied)? = ([\d.e-]+) g", said
    ).groups()
    assert float(grams) == pytest.approx(
        float(kwh) * float(pue) * float(times) * float(grid) + float(plus or 0), rel=5e-4
    )
    assert float(grams) == pytest.approx(f.carbon.value, rel=1e-3)
    for word in ("Our World in Data", "2023", "lifecycle", "within a factor", "measured", "modelled"):
        assert word in said
    assert ("not counted" in said) == (made is None) and ("5 runs in all" in said) == (psf == 5)


def test_a_statement_has_two_styles():
    with pytest.raises(ValueError, match="'markdown' or 'latex', got 'html'"):
        report.statement(READING, footprint(READING, "FR"), "html")  # type: ignore[arg-type]


def test_the_text_names_kind_source_and_range_of_every_figure():
    said = report.text(READING, footprint(READING, "FR", pue=1.2, psf=5, wue=1.8))
    for words in [
        "energy      7.67 MJ (", "modelled)",
        "cpu         5.00 MJ  measured, within x1.05: RAPL package-0",
        "PUE 1.2, PSF 5", "56 g/kWh  modelled, lifecycle: France", "water       19.2 L",
        "per sample  153 J, 2.87 mgCO2e",
        "note: a sensor failed for a while",
    ]:  # fmt: skip
        assert words in said, words


def test_json_round_trips_and_has_units_in_its_names():
    f = footprint(READING, constant(100.0), pue=1.5, embodied=MADE)
    found = json.loads(json.dumps(report.to_json(READING, f)))
    assert Reading.from_json(found) == READING
    assert found["carbon_g"] == pytest.approx(READING.total / 3.6e6 * 1.5 * 100 + 120)
    assert found["energy_kwh"] == pytest.approx(READING.total / 3.6e6 * 1.5) and found["flags"] == ["gap"]
    assert found["low_joules"] < found["energy_joules"] < found["high_joules"]


def test_the_model_card_block_is_grams_and_yaml():
    block = report.hugging_face(footprint(READING, "FR"), training_type="pre-training", hardware_used='1 x "H100"')
    lines = block.splitlines()
    assert lines[0] == "co2_eq_emissions:" and float(lines[1].removeprefix("  emissions: ")) == pytest.approx(
        119.425, abs=1e-3
    )
    assert lines[2].startswith('  source: "gen-green (') and lines[2].endswith('"')
    assert lines[3:] == ['  training_type: "pre-training"', '  hardware_used: "1 x \\"H100\\""']
    with pytest.raises(ValueError, match="no field 'place'"):
        report.hugging_face(footprint(READING, "FR"), place="here")


def test_a_csv_row_has_the_columns_units_and_sums_of_codecarbon():
    f = footprint(READING, "FR", pue=1.2)
    (row,) = csv.DictReader(io.StringIO(report.codecarbon_csv(READING, f, run_id="7")))
    assert list(row) == report.CODECARBON and len(row) == 38
    assert float(row["emissions"]) == pytest.approx(f.carbon.value / 1000)  # kg
    parts = [float(row[f"{part}_energy"]) for part in ("cpu", "gpu", "ram")]
    assert sum(parts) == pytest.approx(float(row["energy_consumed"])) == pytest.approx(f.energy.value)
    assert float(row["cpu_power"]) == pytest.approx(5.0e6 / 3600) and row["run_id"] == "7"
    assert row["country_iso_code"] == "FR" and row["tracking_mode"] == "process"


def test_facts_of_a_page_say_total_carbon_per_sample_source_and_spread():
    found = report.facts(READING, footprint(READING, country("WORLD")))
    assert set(found) == {"energy", "carbon", "grid", "per sample", "spread", "source", "notes"}
    assert "assumed" in found["carbon"] and found["source"]["memory"].startswith("modelled")


def test_a_comparison_says_whether_the_ranges_meet():
    said = report.compare(READING, READING * 2, ("a", "b"))
    assert "total" in said and said.splitlines()[-1].startswith("difference 7.67 MJ: their ranges do not meet")
    guess = Reading(1.0, {"cpu": Part(10.0, "assumed", "a TDP", 3.0)})
    assert "one source is behind both, so the ratio stands" in report.compare(guess, guess * 1.5)
    other = Reading(1.0, {"cpu": Part(12.0, "assumed", "another TDP", 3.0)})
    assert "may be the sources' error" in report.compare(guess, other)


def test_a_note_on_the_grid_is_shown_wherever_the_grid_is():
    """Missing hours of a series reach the terminal, the run's page and the JSON."""
    f = footprint(READING, trace([0.0, 3600.0, 7200.0, 36_000.0], [1, 1, 1, 1], step=3600), start=10_800)
    said = "7 h are missing in the series"
    assert said in report.text(READING, f) and said in report.facts(READING, f)["grid"]
    assert said in report.to_json(READING, f)["intensity"]["note"]
