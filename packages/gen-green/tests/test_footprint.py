"""Footprints against published figures to the digit, closed forms and a Monte Carlo."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen_green import grid
from gen_green.footprint import KWH, embodied, equivalents, footprint
from gen_green.green_algorithms import green_algorithms, green_algorithms_text
from gen_green.grid import DIRECT, CarbonIntensity, constant, country, trace
from gen_green.hardware import Hardware, factor
from gen_green.quantity import Quantity
from gen_green.reading import Part, Reading

XEON = {"cores": 12, "watts_per_core": 7.5, "memory_gb": 64.0, "pue": 1.56}
GPUS = {"gpus": 8, "watts_per_gpu": 250.0, "gpu_usage": 0.9, "memory_gb": 512.0, "pue": 1.12, "psf": 10.0}


@pytest.mark.parametrize(
    ("hours", "g", "setup", "kwh", "grams", "printed"),
    [
        (12, 231.12, XEON, 2.1310848, 492.536318976,
         {"energy": "2.13 kWh", "carbon": "492.54 gCO2e", "trees": "0.54 tree-months", "car": "2.81 km",
          "flight": "0.45% of Paris-Dublin"}),
        (12, 840.0, XEON, 2.1310848, 1790.111232,
         {"carbon": "1.79 kgCO2e", "trees": "1.95 tree-months", "car": "10.23 km", "flight": "2% of Paris-Dublin"}),
        (0.5, 11.52, {"cores": 4, "memory_gb": 8.0, "pue": 1.0}, 0.02549, 0.2936448,
         {"energy": "25.49 Wh", "carbon": "293.64 mgCO2e", "trees": "3.20e-04 tree-months"}),
        (24, 51.28, {"cores": 16, "usage": 0.5, **GPUS}, 560.910336, 28763.48203008,
         {"energy": "560.91 kWh", "carbon": "28.76 kgCO2e", "trees": "2.61 tree-years", "car": "164.36 km",
          "flight": "26% of Paris-Dublin"}),
    ],
)  # fmt: skip
def test_green_algorithms_to_every_printed_digit(hours, g, setup, kwh, grams, printed):
    """The calculator's own cases (version 3.0, 30df2fe): usage multiplies cores, never memory."""
    found = green_algorithms(hours, g, **setup)
    assert found.energy.value == pytest.approx(kwh, rel=1e-13)
    assert found.carbon.value == pytest.approx(grams, rel=1e-13)
    text = green_algorithms_text(found)
    assert {key: text[key] for key in printed} == printed


def test_reference_values_of_green_algorithms():
    """175 g/km in the EU, 251 in the US, 11 kg per tree and year, 36 g/h; flights of 50, 110, 570 and 2310 kg."""
    grams = 1000.0
    assert equivalents(grams) == pytest.approx(
        {
            "car km eu": grams / 175,
            "car km us": grams / 251,
            "train km": grams / 41,
            "tree months": grams / 11_000 * 12,
            "streaming hours": grams / 36,
            "flight Paris-London": grams / 50e3,
            "flight Paris-Dublin": grams / 110e3,
            "flight NYC-San Francisco": grams / 570e3,
            "flight NYC-Melbourne": grams / 2310e3,
        }
    )


def test_a_kilowatt_hour_is_exact():
    assert KWH == 3.6e6
    assert footprint(3.6e6, constant(100.0)).energy.value == 1.0
    assert footprint(3.6e6, constant(100.0)).carbon.value == 100.0
    for unit, value in (("J", 3.6e6), ("kJ", 3600.0), ("Wh", 1000.0), ("kWh", 1.0), ("MWh", 1e-3)):
        assert footprint(Quantity(value, unit, "assumed", "x"), constant(1.0)).energy.value == pytest.approx(
            1, rel=1e-15
        )


def test_water_takes_pue_once_and_off_site_only():
    """1 kWh of IT energy, PUE 1.5, WUE 1.8, grid 3.0: 1.8 + 1.5 x 3.0 = 6.3 L; on site alone 1.8, not 2.7."""
    water = lambda **w: footprint(3.6e6, constant(0.0), 1.5, **w).water
    assert water(wue=1.8, grid_wue=3.0).value == pytest.approx(6.3)
    assert water(wue=1.8).value == pytest.approx(1.8) and water(grid_wue=3.0).value == pytest.approx(4.5)
    assert water().value == 0 and water(wue=1.8).unit == "L"


def test_water_of_uncertain_rates():
    rate = Quantity(3.0, "L/kWh", "assumed", "grid", spread=1.5)
    found = footprint(3.6e6, constant(0.0), 1.5, wue=0.0, grid_wue=rate).water
    assert (found.value, found.kind) == (pytest.approx(4.5), "assumed") and found.spread == pytest.approx(1.5)


