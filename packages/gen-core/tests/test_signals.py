"""A signal to any process at any moment ends all of them after one step and a checkpoint, loader workers included."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gen_core import Arrays, Checkpoint, Interrupted, Loader, Trainer, every, seed_all
from gen_core.checkpoint import check, latest
from gen_core.processes import signals
from gen_core.runtime import generator
from gen_core.testing import launch, load

kinds = load(Path(__file__).with_name("kinds.py"))
DATA = Loader(Arrays(torch.linspace(-1, 1, 192).view(24, 8)), 12)
ENDS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def interrupted(trainer: Trainer, data: Loader, steps: int = 1000) -> str:
    """The exit code and the step of a training that a signal ends."""
    try:
        trainer.fit(data, steps)
    except Interrupted as stop:
        return f"{stop.code} at step {trainer.step}, {latest(trainer.run.path).name}"
    return f"not interrupted, {trainer.step} steps"


@pytest.mark.parametrize(("number", "code"), ENDS)
@pytest.mark.parametrize("during", ["agree", "save", "load", "on_train_end"])
def test_a_signal_at_any_moment_is_acted_on(during, number, code, tmp_path, monkeypatch):
    """While processes agree on stopping, while a checkpoint is loaded or written, after the last step."""
    Trainer(kinds.Noise(), tmp_path, device="cpu").fit(DATA, 1)
    trainer = Trainer(kinds.Noise(), tmp_path, device="cpu", callbacks=[Checkpoint(every=2)])
    owner = {"agree": trainer.processes, "on_train_end": trainer.callbacks[0]}.get(during, trainer)
    original = getattr(owner, during)

    def signalled(*args, **options):
        value = original(*args, **options)
        os.kill(os.getpid(), number)
        monkeypatch.setattr(owner, during, original)
        return value

    monkeypatch.setattr(owner, during, signalled)
    step = {"agree": 2, "save": 2, "load": 1, "on_train_end": 4}[during]
    with pytest.raises(Interrupted) as stop:
        trainer.fit(DATA, 4)
    assert (stop.value.code, trainer.step, latest(tmp_path).name) == (code, step, f"step-{step:06d}")


def test_the_sigterm_that_a_launcher_passes_on_does_not_cut_the_checkpoint_short(tmp_path):
    """A scheduler signals every process, and torchrun passes it on: two SIGTERMs."""

    def twice(t, metrics):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    trainer = Trainer(kinds.Noise(), tmp_path, device="cpu", callbacks=[every(3, twice)])
    assert interrupted(trainer, DATA) == "143 at step 3, step-000003"


def test_a_signal_while_handlers_are_installed_is_noted():
    """Handlers are installed one after the other; the first may be called before the second is there."""
    noted, installed, install = [], [], signal.signal

    def interrupting(number, handler):
        before = install(number, handler)
        installed.append(number)
        if installed == [signal.SIGINT]:
            os.kill(os.getpid(), signal.SIGINT)
        return before

    before = [signal.getsignal(number) for number, _ in ENDS]
    signal.signal = interrupting
    try:
        with signals(noted.append):
            pass
    finally:
        signal.signal = install
    assert noted == [signal.SIGINT] and before == [signal.getsignal(number) for number, _ in ENDS]


class Slow(torch.utils.data.Dataset):
    """Samples that take a while, so that workers are busy whenever a signal comes."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        time.sleep(0.002)
        return (torch.randn(8, generator=generator(index)),)


def test_signals_to_two_processes_and_their_workers(tmp_path):
    """To the rank that waits for the other; to a whole process group with loader workers, on either rank."""
    both = launch(2, _signalled, tmp_path)
    assert both[0] == both[1], "the processes stopped at different steps"
    assert both[0] == {
        "waiting": "143 at step 3, step-000003",
        "group of rank 0": "143 at step 3, step-000003",
        "group of rank 1": "130 at step 3, step-000003",
        "workers left": 0,
    }
    assert check(tmp_path / "waiting") == {"step-000003": []}


