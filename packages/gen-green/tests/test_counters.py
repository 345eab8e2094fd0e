"""RAPL and NVML on fake trees and a fake driver: every value is exact."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen_green.counters import Attributed, detect, nvml, rapl
from gen_green.hwmon import hwmon, powermetrics
from gen_green.meter import Meter
from gen_green.nvidia import Gauge
from gen_green.powercap import RANGE

MAX = 262_143_328_850  # microjoules, a common max_energy_range_uj


class Clock:
    def __init__(self, now: float = 100.0):
        self.now = now

    def __call__(self) -> float:
        return self.now


def zone(folder: Path, name: str, joules: float = 1000.0, most: int = MAX, watts: float | None = 120.0) -> Path:
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    if watts:
        (folder / "constraint_0_max_power_uw").write_text(f"{watts * 1e6:.0f}\n")
    put(folder, joules)
    return folder


def put(folder: Path, joules: float) -> None:
    (folder / "energy_uj").write_text(f"{round(joules * 1e6)}\n")


def read(counters) -> dict[str, float]:
    return {counter.name: counter.read() for counter in counters}


def close(found: dict[str, float], wanted: dict[str, float]) -> bool:
    return found == pytest.approx(wanted, abs=1e-6)


# ---------------------------------------------------------------------------------------------- the ten cases of RAPL


def test_two_sockets_count_separately(tmp_path):
    a, b = zone(tmp_path / "intel-rapl:0", "package-0", 50), zone(tmp_path / "intel-rapl:1", "package-1", 7)
    counters = rapl(tmp_path)
    put(a, 80), put(b, 17)
    assert close(read(counters), {"package-0": 30, "package-1": 10})
    assert [counter.kind for counter in counters] == ["measured", "measured"]


def test_a_wrap_is_the_rest_of_the_range_and_what_follows(tmp_path):
    a = zone(tmp_path / "intel-rapl:0", "package-0", MAX / 1e6 - 5)
    counters = rapl(tmp_path)
    put(a, 7)
    assert close(read(counters), {"package-0": 12}) and counters[0].notes == []


def test_a_sleep_in_which_two_wraps_fit_is_flagged_ambiguous(tmp_path):
    clock, a = Clock(), zone(tmp_path / "intel-rapl:0", "package-0", MAX / 1e6 - 5)
    counters = rapl(tmp_path, clock=clock)
    with Meter(counters, clock) as m:
        clock.now += 2 * RANGE / 120
        put(a, 7)
    assert m.reading.total == pytest.approx(12)
    assert m.reading.flags == ("ambiguous",)
    assert not any("ambiguous" in c.notes for c in rapl(tmp_path, clock=clock))


def test_a_failed_read_between_two_good_ones_loses_nothing(tmp_path):
    a = zone(tmp_path / "intel-rapl:0", "package-0", 1000)
    with Meter(rapl(tmp_path)) as m:
        (a / "energy_uj").unlink()
        lost = m.lap()
        put(a, 1001)
        found = m.lap()
    assert (lost.total, found.total, m.reading.total) == pytest.approx((0, 1, 1))
    assert lost.flags == ("gap",) and found.flags == ()


def test_torn_text_is_a_gap_too(tmp_path):
    a = zone(tmp_path / "intel-rapl:0", "package-0", 1000)
    counters = rapl(tmp_path)
    (a / "energy_uj").write_text("")
    assert read(counters) == {"package-0": 0}
    put(a, 1003)
    assert close(read(counters), {"package-0": 3})


def test_dram_is_outside_of_its_package_and_counted_when_asked(tmp_path):
    a = zone(tmp_path / "intel-rapl:0", "package-0", 10)
    d = zone(a / "intel-rapl:0:0", "dram", 5)
    with_dram, without = rapl(tmp_path), rapl(tmp_path, dram=False)
    put(a, 20), put(d, 7)
    assert close(read(with_dram), {"package-0": 10, "dram-0": 2})
    assert close(read(without), {"package-0": 10})


def test_core_uncore_and_psys_are_never_added(tmp_path):
    a = zone(tmp_path / "intel-rapl:0", "package-0", 10)
    inside = [zone(a / "intel-rapl:0:0", "core", 4), zone(a / "intel-rapl:0:1", "uncore", 1)]
    platform = zone(tmp_path / "intel-rapl:1", "psys", 30)
    counters = rapl(tmp_path)
    for folder in [a, *inside, platform]:
        put(folder, 40)
    assert close(read(counters), {"package-0": 30})


def test_psys_serves_where_there_is_no_package(tmp_path):
    a = zone(tmp_path / "intel-rapl:1", "psys", 30)
    counters = rapl(tmp_path)
    put(a, 31)
    assert close(read(counters), {"psys": 1})


def test_an_mmio_twin_is_counted_once_and_serves_when_alone(tmp_path):
    a = zone(tmp_path / "both" / "intel-rapl:0", "package-0", 10)
    twin = zone(tmp_path / "both" / "intel-rapl-mmio:0", "package-0", 900)
    counters = rapl(tmp_path / "both")
    put(a, 12), put(twin, 950)
    assert close(read(counters), {"package-0": 2})
    alone = zone(tmp_path / "alone" / "intel-rapl-mmio:0", "package-0", 900)
    counters = rapl(tmp_path / "alone")
    put(alone, 905)
    assert close(read(counters), {"package-0": 5})


def test_dies_that_mirror_one_counter_count_once_and_equal_sockets_twice(tmp_path):
    dies = [zone(tmp_path / "dies" / f"intel-rapl:{i}", f"package-0-die-{i}", 500) for i in (0, 1)]
    counters = rapl(tmp_path / "dies")
    put(dies[0], 520), put(dies[1], 520.02)
    assert close(read(counters), {"package-0": 20})

    dies = [zone(tmp_path / "own" / f"intel-rapl:{i}", f"package-0-die-{i}", 500) for i in (0, 1)]
    counters = rapl(tmp_path / "own")  # equal by chance: as soon as they differ, both count from the start
    put(dies[0], 520), put(dies[1], 530)
    assert close(read(counters), {"package-0": 50})

    sockets = [zone(tmp_path / "sockets" / f"intel-rapl:{i}", f"package-{i}", 500) for i in (0, 1)]
    counters = rapl(tmp_path / "sockets")
    put(sockets[0], 520), put(sockets[1], 520)
    assert close(read(counters), {"package-0": 20, "package-1": 20})


def test_a_real_tree_lists_zones_as_links_and_nested(tmp_path):
    devices = tmp_path / "devices" / "intel-rapl"
    a = zone(devices / "intel-rapl:0", "package-0", 10)
    d = zone(a / "intel-rapl:0:0", "dram", 5)
    root = tmp_path / "class"
    root.mkdir()
    for target in (devices, a, d):
        (root / target.name).symlink_to(target)
    assert [counter.name for counter in rapl(root)] == ["package-0", "dram-0"]


def _deny(monkeypatch, *denied: Path) -> None:
    """Files that this process may not read, also where the tests run as root."""
    plain = Path.read_bytes
    files = {folder / "energy_uj" for folder in denied}

    def read_bytes(self):
        if self in files:
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def test_unreadable_files_name_the_command_and_the_fallback(tmp_path, monkeypatch):
    a, b = zone(tmp_path / "intel-rapl:0", "package-0"), zone(tmp_path / "intel-rapl:1", "package-1")
    _deny(monkeypatch, b)
    with pytest.raises(PermissionError) as error:
        rapl(tmp_path)  # one of two packages would be silently low
    assert str(error.value) == f"RAPL is there but only root may read it: sudo chmod a+r {b}/energy_uj"
    _deny(monkeypatch, a, b)
    with pytest.warns(UserWarning, match=r"sudo chmod a\+r .*energy_uj .*energy_uj .*is modelled"):
        counters = detect(powercap=tmp_path, dev=tmp_path, tdp=65)
    assert [counter.name for counter in counters] == ["cpu", "cpu idle", "memory"]


def test_an_unreadable_dram_leaves_the_packages_measured_and_says_so(tmp_path, monkeypatch):
    a = zone(tmp_path / "intel-rapl:0", "package-0")
    d = zone(a / "intel-rapl:0:0", "dram")
    _deny(monkeypatch, d)
    with pytest.warns(UserWarning, match="dram"):
        counters = detect(powercap=tmp_path, dev=tmp_path, tdp=65)
    assert [counter.name for counter in counters] == ["package-0", "memory"]


def test_a_counter_that_starts_again_is_never_negative_and_flagged(tmp_path):
    clock, a = Clock(), zone(tmp_path / "intel-rapl:0", "package-0", 100_000)
    with Meter(rapl(tmp_path, clock=clock), clock) as m:
        clock.now += 10
        put(a, 3)
        first = m.lap()
        clock.now += 10
        put(a, 8)
    assert first.total == pytest.approx(3) and first.flags == ("reset",)
    assert m.reading.total == pytest.approx(8)


def test_a_range_that_cannot_be_read_is_32_bits(tmp_path):
    a = zone(tmp_path / "intel-rapl:0", "package-0", RANGE - 1)
    (a / "max_energy_range_uj").unlink()
    counters = rapl(tmp_path)
    put(a, 1)
    assert close(read(counters), {"package-0": 2}) and RANGE == 262_144


def test_no_tree_is_no_counter(tmp_path):
    assert rapl(tmp_path / "nothing") == [] and rapl(tmp_path) == []


@settings(deadline=None)
@given(
    start=st.integers(0, MAX - 1),
    steps=st.lists(st.tuples(st.integers(0, 100_000_000), st.booleans(), st.booleans()), min_size=1, max_size=30),
)
def test_sums_of_differences_are_the_truth_whatever_the_phase_and_the_times_of_reading(tmp_path_factory, start, steps):
    """True energy grows by random amounts; the file wraps, is read at random times and fails at others."""
    root = tmp_path_factory.mktemp("powercap")
    clock, true = Clock(), start
    folder = zone(root / "intel-rapl:0", "package-0", start / 1e6)
    (counter,) = rapl(root, clock=clock)
    reads = []
    for grown, looks, fails in steps:
        clock.now += 1.0
        true += grown  # at most 100 J in a second, within the package's 120 W
        (folder / "energy_uj").write_text("" if fails else str(true % MAX))
        if looks:
            reads.append(counter.read())
    (folder / "energy_uj").write_text(str(true % MAX))
    reads.append(counter.read())
    assert reads[-1] == pytest.approx((true - start) / 1e6, abs=1e-3)
    assert reads == sorted(reads)
    if len(reads) > 2:  # E[a, c] = E[a, b] + E[b, c]
        a, b, c = reads[0], reads[len(reads) // 2], reads[-1]
        assert c - a == pytest.approx((b - a) + (c - b))


# --------------------------------------------------------------------------------------------------------------- NVML


class Driver:
    """pynvml as far as it is used: four GPUs, of which the last is older than Volta."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        self.uuids = [f"GPU-{i}{i}{i}{i}-aaaa" for i in range(4)]
        self.mj, self.watts, self.fail = [1e6, 2e6, 3e6, 4e6], [300.0] * 4, False

    def nvmlInit(self):
        pass

    def nvmlDeviceGetCount(self):
        return 4

    def nvmlDeviceGetHandleByIndex(self, i):
        return i

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid == "MIG-5555":
            return "slice of 2"
        if uuid not in self.uuids:
            raise self.NVMLError(uuid)
        return self.uuids.index(uuid)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle):
        assert handle == "slice of 2"
        return 2

    def nvmlDeviceGetUUID(self, handle):
        return self.uuids[handle].encode()

    def nvmlDeviceGetName(self, handle):
        return b"NVIDIA H100"

    def nvmlDeviceGetPowerManagementLimit(self, handle):
        return 700_000

    def nvmlDeviceGetPowerUsage(self, handle):
        return self.watts[handle] * 1e3

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if self.fail or handle == 3:
            raise self.NVMLError("not supported")
        return self.mj[handle]