@settings(deadline=None)
@given(
    st.floats(1, 1e9),
    st.floats(1, 3),
    st.floats(0.5, 100),
    st.floats(0, 1500),
    st.floats(0, 5),
    st.floats(0, 5),
)
def test_linear_in_everything(joules, pue, psf, g, wue, grid_wue):
    base, f = footprint(joules, constant(1.0)), footprint(joules, constant(g), pue, psf, None, wue, grid_wue)
    assert f.it == base.it, "PUE and PSF never touch the reading"
    assert f.energy.value == pytest.approx(base.energy.value * pue * psf)
    assert f.carbon.value == pytest.approx(base.carbon.value * pue * psf * g)
    assert f.water.value == pytest.approx(base.energy.value * psf * (wue + pue * grid_wue))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pue": -1.2}, "PUE is a finite number of at least 1"),
        ({"pue": 0.9}, "PUE is a finite number of at least 1"),
        ({"pue": math.nan}, "PUE"),
        ({"pue": Quantity(0.5, "", "assumed", "x")}, "PUE"),
        ({"psf": 0}, "PSF counts how often"),
        ({"psf": -1}, "PSF counts how often"),
        ({"psf": math.inf}, "PSF counts how often"),
        ({"wue": -1.0}, "a WUE is a finite number of at least 0"),
        ({"grid_wue": -1.0}, "a grid's WUE"),
        ({"embodied": Quantity(1.0, "kg", "assumed", "x")}, "quantity of at least 0 g"),
        ({"grid": "Frnace"}, "nearest name is 'France'"),
    ],
)
def test_figures_that_cannot_be_are_said_in_one_sentence(options, said):
    with pytest.raises(ValueError, match=said) as caught:
        footprint(1.0, **{"grid": constant(1.0), **options})
    assert "\n" not in str(caught.value)


def test_readings_that_cannot_be_are_said():
    for reading, said in ((math.nan, "finite"), (Quantity(1.0, "W", "assumed", "x"), "energy"), ([], "at least one")):
        with pytest.raises(ValueError, match=said):
            footprint(reading, constant(1.0))


def test_a_reading_with_a_place():
    parts = {"cpu": Part(2.6e6, "measured", "RAPL", 1.05), "memory": Part(1.0e6, "modelled", "0.3725 W/GB", 1.3)}
    found = footprint(Reading(60.0, parts, tokens=1000), "FR", pue=1.2)
    assert found.it.value == pytest.approx(1.0) and found.carbon.value == pytest.approx(1.2 * 56.039)
    assert found.it.kind == "modelled" and "RAPL" in found.carbon.source and "Ember" in found.carbon.source
    assert found.carbon.year == 2023 and found.carbon.spread > found.it.spread > 1 and found.seconds == 60


def test_anything_shaped_like_a_reading_will_do():
    @dataclass
    class Bit:
        kind: str = "measured"
        source: str = "plug"
        spread: float = 1.02

    @dataclass
    class Other:
        seconds: float = 1.0
        total: float = 7.2e6
        spread: float = 1.02

        @property
        def joules(self):
            return {"plug": Bit()}

    found = footprint(Other(), constant(50.0))
    assert found.carbon.value == 100 and found.it.source == "plug" and found.it.spread == 1.02


def test_without_a_place_the_world_counts_with_a_warning():
    grid._say_once.cache_clear()
    with pytest.warns(UserWarning, match="world"):
        found = footprint(3.6e6)
    assert (found.carbon.value, found.carbon.kind) == (475, "assumed") and found.carbon.spread >= 2.5


def laps(*kwh, source="RAPL"):
    return [Reading(3600.0, {"cpu": Part(e * KWH, "measured", source, 1.1)}) for e in kwh]


def test_laps_are_resolved_in_time():
    """1 kWh at 100 g/kWh and then 3 kWh at 500 g: 1600 g, not 4 kWh x 300 g = 1200 g."""
    start = 1_700_000_000.0
    series = trace([start, start + 3600], [100, 500])
    found = footprint(laps(1, 3), series, start=start)
    assert found.carbon.value == 1600 and found.intensity.value == 400
    assert footprint(sum(laps(3), laps(1)[0]), series, start=start).carbon.value == 1200
    assert footprint(laps(1, 3), series, pue=1.5, psf=2, start=start).carbon.value == pytest.approx(4800)


def test_laps_of_one_meter_err_alike():
    assert footprint(laps(1, 3), constant(1.0)).it.spread == pytest.approx(1.1)