def _signalled(tmp: Path) -> dict[str, object]:
    rank, found = int(os.environ["RANK"]), {}
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # of loader workers, as in a program that a user starts
    (tmp / f"{rank}.pid").write_text(str(os.getpid()))

    def waits(t, metrics):  # rank 0 signals rank 1, which waits for it to agree whether to stop after step 2
        if t.step == 2 and t.rank == 0:
            time.sleep(0.3)
            os.kill(int((tmp / "1.pid").read_text()), signal.SIGTERM)

    seed_all(0)
    trainer = Trainer(kinds.Noise(), tmp / "waiting", device="cpu", callbacks=[every(1, waits)])
    found["waiting"] = interrupted(trainer, Loader(Arrays(torch.randn(24, 8)), 12))
    for who, number in ((0, signal.SIGTERM), (1, signal.SIGINT)):

        def group(t, metrics, who=who, number=number):
            if t.step == 3 and t.rank == who:
                os.killpg(os.getpgid(0), number)

        trainer = Trainer(kinds.Noise(), tmp / f"group {who}", device="cpu", callbacks=[every(1, group)])
        found[f"group of rank {who}"] = interrupted(trainer, Loader(Slow(), 12, workers=2))
    found["workers left"] = len(multiprocessing.active_children())
    return found


def test_an_error_on_the_first_process_is_raised_on_all():
    assert launch(2, _first) == ["7, disk full"] * 2


def _first() -> str:
    processes = Trainer(kinds.Noise(), device="cpu").processes

    def full() -> None:
        raise OSError("disk full")

    try:
        processes.first(full)
    except OSError as error:
        return f"{processes.first(lambda: 7)}, {error}"
    return "no error"


ENDLESS = """
import multiprocessing, sys
from pathlib import Path
import torch
from torch.utils.data._utils import worker
from gen_core import Checkpoint, Loader, Trainer, every
from gen_core.testing import load
worker.MP_STATUS_CHECK_INTERVAL = 0.2  # seconds between a worker's looks at its parent
tests = load(sys.argv[1])
def tell(t, metrics):
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
trainer = Trainer(tests.kinds.Noise(), sys.argv[2], device="cpu", callbacks=[Checkpoint(every=1), every(2, tell)])
trainer.fit(Loader(tests.Slow(), 12, workers=2), 100_000)
"""


def test_kill_9_frees_the_run_at_once_and_leaves_no_worker(tmp_path):
    """Its workers, forked while it was locked, do not hold the lock; and they end, though they ignore signals."""
    command = [sys.executable, "-c", ENDLESS, __file__, str(tmp_path)]
    data = Loader(Slow(), 12)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        with pytest.raises(ValueError, match=f"is in use by process {process.pid} on host .*; wait until that ends"):
            Trainer(kinds.Noise(), tmp_path, device="cpu").fit(data, 3)
        process.kill()
        process.wait()
    trainer = Trainer(kinds.Noise(), tmp_path, device="cpu")
    step = int(latest(tmp_path).name.removeprefix("step-"))
    trainer.fit(data, step + 1)
    assert trainer.step == step + 1 and check(tmp_path)[f"step-{step + 1:06d}"] == []
    end = time.monotonic() + 60
    while any(map(_alive, workers)):
        assert time.monotonic() < end, "the workers outlived their parent"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    """A zombie, which nobody waited for, is not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


@pytest.mark.slow
def test_signals_to_each_rank_at_random_moments(tmp_path):
    """Thirty of them: all processes end at the same step with a whole checkpoint."""
    draw = torch.rand(30, generator=generator("moments")).tolist()
    for left, right in zip(*launch(2, _random, tmp_path, draw, timeout=250), strict=True):
        assert left == right and left.startswith("143"), (left, right)


def _random(tmp: Path, draw: list[float]) -> list[str]:
    rank, found = int(os.environ["RANK"]), []
    multiprocessing.set_start_method("fork", force=True)
    for number, wait in enumerate(draw):
        run = tmp / str(number)

        def begin(t, metrics, number=number, wait=wait):
            if t.step == 1 and t.rank == number % 2:
                signal.setitimer(signal.ITIMER_REAL, 1e-3 + 0.05 * wait)

        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        seed_all(0)
        trainer = Trainer(kinds.Noise(), run, device="cpu", callbacks=[Checkpoint(every=3), every(1, begin)])
        found.append(interrupted(trainer, Loader(Slow(), 12, workers=rank), 100_000))
    return found
