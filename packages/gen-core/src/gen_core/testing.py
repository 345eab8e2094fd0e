"""Tests of training code: real processes in a second, and a conformance suite for a task of your own.

def test_my_task():
    check_task(make)                    # make() -> (task, data), a function of your test module

launch(2, train, tmp_path)              # train(tmp_path) in two processes that form one world
"""

import importlib.util
import inspect
import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from gen_core.callbacks import Callback
from gen_core.data import Data
from gen_core.hooks import Training
from gen_core.runtime import _map, seed_all
from gen_core.task import Task
from gen_core.trainer import Trainer

Make = Callable[[], tuple[Task, Data | None]]


def load(path: str | Path) -> ModuleType:
    """The module in a file, wherever it is; the same object when asked twice."""
    path = Path(path).resolve()
    name = f"gen_core_testing_{path.stem}_{abs(hash(path))}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader, f"{path} is no python file"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def launch(n: int, target: Callable[..., Any], *args: Any, timeout: int | float = 120) -> list[Any]:
    """Run `target(*args)` in `n` CPU processes that see each other through gloo.

    The processes fork from a server that has imported torch already, so a launch costs about a second.

    Args:
        target: a top-level function of a file; it is found again by that file and its name.
        args: anything that pickles.

    Returns:
        what each rank returned, in their order.

    Raises:
        AssertionError: with the traceback, when a process fails, dies or takes longer than `timeout` seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gen_core.testing", "accelerate"])
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    file, name = inspect.getsourcefile(inspect.unwrap(target)), target.__qualname__
    queue = context.SimpleQueue()
    processes = [context.Process(target=_child, args=(r, n, port, file, name, args, queue)) for r in range(n)]
    for process in processes:
        process.start()
    results: dict[int, tuple[bool, Any]] = {}
    end = time.monotonic() + timeout
    try:
        while len(results) < n:
            while not queue.empty():
                rank, good, value = queue.get()
                results[rank] = good, value
                assert good, f"rank {rank} of {n} failed in {name}:\n{value}"
            dead = [r for r, p in enumerate(processes) if p.exitcode not in (None, 0) and r not in results]
            assert not dead or not queue.empty(), (
                f"rank {dead[0]} of {n} died in {name} ({processes[dead[0]].exitcode})"
            )
            assert time.monotonic() < end, (
                f"{name} on {n} processes took longer than {timeout} s; are all ranks called?"
            )
            time.sleep(0.01)
    finally:
        for process in processes:
            process.join(5 if len(results) == n else 0)
            process.kill()
    return [results[rank][1] for rank in range(n)]


def _child(rank: int, world: int, port: int, file: str, name: str, args: tuple, queue: Any) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"ACCELERATE_USE_CPU": "true"} | ({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {})
    torch.set_num_threads(1)
    try:
        value = getattr(load(file), name)(*args)
        queue.put((rank, True, _map(lambda x: x.detach().cpu().numpy(), value)))
    except BaseException:  # SystemExit too: whatever ends a process is what the test wants to see
        queue.put((rank, False, traceback.format_exc()))
        raise SystemExit(1) from None
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


# ---------------------------------------------------------------------- conformance


def check_task(make: Make, *, steps: int = 4, overfit: int = 0, only: tuple[str, ...] = ()) -> None:
    """Assert what a task owes its users; every failure is reported, in one AssertionError.

    resume     stopping after half of the steps and going on in a new trainer gives the same bits
    micro      micro-batches of 1 and 3 rows give the same curve as whole batches
    world      two processes give the same curve as one
    bf16       under autocast the loss is float32 and near the float32 one, and no state is kept in 16 bits
    overfit    with `overfit` steps on its first batch, the loss falls to less than half

    Args:
        make: a top-level function returning a new `(task, data)`, the same at every call.
        steps: length of each run; L-BFGS is chaotic beyond a few.
        overfit: steps of the last check; 0 leaves it out (for a GAN, say, whose losses need not fall).
        only: names of the checks to run; all by default.
    """
    checks = {"resume": _resume, "micro": _micro, "world": _world, "bf16": _bf16}
    if overfit:
        checks["overfit"] = lambda make, steps: _overfit(make, overfit)
    failures = []
    for name in only or checks:
        try:
            checks[name](make, steps)
        except Exception as error:  # a task may fail in any way; each is a finding
            failures.append(f"{name}: {error}" if isinstance(error, AssertionError) else f"{name}: {error!r}")
    assert not failures, "the task does not conform\n- " + "\n- ".join(failures)


class _Curve(Callback):
    """Every metric of every step."""

    def __init__(self):
        self.values: list[dict[str, float]] = []

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        self.values.append(t.read(metrics))


def train(make: Make, steps: int, run: Path | None = None, **options: Any) -> dict[str, Any]:
    """Train on the CPU in float64 and return {"state": weights and buffers, "curve": metrics of every step}."""
    with _float64():
        seed_all(0)
        task, data = make()
        curve = _Curve()
        data = data and _Cast(data, torch.float64)
        Trainer(task, run, device="cpu", precision="fp32", callbacks=[curve], **options).fit(data, steps)
    names = curve.values[0] if curve.values else {}
    series = {name: torch.tensor([v[name] for v in curve.values], dtype=torch.float64) for name in names}
    return {"state": {k: v.detach().clone() for k, v in task.state_dict().items()}, "curve": series}


def difference(a: dict[str, Any], b: dict[str, Any]) -> tuple[float, str]:
    """The largest relative difference between two results of `train`, and where it is."""
    worst, where = 0.0, ""
    for part in ("curve", "state"):
        for name, x in a[part].items():
            x, y = torch.as_tensor(x).double(), torch.as_tensor(b[part][name]).double()
            apart = ((x - y).abs() / (1 + y.abs())).max().item() if x.numel() else 0.0
            if not apart <= worst:  # nan is the worst
                worst, where = apart, name
    return worst, where


@contextmanager
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _Cast:
    """A data set whose floating-point batches are of one dtype."""

    def __init__(self, data: Data, dtype: torch.dtype):
        self.data, self.dtype = data, dtype
        self.order_hash = getattr(data, "order_hash", None)

    def __len__(self) -> int:
        return len(self.data)

    def batches(self, start: int, rank: int, world: int) -> Iterator[Any]:
        for batch in self.data.batches(start, rank, world):
            yield self._cast(batch)

    def once(self, rank: int, world: int) -> Iterator[tuple[int | None, Any]]:
        for number, batch in self.data.once(rank, world):
            yield number, self._cast(batch)

    def _cast(self, batch: Any) -> Any:
        return _map(lambda x: x.to(self.dtype) if x.is_floating_point() else x, batch)


def _resume(make: Make, steps: int) -> None:
    whole = train(make, steps)
    with TemporaryDirectory() as run:
        train(make, steps // 2, Path(run))
        resumed = train(make, steps, Path(run))
    resumed["curve"] = {k: torch.cat([whole["curve"][k][: steps // 2], v]) for k, v in resumed["curve"].items()}
    apart, where = difference(resumed, whole)
    assert apart == 0, (
        f"{where} differs by {apart:.2g} after resuming: something that matters is neither in the state_dict "
        "nor keyed by the step (a generator of the task's own, a python attribute, gradients left from a step before)"
    )


def _micro(make: Make, steps: int) -> None:
    whole = train(make, steps)
    for rows in (1, 3):
        apart, where = difference(train(make, steps, micro_batch=rows), whole)
        assert apart < 1e-8, (
            f"{where} differs by {apart:.2g} in micro-batches of {rows}: rows depend on each other (BatchNorm), noise "
            "is drawn inside the loss instead of by t.randn, or a masked mean needs minimize(..., weight=)"
        )


def _world(make: Make, steps: int) -> None:
    one = train(make, steps)
    file, name = inspect.getsourcefile(inspect.unwrap(make)), make.__qualname__
    two = launch(2, _train_again, file, name, steps, timeout=60)[0]
    apart, where = difference(two, one)
    assert apart < 1e-8, (
        f"{where} differs by {apart:.2g} on two processes: noise, statistics or a schedule depend on the rank; "
        "draw by t.randn, average by t.reduce, and let t.minimize make the updates"
    )


def _train_again(file: str, name: str, steps: int) -> dict[str, Any]:
    return train(getattr(load(file), name), steps)


def _bf16(make: Make, steps: int) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        seed_all(0)
        task, data = make()
        curve = _Curve()
        Trainer(task, device="cpu", precision=precision, callbacks=[curve]).fit(data and _Cast(data, torch.float32), 1)
        losses[precision] = curve.values[0]
        narrow = [k for k, v in task.state_dict().items() if v.dtype in (torch.bfloat16, torch.float16)]
        assert not narrow, f"{narrow[0]} is kept in 16 bits, where small updates round to nothing; keep it in float32"
    for name, value in losses["fp32"].items():
        apart = abs(losses["bf16"][name] - value) / (1e-3 + abs(value))
        assert apart < 0.1, f"{name} is {losses['bf16'][name]:.4g} in bf16 and {value:.4g} in float32"


def _overfit(make: Make, steps: int) -> None:
    seed_all(0)
    task, data = make()
    curve = _Curve()
    Trainer(task, device="cpu", precision="fp32", callbacks=[curve]).fit(data and _First(data, torch.float32), steps)
    name = next(iter(curve.values[0]))
    first, last = (sum(v[name] for v in part) / len(part) for part in (curve.values[:5], curve.values[-5:]))
    assert last < first / 2, f"{name} went from {first:.4g} to {last:.4g} in {steps} steps on one batch"


class _First(_Cast):
    """The first batch for ever."""

    def batches(self, start: int, rank: int, world: int) -> Iterator[Any]:
        batch = self._cast(next(iter(self.data.batches(0, rank, world))))
        while True:
            yield batch


def parameters_equal(a: nn.Module, b: nn.Module) -> bool:
    """Bit for bit, buffers included."""
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(isinstance(v, Tensor) and torch.equal(v, y[k]) for k, v in x.items())