def test_footprints_add_up():
    a = footprint(laps(1), "FR", 1.2, 2, Quantity(5.0, "g", "assumed", "x"), wue=1.0)
    b = footprint(laps(2), "DE", 1.5, wue=1.0)
    both = a + b
    assert both.carbon.value == pytest.approx(a.carbon.value + b.carbon.value)
    assert both.energy.value == pytest.approx(both.it.value * both.psf * both.pue) == pytest.approx(2.4 + 3.0)
    assert both.water.value == pytest.approx(4.0) and both.embodied and both.embodied.value == 10
    assert both.energy.value * both.intensity.value == pytest.approx(both.operational.value)
    with pytest.raises(ValueError, match="do not mix"):
        a + footprint(1.0, DIRECT["coal"])


def test_spreads_combine_as_lognormals_do():
    """Spreads 1.5, 1.2 and 1.3 make 1.6757; a million draws agree to 0.5 %, as p90 over the median."""
    energy = Quantity(3.6e6, "J", "modelled", "x", spread=1.5)
    pue, place = Quantity(1.3, "", "assumed", "x", spread=1.2), constant(100.0, spread=1.3)
    found = footprint(energy, place, pue).carbon
    assert found.value == pytest.approx(130) and found.spread == pytest.approx(1.6757, abs=5e-5)
    np = pytest.importorskip("numpy")
    rng, z90 = np.random.default_rng(0), 1.2815515655446004
    draws = math.prod(
        np.exp(rng.normal(math.log(m), math.log(s) / z90, 10**6)) for m, s in ((1, 1.5), (1.3, 1.2), (100, 1.3))
    )
    low, middle, high = np.quantile(draws, (0.1, 0.5, 0.9))
    assert middle == pytest.approx(found.value, rel=5e-3)
    assert (low, high) == (pytest.approx(found.low, rel=5e-3), pytest.approx(found.high, rel=5e-3))


def test_software_carbon_intensity():
    """SCI = (E x I + M) per R: 2 kWh x 50 g + 30 g over 1000 tokens is 0.13 g per token."""
    found = footprint(2 * KWH, constant(50.0), embodied=Quantity(30.0, "g", "assumed", "x"))
    each = found.per(1000, "token")
    assert (each.value, each.unit) == (pytest.approx(0.13), "g/token")
    for n in (0, -1, math.nan):
        with pytest.raises(ValueError, match="count above 0"):
            found.per(n)


def test_bloom():
    """24.69 t dynamic, 14.63 t idle, 11.2 t embodied, 50.5 t in all (Luccioni 2023)."""
    hours, place = 1_082_990.0, constant(57.0)
    dynamic, idle = footprint(hours * 0.4 * KWH, place).carbon, footprint(256_646 * KWH, place).carbon
    servers = Hardware("server", factor("server without gpu embodied (bloom)"), 1 / 8)
    gpus = Hardware("gpu", factor("gpu embodied (bloom)"))
    made = embodied([servers, gpus], hours * 3600, lifetime_years=6, utilisation=0.85)
    assert hours * 0.4 == pytest.approx(433_196)
    tonnes = [q.value / 1e6 for q in (dynamic, idle, made)]
    assert tonnes == pytest.approx([24.692, 14.629, 11.21], abs=5e-3)
    assert embodied([servers], hours * 3600, 6).value / 1e6 == pytest.approx(7.575, abs=1e-3)
    assert embodied([gpus], hours * 3600, 6).value / 1e6 == pytest.approx(3.636, abs=1e-3)
    assert sum(tonnes) == pytest.approx(50.52, abs=0.02) and round(sum(tonnes), 1) == 50.5
    assert made.kind == "assumed" and "boundary" not in made.source and "GPUs apart" in made.source


def test_llmcarbon_embodied():
    """XLM on 512 V100 for 20.4 days of a five-year life: -1.81 % of the published 0.66 t."""
    chips = {"cpu": (1.47, 1, 64), "dram": (256, 0.4, 64), "ssd": (32768, 0.018, 64)}  # cm2 or GB, kg each, pieces
    chips |= {"gpu": (8.15, 1.2, 512), "others": (111.6, 1.2, 64)}
    parts = [
        Hardware(name, Quantity(1000 * size * kg, "g", "assumed", "LLMCarbon"), count)
        for name, (size, kg, count) in chips.items()
    ]
    made = embodied(parts, 20.4 * 86_400, lifetime_years=5, utilisation=1.0)
    assert made.value / 0.66e6 - 1 == pytest.approx(-0.0181, abs=5e-5)


@pytest.mark.parametrize("bad", [{"lifetime_years": 0}, {"utilisation": 0}, {"utilisation": 1.1}, {"seconds": -1}])
def test_bad_lifetimes_are_said(bad):
    with pytest.raises(ValueError, match="embodied carbon needs"):
        embodied([], **{"seconds": 1.0, **bad})


def test_the_intensity_of_a_footprint_keeps_its_place():
    found = footprint(laps(1), country("FR")).intensity
    assert isinstance(found, CarbonIntensity) and (found.place, found.basis, found.year) == ("FR", "lifecycle", 2023)
