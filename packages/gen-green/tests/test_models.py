"""Modelled counters against arithmetic, and against what the kernel itself accounts for."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from gen_green.machine import Machine
from gen_green.meter import Meter
from gen_green.models import (
    GB,
    MEMORY_SPREAD,
    SPREAD,
    cpu_model,
    idle_model,
    memory_model,
)
from gen_green.quantity import Quantity
from gen_green.tree import Tree

TICK = os.sysconf("SC_CLK_TCK")
linux = pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="Linux only")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def files(root, **contents):
    for name, text in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def system(root, cpus=4, gib=16, packages=1, flags="fpu", model="Fast 9"):
    """A /proc of a machine at rest."""
    cpu = lambda i: f"physical id : {i % packages}\ncore id : {i // 2}\nflags : {flags}\n"
    each = [f"processor : {i}\nmodel name : {model}\n{cpu(i)}" for i in range(cpus)]
    stat = "cpu  0 0 0 0 0 0 0 0 0 0\n" + "".join(f"cpu{i} 0 0 0 0 0 0 0 0 0 0\n" for i in range(cpus)) + "intr 0\n"
    return files(
        root,
        proc__cpuinfo="\n".join(each),
        proc__stat=stat,
        proc__meminfo=f"MemTotal: {gib * 2**20} kB\nMemFree: 1 kB\n",
    )


def stat(root, user=0.0, nice=0.0, kernel=0.0, idle=0.0, wait=0.0, irq=0.0, soft=0.0, steal=0.0):
    old = (root / "proc/stat").read_text().splitlines()[1:]
    ticks = [round(x * TICK) for x in (user, nice, kernel, idle, wait, irq, soft, steal, 0, 0)]
    (root / "proc/stat").write_text("\n".join(["cpu  " + " ".join(map(str, ticks)), *old]))


# ------------------------------------------------------------------------------------------------------------ the CPU


def test_energy_of_a_machine_is_affine_in_busy_time(tmp_path):
    """100 W, 4 CPUs, 10 s, 6 of them busy: 20 W x 10 s + 55 W x 6 s / 4; waiting and stolen time are not busy."""
    root, clock = system(tmp_path), Clock()
    counter = cpu_model(100, root=root, clock=clock)
    clock.now = 10.0
    stat(root, user=3, nice=0.5, kernel=1.5, idle=34, wait=5, irq=0.25, soft=0.75, steal=7)
    assert counter.read() == pytest.approx(200 + 82.5)
    assert counter.read() == pytest.approx(282.5) and counter.kind == "modelled" and counter.spread == SPREAD == 1.75


def test_an_assumed_tdp_makes_the_figure_assumed_and_its_spread_wider(tmp_path):
    counter = cpu_model(Quantity(100.0, "W", "assumed", "a guess", spread=2.0), root=system(tmp_path))
    assert (
        counter.kind == "assumed" and counter.spread == pytest.approx(2.4372, abs=1e-4) and "a guess" in counter.source
    )


def test_a_tdp_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a TDP is positive, got -5 W"):
        cpu_model(-5, root=system(tmp_path))


def test_a_failed_read_keeps_the_last_value_and_the_next_holds_the_rest(tmp_path):
    root, clock = system(tmp_path), Clock()
    counter = cpu_model(100, idle=0, root=root, clock=clock)
    text = (root / "proc/stat").read_text()
    (root / "proc/stat").unlink()
    assert counter.read() == 0 and counter.notes == ["gap"]
    (root / "proc/stat").write_text(text)
    stat(root, user=4)
    assert counter.read() == pytest.approx(55)


def test_a_clock_stepped_back_draws_no_negative_power(tmp_path):
    root, clock = system(tmp_path), Clock()
    with Meter([cpu_model(100, root=root, clock=clock)], clock) as m:
        clock.now = -3600.0
        back = m.lap()
        clock.now += 2.0
        after = m.lap()
    assert (back.seconds, back.total, back.flags) == (0, 0, ("clock",))
    assert (after.seconds, after.total, after.flags) == (2, pytest.approx(40), ())


def test_processes_and_idle_add_up_to_the_machine_for_any_schedule(tmp_path):
    root, clock, draw = system(tmp_path), Clock(), random.Random(0)
    busy = {pid: 0.0 for pid in (11, 12, 13)}

    def write():
        for pid, seconds in busy.items():
            fields = ["S", "1"] + ["0"] * 9 + [str(round(seconds * TICK)), "0", "0", "0"] + ["0"] * 4 + ["5", "0", "9"]
            files(root, **{f"proc__{pid}__stat": f"{pid} (a (b) c) " + " ".join(fields)})

    write()
    machine = cpu_model(100, root=root, clock=clock)
    idle = idle_model(100, root=root, clock=clock)
    trees = [cpu_model(100, scope="tree", pid=pid, root=root, clock=clock) for pid in busy]
    for _ in range(50):
        clock.now += draw.random()
        for pid in busy:
            busy[pid] += round(draw.random() * TICK) / TICK
        write()
        stat(root, user=sum(busy.values()))
        parts = [tree.read() for tree in trees]
        assert sum(parts) + idle.read() == pytest.approx(machine.read())
        assert max(parts) <= machine.read()


# ---------------------------------------------------------------------------------------------- limits of a container


def test_a_quota_of_version_2_makes_the_cgroup_the_machine(tmp_path):
    root, clock = system(tmp_path, cpus=8, gib=64), Clock()
    group = "sys__fs__cgroup__jobs__a__"
    files(root, proc__self__cgroup="0::/jobs/a\n", **{group + "cpu.max": "200000 100000", group + "memory.max": "max"})
    files(root, **{group + "cpu.stat": "usage_usec 1000000\nuser_usec 1\n"})
    files(root, **{"sys__fs__cgroup__jobs__memory.max": f"{100 * 10**9}", "sys__fs__cgroup__cgroup.procs": ""})
    files(root, **{"sys__fs__cgroup__jobs__cpu.max": "max 100000"})
    machine = Machine.here(root)
    assert (machine.cpus, machine.allowed, machine.memory) == (8, 2, 64 * 2**30)  # the outer limit is above the host's
    files(root, **{"sys__fs__cgroup__jobs__memory.max": f"{8 * 10**9}"})
    assert Machine.here(root).memory == 8 * GB
    counter = cpu_model(80, root=root, clock=clock)
    clock.now = 10.0
    stat(root, user=70)  # the neighbours'
    files(root, **{group + "cpu.stat": "usage_usec 5000000\nuser_usec 1\n"})
    assert counter.read() == pytest.approx(0.2 * 80 * 10 * 2 / 8 + 0.55 * 80 * 4 / 8)
    assert idle_model(80, root=root).watts == pytest.approx(4)


def test_a_quota_of_version_1_below_a_path_that_only_the_host_has(tmp_path):
    root, clock = system(tmp_path, cpus=8, gib=1024), Clock()
    files(
        root,
        proc__self__cgroup="5:memory:/docker/77\n4:cpuacct,cpu:/docker/77\n1:name=systemd:/\n",
        **{
            "sys__fs__cgroup__cpu__cpu.cfs_quota_us": "400000\n",
            "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000\n",
            "sys__fs__cgroup__cpuacct__cpuacct.usage": "3000000000\n",
            "sys__fs__cgroup__memory__memory.limit_in_bytes": "100000000000\n",
        },
    )
    machine = Machine.here(root)
    assert (machine.allowed, machine.memory) == (4, 100 * GB)  # a terabyte of the host is not this job's
    counter = cpu_model(100, idle=0, root=root, clock=clock)
    files(root, **{"sys__fs__cgroup__cpuacct__cpuacct.usage": "7000000000\n"})
    assert counter.read() == pytest.approx(0.55 * 100 * 4 / 8)
    clock.now = 10.0
    assert memory_model(root=root, clock=clock).source.endswith("100 GB available")


@pytest.mark.parametrize(
    ("groups", "mount", "usage"),
    [
        ("0::/jobs/a", "", ("cpu.stat", "usage_usec {}000000")),
        ("1:name=systemd:/jobs/a\n0::/jobs/a", "unified/", ("cpu.stat", "usage_usec {}000000")),
        ("4:cpu,cpuacct:/jobs/a", "cpu,cpuacct/", ("cpuacct.usage", "{}000000000")),
        ("4:cpuacct:/jobs/a\n3:cpu:/jobs/a", "cpu/", ("cpuacct.usage", "{}000000000")),
    ],
)
def test_a_quota_around_the_own_group_makes_that_group_the_machine(tmp_path, groups, mount, usage):
    """Two CPUs' worth for all of /jobs: its idle share counts, and so do the 9 s that it was busy, 1 s of them ours."""
    root = system(tmp_path, cpus=8)
    files(root, proc__self__cgroup=groups + "\n")
    limit = {"cpu.max": "{} 100000"} if usage[0] == "cpu.stat" else {"cpu.cfs_quota_us": "{}"}
    accounts = mount.replace("cpu/", "cpuacct/")
    for group, quota, busy in (("jobs", "200000", 9), ("jobs/a", "max" if "cpu.max" in limit else "-1", 1)):
        files(root, **{f"sys/fs/cgroup/{mount}{group}/{name}": text.format(quota) for name, text in limit.items()})
        files(root, **{f"sys/fs/cgroup/{mount}{group}/cpu.cfs_period_us": "100000"} if "cpu.max" not in limit else {})
        files(root, **{f"sys/fs/cgroup/{accounts}{group}/{usage[0]}": usage[1].format(busy)})
    machine = Machine.here(root)
    assert machine.allowed == 2 and machine.usage is not None and machine.usage() == 9


