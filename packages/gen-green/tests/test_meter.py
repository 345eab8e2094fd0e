"""Windows, readings and their algebra."""

import asyncio
import inspect
import json
import math
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen_green.counters import detect
from gen_green.meter import Meter, Part, Reading, reduce


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Sensor:
    """A counter that a test turns."""

    joules: float = 1000.0
    name: str = "cpu"
    kind: str = "measured"
    source: str = "a sensor"
    spread: float = 1.1
    fails: bool = False
    notes: list = field(default_factory=list)

    def read(self):
        if self.fails:
            raise RuntimeError("the bus is gone")
        return self.joules


def part(joules, kind="measured", scope="machine", **more):
    return Part(joules, kind, more.pop("source", "a"), more.pop("spread", 1.2), scope, **more)


# ---------------------------------------------------------------------------------------------------------- the window


def test_laps_are_differences_and_add_up_to_the_window():
    clock, sensor = Clock(), Sensor()
    with Meter([sensor], clock) as m:
        for joules, samples in [(10, 64), (20, 64), (5, 32)]:
            sensor.joules, clock.now = sensor.joules + joules, clock.now + 2
            m.lap(samples=samples, tokens=10 * samples, label=f"epoch {samples}")
        sensor.joules += 1
    assert [lap.total for lap in m.laps] == [10, 20, 5]
    assert [lap.per_sample for lap in m.laps] == [10 / 64, 20 / 64, 5 / 32]
    total = m.laps[0] + m.laps[1] + m.laps[2]
    assert total.per_sample * 160 == 35 and total.per_token == 35 / 1600  # joules per sample add up, weighted
    assert (m.reading.total, m.reading.seconds, m.reading.samples) == (36, 6, 160)
    assert m.reading.spread == pytest.approx(1.1) and m.reading.kind == "measured"


def test_the_reading_of_an_open_window_is_up_to_now_and_a_new_window_starts_afresh():
    clock, sensor = Clock(), Sensor()
    meter = Meter([sensor], clock)
    with pytest.raises(RuntimeError, match="nothing was measured yet"):
        _ = meter.reading
    with meter:
        sensor.joules += 3
        assert meter.reading.total == 3
        sensor.joules += 4
    sensor.joules += 100  # after it
    assert meter.reading.total == 7
    with meter:
        sensor.joules += 1
    assert meter.reading.total == 1 and meter.laps == []
    with pytest.raises(RuntimeError, match="a lap lies within a window"):
        meter.lap()


def test_a_decorated_function_keeps_its_name_result_and_recursion():
    sensor = Sensor()

    @Meter([sensor], Clock())
    def factorial(n: int) -> int:
        """n!"""
        sensor.joules += 1
        return n * factorial(n - 1) if n else 1

    assert factorial(4) == 24 and factorial.__name__ == "factorial"
    assert factorial.meter.reading.total == 5


def drain(items):
    async def all_of():
        return [item async for item in items]

    return asyncio.run(all_of())


def test_a_decorated_coroutine_is_measured_until_its_end():
    """The call only makes a coroutine; the work comes when it is awaited. At the same time, one window holds both."""
    sensor = Sensor()

    @Meter([sensor], Clock())
    async def work(joules):
        sensor.joules += joules
        await asyncio.sleep(0)
        sensor.joules += joules
        return joules

    async def both():
        return await asyncio.gather(work(1), work(10))

    assert inspect.iscoroutinefunction(work) and work.__name__ == "work"
    assert asyncio.run(work(3)) == 3 and work.meter.reading.total == 6
    assert asyncio.run(both()) == [1, 10] and work.meter.reading.total == 22


def test_a_decorated_generator_is_measured_until_its_end():
    sensor = Sensor()

    @Meter([sensor], Clock())
    def items(n):
        for i in range(n):
            sensor.joules += 1
            got = yield i
            sensor.joules += got or 0
        return n

    assert inspect.isgeneratorfunction(items) and list(items(3)) == [0, 1, 2] and items.meter.reading.total == 3
    it = items(2)
    assert next(it) == 0 and it.send(5) == 1
    with pytest.raises(StopIteration) as end:
        next(it)
    assert end.value.value == 2 and items.meter.reading.total == 7, "what is sent and returned passes through"
    it = items(9)
    next(it)
    it.close()
    sensor.joules += 100
    assert items.meter.reading.total == 1, "closed early, its window ends there"


