"""Two gloo processes: the same curve as one, agreement on every stop, each sample counted once.

Every function called `_...` runs in each process; a test compares what they return with one process.
"""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from gen_core import Arrays, Checkpoint, Interrupted, Loader, NonFiniteLoss, Task, Trainer, every, seed_all
from gen_core.checkpoint import capture, latest, restore
from gen_core.runtime import generator
from gen_core.testing import difference, launch, load, parameters_equal, train

kinds = load(Path(__file__).with_name("kinds.py"))
LIMIT = {"pinn": 1e-8}  # a line search amplifies rounding


def _curves(run: Path, stops: dict[str, int]) -> dict:
    return {
        kind: train(make, stops[kind], run / kind, **kinds.OPTIONS.get(kind, {})) for kind, make in kinds.KINDS.items()
    }


def test_two_processes_equal_one_and_either_continues_the_other(tmp_path):
    """Noise losses, GAN, PINN, EM and RL: weights and metrics, and a change of the process count in mid-run."""
    full = {kind: kinds.STEPS.get(kind, 16) for kind in kinds.KINDS}
    half = {kind: steps // 2 for kind, steps in full.items()}
    one = _curves(tmp_path / "one", full)
    first = _curves(tmp_path / "one then two", half)
    two, then_two, two_first = launch(2, _three, tmp_path, full, half)[0]
    then_one = _curves(tmp_path / "two then one", full)
    for kind in kinds.KINDS:
        limit = LIMIT.get(kind, 1e-12)
        assert difference(two[kind], one[kind])[0] < limit, (kind, difference(two[kind], one[kind]))
        for a, b in ((first, then_two), (two_first, then_one)):
            series = [{k: torch.as_tensor(v) for k, v in part[kind]["curve"].items()} for part in (a, b)]
            curve = {k: torch.cat([s[k] for s in series]) for k in series[0]}
            joined = {"state": b[kind]["state"], "curve": curve}
            assert difference(joined, one[kind])[0] < limit, (kind, difference(joined, one[kind]))


def _three(tmp: Path, full: dict, half: dict) -> tuple:
    parts = (("two", full), ("one then two", full), ("two then one", half))
    results = tuple(_curves(tmp / name, stops) for name, stops in parts)
    assert dist.get_world_size() == 2
    return results


def test_micro_batches_and_masks_on_two_processes_equal_one():
    one = _ragged()
    for result in launch(2, _ragged):
        assert difference(result, one)[0] < 1e-12


class Masked(Task):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 4)

    def optimizers(self):
        return {"net": torch.optim.SGD(self.net.parameters(), lr=0.1)}

    def loss(self, x, mask):
        return ((self.net(x) - x).square().mean(-1) * mask).sum() / mask.sum()

    def step(self, batch, t):
        return {"loss": t.minimize("net", self.loss, *batch, weight=lambda x, mask: mask.sum())}


def _masked():
    g = generator("masked")
    lengths = torch.randint(1, 7, (24,), generator=g)
    lengths[1::8] = 0  # rows without a valid token
    x = torch.randn(24, 6, 4, generator=g, dtype=torch.float64)
    return Masked(), Loader(Arrays(x, (torch.arange(6) < lengths[:, None]).double()), 8)


def _ragged() -> dict:
    return train(_masked, 6, micro_batch=3)


class Thawing(Task):
    """A layer that is frozen until step 3, by hand: DDP does not know it at first. Or the only one there is."""

    def __init__(self, alone: bool):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.last = nn.Identity() if alone else nn.Linear(4, 4)
        self.first.requires_grad_(False)

    def optimizers(self):
        return {"net": torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)}

    def loss(self, x):
        return (self.last(self.first(x).tanh()) - x).square().mean()

    def step(self, batch, t):
        self.first.requires_grad_(t.step >= 3)
        if not any(p.requires_grad for p in self.parameters()):
            return {"loss": t.reduce(self.loss(*batch).detach())}
        return {"loss": t.minimize("net", self.loss, *batch)}


