"""A run that starts from the weights of another, with other settings."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from gen_core import EMA, Checkpoint, NonFiniteLoss, Trainer, seed_all
from gen_core.checkpoint import full, latest, load_tensors, state_of
from gen_core.start import start
from gen_core.testing import launch, load

kinds = load(Path(__file__).with_name("kinds.py"))


class Slower(kinds.Noise):
    """The same network by another rate and decay."""

    def optimizers(self):
        return {"net": torch.optim.AdamW(kinds.decay_groups(self.net, 0.5), lr=1e-4)}


def first(run: Path, steps: int = 6, **about) -> kinds.Noise:
    """A trained run, whose model.json says what its average is of."""
    seed_all(0)
    task = Trainer(kinds.Noise(), run, device="cpu", callbacks=[EMA("net", 0.5)]).fit(_data(), steps)
    if about:
        (run / "model.json").write_text(json.dumps(about))
    return task


def _data(batch: int = 12):
    return kinds.Loader(kinds.Arrays(torch.randn(48, 8, generator=kinds.generator("data"))), batch)


def started(run: Path, path: Path, task: nn.Module | None = None, **options) -> Trainer:
    seed_all(1)
    trainer = Trainer(task or Slower(), run, seed=1, clip=0.5, device="cpu")
    trainer.start_from(path, **options)
    return trainer


@pytest.mark.parametrize("module", [None, "net"])
def test_weights_are_those_of_the_average_where_the_run_names_its_module(module, tmp_path):
    first(tmp_path / "a", **{"module": module} if module else {})
    file = "ema.safetensors" if module else "task.safetensors"
    wanted = load_tensors(latest(tmp_path / "a") / file)
    trainer = started(tmp_path / "b", tmp_path / "a")
    assert trainer.step == 0 and not trainer.optimizers["net"].state
    found = trainer.task.net.state_dict() if module else trainer.task.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[k], v) for k, v in wanted.items())


def test_an_average_of_the_whole_task_has_the_name_of_nothing(tmp_path):
    seed_all(0)
    Trainer(kinds.Noise(), tmp_path / "a", device="cpu", callbacks=[EMA("", 0.5)]).fit(_data(), 3)
    (tmp_path / "a" / "model.json").write_text('{"module": ""}')
    wanted = load_tensors(latest(tmp_path / "a") / "ema.safetensors")
    found = started(tmp_path / "b", tmp_path / "a").task.state_dict()
    assert all(torch.equal(found[k], v) for k, v in wanted.items())


def test_optimisers_bring_their_moments_but_no_setting(tmp_path):
    """Weights as they were trained, moments, and this run's own rates: a first step equals one made by hand."""
    task = first(tmp_path / "a", module="net")
    saved = torch.load(latest(tmp_path / "a") / "optim.pt", weights_only=True)["optimizers"]["net"]["state"]
    trainer = started(tmp_path / "b", tmp_path / "a", optimizers=True)
    assert all(torch.equal(p, q) for p, q in zip(trainer.task.parameters(), task.parameters(), strict=True))
    optimizer = trainer.optimizers["net"]
    own = [p for group in optimizer.param_groups for p in group["params"]]
    for index, entry in saved.items():
        assert all(torch.equal(optimizer.state[own[index]][k], v) for k, v in entry.items())
    assert [(g["lr"], g["initial_lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (1e-4, 1e-4, 0.5),
        (1e-4, 1e-4, 0.0),
    ]
    trainer.fit(_data(), 2)
    assert optimizer.state[own[0]]["step"] == 8


def test_one_checkpoint_may_be_named_and_a_later_fit_resumes_its_own(tmp_path):
    first(tmp_path / "a", steps=3)
    first(tmp_path / "a", steps=6)
    early = tmp_path / "a" / "checkpoints" / "step-000003"
    whole = started(tmp_path / "b", early).fit(_data(), 5)
    started(tmp_path / "c", early).fit(_data(), 2)
    resumed = started(tmp_path / "c", tmp_path / "a")  # of other weights, which the run's own checkpoint replaces
    assert resumed.fit(_data(), 5) is resumed.task and resumed.step == 5
    assert all(torch.equal(p, q) for p, q in zip(resumed.task.parameters(), whole.parameters(), strict=True))
    with pytest.raises(ValueError, match="5 steps are done; make a new Trainer"):
        resumed.start_from(early)


def test_what_does_not_fit_is_told_in_one_sentence(tmp_path):
    first(tmp_path / "a")

    class Wide(kinds.Noise):
        def __init__(self):
            super().__init__()
            self.net = kinds.mlp(9, 20, 8)

    sentence = r"do not fit this Wide: net\.0\.weight is \(16, 9\) instead of \(20, 9\) \(3 tensors differ\); build"
    with pytest.raises(ValueError, match=sentence):
        started(tmp_path / "b", tmp_path / "a", Wide())
    with pytest.raises(ValueError, match=r"fit this Em: mean is absent instead of \(2,\) \(6 tensors differ\)"):
        started(tmp_path / "b", tmp_path / "a", kinds.Em())

    class Other(kinds.Noise):
        def optimizers(self):
            return {"net": torch.optim.SGD(self.net.parameters(), lr=0.1)}

    class Renamed(kinds.Noise):
        def optimizers(self):
            return {"other": super().optimizers()["net"]}

    with pytest.raises(ValueError, match=r"of another kind or has other groups .* than this SGD; use optimizers=False"):
        started(tmp_path / "b", tmp_path / "a", Other(), optimizers=True)
    with pytest.raises(ValueError, match=r"has optimisers \['net'\], the task \['other'\]; use optimizers=False"):
        started(tmp_path / "b", tmp_path / "a", Renamed(), optimizers=True)


def test_a_directory_without_checkpoints_and_a_damaged_one_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no checkpoint; give the directory of a trained run"):
        started(tmp_path / "b", tmp_path)
    first(tmp_path / "a")
    checkpoint = latest(tmp_path / "a")
    (checkpoint / "task.safetensors").write_bytes(b"")
    for path in (checkpoint, tmp_path / "a"):
        with pytest.raises(ValueError, match=r"is damaged.*task\.safetensors has changed"):
            started(tmp_path / "b", path)


def test_extra_state_and_compiled_networks_are_taken(tmp_path):
    class Counted(nn.Linear):
        value = 0

        def get_extra_state(self):
            return {"value": self.value}

        def set_extra_state(self, state):
            self.value = state["value"]

    def task(compiled):
        made = kinds.Noise()
        made.net.append(Counted(8, 8))
        made.net[-1].value = 3 if compiled else 0
        if compiled:
            made.net = torch.compile(made.net, backend="eager")
        return made

    whole = Trainer(task(True), tmp_path / "a", device="cpu").fit(_data(), 2)
    trainer = started(tmp_path / "b", tmp_path / "a", task(False))
    assert trainer.task.net[-1].value == 3
    assert all(torch.equal(p, q) for p, q in zip(trainer.task.parameters(), whole.parameters(), strict=True))


def test_the_advice_after_a_loss_that_is_not_finite_can_be_followed(tmp_path):
    """The path in the message is one that start_from takes; the rate and the clip may then be others."""

    explode = lambda step: 1.0 if step < 5 else float("inf")
    callbacks = [Checkpoint(every=2)]
    trainer = Trainer(kinds.Noise(), tmp_path / "a", device="cpu", schedule=explode, callbacks=callbacks)
    with pytest.raises(NonFiniteLoss) as raised:
        trainer.fit(_data(), 200)
    advice = r"checkpoint is (.*); start from it in another run directory with a lower learning rate or clip=1\.0"
    checkpoint = re.search(advice, str(raised.value))
    assert checkpoint, str(raised.value)
    after = started(tmp_path / "b", Path(checkpoint[1]), optimizers=True)
    assert after.fit(_data(), 8) and after.step == 8


def test_two_processes_start_as_one_does(tmp_path):
    first(tmp_path / "a", module="net")
    one = _continued(tmp_path / "one", tmp_path / "a")
    for two in launch(2, _continued, tmp_path / "two", tmp_path / "a"):
        for name, value in one.items():
            torch.testing.assert_close(torch.as_tensor(two[name]), value, rtol=1e-5, atol=1e-6)
    with pytest.raises(AssertionError, match="has no checkpoint; give"):
        launch(2, _continued, tmp_path / "three", tmp_path)


def test_shards_take_a_whole_checkpoint(tmp_path):
    """Weights and moments under torch's fully_shard, gathered again, are those of the checkpoint."""
    task = first(tmp_path / "a")
    saved = torch.load(latest(tmp_path / "a") / "optim.pt", weights_only=True)["optimizers"]["net"]["state"]
    weights, moments = launch(2, _sharded, latest(tmp_path / "a"))[0]
    assert all((torch.as_tensor(weights[k]) == v).all() for k, v in task.state_dict().items())
    assert all((torch.as_tensor(moments[i]) == entry["exp_avg"]).all() for i, entry in saved.items())


def _sharded(checkpoint: Path) -> tuple[dict, dict]:
    dist.init_process_group("gloo")
    seed_all(1)
    task = Slower()
    fully_shard(task, mesh=init_device_mesh("cpu", (2,)))
    optimizer = task.optimizers()["net"]
    start(task, {"net": optimizer}, checkpoint)
    state = full(optimizer.state_dict())["state"]
    return full(state_of(task)), {i: entry["exp_avg"] for i, entry in state.items()}


def _continued(run: Path, path: Path) -> dict[str, torch.Tensor]:
    return dict(started(run, path, optimizers=True).fit(_data(), 3).state_dict())