@pytest.fixture
def dev(tmp_path):
    (tmp_path / "nvidiactl").touch()
    return tmp_path


def gpus(dev, lib, visible=None, **options):
    return [counter.name.removeprefix("gpu GPU-")[0] for counter in nvml(dev=dev, lib=lib, visible=visible, **options)]


def test_nothing_is_imported_without_a_device_node(tmp_path):
    assert nvml(dev=tmp_path, lib=None) == []


def test_energy_is_the_difference_of_millijoules(dev):
    lib = Driver()
    (counter,) = nvml([1], dev=dev, lib=lib)
    lib.mj[1] += 4500
    assert counter.read() == 4.5 and counter.kind == "measured"


@pytest.mark.parametrize(
    ("visible", "shown"),
    [
        ("2,0", ["2", "0"]),
        ("GPU-1111-aaaa", ["1"]),
        ("GPU-22", ["2"]),
        ("GPU-", []),  # ambiguous
        ("", []),
        ("-1", []),
        ("1,-1,0", ["1"]),  # like CUDA, the list ends at the first wrong one
        ("1,9,0", ["1"]),
        ("MIG-GPU-1111-aaaa/7/0", ["1"]),  # lstrip("MIG-") would take the G off
        ("MIG-5555", ["2"]),
        ("MIG-unknown", []),
    ],
)
def test_cuda_visible_devices_in_every_form(dev, visible, shown):
    assert gpus(dev, Driver(), visible) == shown


