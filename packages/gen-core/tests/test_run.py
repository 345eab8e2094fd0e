"""A run directory is whole after a crash at any moment, and never mixes two configurations."""

import json
import math
import os
from dataclasses import dataclass
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_core.run import Run, environment


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    widths: tuple[int, ...] = (8, 8)


def test_making_a_run_object_touches_nothing(tmp_path):
    assert Run(tmp_path / "a").path == tmp_path / "a"
    assert Run(tmp_path / "a").metrics() == []
    assert os.fspath(Run(tmp_path / "a")) == str(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_the_same_configuration_continues_and_another_is_refused(tmp_path):
    run = Run.create(tmp_path / "a", Config())
    assert run.config() == {"$": "Config", "lr": 0.1, "widths": [8, 8]}
    first = (run.path / "environment.json").read_bytes()
    Run.create(tmp_path / "a", Config()).log(1, {"loss": 1.0})
    Run.create(tmp_path / "a", run.config())
    Run.create(tmp_path / "a")
    assert (run.path / "environment.json").read_bytes() == first
    assert len(run.metrics()) == 1
    with pytest.raises(ValueError, match=r"another configuration \(lr: 0.1 is not 0.2\); choose another directory, or"):
        Run.create(tmp_path / "a", Config(lr=0.2))
    assert run.config()["lr"] == 0.1


def test_a_directory_with_other_files_becomes_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert Run.create(tmp_path).config() == {}
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_open_names_the_nearest_run(tmp_path):
    Run.create(tmp_path / "digits-ddpm", {})
    (tmp_path / "digits-dppm").mkdir()  # nearer, but no run
    assert Run.open(tmp_path / "digits-ddpm").config() == {}
    with pytest.raises(
        FileNotFoundError, match=r"digits-dpm is no run \(no config.json\); did you mean .*digits-ddpm\?"
    ):
        Run.open(tmp_path / "digits-dpm")
    with pytest.raises(FileNotFoundError, match=r"is no run \(no config.json\); give the directory of a run"):
        Run.open(tmp_path / "no" / "such")


numbers = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)
series = st.lists(st.dictionaries(st.text().filter(lambda name: name != "step"), numbers, max_size=3), max_size=8)


@given(series)
def test_what_is_logged_is_read_back_exactly(tmp_path_factory, series):
    run = Run(tmp_path_factory.mktemp("run"))
    for step, metrics in enumerate(series):
        run.log(step, metrics)
    assert run.metrics() == [{"step": step} | metrics for step, metrics in enumerate(series)]


def test_nan_and_inf_are_valid_json(tmp_path):
    run = Run(tmp_path)
    run.log(1, {"a": nan, "b": inf, "c": -inf})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line == {"step": 1, "a": "nan", "b": "inf", "c": "-inf"}
    (entry,) = run.metrics()
    assert math.isnan(entry["a"]) and (entry["b"], entry["c"]) == (inf, -inf)


def test_a_metric_cannot_be_named_step(tmp_path):
    with pytest.raises(ValueError, match="cannot be named 'step'"):
        Run(tmp_path).log(1, {"step": 2.0})


def test_a_crash_at_any_byte_loses_at_most_the_last_line(tmp_path):
    """kill -9 in mid-write, then the run goes on: no line is glued to the torn one."""
    for step in (1, 2, 3):
        Run(tmp_path / "whole").log(step, {"loss": 1 / step})
    content = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    for n in range(len(content) + 1):
        run = Run(tmp_path / f"{n}")
        run.write("metrics.jsonl", content[:n])
        survivors = content[:n].count(b"\n")
        assert [entry["step"] for entry in run.metrics()] == [1, 2, 3][:survivors]
        run.log(9, {"loss": 0.0})
        assert [entry["step"] for entry in run.metrics()] == [*[1, 2, 3][:survivors], 9]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    for damage in ('{"step": 1, "lo', "[]", '{"step": 1, "loss": "many"}'):
        Run(tmp_path).write("metrics.jsonl", f'{{"step": 0}}\n{damage}\n{{"step": 2}}\n')
        with pytest.raises(ValueError, match=r"metrics.jsonl line 2 is no JSON object: .*; mend it or delete it"):
            Run(tmp_path).metrics()


def test_rewind_drops_later_steps_bit_for_bit(tmp_path):
    run = Run(tmp_path)
    run.rewind(3)  # nothing there: nothing to do
    assert list(tmp_path.iterdir()) == []
    for step in range(1, 6):
        run.log(step, {"loss": 1 / step, "worst": inf})
        if step == 3:
            before = (tmp_path / "metrics.jsonl").read_bytes()
    run.rewind(3)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    run.rewind(-1)
    assert run.metrics() == []


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    run = Run(tmp_path)
    assert run.write("samples/step-000001.png", b"png").read_bytes() == b"png"
    assert run.write("summary.txt", "é\r\n").read_bytes() == "é\r\n".encode()
    assert json.loads(run.write("quality.json", {"kid": nan, "n": (1, 2)}).read_text()) == {"kid": "nan", "n": [1, 2]}
    assert run.write("pair.json", Config()).read_text().startswith('{\n  "$": "Config"')

    def crash(*_):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk"):
        run.write("summary.txt", "new")
    assert (tmp_path / "summary.txt").read_text(encoding="utf-8").strip() == "é"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pair.json", "quality.json", "samples", "summary.txt"]
    with pytest.raises(TypeError, match=r"quality.json.fid is .* no JSON form"):
        run.write("quality.json", {"fid": object()})


def test_environment_says_where_it_ran(tmp_path, monkeypatch):
    here = environment()
    json.dumps(here)
    assert here["versions"]["gen-core"] and here["versions"]["torch"] and here["cpus"] >= 1
    assert here["started"].endswith("+00:00")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["git"] is None
    monkeypatch.setenv("PATH", "")
    assert environment()["git"] is None