def test_a_decorated_async_generator_is_measured_until_its_end():
    sensor, closed = Sensor(), []

    @Meter([sensor], Clock())
    async def items(n):
        try:
            for i in range(n):
                sensor.joules += 1
                try:
                    got = yield i
                except KeyError:
                    got = 50
                await asyncio.sleep(0)
                sensor.joules += got or 0
        finally:
            closed.append(n)

    async def by_hand():
        it = items(3)
        assert [await anext(it), await it.asend(5), await it.athrow(KeyError())] == [0, 1, 2]
        await it.aclose()
        sensor.joules += 100
        failing = items(2)
        await anext(failing)
        with pytest.raises(OSError):
            await failing.athrow(OSError())

    assert inspect.isasyncgenfunction(items) and drain(items(3)) == [0, 1, 2] and items.meter.reading.total == 3
    asyncio.run(by_hand())
    assert closed == [3, 3, 2], "an early end reaches the generator"
    assert items.meter.reading.total == 1
    drain(items(1))
    assert items.meter.reading.total == 1 and items.meter._depth == 0


def test_an_error_in_the_window_passes_through_and_the_energy_stays():
    sensor = Sensor()
    with pytest.raises(KeyError), Meter([sensor], Clock()) as m:
        sensor.joules += 9
        raise KeyError("theirs")
    assert m.reading.total == 9


def test_a_sensor_that_fails_in_mid_run_never_stops_it():
    sensor, other = Sensor(), Sensor(name="memory")
    with Meter([sensor, other], Clock()) as m:
        sensor.joules += 2
        m.lap()
        sensor.fails, other.joules = True, other.joules + 1
        gone = m.lap()
        sensor.fails, sensor.joules = False, sensor.joules + 5
        m.lap()
    assert [lap.total for lap in m.laps] == [2, 1, 5]
    assert gone.joules["cpu"].flags == ("gap",) and gone.joules["memory"].flags == ()
    assert m.reading.total == 8 and m.reading.flags == ("gap",)


def test_a_sensor_that_fails_at_first_counts_from_its_first_good_read():
    sensor = Sensor(fails=True)
    with Meter([sensor], Clock()) as m:
        sensor.fails = False
        assert m.lap().total == 0
        sensor.joules += 5
    assert m.reading.total == 5


def test_a_counter_that_jumps_back_is_flagged_and_takes_nothing():
    sensor = Sensor()
    with Meter([sensor], Clock()) as m:
        sensor.joules += 10
        m.lap()
        sensor.joules = 3
        m.lap()
        sensor.joules = 8
    assert m.reading.total == 15 and m.reading.flags == ("reset",)


def test_one_part_is_never_counted_twice():
    with pytest.raises(ValueError, match="two counters have one name"), Meter([Sensor(), Sensor()]):
        pass


def test_the_queue_of_the_gpu_is_waited_for_at_edges_when_asked():
    calls = []
    with Meter([Sensor()], Clock(), sync=lambda: calls.append(1)) as m:
        m.lap()
    assert len(calls) == 3


def test_a_thread_reads_in_between_only_when_asked():
    before, sensor = threading.active_count(), Sensor()
    between = threading.Semaphore(0)

    def read():
        if threading.current_thread().name == "gen-green":
            between.release()
        return 0.0

    sensor.read = read  # type: ignore[method-assign]
    with Meter([sensor], every=0.01):
        assert threading.active_count() == before + 1
        assert all(between.acquire(timeout=60) for _ in range(2))
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="every needs seconds above 0"):
        Meter(every=0)