def test_devices_count_as_cuda_does_after_the_remap(dev):
    assert gpus(dev, Driver(), "2,0", devices=[0]) == ["2"]
    with pytest.raises(ValueError, match="device 2 is not among the 2 that CUDA_VISIBLE_DEVICES=2,0 shows"):
        nvml([2], dev=dev, lib=Driver(), visible="2,0")


def test_the_environment_decides_unless_told(dev, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus(dev, Driver()) == ["1"]


def test_a_slice_is_charged_its_whole_gpu_and_says_so(dev):
    two = nvml(dev=dev, lib=Driver(), visible="MIG-5555,MIG-5555")
    assert len(two) == 1 and "whole GPU of a MIG slice" in two[0].source


def test_a_driver_that_fails_in_mid_run_keeps_the_last_value(dev):
    lib = Driver()
    with Meter(nvml([0], dev=dev, lib=lib), sync=False) as m:
        lib.mj[0] += 1000
        m.lap()
        lib.fail = True
        gone = m.lap()
        lib.fail, lib.mj[0] = False, lib.mj[0] + 500
        back = m.lap()
    assert (gone.total, back.total, m.reading.total) == (0, 0.5, 1.5)
    assert "gap" in gone.flags and "gap" not in back.flags


def test_a_driver_loaded_again_never_subtracts(dev):
    lib = Driver()
    (counter,) = nvml([0], dev=dev, lib=lib)
    lib.mj[0] = 250.0
    assert counter.read() == 0.25 and counter.notes == ["reset"]


def test_windows_below_two_seconds_are_quantised_and_their_interval_covers_the_truth(dev):
    """The counter moves every 100 ms: 20 ms at 500 W (10 J) read as nothing, or as 50 J."""
    lib, clock = Driver(), Clock()
    with Meter(nvml([0], dev=dev, lib=lib, clock=clock), clock, sync=False) as m:
        for jump in (0, 50):
            lib.mj[0] += jump * 1e3
            clock.now += 0.02
            lap = m.lap()
            assert lap.flags == ("quantised",) and lap.low <= 10 <= lap.high
        lib.mj[0] += 15_000e3
        clock.now += 30.0
        assert m.lap().flags == ()


def test_a_gpu_with_power_only_is_integrated_at_the_edges_and_flagged(dev):
    lib, clock = Driver(), Clock()
    (counter,) = nvml([3], dev=dev, lib=lib, clock=clock)
    clock.now += 2.0
    lib.watts[3] = 500.0
    assert isinstance(counter, Gauge) and counter.read() == 800.0 and counter.kind == "modelled"
    assert counter.notes == ["gauge"]


# --------------------------------------------------------------------------------------------------------------- hwmon


def test_an_amd_gpu_and_a_jetson_are_gauges(tmp_path):
    amd, jetson = tmp_path / "hwmon0", tmp_path / "hwmon1"
    for chip, contents in [
        (amd, {"name": "amdgpu", "power1_average": "150000000"}),
        (jetson, {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "2000",
                  "in2_label": "VDD_CPU", "in2_input": "5000", "curr2_input": "900"}),
        (tmp_path / "hwmon2", {"name": "coretemp", "temp1_input": "40000"}),
    ]:  # fmt: skip
        chip.mkdir()
        for name, value in contents.items():
            (chip / name).write_text(value + "\n")
    clock = Clock()
    gpu, board = hwmon(tmp_path, clock=clock)
    clock.now += 2
    assert (gpu.name, gpu.read(), board.name, board.read()) == ("gpu hwmon0", 300.0, "board", 20.0)
    (amd / "power1_average").unlink()
    clock.now += 2
    assert gpu.read() == 600.0 and gpu.notes == ["gauge", "gap"]
    only = detect(powercap=tmp_path, dev=tmp_path, sensors=tmp_path, clock=clock)
    assert [counter.name for counter in only] == ["board"]  # its input holds everything else


def test_powermetrics_is_read_and_never_run():
    text = "E-Cluster Power: 20 mW\nCPU Power: 1234 mW\nGPU Power: 56 mW\nANE Power: 0 mW\n"
    assert powermetrics(text + text.replace("1234", "2000")) == {"cpu": 2.0, "gpu": 0.056, "ane": 0.0}


# ------------------------------------------------------------------------------------------------------------- detect


def test_nothing_is_counted_twice(tmp_path):
    """Measured where possible, modelled otherwise, never both for one part."""
    a = zone(tmp_path / "intel-rapl:0", "package-0")
    names = lambda scope: [c.name for c in detect(scope, powercap=tmp_path, dev=tmp_path, tdp=65)]
    assert names("machine") == ["package-0", "memory"]
    assert names("tree") == ["cpu", "cpu idle", "memory"]
    zone(a / "intel-rapl:0:0", "dram")
    assert names("machine") == ["package-0", "dram-0"]


def test_a_missing_library_is_named_with_the_command(dev, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    with pytest.raises(ImportError, match=r"pip install 'gen-green\[nvidia\]'"):
        nvml(dev=dev)
    with pytest.warns(UserWarning, match="no GPU is counted"):
        detect(powercap=dev / "none", dev=dev, tdp=65)


def test_shares_of_a_measured_machine_and_its_idle_power_are_the_machine():
    """Process energies plus idle are the machine's, each at most that, for any schedule."""
    clock, joules, busy = Clock(0.0), [0.0], [0.0, 0.0, 0.0]
    package = lambda: type("Package", (), {"name": "p", "source": "RAPL p", "read": lambda self: joules[0]})()
    parts = [Attributed([package()], lambda i=i: busy[i], lambda: sum(busy), idle=10.0, clock=clock) for i in range(3)]
    for loads in [(1, 0, 0), (0.5, 0.25, 0.0), (0, 1, 1)]:
        clock.now += 1
        joules[0] += 10 + 20 * sum(loads)
        for i, load in enumerate(loads):
            busy[i] += load
        read = [part.read() for part in parts]
        assert sum(read) + 10 * clock.now == pytest.approx(joules[0]) and max(read) <= joules[0]


@pytest.mark.parametrize("scope", ["machine", "tree"])
def test_a_system_without_proc_counts_this_process(tmp_path, scope):
    """macOS, Windows: its own CPU time and memory, and nothing fails."""
    clock = Clock()
    counters = detect(scope, powercap=tmp_path, root=tmp_path, dev=tmp_path, clock=clock)
    with Meter(counters, clock) as m:
        clock.now += 10
        sum(range(10**6))
    assert [counter.name for counter in counters] == ["cpu", "cpu idle", "memory"]
    assert all(part.joules > 0 for part in m.reading.joules.values()) and counters[0].scope == "tree"


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="Linux only")
def test_here_something_is_counted_without_a_sensor(tmp_path):
    with Meter(detect(powercap=tmp_path, dev=tmp_path, tdp=65)) as m:
        sum(range(10**5))
    assert m.reading.total > 0 and m.reading.kind == "modelled" and m.reading.spread > 1.5
