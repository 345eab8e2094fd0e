"""Watts and embodied carbon from the shipped tables, against the figures of their sources."""

import pytest

from gen_green.hardware import GB, Hardware, cpu, cpu_core, device, dram, factor, gpu, processor, ssd
from gen_green.quantity import Quantity
from gen_green.tables import rows


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("Intel(R) Xeon(R) CPU E5-2683 v4 @ 2.10GHz", 120),
        ("AMD EPYC 7763 64-Core Processor", 280),
        ("AMD Ryzen 5 3600 6-Core Processor", 65),
        ("Intel(R) Core(TM) i7-9700K CPU @ 3.60GHz", 95),
        ("Intel(R) Xeon(R) Platinum 8480+", 350),
        ("xeon e5-2683 v4", 120),
        ("Apple M1", 10),
    ],
)
def test_a_processor_as_the_kernel_names_it(name, watts):
    found = cpu(name)
    assert (found.value, found.unit) == (watts, "W") and "TDP" in found.source and found.year


def test_watts_per_package_and_per_core_are_kept_apart():
    """E5-2683 v4: 120 W per package of 16 cores, 7.5 W per core in Green Algorithms; "Any" has no package."""
    assert cpu("Xeon E5-2683 v4").value == 120 and cpu_core("Xeon E5-2683 v4").value == 7.5
    assert cpu_core().value == 12 and cpu_core().kind == "assumed"
    with pytest.raises(ValueError, match="nearest"):
        cpu("Any")
    assert {"tdp_w_per_package", "green_algorithms_w_per_core"} <= set(rows("cpu")[0])


def test_an_unknown_processor_is_assumed_by_its_cores_or_named():
    found = cpu("AMD EPYC", cores=4)
    assert (found.value, found.kind) == (48.0, "assumed") and found.spread >= 2.5 and "AMD EPYC" in found.source
    with pytest.raises(ValueError, match=r"'AMD EPYC 77630'; the nearest name is 'AMD EPYC 7763'"):
        cpu("AMD EPYC 77630")
    with pytest.raises(ValueError, match="nearest name is 'AMD EPYC 7763'"):
        cpu_core("epyc 7763x")


@pytest.mark.parametrize(
    ("name", "watts", "teraflops", "picojoules"),
    [
        ("NVIDIA H100 80GB HBM3", 700, 989, 0.71),
        ("NVIDIA A100-SXM4-80GB", 400, 312, 1.28),
        ("Tesla V100-SXM2-16GB", 300, 125, 2.40),
    ],
)
def test_data_sheets_give_joules_per_flop(name, watts, teraflops, picojoules):
    found = device(name)
    assert (found.watts.value, found.flops) == (watts, teraflops * 1e12)
    assert found.joules_per_flop * 1e12 == pytest.approx(picojoules, abs=0.005)
    assert gpu(name) == found.watts


def test_accelerators_by_other_names():
    assert device("NVIDIA A100-PCIE-40GB").watts.value == 250 and device("NVIDIA A100 80GB PCIe").watts.value == 300
    assert gpu("Tesla T4").value == 70 and gpu("NVIDIA GeForce RTX 4090").value == 450 and gpu("Any").value == 200
    with pytest.raises(ValueError, match="'H1000'; the nearest name is 'NVIDIA H100 SXM'"):
        gpu("H1000")


def test_every_row_has_a_source_a_year_and_a_licence():
    for table in ("cpu", "gpu", "factors"):
        for row in rows(table):
            assert row["source"] and row["licence"] and 1990 < int(row["year"]) < 2030, row


def test_factors_of_green_algorithms():
    assert factor("memory power").value == 0.3725 and factor("memory power").unit == "W/GB" and GB == 1e9
    assert [factor(f"pue {p}").value for p in ("unknown", "gcp", "aws", "azure", "ovhcloud")] == [
        1.56,
        1.12,
        1.2,
        1.12,
        1.09,
    ]
    with pytest.raises(ValueError, match="nearest name is 'memory power'"):
        factor("memory powr")


def test_embodied_figures_carry_their_boundary():
    """9.8, 150 and 273 kg for a GPU differ by what they count, so each says it."""
    found = [factor(f"gpu embodied ({who})") for who in ("llmcarbon die", "bloom", "ecologits")]
    assert [f.value for f in found] == [9_780, 150_000, 273_000]
    assert "die only" in found[0].source and "board" in found[2].source


def test_boavizta_closed_forms():
    """Grams: 0.0197 kg/mm2 x die + 9.14; 2.20 kg/cm2 x GB/density + 5.22 for RAM and + 6.34 for an SSD."""
    assert processor(300.0).value == pytest.approx(1000 * (0.0197 * 300 + 9.14))
    assert dram(32.0, 1.79).value == pytest.approx(1000 * (2.20 * 32 / 1.79 + 5.22))
    assert ssd(400.0, 50.6).value == pytest.approx(1000 * (2.20 * 400 / 50.6 + 6.34))
    assert processor(0.0).unit == "g" and "Boavizta" in processor(0.0).source


def test_hardware_is_grams():
    with pytest.raises(ValueError, match="grams"):
        Hardware("server", Quantity(1.0, "kg", "assumed", "x"))
