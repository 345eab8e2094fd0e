"""A checkpoint holds what was written, or says that it does not; replacing one loses neither."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gen_core import EMA, Arrays, Checkpoint, Loader, Trainer, seed_all
from gen_core import checkpoint as ck
from gen_core.testing import load, parameters_equal

kinds = load(Path(__file__).with_name("kinds.py"))
FILES = ("ema.safetensors", "optim.pt", "state.json", "task.safetensors")


def trained(run: Path, steps: int, resume: bool | Path = True, **options) -> Trainer:
    """A trainer with an average and two checkpoints; the seed of the weights is the run's."""
    seed_all(0)
    callbacks = [EMA("net", 0.9), Checkpoint(every=4, keep=3)]
    trainer = Trainer(kinds.Noise(), run, device="cpu", callbacks=callbacks, **options)
    trainer.fit(Loader(Arrays(torch.linspace(-1, 1, 192).view(24, 8)), 12), steps, resume=resume)
    return trainer


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("written") / "run"
    trained(run, 8)
    return run


def flip(file: Path, earlier: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def swap(file: Path, earlier: Path) -> None:
    mine, other = file.read_bytes(), (earlier / file.name).read_bytes()
    file.write_bytes(other)
    (earlier / file.name).write_bytes(mine)


def cut(file: Path, earlier: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def delete(file: Path, earlier: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", [flip, cut, delete, swap])
def test_every_damage_to_every_file_is_found(harm, file, written, tmp_path):
    run = shutil.copytree(written, tmp_path / "run")
    newest, earlier = ck.place(run, 8), ck.place(run, 4)
    assert ck.check(run) == {"step-000004": [], "step-000008": []}
    harm(newest / file, earlier)
    found = ck.check(run)
    assert len(found["step-000008"]) == (3 if (harm, file) == (swap, "state.json") else 1)
    assert bool(found["step-000004"]) == (harm is swap)
    with pytest.raises((ValueError, FileNotFoundError), match=r"step-000008 (is|has)"):
        Trainer(kinds.Noise(), device="cpu").load(newest)
    if harm is swap:
        with pytest.raises(ValueError, match=r"step-000008 is damaged \(.*step-000004 is damaged.*to start again"):
            ck.sound(run)
    else:
        with pytest.warns(UserWarning, match=r"step-000008 is damaged \(.*; step-000004 is used instead"):
            assert ck.sound(run) == earlier


def test_every_single_bit_counts(written, tmp_path):
    """All bits of the smallest file, in turn: none is outside the seal but those that JSON reads as nothing."""
    directory = shutil.copytree(ck.place(written, 8), tmp_path / "step-000008")
    file = directory / "state.json"
    before, meaning = file.read_bytes(), json.loads(file.read_text())
    unseen = []
    for bit in range(8 * len(before)):
        data = bytearray(before)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        if not ck.damage(directory, "state.json"):
            unseen.append(bit)
    for bit in unseen:
        data = bytearray(before)
        data[bit // 8] ^= 1 << bit % 8
        assert json.loads(data) == meaning


@pytest.mark.parametrize("pointer", ["step-000009", "", "stfp-000008", "step/000008"])
def test_a_pointer_to_nothing_is_damage_too(pointer, written, tmp_path):
    run = shutil.copytree(written, tmp_path / "run")
    (run / "checkpoints" / "latest").write_text(pointer)
    with pytest.warns(UserWarning, match="step-000008 is used instead"):
        assert ck.sound(run) == ck.place(run, 8)


def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(written, tmp_path):
    """To the same weights as without the damage; the damaged one is replaced."""
    run = shutil.copytree(written, tmp_path / "run")
    (ck.place(run, 8) / "ema.safetensors").unlink()
    with pytest.warns(UserWarning, match=r"ema.safetensors is absent\); step-000004 is used instead"):
        again = trained(run, 8)
    assert ck.check(run) == {"step-000004": [], "step-000008": []}
    whole = trained(tmp_path / "whole", 8)
    assert parameters_equal(again.task, whole.task)
    a, b = (ck.load(ck.place(path, 8))[0] for path in (run, tmp_path / "whole"))
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_only_the_files_that_matter_are_looked_at(written, tmp_path):
    run = shutil.copytree(written, tmp_path / "run")
    flip(ck.place(run, 8) / "optim.pt", ck.place(run, 4))
    assert ck.sound(run, "ema.safetensors") == ck.place(run, 8)


def test_a_run_from_before_fingerprints_still_loads(written, tmp_path):
    run = shutil.copytree(written, tmp_path / "run")
    for directory in (run / "checkpoints").glob("step-*"):
        state = json.loads((directory / "state.json").read_text())
        del state["files"], state["seal"]
        (directory / "state.json").write_text(json.dumps(state))
    assert ck.check(run) == {"step-000004": [], "step-000008": []}
    assert parameters_equal(trained(run, 10).task, trained(tmp_path / "whole", 10).task)


def test_a_file_that_nobody_wrote_is_not_loaded(written, tmp_path):
    directory = shutil.copytree(ck.place(written, 8), tmp_path / "step-000008")
    shutil.copy(directory / "ema.safetensors", directory / "other.safetensors")
    assert ck.load(directory)[0].keys() == {"task", "ema"}


# ---------------------------------------------------------------------- replacing


def test_a_checkpoint_of_another_history_is_replaced(tmp_path):
    """To step 8; then, with another schedule, from step 4 to 8: `latest` holds the second weights."""
    trained(tmp_path, 8)
    second = trained(tmp_path, 8, resume=ck.place(tmp_path, 4), schedule=lambda step: 0.1)
    fresh = Trainer(kinds.Noise(), device="cpu")
    fresh.load(ck.latest(tmp_path))
    assert fresh.step == 8 and parameters_equal(fresh.task, second.task)


def test_weights_that_were_changed_between_two_saves_are_saved(tmp_path):
    trainer = trained(tmp_path, 8)
    with torch.no_grad():
        trainer.task.net[0].weight.zero_()
    trainer.save()
    assert not ck.load(ck.latest(tmp_path))[0]["task"]["net.0.weight"].any()


def test_a_run_that_has_nothing_left_to_do_writes_nothing(tmp_path):
    """Not even without its callbacks, whose states would be lost; an earlier checkpoint is pointed at."""
    trained(tmp_path, 8)
    data = Loader(Arrays(torch.linspace(-1, 1, 192).view(24, 8)), 12)
    before = {file: file.stat().st_ino for file in (tmp_path / "checkpoints").rglob("*.*")}
    for resume, steps in ((True, 8), (ck.place(tmp_path, 4), 4)):
        Trainer(kinds.Noise(), tmp_path, device="cpu").fit(data, steps, resume=resume)
        assert ck.latest(tmp_path) == ck.place(tmp_path, steps)
    assert before == {file: file.stat().st_ino for file in (tmp_path / "checkpoints").rglob("*.*")}


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import torch
from gen_core import checkpoint as ck

os.fsync = lambda descriptor: None  # what a killed process has written is there without
run, directory, calls = Path(sys.argv[1]), ck.place(Path(sys.argv[1]), 40), 0

def refuse(*args, **options):
    raise OSError("a file system without links")

def write(value):
    ck.save(directory, {"task": {"w": torch.full((4,), value)}}, {}, {"step": 40, "value": value})

def deadly(function, last):
    def call(*args, **options):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return call

for link in (os.link, refuse):
    os.link = link
    values, status = [], 1
    while status:
        shutil.rmtree(run, ignore_errors=True)
        write(1.0)
        if not (child := os.fork()):
            for name in ("replace", "rename", "link", "unlink", "rmdir", "mkdir", "fsync", "open"):
                setattr(os, name, deadly(getattr(os, name), len(values) + 1))
            write(2.0)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        tensors, _, meta = ck.load(ck.latest(run))
        assert tensors["task"]["w"][0] == meta["value"]
        values.append(meta["value"])
        write(3.0)
        assert ck.latest(run) == directory and ck.load(directory)[2]["value"] == 3.0
        left = {file.name for file in directory.parent.iterdir() if not file.name.startswith(".latest.")}
        assert left == {"latest", "step-000040"}, left
    print(*values)
"""


def test_kill_9_at_every_call_of_a_replacement_loses_neither(tmp_path):
    """Real processes, killed before each call that changes a file: the old checkpoint or the new one is loaded."""
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        values = [float(value) for value in line.split()]
        assert len(values) > 25 and values == sorted(values) and set(values) == {1.0, 2.0}
    assert len(done.stdout.splitlines()) == 2


def test_checkpoints_of_several_callbacks_are_all_kept(tmp_path):
    """Each callback keeps its own, as it does alone."""

    def kept(run: Path, *callbacks: Checkpoint) -> set[str]:
        trainer = Trainer(kinds.Noise(), run, device="cpu", callbacks=callbacks)
        trainer.fit(Loader(Arrays(torch.randn(24, 8)), 12), 12)
        return {directory.name for directory in (run / "checkpoints").glob("step-*")}

    often, seldom = {"every": 2, "keep": 2}, {"every": 3, "keep": 3, "name": "seldom"}
    alone = kept(tmp_path / "a", Checkpoint(**often)) | kept(tmp_path / "b", Checkpoint(**seldom))
    assert kept(tmp_path / "both", Checkpoint(**often), Checkpoint(**seldom)) == alone
    assert alone == {f"step-{step:06d}" for step in (6, 9, 10, 12)}