SILENT = """
import signal, sys
events = []
def hook(event, args):
    if event.split(".")[0] in ("socket", "subprocess", "signal", "_thread", "ctypes") or event in (
        "os.fork", "os.exec", "os.posix_spawn", "os.system", "os.forkpty"):
        events.append(event)
sys.addaudithook(hook)
handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
threads = __import__("threading").active_count()
events.clear()
from gen_green import Meter
with Meter(scope=sys.argv[1]) as m:
    m.lap(samples=1)
m.reading.total
assert handlers == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
assert threads == __import__("threading").active_count()
heavy = {"torch", "numpy", "pynvml", "socket", "subprocess", "asyncio", "urllib.request"} & set(sys.modules)
print(events, sorted(heavy))
"""


@pytest.mark.parametrize("scope", ["machine", "tree"])
def test_nothing_runs_in_the_background(scope):
    """No thread, process, socket, lock file or signal handler, on import or in a window."""
    done = subprocess.run([sys.executable, "-c", SILENT, scope], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] []\n", "")


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="Linux only")
@pytest.mark.parametrize("scope", ["machine", "tree"])
def test_a_window_opens_at_most_a_file_per_sensor_and_edge(scope, tmp_path):
    """Files opened by a window's two reads, and none between them."""
    code = f"""
import sys
from pathlib import Path
from gen_green import Meter, detect
counters = detect({scope!r}, powercap=Path({str(tmp_path)!r}), dev=Path({str(tmp_path)!r}), tdp=65)
with Meter(counters) as m: pass
m.reading
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
with Meter(counters) as m:
    at = len(opened)
    sum(range(10**5))
    between = len(opened) - at
m.reading
print(at, between, len(opened), len(counters))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    at, between, opened, counters = map(int, done.stdout.split())
    assert between == 0 and opened <= counters + 2 and at <= counters


# ---------------------------------------------------------------------------------------------------------- the algebra


amounts = st.floats(0, 1e6)
readings = st.builds(
    lambda s, a, b, n: Reading(s, {"cpu": part(a), "memory": part(b, source="b", spread=2.0)}, samples=n),
    amounts, amounts, amounts, st.integers(0, 1000),
)  # fmt: skip


@settings(deadline=None)
@given(readings, readings, readings, st.floats(0, 100))
def test_readings_are_a_vector_space(a, b, c, k):
    same = lambda x, y: (x.total, x.seconds, x.samples) == pytest.approx((y.total, y.seconds, y.samples), abs=1e-3)
    assert same(a + b, b + a) and same((a + b) + c, a + (b + c))
    assert same((a + b) * k, a * k + b * k) and same((a + b) - b, a)
    assert k < 1e-3 or a.per(k).total == pytest.approx(a.total / k)


def test_the_same_sensor_errs_alike_and_different_ones_independently():
    a, b = Reading(1, {"cpu": part(10.0, spread=1.5)}), Reading(1, {"cpu": part(10.0, spread=1.5)})
    assert (a + b).spread == pytest.approx(1.5)
    other = Reading(1, {"cpu": part(10.0, spread=1.5, source="another")})
    assert (a + other).spread == pytest.approx(1.332, abs=1e-3)
    two = Reading(1, {"cpu": part(10.0, spread=1.5), "memory": part(10.0, spread=1.5)})
    assert two.spread == pytest.approx(1.332, abs=1e-3)
    idle = Reading(1, {"cpu": part(10.0, spread=1.5), "cpu idle": part(10.0, spread=1.5)})  # one TDP behind both
    assert idle.spread == pytest.approx(1.5) and idle.idle == 10
    model = {"gpu": part(10.0, "modelled", spread=1.5), "server": part(10.0, "modelled", spread=1.5)}
    assert Reading(1, model).spread == pytest.approx(1.5), "one regression gave both"


def test_a_comparison_is_a_subtraction_and_knows_what_it_does_not_know():
    a, b = Reading(2, {"cpu": part(10.0)}), Reading(1, {"cpu": part(9.0), "gpu": part(5.0, "modelled")})
    assert (b - a).total == 4 and (a - b).joules["gpu"].joules == -5 and (b - a).kind == "modelled"
    assert (a - a).total == 0 and math.isfinite((a - a).spread)
    assert (b - a).spread > b.spread


def test_per_nothing_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="energy per n needs n > 0, got 0; count samples"):
        Reading(1, {"cpu": part(1.0)}).per(0)
    assert math.isnan(Reading(1, {}).per_sample)


# ------------------------------------------------------------------------------------------------------------- the file


@settings(deadline=None)
@given(readings)
def test_json_keeps_everything(a):
    a = replace(a, label="epoch 3", node="n/1", joules={**a.joules, "gpu": part(0.1, flags=("gap",), resolution=70.0)})
    assert Reading.from_json(json.loads(json.dumps(a.to_json()))) == a
    assert Reading.from_json({"energy": "1 J", "reading": a.to_json()}) == a


def test_a_file_that_is_no_reading_is_refused_in_one_sentence(tmp_path):
    file = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError, match=r"a\.json does not exist; `gen green run"):
        Reading.load(file)
    for text, rule in [
        ("", "is not JSON"),
        ("{}", "holds no reading of gen-green"),
        ("[1]", "holds no reading of gen-green"),
        ('{"gen_green": 7}', "version 7, and this gen-green reads version 1"),
        ('{"gen_green": 1}', "damaged reading"),
        ('{"gen_green": 1, "seconds": 1, "joules": {"cpu": {"watts": 3}}}', "damaged reading"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=rule) as error:
            Reading.load(file)
        assert str(file) in str(error.value) and "\n" not in str(error.value)
    Reading(1.5, {"cpu": part(2.0)}).save(file)
    assert Reading.load(file).total == 2


# ------------------------------------------------------------------------------------------------- processes and nodes


def ranks(nodes=2, each=8):
    machine = lambda rank: {"package-0": part(100.0 + 0.001 * rank), f"gpu GPU-{rank}": part(50.0)}
    tree = {"memory": part(2.0, "modelled", "tree")}
    return [
        Reading(10 + 0.1 * rank, machine(rank) | {f"gpu GPU-{n}-{rank}": part(7.0)} | tree, 32, 5, "", f"boot{n}/a")
        for n in range(nodes)
        for rank in range(each)
    ]


def test_eight_ranks_report_one_machine():
    """Every rank sees the packages; each its own GPUs, and its own process tree."""
    whole = reduce(ranks(1))
    assert whole.joules["package-0"].joules == pytest.approx(100.007)  # the longest window's, not eight times
    assert sum(p.joules for name, p in whole.joules.items() if name.startswith("gpu GPU-0-")) == 8 * 7
    assert whole.joules["memory"].joules == 16
    assert (whole.seconds, whole.samples, whole.tokens) == (pytest.approx(10.7), 256, 40)
    assert whole.spread < 1.2 + 1e-9


def test_two_nodes_are_two_machines():
    assert reduce(ranks(2)).joules["package-0"].joules == pytest.approx(200.014)
    assert reduce([reduce(ranks(1))]) == reduce(ranks(1))


def test_ranks_that_measure_all_gpus_count_each_once():
    both = {"gpu GPU-a": part(50.0), "gpu GPU-b": part(60.0)}
    assert reduce([Reading(1, both, node="x/1"), Reading(1, both, node="x/1")]).total == 110


def test_containers_share_what_is_measured_and_not_what_is_modelled():
    one = {"package-0": part(100.0), "cpu idle": part(3.0, "modelled")}
    both = reduce([Reading(1, one, node="boot/a"), Reading(1, one, node="boot/b")])
    assert both.joules["package-0"].joules == 100 and both.joules["cpu idle"].joules == 6


def test_nothing_cannot_be_reduced():
    with pytest.raises(ValueError, match="no reading to reduce"):
        reduce([])


def test_here_a_window_has_a_figure_a_source_and_a_spread():
    with Meter(detect(tdp=65, warn=False)) as m:
        sum(range(10**6))
    assert m.reading.total > 0 and m.reading.quantity.source and m.reading.node