def _thawing():
    return Thawing(alone=False), kinds.data(d=4)


def _thawing_alone():
    return Thawing(alone=True), kinds.data(d=4)


class Sparse(Masked):
    """Valid items in some rows only: at step 2 the second process has none; another update has no weights."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(4, 4)

    def optimizers(self):
        return super().optimizers() | {"other": torch.optim.SGD(self.other.parameters(), lr=0.1)}

    def step(self, batch, t):
        x, _ = batch
        plain = t.minimize("other", lambda x: (self.other(x) - x).square().mean(), x)
        return super().step(batch, t) | {"plain": plain}


def _sparse():
    x = torch.randn(24, 6, 4, generator=generator("sparse"), dtype=torch.float64)
    mask = torch.ones(24, 6, dtype=torch.float64)
    mask[20:] = 0
    return Sparse(), Loader(Arrays(x, mask), 8, shuffle=False)


MORE = {"thawing": (_thawing, {}), "thawing alone": (_thawing_alone, {}), "sparse": (_sparse, {})}
MORE |= {"sparse in pieces": (_sparse, {"micro_batch": 3})}


def test_unfrozen_layers_and_processes_without_valid_items_equal_one_process():
    """Without a gradient, or with one of 0 / 0, replicas drift apart or stop: each ends as one process does."""
    one = _more()
    for result in launch(2, _more):
        for name in MORE:
            apart, where = difference(result[name], one[name])
            assert apart < 1e-12, (name, where, apart)


def _more() -> dict:
    return {name: train(make, 6, **options) for name, (make, options) in MORE.items()}


def test_agreements(tmp_path):
    """One launch for all that two processes must agree on."""
    (start, rows, again, found), (start1, rows1, again1, found1) = launch(2, _agreements, tmp_path)
    assert (start == start1).all(), "initial weights differ between ranks"
    assert (rows != rows1).any(), "both ranks drew the same noise"
    whole = Trainer(kinds.Noise(), device="cpu").randn(6, 3)
    torch.testing.assert_close(torch.cat([torch.as_tensor(rows), torch.as_tensor(rows1)]), whole, rtol=0, atol=0)
    assert (again == again1).all(), "ranks ended with other weights"
    assert found == found1
    assert found == {
        "batchnorm": "BatchNorm",
        "nan": "nan at step 5; step-000003",
        "signal": "143 at step 4; step-000004",
        "resumed": True,
        "mean": 0.5,
        "counted": 1797.0,
        "divide": "batch_size 13 does not divide among 2 processes",
    }


def _agreements(tmp: Path) -> tuple:
    rank, found = int(os.environ["RANK"]), {}
    data = Loader(Arrays(torch.randn(24, 8, generator=generator(0))), 12)
    torch.manual_seed(rank)  # a user who forgot to seed
    trainer = Trainer(kinds.Noise(), device="cpu")
    start, rows = next(trainer.task.parameters()).clone(), trainer.randn(3, 3)
    again = next(trainer.fit(data, 4).parameters())
    for late in (0, 1):  # whichever process comes late to a checkpoint, both write and pass it
        slow = every(1, lambda t, m, late=late: time.sleep(0.1) if t.rank == late else None)
        callbacks = [slow, Checkpoint(every=2)]
        Trainer(kinds.Noise(), tmp / f"late {late}", device="cpu", callbacks=callbacks).fit(data, 4)

    class Normed(kinds.Noise):
        def __init__(self):
            super().__init__()
            self.net.append(nn.BatchNorm1d(8))

    try:
        Trainer(Normed(), device="cpu")
    except ValueError as error:
        found["batchnorm"] = "BatchNorm" if "is a BatchNorm" in str(error) else str(error)

    class Bad(kinds.Noise):
        def step(self, batch, t):
            (x,) = batch
            scale = float("nan") if t.step == 5 and t.rank == 1 else 1.0
            return {"loss": t.minimize("net", lambda x: self.net(torch.cat([x, x[:, :1]], 1)).mean() * scale, x)}

    try:
        Trainer(Bad(), tmp / "nan", device="cpu", callbacks=[Checkpoint(every=3)]).fit(data, 9)
    except NonFiniteLoss as error:
        step = str(error).split(" is ")[1].split(";")[0]
        found["nan"] = f"{step}; {latest(tmp / 'nan').name}"

    def one_rank(t, metrics):
        if t.step == 4 and t.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    seed_all(0)
    trainer = Trainer(kinds.Noise(), tmp / "signal", device="cpu", callbacks=[every(1, one_rank)])
    try:
        trainer.fit(data, 30)
    except Interrupted as stop:
        found["signal"] = f"{stop.code} at step {trainer.step}; {latest(tmp / 'signal').name}"
    ends = []
    for path in (tmp / "signal", tmp / "unbroken"):
        seed_all(0)
        ends.append(Trainer(kinds.Noise(), path, device="cpu").fit(data, 12))
    found["resumed"] = parameters_equal(*ends)

    class Count(Task):
        def evaluate(self, batch):
            return {"mean": batch[0], "counted": torch.ones(len(batch[0]), dtype=torch.float64)}

    x = torch.arange(1797, dtype=torch.float64) / 1796
    values = Trainer(Count(), device="cpu").evaluate(Loader(Arrays(x), 64))
    found["mean"] = round(values["mean"], 12)
    sizes = []

    class Seen(Task):
        def evaluate(self, batch):
            return {"x": batch[0]}

    loader = Loader(Arrays(torch.arange(1797.0)), 64)
    for number, (batch,) in loader.once(rank, 2):
        sizes.append(len(batch) if number is not None else 0)
    found["counted"] = float(Trainer(Seen(), device="cpu").reduce(torch.tensor(float(sum(sizes))), "sum"))
    try:
        next(Loader(Arrays(torch.zeros(26, 1)), 13).batches(0, rank, 2))
    except ValueError as error:
        found["divide"] = str(error).split(";")[0]
    return start, rows, again, found


def test_sharded_weights_and_optimisers_are_saved_whole_and_cut_again():
    """torch's fully_shard over gloo: 5 steps, capture, restore into a single process and back into shards."""
    sharded = launch(2, _shards)[0]
    seed_all(0)
    task, opt = kinds.Noise(), None
    opt = torch.optim.AdamW(task.parameters(), lr=1e-2)
    losses = _descend(task, task, opt, 5)
    assert sharded["losses"][:5] == pytest.approx(losses, rel=1e-5)
    for name, value in task.state_dict().items():
        torch.testing.assert_close(torch.as_tensor(sharded["five"][name]), value, rtol=1e-5, atol=1e-6)
    more = _descend(task, task, opt, 3)
    assert sharded["losses"][5:] == pytest.approx(more, rel=1e-5), "restored shards went on differently"


def _shards() -> dict:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    seed_all(0)
    task = kinds.Noise()
    fully_shard(task, mesh=mesh)
    opt = torch.optim.AdamW(task.parameters(), lr=1e-2)
    losses = _descend(task, task, opt, 5)
    tensors, other, plain = capture(task, {"net": opt}, [])
    seed_all(1)
    fresh = kinds.Noise()
    fully_shard(fresh, mesh=mesh)
    again = torch.optim.AdamW(fresh.parameters(), lr=1e-2)
    restore(fresh, {"net": again}, [], tensors, other, plain)
    losses += _descend(fresh, fresh, again, 3)
    return {"losses": losses, "five": tensors["task"]}


def _descend(model: nn.Module, task: kinds.Noise, opt: torch.optim.Optimizer, steps: int) -> list[float]:
    x = torch.randn(12, 8, generator=generator("x"))
    losses = []
    for _ in range(steps):
        opt.zero_grad()
        loss = model(task.loss, x, torch.linspace(0, 1, 12), x.flip(0))
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses
