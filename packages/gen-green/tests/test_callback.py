"""The callback against a trainer's contract, and beside gen-core's where that is installed."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from gen_green import reduce
from gen_green.callback import Energy
from gen_green.grid import trace
from gen_green.meter import Reading


class Sensor:
    name, kind, source, spread, scope = "cpu", "measured", "a sensor", 1.1, "tree"

    def __init__(self):
        self.joules = 0.0

    def read(self):
        return self.joules


class Run:
    def __init__(self, path: Path):
        self.path = path

    def write(self, name, content):
        (self.path / name).write_text(json.dumps(content))


class Trainer:
    """What a callback sees of the trainer; an epoch has 4 steps."""

    def __init__(self, run=None, step=0):
        self.step, self.rank, self.world, self.run, self.cleanup = step, 0, 1, run, ExitStack()

    def fit(self, callback, steps, sensor, joules=10.0):
        logged = []
        callback.on_train_begin(self)
        while self.step < steps:
            self.step += 1
            sensor.joules += joules
            metrics = {"loss": 1.0}
            callback.on_step_end(self, metrics)
            if self.step % 4 == 0:
                callback.on_epoch_end(self, metrics)
            logged.append(metrics)
        state = callback.state_dict()
        callback.on_train_end(self)
        return logged, state


def test_laps_are_epochs_and_other_steps_stay_as_they_are(tmp_path):
    sensor = Sensor()
    energy = Energy(samples=20, grid="FR", counters=[sensor])
    logged, _ = Trainer(Run(tmp_path)).fit(energy, 8, sensor)
    assert [set(m) for m in logged[:3]] == [{"loss"}] * 3
    assert logged[3]["energy/joules"] == 40 and logged[7]["energy/joules"] == 80
    assert logged[3]["energy/joules_per_sample"] == logged[7]["energy/joules_per_sample"] == 0.5
    assert logged[7]["energy/carbon_g"] == pytest.approx(80 / 3.6e6 * 56.039)
    assert all(isinstance(value, float) for value in logged[7].values())


def test_laps_of_so_many_steps(tmp_path):
    sensor = Sensor()
    logged, _ = Trainer().fit(Energy(samples=1, every=3, counters=[sensor]), 7, sensor)
    assert ["energy/joules" in m for m in logged] == [False, False, True, False, False, True, False]


def test_a_run_leaves_facts_for_its_page_and_a_reading_to_compare(tmp_path):
    sensor = Sensor()
    Trainer(Run(tmp_path)).fit(Energy(samples=5, counters=[sensor]), 6, sensor)  # ends in mid-epoch
    facts = json.loads((tmp_path / "energy.json").read_text())
    assert {"energy", "carbon", "per sample", "source", "spread"} <= set(facts)
    assert "assumed" in facts["grid"]  # no place was named
    reading = Reading.load(tmp_path / "reading.json")
    assert (reading.total, reading.samples, reading.per_sample) == (60, 30, 2)


def test_totals_survive_a_resume(tmp_path):
    """A checkpoint in mid-epoch, another process, the rest: the total and the samples are those of one run."""
    sensor = Sensor()
    _, state = Trainer().fit(Energy(samples=2, counters=[sensor]), 6, sensor)
    state = json.loads(json.dumps(state))  # as a checkpoint keeps it
    fresh, energy = Sensor(), Energy(samples=2, counters=[])
    fresh.joules = 1e6  # of others, before
    energy.counters = [fresh]
    energy.load_state_dict(state)
    logged, _ = Trainer(Run(tmp_path), step=6).fit(energy, 8, fresh)
    assert logged[-1]["energy/joules"] == 80 and energy.reading.samples == 16
    energy.load_state_dict({})  # a checkpoint from before this callback
    assert energy.reading.total == 0


def test_a_second_fit_goes_on_and_another_training_begins_afresh():
    sensor, t = Sensor(), Trainer()
    energy = Energy(samples=1, counters=[sensor])
    t.fit(energy, 4, sensor)
    logged, _ = t.fit(energy, 8, sensor)
    assert logged[-1]["energy/joules"] == 80 and logged[-1]["energy/joules_per_sample"] == 10
    logged, _ = Trainer().fit(energy, 4, sensor)
    assert logged[-1]["energy/joules"] == 40 and energy.reading.samples == 4


def test_a_checkpoint_in_mid_lap_neither_loses_nor_doubles():
    sensor, t = Sensor(), Trainer()
    energy = Energy(samples=1, counters=[sensor])
    energy.on_train_begin(t)
    for step in range(1, 5):
        t.step, sensor.joules = step, sensor.joules + 10
        energy.state_dict()
    metrics = {}
    energy.on_epoch_end(t, metrics)
    assert metrics["energy/joules"] == 40 and metrics["energy/joules_per_sample"] == 10


def test_a_sensor_that_dies_never_stops_the_training():
    class Dying(Sensor):
        def read(self):
            if self.joules > 25:
                raise OSError("gone")
            return self.joules

    sensor = Dying()
    energy = Energy(every=2, counters=[sensor])
    Trainer().fit(energy, 8, sensor)
    assert energy.reading.total == 20 and energy.reading.flags == ("gap",)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"grid": "Frence"}, "nearest name is 'France'"),
        ({"pue": 0.9}, "PUE"),
        ({"pue": -1}, "PUE"),
        ({"psf": 0}, "PSF"),
        ({"every": 0}, "at least 1"),
    ],
)
def test_a_wrong_place_is_said_before_the_training(options, rule):
    with pytest.raises(ValueError, match=rule) as error:
        Energy(**options)
    assert "\n" not in str(error.value)


def test_a_grid_that_does_not_answer_costs_the_carbon_and_not_the_run(tmp_path):
    def silent(start, end):
        raise TimeoutError("no answer")

    sensor = Sensor()
    logged, _ = Trainer(Run(tmp_path)).fit(Energy(samples=1, grid=silent, counters=[sensor]), 4, sensor)
    assert "energy/joules" in logged[-1] and "energy/carbon_g" not in logged[-1]
    assert "did not answer" in json.loads((tmp_path / "energy.json").read_text())["carbon"]


KWH, DAY = 3.6e6, 86_400.0


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def two_prices():
    """100 g/kWh on the first day, 500 on the second."""
    return trace([0.0, DAY, 2 * DAY], [100, 500, 500])


def lap(energy, t, sensor, clock, kwh, end):
    sensor.joules, clock.now, t.step, metrics = sensor.joules + kwh * KWH, end, t.step + 1, {}
    energy.on_epoch_end(t, metrics)
    return metrics["energy/carbon_g"]


def test_a_lap_counts_at_the_intensity_of_its_own_time(tmp_path):
    """.1 kWh at 100 g/kWh, then 1.9 kWh at 500 g/kWh: 960 g, where the plain mean over time gives 600."""
    sensor, clock, t = Sensor(), Clock(), Trainer(Run(tmp_path))
    energy = Energy(samples=1, grid=two_prices(), counters=[sensor], clock=clock)
    energy.on_train_begin(t)
    assert lap(energy, t, sensor, clock, 0.1, DAY) == pytest.approx(10)
    assert lap(energy, t, sensor, clock, 1.9, 2 * DAY) == pytest.approx(960)
    energy.on_train_end(t)
    assert "480 g/kWh" in json.loads((tmp_path / "energy.json").read_text())["grid"]


@pytest.mark.parametrize("reported", [True, False])
def test_energy_before_a_resume_keeps_its_own_time(tmp_path, reported):
    """1 kWh at 100 g/kWh, resumed on the next day 1 kWh at 500: 600 g; a checkpoint in mid-lap loses none of it."""
    sensor, clock, t = Sensor(), Clock(), Trainer()
    energy = Energy(grid=two_prices(), counters=[sensor], clock=clock)
    energy.on_train_begin(t)
    if reported:
        lap(energy, t, sensor, clock, 1.0, 3600.0)
    else:
        sensor.joules, clock.now = KWH, 3600.0
    state = json.loads(json.dumps(energy.state_dict()))
    fresh, t = Sensor(), Trainer(Run(tmp_path), step=1)
    energy = Energy(grid=two_prices(), counters=[fresh], clock=clock)
    energy.load_state_dict(state)
    clock.now = DAY
    energy.on_train_begin(t)
    assert lap(energy, t, fresh, clock, 1.0, DAY + 3600) == pytest.approx(600)


def test_a_service_that_is_away_for_a_while_prices_its_laps_later():
    """Each lap is asked once it answers, and for its own time."""
    asked, away = [], [True]

    def grid(start, end):
        if away[0]:
            raise TimeoutError("no answer")
        asked.append((start, end))
        return two_prices()(start, end)

    sensor, clock, t = Sensor(), Clock(), Trainer()
    energy = Energy(grid=grid, counters=[sensor], clock=clock)
    energy.on_train_begin(t)
    with pytest.raises(KeyError):
        lap(energy, t, sensor, clock, 0.1, DAY)
    away[0] = False
    assert lap(energy, t, sensor, clock, 1.9, 2 * DAY) == pytest.approx(960)
    assert asked == [(0.0, DAY), (DAY, 2 * DAY)]


def test_a_run_that_is_resumed_on_another_basis_counts_at_the_new_one_and_says_so(tmp_path):
    """The world's mean is of combustion only, a country's over the life cycle: they do not add up."""
    sensor, clock, t = Sensor(), Clock(), Trainer()
    energy = Energy(counters=[sensor], clock=clock)
    energy.on_train_begin(t)
    lap(energy, t, sensor, clock, 1.0, 10.0)
    state, t = energy.state_dict(), Trainer(Run(tmp_path), step=1)
    energy = Energy(grid="FR", counters=[sensor], clock=clock)
    energy.load_state_dict(state)
    energy.on_train_begin(t)
    assert lap(energy, t, sensor, clock, 1.0, 20.0) == pytest.approx(2 * 56.039)
    energy.on_train_end(t)
    assert "its own intensity was direct" in json.loads((tmp_path / "energy.json").read_text())["grid"]


def test_eight_ranks_agree_on_one_total():
    """Each rank gathers all readings; parts of a tree add up, and samples are the global batch."""
    torch = pytest.importorskip("torch")
    rows: list[list] = []

    class Rank(Trainer):
        """Records what every rank would bring, then answers with all of it (the ranks run one after the other)."""

        world = 8

        def gather(self, x):
            rows.append([x] * 8)
            return torch.cat(rows[-1])

    sensor, t = Sensor(), Rank()
    t.world = 8
    energy = Energy(samples=64, counters=[sensor])
    logged, _ = t.fit(energy, 4, sensor)
    assert logged[-1]["energy/joules"] == 8 * 40 and energy.reading.samples == 4 * 64
    assert logged[-1]["energy/joules_per_sample"] == pytest.approx(320 / 256)
    assert reduce([energy.reading]).total == 320


def test_it_fits_the_trainer_of_gen_core(tmp_path):
    core = pytest.importorskip("gen_core")
    torch = pytest.importorskip("torch")

    class Line(core.Task):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(1, 1)

        def optimizers(self):
            return {"net": torch.optim.SGD(self.net.parameters(), lr=0.1)}

        def step(self, batch, t):
            (x,) = batch
            return {"loss": t.minimize("net", lambda x: self.net(x).square().mean(), x)}

    data = core.Loader(core.Arrays(torch.ones(16, 1)), batch_size=4) if hasattr(core, "Arrays") else None
    sensor = Sensor()
    sensor.read = lambda: setattr(sensor, "joules", sensor.joules + 1) or sensor.joules  # type: ignore[method-assign]
    make = lambda: core.Trainer(
        Line(), run=tmp_path, callbacks=[Energy(samples=4, grid="FR", counters=[sensor]), core.Jsonl()], device="cpu"
    )
    make().fit(data, 4)
    first = core.Run(tmp_path).metrics()[-1]
    make().fit(data, 8)
    last = core.Run(tmp_path).metrics()[-1]
    assert last["step"] == 8 and last["energy/joules"] > first["energy/joules"] > 0
    assert last["energy/joules_per_sample"] > 0
    assert (tmp_path / "energy.json").exists()