@pytest.mark.parametrize("quota", ["-1", "max"])
def test_no_limit_is_the_whole_machine(tmp_path, quota):
    root = system(tmp_path, cpus=8)
    files(root, proc__self__cgroup="4:cpu:/\n0::/\n", **{"sys__fs__cgroup__cpu__cpu.cfs_quota_us": quota})
    files(root, **{"sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000", "sys__fs__cgroup__cpu.max": "max 100000"})
    machine = Machine.here(root)
    assert machine.allowed == 8 and machine.usage is None


def test_a_cpu_set_limits_the_idle_power_but_not_whose_busy_time_counts(tmp_path):
    root = system(tmp_path, cpus=8)
    files(root, proc__self__cgroup="0::/\n", **{"sys__fs__cgroup__cpuset.cpus.effective": "0-1,6\n"})
    machine = Machine.here(root)
    assert machine.allowed == 3 and machine.usage is None
    assert idle_model(80, root=root).watts == pytest.approx(0.2 * 80 * 3 / 8)


def test_a_machine_has_the_packages_of_its_table_and_a_guest_the_cores_that_it_sees(tmp_path):
    two = Machine.here(system(tmp_path / "a", cpus=8, packages=2, model="Intel(R) Xeon(R) CPU E5-2683 v4 @ 2.10GHz"))
    assert (two.packages, two.cores, two.virtual) == (2, 8, False)
    assert cpu_model(machine=two, root=tmp_path / "a").source.startswith("(0.20 + 0.55 load) TDP, TDP 240 W (modelled")
    guest = system(tmp_path / "b", cpus=4, model="Intel(R) Xeon(R) CPU E5-2683 v4 @ 2.10GHz", flags="fpu hypervisor")
    assert "TDP 15 W (modelled: 7.5 W x 2 virtual cores of" in cpu_model(root=guest).source


