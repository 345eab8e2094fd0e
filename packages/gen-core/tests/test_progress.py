"""Rates in the logs, and progress where there is a terminal, a notebook or neither."""

import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gen_core import Arrays, Jsonl, Loader, Progress, Rates, Trainer
from gen_core.testing import launch, load

kinds = load(Path(__file__).with_name("kinds.py"))


class Clock:
    """Each reading is `pause` seconds later than the one before."""

    def __init__(self, pause: float):
        self.now, self.pause = 0.0, pause

    def __call__(self) -> float:
        self.now += self.pause
        return self.now


def _lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _data() -> Loader:
    return Loader(Arrays(torch.randn(48, 8, generator=kinds.generator("data"))), 12)


class Watched(kinds.Noise):
    """Notes the norm of each gradient by hand."""

    def __init__(self):
        super().__init__()
        self.norms = []

    def step(self, batch, t):
        (x,) = batch
        sigma, noise = t.rand(len(x), dtype=x.dtype), t.randn_like(x)
        gradients = torch.autograd.grad(self.loss(x, sigma, noise), list(self.net.parameters()))
        self.norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        return {"loss": t.minimize("net", self.loss, x, sigma, noise)}


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_rates_are_those_of_the_logged_steps(clip, tmp_path):
    """The schedule's rate, the norm before clipping, and 3 steps of 12 samples in a second."""
    task = Watched()
    callbacks = [Rates(every=3, clock=Clock(1.0)), Jsonl(every=3)]
    trainer = Trainer(task, tmp_path, device="cpu", clip=clip, schedule=lambda s: 1 / (s + 1), callbacks=callbacks)
    trainer.fit(_data(), 6)
    lines = _lines(tmp_path)
    assert [line["lr"] for line in lines] == pytest.approx([0.01 / 3, 0.01 / 6])
    assert [line["grad_norm"] for line in lines] == pytest.approx([task.norms[2], task.norms[5]], rel=1e-4)
    assert [line["samples_per_s"] for line in lines] == [36, 36]


def test_each_of_several_optimisers_has_its_own(tmp_path):
    torch.manual_seed(0)
    Trainer(kinds.Gan(), tmp_path, device="cpu", callbacks=[Rates(1), Jsonl(1)]).fit(_data(), 2)
    first = _lines(tmp_path)[0]
    assert first.keys() == {"step", "d", "g", "lr/d", "lr/g", "grad_norm/d", "grad_norm/g", "samples_per_s"}
    assert (first["lr/d"], first["lr/g"]) == (1e-2, 1e-3) and first["grad_norm/d"] != first["grad_norm/g"]


def test_a_task_without_gradients_or_data_has_its_speed(tmp_path):
    class Idle(kinds.Em):
        def step(self, batch, t):
            return {}

    Trainer(Idle(), tmp_path, device="cpu", callbacks=[Rates(2, clock=Clock(0.5)), Jsonl(2)]).fit(None, 2)
    assert _lines(tmp_path) == [{"step": 2, "steps_per_s": 4.0}]


def test_two_processes_log_the_norm_of_the_mean_gradient(tmp_path):
    one, (two, _) = _norms(tmp_path / "one"), launch(2, _norms, tmp_path / "two")
    assert two == pytest.approx(one, rel=1e-5)


def _norms(run: Path) -> list[float]:
    torch.manual_seed(0)
    trainer = Trainer(kinds.Noise(), run, device="cpu", callbacks=[Rates(1), Jsonl(1)])
    trainer.fit(_data(), 3)
    trainer.barrier()
    return [line["grad_norm"] for line in _lines(run)]


@pytest.mark.parametrize(("pause", "lines"), [(0.01, 1), (1.0, 25), (60.0, 45), (3600.0, 45)])
def test_without_a_terminal_there_is_a_line_now_and_then(pause, lines, capsys):
    """However long it takes: never within 5 seconds, a few dozen in all, the last step among them."""
    Trainer(kinds.Noise(), device="cpu", callbacks=[Progress(200, every=1, clock=Clock(pause))]).fit(_data(), 200)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) <= lines
    steps = [
        int(re.match(r"step (\d+) of 200  loss [\d.e-]+  [\d.]+ steps/s  .*\d:\d\d:\d\d left$", p)[1]) for p in printed
    ]
    assert steps == sorted(set(steps)) and steps[-1] == 200 and printed[-1].endswith("0:00:00 left")
    assert all((b - a) * pause >= 5 for a, b in pairwise(steps[:-1]))
    assert pause < 1 or steps[0] <= 10


def test_the_time_left_is_that_of_the_mean_speed(capsys):
    Trainer(kinds.Noise(), device="cpu", callbacks=[Progress(100, every=10, clock=Clock(30.0))]).fit(_data(), 20)
    assert capsys.readouterr().err.splitlines()[0].endswith("0.3 steps/s  0:04:30 left")


def test_a_notebook_has_a_bar(monkeypatch, capsys):
    """rich draws it as a widget there; no lines are printed."""
    drawn = []

    class Output:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            drawn.append(self)

        def clear_output(self, **_):
            pass

    for name, content in (("ipywidgets", {"Output": Output}), ("IPython.display", {"display": lambda *_: None})):
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    Trainer(kinds.Noise(), device="cpu", callbacks=[Progress(20, clock=Clock(10.0))]).fit(_data(), 20)
    assert drawn and "step " not in capsys.readouterr().err
