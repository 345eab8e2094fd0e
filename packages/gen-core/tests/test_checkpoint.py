"""Checkpoints are whole or absent, readable by anyone's tools, and hold tied weights once."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import gen_core.testing
from gen_core import EMA, Arrays, Checkpoint, Loader, Task, Trainer, every
from gen_core import checkpoint as ck
from gen_core.testing import load, parameters_equal, train

kinds = load(Path(__file__).with_name("kinds.py"))


class Tied(Task):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight
        self.register_buffer("strided", torch.arange(12.0).view(3, 4).T)
        self.register_buffer("part", self.strided[:2])

    def optimizers(self):
        return {"all": torch.optim.AdamW(self.parameters(), lr=0.1)}

    def step(self, batch, t):
        return {"loss": t.minimize("all", lambda: self.b(self.a(torch.ones(4))).square().sum())}


def test_tied_strided_and_overlapping_tensors_survive(tmp_path):
    """safetensors' own save_file refuses all three."""
    task = Tied()
    with pytest.raises(RuntimeError):
        safetensors.torch.save_file(task.state_dict(), tmp_path / "refused")
    Trainer(task, tmp_path, device="cpu").fit(None, 3)
    again = Tied()
    Trainer(again, tmp_path, device="cpu").fit(None, 3)
    assert parameters_equal(task, again) and again.b.weight is again.a.weight
    names = safetensors.torch.load_file(tmp_path / "checkpoints" / "step-000003" / "task.safetensors")
    assert set(names) == {"a.weight", "a.bias", "strided", "part"}, "tied weights are stored once"


def test_a_checkpoint_is_readable_without_us(tmp_path):
    task = kinds.Noise()
    data = Loader(Arrays(torch.randn(24, 8)), 12)
    Trainer(task, tmp_path, device="cpu", callbacks=[EMA("net", 0.9)]).fit(data, 4)
    directory = tmp_path / "checkpoints" / (tmp_path / "checkpoints" / "latest").read_text()
    assert set(torch.load(directory / "optim.pt", weights_only=True)["optimizers"]) == {"net"}
    assert json.loads((directory / "state.json").read_text())["step"] == 4
    weights = safetensors.torch.load_file(directory / "task.safetensors")
    assert all(torch.equal(v, weights[k]) for k, v in task.state_dict().items())
    task.net.load_state_dict(safetensors.torch.load_file(directory / "ema.safetensors"))


@contextmanager
def _kept(callbacks):
    """Inside, `train` has these callbacks too."""
    made = gen_core.testing.Trainer
    gen_core.testing.Trainer = lambda *a, callbacks=(), **k: made(*a, callbacks=[*callbacks, *_extra], **k)
    _extra[:] = callbacks
    try:
        yield
    finally:
        gen_core.testing.Trainer = made


_extra: list = []


@pytest.mark.parametrize("failing", range(3))
def test_a_crash_while_saving_leaves_the_last_checkpoint(failing, tmp_path, monkeypatch):
    """os.replace fails for a file, the folder or the pointer: `latest` names a complete checkpoint all the same."""
    whole = train(kinds.noise, 12)
    train(kinds.noise, 5, tmp_path)
    keep = [Checkpoint(every=4, keep=1)]
    calls, replace = [], os.replace

    def broken(a, b):
        calls.append(a)
        if len(calls) == failing + 1:
            raise OSError("disk full")
        replace(a, b)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        train(kinds.noise, 8, tmp_path)
    monkeypatch.setattr(os, "replace", replace)
    assert ck.latest(tmp_path).name == "step-000005"
    with _kept(keep):
        rest = train(kinds.noise, 12, tmp_path)
    assert ck.latest(tmp_path).is_dir()
    torch.testing.assert_close(rest["state"], whole["state"], rtol=0, atol=0)


KILLED = """
import sys, os, threading, time, torch
from gen_core import Checkpoint, Trainer, every
from gen_core.testing import load, train
import gen_core.trainer, gen_core.testing
kinds = load(sys.argv[1])
save = torch.save
def slow(*args):
    save(*args)
    if os.path.exists(sys.argv[2] + "/checkpoints/latest"):
        print("saving", flush=True)
        time.sleep(60)
torch.save = slow
original = gen_core.testing.Trainer
gen_core.testing.Trainer = lambda *a, callbacks, **k: original(*a, callbacks=[*callbacks, Checkpoint(every=4)], **k)
train(kinds.noise_dropout, 20, sys.argv[2])
"""


def test_kill_9_during_a_save_then_resume_is_bit_exact(tmp_path):
    """A real process, killed while it writes its second checkpoint."""
    command = [sys.executable, "-c", KILLED, str(Path(__file__).with_name("kinds.py")), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "saving\n"
        time.sleep(0.05)
        process.kill()
    assert ck.latest(tmp_path).name == "step-000004"
    assert (tmp_path / "checkpoints" / ".step-000008.part").exists(), "it was not killed during the save"
    rest = train(kinds.noise_dropout, 20, tmp_path)
    torch.testing.assert_close(rest["state"], train(kinds.noise_dropout, 20)["state"], rtol=0, atol=0)
    assert not (tmp_path / "checkpoints" / ".step-000008.part").exists()


def test_extra_state_of_modules_is_kept(tmp_path):
    class Stateful(nn.Module):
        value = 0

        def get_extra_state(self):
            return {"value": self.value}

        def set_extra_state(self, state):
            self.value = state["value"]

    class Counting(Task):
        def __init__(self):
            super().__init__()
            self.part = Stateful()

        def step(self, batch, t):
            self.part.value += 1
            return {}

    for steps in (3, 5):
        task = Counting()
        Trainer(task, tmp_path, device="cpu").fit(None, steps)
        assert task.part.value == steps


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no checkpoint \(no state.json in it\)"):
        Trainer(kinds.Noise(), device="cpu").load(tmp_path)


def test_saving_without_a_run_directory_is_refused():
    with pytest.raises(ValueError, match="give the Trainer a run directory"):
        Trainer(kinds.Noise(), device="cpu", callbacks=[Checkpoint(every=1), every(1, print)]).save()