def test_a_processor_without_a_name_is_assumed_and_says_so(tmp_path):
    counter = cpu_model(root=system(tmp_path, cpus=4, model="AMD EPYC", flags="fpu hypervisor"))
    assert counter.kind == "assumed" and counter.spread > 2 and "12 W x 2 virtual cores of AMD EPYC" in counter.source


# --------------------------------------------------------------------------------------------------------- the process


def _proc(root, pid, parent, own=0.0, reaped=0.0, start=1, rss=0):
    fields = ["S", str(parent)] + ["0"] * 9 + [str(round(x * TICK)) for x in (own, 0, reaped, 0)]
    fields += ["0"] * 4 + [str(start), "0", str(rss)]
    files(root, **{f"proc__{pid}__stat": f"{pid} (x y) z) " + " ".join(fields)})


def _gone(root, *pids):
    for pid in pids:
        (root / f"proc/{pid}/stat").unlink()


def test_a_child_passes_its_time_on_once_when_it_ends(tmp_path):
    _proc(tmp_path, 10, 1)
    tree = Tree(10, tmp_path)
    _proc(tmp_path, 20, 10, own=2.0)
    _proc(tmp_path, 30, 20, own=1.0)
    _proc(tmp_path, 99, 1, own=50.0)  # another's
    assert tree.seconds() == pytest.approx(3)
    _gone(tmp_path, 30)
    _proc(tmp_path, 20, 10, own=2.5, reaped=1.5)  # its child ended at 1.5 s
    assert tree.seconds() == pytest.approx(4)
    _gone(tmp_path, 20)
    _proc(tmp_path, 10, 1, own=0.25, reaped=4.5)  # 20 ended at 3 s, with 1.5 s reaped
    assert tree.seconds() == pytest.approx(4.75)


