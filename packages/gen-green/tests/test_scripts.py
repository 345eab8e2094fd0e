"""The scripts that make the shipped tables, on small files of the published shapes."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="the scripts stand in the repository, not in the wheel")
GRAPHER = """\
Entity,Code,Year,Carbon intensity of electricity - gCO2/kWh
ASEAN (Ember),,2023,570.0
France,FRA,2022,84.9
France,FRA,2023,56.039
France,FRA,2024,44.2
Kosovo,OWID_KOS,2023,900.1
World,OWID_WRL,2023,480.0
"""
ENERGY = """\
country,year,iso_code,population,carbon_intensity_elec
Africa,2023,,1,545.9
France,2022,FRA,1,84.9
France,2023,FRA,1,56.039
France,2024,FRA,1,
"""


def regenerate(tmp_path, name, text, *options):
    source, out = tmp_path / name, tmp_path / "out.csv"
    source.write_text(text)
    command = [sys.executable, SCRIPTS / "regenerate_intensity.py", source, "--out", out, *options]
    return subprocess.run(command, capture_output=True, text=True), out


def table(path):
    with path.open(newline="") as file:
        return {row["code"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(("name", "text", "options"), [("a.csv", GRAPHER, ["--until", "2023"]), ("b.csv", ENERGY, [])])
def test_the_table_of_countries_from_either_published_csv(tmp_path, name, text, options):
    _, out = regenerate(tmp_path, name, text, *options)
    found = table(out)
    france = found["FR"]
    assert (france["g_per_kwh"], france["year"], france["iso3"], france["basis"]) == (
        "56.039",
        "2023",
        "FRA",
        "lifecycle",
    )
    assert france["licence"] == "CC-BY-4.0" and found["WORLD"]["g_per_kwh"] == "475"
    assert set(found) == {"FR", "WORLD"} | ({"XK"} if text is GRAPHER else set()), "regions have no code, and no row"


def test_the_column_over_the_life_cycle_counts_wherever_it_stands(tmp_path):
    text = "country,year,iso_code,direct carbon intensity,lifecycle carbon intensity\nFrance,2023,FRA,2.54,30.02\n"
    _, out = regenerate(tmp_path, "a.csv", text)
    assert table(out)["FR"]["g_per_kwh"] == "30.02"


def test_an_empty_or_foreign_csv_is_said(tmp_path):
    direct = "country,year,iso_code,direct_carbon_intensity\nFrance,2023,FRA,1\n"
    for text, said in (
        ("", "is empty"),
        ("country,year,iso_code,gdp\nFrance,2023,FRA,1\n", "no column"),
        (direct, "life"),
    ):
        run, out = regenerate(tmp_path, "a.csv", text)
        assert run.returncode == 1 and said in run.stderr and "Traceback" not in run.stderr and not out.exists()