def test_children_between_two_reads_count_though_never_seen(tmp_path):
    _proc(tmp_path, 10, 1)
    tree = Tree(10, tmp_path)
    _proc(tmp_path, 10, 1, reaped=12.5)
    assert tree.seconds() == pytest.approx(12.5)


def test_a_whole_branch_that_ended_is_handed_to_the_living_ancestor_once(tmp_path):
    _proc(tmp_path, 10, 1)
    tree = Tree(10, tmp_path)
    _proc(tmp_path, 20, 10, own=1.0), _proc(tmp_path, 30, 20, own=2.0)
    tree.seconds()
    _gone(tmp_path, 20, 30)
    _proc(tmp_path, 10, 1, reaped=4.0)
    assert tree.seconds() == pytest.approx(4)


def test_a_daemon_that_leaves_is_still_counted_and_its_end_takes_nothing_back(tmp_path):
    _proc(tmp_path, 10, 1)
    tree = Tree(10, tmp_path)
    _proc(tmp_path, 20, 10, own=2.0)
    tree.seconds()
    _proc(tmp_path, 20, 1, own=3.0)  # adopted by init
    assert tree.seconds() == pytest.approx(3)
    _gone(tmp_path, 20)
    _proc(tmp_path, 10, 1, own=1.0)
    assert tree.seconds() == pytest.approx(4)


def test_a_reused_pid_is_another_process(tmp_path):
    _proc(tmp_path, 10, 1)
    tree = Tree(10, tmp_path)
    _proc(tmp_path, 20, 10, own=5.0, start=1)
    tree.seconds()
    _proc(tmp_path, 20, 10, own=0.5, start=7)
    _proc(tmp_path, 10, 1, reaped=5.0)
    assert tree.seconds() == pytest.approx(5.5)
    _proc(tmp_path, 20, 1, own=900.0, start=8)  # and now a stranger's
    _proc(tmp_path, 10, 1, reaped=5.5)
    assert tree.seconds() == pytest.approx(5.5)


@linux
def test_short_lived_children_are_not_lost():
    """All of what getrusage accounts for, within 1 %, from two reads: no child lives when either is made."""
    import resource

    burn = "import time\nwhile time.process_time() < .1: pass"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    counter = cpu_model(100.0, idle=0, slope=1, scope="tree", machine=Machine(2, 2.0, 8e9))
    for _ in range(5):
        subprocess.run([sys.executable, "-S", "-c", burn], check=True)
    joules = counter.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    truth = 50 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert truth > 20 and joules == pytest.approx(truth, rel=0.05) and joules >= 0.99 * truth


@linux
def test_a_stopped_process_costs_nothing_and_loses_nothing():
    tree = Tree()
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time\nwhile time.process_time() < .3: pass"])
    os.kill(child.pid, signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)  # returns once it has stopped
    before = tree.seconds()
    time.sleep(0.2)
    stopped = tree.seconds() - before
    os.kill(child.pid, signal.SIGCONT)
    child.wait()
    assert stopped < 0.1
    assert tree.seconds() >= 0.3


# ---------------------------------------------------------------------------------------------------------- the memory


def test_memory_is_watts_per_decimal_gigabyte(tmp_path):
    clock = Clock()
    counter = memory_model(64, clock=clock)
    clock.now = 3600.0
    assert counter.read() == pytest.approx(0.3725 * 64 * 3600) and counter.spread == MEMORY_SPREAD
    whole = memory_model(root=system(tmp_path, gib=16), clock=clock)
    clock.now += 1.0
    assert whole.read() == pytest.approx(0.3725 * 16 * 2**30 / 1e9)  # GB = 1e9, not GiB
    with pytest.raises(ValueError, match="at least 0 GB"):
        memory_model(-1)


@linux
def test_memory_of_a_tree_is_what_it_holds():
    """Trapezoid between reads: half of what was taken in between counts."""
    clock = Clock()
    counter = memory_model(scope="tree", clock=clock)
    clock.now = 1.0
    first = counter.read()
    block = bytearray(os.urandom(1)) * 200_000_000
    clock.now = 2.0
    second = counter.read() - first
    assert 0 < first < 10 and second - first == pytest.approx(0.3725 * 0.1, rel=0.2) and len(block)


@linux
def test_memory_of_a_child_that_came_and_went_counts_at_its_peak():
    clock = Clock()
    counter = memory_model(scope="tree", clock=clock)
    subprocess.run([sys.executable, "-S", "-c", "x = bytearray(b'1') * 600_000_000"], check=True)
    clock.now = 1.0
    assert counter.read() >= 0.3725 * 0.6
