"""One process: exact resume, micro-batches, several optimisers, precision, refusals, signals."""

import json
import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from gen_core import (
    EMA,
    Arrays,
    Callback,
    Checkpoint,
    EarlyStopping,
    Evaluate,
    Interrupted,
    Jsonl,
    Loader,
    NonFiniteLoss,
    Task,
    Trainer,
    every,
    seed_all,
)
from gen_core.checkpoint import latest, load_tensors
from gen_core.runtime import generator, key, numpy_seed
from gen_core.testing import load, parameters_equal, train

kinds = load(Path(__file__).with_name("kinds.py"))


def joined(first: dict, second: dict) -> dict:
    return {name: torch.cat([first[name], second[name]]) for name in first}


def assert_same(a: dict, b: dict, atol: float = 0.0) -> None:
    for part in ("curve", "state"):
        assert a[part].keys() == b[part].keys()
        for name in a[part]:
            torch.testing.assert_close(
                a[part][name], b[part][name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
            )


# ---------------------------------------------------------------------- resume


@pytest.mark.parametrize("kind", [*kinds.KINDS, "noise_dropout"])
def test_resume_in_mid_epoch_is_bit_exact(kind, tmp_path):
    """5 steps an epoch, stopped at 7 of 20: weights and every value of every metric are those of one run."""
    make, options = getattr(kinds, kind), kinds.OPTIONS.get(kind, {})
    whole = train(make, 20, **options)
    first = train(make, 7, tmp_path, **options)
    rest = train(make, 20, tmp_path, **options)
    assert_same({"state": rest["state"], "curve": joined(first["curve"], rest["curve"])}, whole)


def test_a_loss_with_dropout_depends_on_the_step(tmp_path):
    """Guards the test above: dropout and noise do change from step to step and with the seed."""
    curve = train(kinds.noise_dropout, 4)["curve"]["loss"]
    assert len(set(curve.tolist())) == 4
    assert not torch.equal(curve, train(kinds.noise_dropout, 4, seed=1)["curve"]["loss"])


def test_metrics_file_after_an_interruption_is_that_of_one_run(tmp_path):
    """Lines logged after the checkpoint and before the kill are dropped on resume."""

    def run(path, steps):
        task, data = seeded(kinds.noise)
        Trainer(task, path, device="cpu", callbacks=[Jsonl(every=2), Checkpoint(every=5)]).fit(data, steps)
        return path / "metrics.jsonl"

    whole = run(tmp_path / "whole", 16).read_text()
    run(tmp_path / "cut", 5)
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:  # as if killed at step 9: logged, not checkpointed
        file.write('{"step": 6, "loss": 1e9}\n{"step": 8, "lo')
    assert run(tmp_path / "cut", 16).read_text() == whole
    assert [json.loads(line)["step"] for line in whole.splitlines()] == [2, 4, 6, 8, 10, 12, 14, 16]


def seeded(make):
    torch.set_default_dtype(torch.float64)
    try:
        seed_all(0)
        return make()
    finally:
        torch.set_default_dtype(torch.float32)


def test_callback_state_is_part_of_a_checkpoint(tmp_path):
    class Count(Callback):
        n = 0

        def on_step_end(self, t, metrics):
            self.n += 1

        def state_dict(self):
            return {"n": self.n, "tensor": torch.tensor([self.n])}

        def load_state_dict(self, state):
            self.n = state["n"]
            assert state["tensor"].tolist() == [self.n]

    for steps in (3, 8):
        count = Count()
        task, data = seeded(kinds.noise)
        Trainer(task, tmp_path, device="cpu", callbacks=[count]).fit(data, steps)
        assert count.n == steps


def test_numbers_of_numpy_are_saved_as_pythons_and_are_the_same_run(tmp_path):
    """A seed, a clip and a learning rate read from an array or a table."""

    class Noted(Callback):
        def state_dict(self):
            return {"best": np.float32(0.5), "seen": [np.int64(3)]}

    class Rate(kinds.Noise):
        rate = 0.01

        def optimizers(self):
            return {"net": torch.optim.AdamW(self.net.parameters(), lr=self.rate)}

    data, ends = Loader(Arrays(torch.randn(24, 8, generator=generator(0))), 12), []
    for path, number in (("a", lambda x: x), ("b", lambda x: np.asarray(x)[()])):
        for steps, convert in ((2, number), (4, lambda x: x)):
            seed_all(number(0))
            task = Rate()
            task.rate = convert(0.01)
            options = {"seed": convert(0), "clip": convert(0.5), "callbacks": [Noted()]}
            ends.append(Trainer(task, tmp_path / path, device="cpu", **options).fit(data, steps))
    assert parameters_equal(ends[1], ends[3])


@pytest.mark.parametrize(("changed", "named"), [({"seed": 1}, "seed=0"), ({"clip": 2.0}, "clip=None")])
def test_resuming_another_configuration_names_the_field(changed, named, tmp_path):
    task, data = seeded(kinds.noise)
    Trainer(task, tmp_path, device="cpu").fit(data, 2)
    with pytest.raises(ValueError, match=named):
        Trainer(seeded(kinds.noise)[0], tmp_path, device="cpu", **changed).fit(data, 4)


def test_resuming_with_another_order_of_the_data_is_refused(tmp_path):
    task, data = seeded(kinds.noise)
    Trainer(task, tmp_path, device="cpu").fit(data, 2)
    with pytest.raises(ValueError, match="order of the data"):
        Trainer(seeded(kinds.noise)[0], tmp_path, device="cpu").fit(kinds.data(batch=8), 4)


def test_a_run_with_checkpoints_is_not_overwritten(tmp_path):
    task, data = seeded(kinds.noise)
    Trainer(task, tmp_path, device="cpu").fit(data, 2)
    with pytest.raises(ValueError, match="step-000002"):
        Trainer(seeded(kinds.noise)[0], tmp_path, device="cpu").fit(data, 4, resume=False)


def test_evaluation_and_callbacks_do_not_disturb_training():
    """A callback that draws from every stream and evaluates leaves the curve as it was."""

    def draw(t, metrics):
        torch.randn(5), t.evaluate(data)

    def losses(callbacks):
        values = []
        task, _ = seeded(kinds.noise_dropout)
        read = every(1, lambda t, m: values.append(t.read(m)["loss"]), order=50)
        Trainer(task, device="cpu", callbacks=[*callbacks, read]).fit(data, 8)
        return values

    data = kinds.data()
    assert losses([every(1, draw), Evaluate(data, every=2)]) == losses([])


# ---------------------------------------------------------------------- updates


@pytest.mark.parametrize("kind", ["noise", "gan", "pinn", "rl"])
def test_micro_batches_never_change_the_update(kind):
    """Pieces of 1, 3, 4 (12 rows: 3 and 4 divide, 5 leaves a tail) and all rows give one curve."""
    options, steps = kinds.OPTIONS.get(kind, {}), kinds.STEPS.get(kind, 16)
    whole = train(kinds.KINDS[kind], steps, **options)
    for rows in (1, 3, 4, 5, 100):
        assert_same(train(kinds.KINDS[kind], steps, micro_batch=rows, **options), whole, 1e-12)


class Tokens(Task):
    """Mean over the valid tokens of ragged rows."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 4)

    def optimizers(self):
        return {"net": torch.optim.SGD(self.net.parameters(), lr=0.1)}

    def loss(self, x, mask):
        per_token = (self.net(x) - x).square().mean(-1)
        return (per_token * mask).sum() / mask.sum()

    def step(self, batch, t):
        return {"loss": t.minimize("net", self.loss, *batch, weight=lambda x, mask: mask.sum())}


def tokens():
    g = generator("tokens")
    x = torch.randn(24, 6, 4, generator=g, dtype=torch.float64)
    lengths = torch.randint(1, 7, (24,), generator=g)
    lengths[::5] = 0  # rows without a valid token
    return Tokens(), Loader(Arrays(x, (torch.arange(6) < lengths[:, None]).double()), 8)


def test_token_weighted_loss_is_the_sum_over_tokens_by_their_number():
    """Against a hand-written loop; the plain mean of micro-batch means differs in the third digit."""
    torch.set_default_dtype(torch.float64)
    seed_all(0)
    task, data = tokens()
    torch.set_default_dtype(torch.float32)
    net = nn.Linear(4, 4, dtype=torch.float64)
    net.load_state_dict(task.net.state_dict())
    opt, batches = torch.optim.SGD(net.parameters(), lr=0.1), data.batches()
    for _ in range(6):
        x, mask = next(batches)
        opt.zero_grad()
        (((net(x) - x).square().mean(-1) * mask).sum() / mask.sum()).backward()
        opt.step()
    for rows in (None, 1, 3):
        result = train(tokens, 6, micro_batch=rows)["state"]
        torch.testing.assert_close(result["net.weight"], net.weight.detach(), rtol=0, atol=1e-12)


class Leaky(kinds.Gan):
    def d_loss(self, x, z):
        if self.broken:
            raise RuntimeError("broken loss")
        return super().d_loss(x, z)


def test_minimize_leaves_other_optimisers_parameters_alone():
    """After one update of d, g has no gradient and is trainable as before; also when the loss raises."""
    task = Leaky()
    task.d[0].bias.requires_grad_(False)
    trainable = {n: p.requires_grad for n, p in task.named_parameters()}
    trainer = Trainer(task, device="cpu")
    before = [p.clone() for p in task.g.parameters()]
    for task.broken in (False, True):
        try:
            trainer.minimize("d", task.d_loss, torch.randn(5, 8), torch.randn(5, 4))
        except RuntimeError as error:
            assert task.broken and "broken loss" in str(error)
        assert all(p.grad is None for p in task.g.parameters())
        assert {n: p.requires_grad for n, p in task.named_parameters()} == trainable
    assert all(torch.equal(p, q) for p, q in zip(task.g.parameters(), before, strict=True))


def test_schedule_multiplies_every_groups_own_rate():
    rates = []

    class Two(kinds.Noise):
        def optimizers(self):
            first, *rest = self.net.parameters()
            return {"net": torch.optim.SGD([{"params": [first], "lr": 0.5}, {"params": rest}], lr=0.1)}

    def note(t, metrics):
        rates.append([g["lr"] for g in t.optimizers["net"].param_groups])

    Trainer(Two(), device="cpu", schedule=lambda s: 1 / (1 + s), callbacks=[every(1, note)]).fit(
        Loader(Arrays(torch.randn(24, 8)), 12), 3
    )
    assert rates == [[pytest.approx(0.5 / k), pytest.approx(0.1 / k)] for k in (1, 2, 3)]


def test_frozen_modules_stay_bit_equal_running_statistics_included():
    """Also after evaluations within an average of the weights, which change the mode of every module."""

    class Tuned(Task):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
            self.head = nn.Linear(8, 8)
            self.backbone.requires_grad_(False)

        def optimizers(self):
            return {"head": torch.optim.SGD(self.head.parameters(), lr=0.1)}

        def loss(self, x):
            return (self.head(self.backbone(x)) - x).square().mean()

        def step(self, batch, t):
            assert self.head.training and not self.backbone.training
            return {"loss": t.minimize("head", self.loss, *batch)}

        def evaluate(self, batch):
            return {"mse": (self.head(self.backbone(batch[0])) - batch[0]).square().mean(1)}

    task = Tuned()
    before = {k: v.clone() for k, v in task.state_dict().items()}
    ema, data = EMA("", 0.9), Loader(Arrays(torch.randn(24, 8)), 12)
    Trainer(task, device="cpu", callbacks=[ema, Evaluate(data, 1, within=ema.swapped)]).fit(data, 5)
    after = task.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("backbone"))
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_a_vector_loss_and_an_unknown_optimiser_are_refused():
    trainer = Trainer(kinds.Noise(), device="cpu")
    with pytest.raises(ValueError, match=r"scalar; got shape \(3,\)"):
        trainer.minimize("net", lambda x: x.sum(1), torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"no optimiser 'nets'; .* returned net"):
        trainer.minimize("nets", lambda x: x.sum(), torch.zeros(3, 3))


@pytest.mark.parametrize("n", [8, 5])
def test_micro_batches_refuse_arguments_of_several_lengths(n):
    """A vector as long as the batch is wide, or not: only rows are cut."""
    trainer = Trainer(kinds.Noise(), device="cpu", micro_batch=2)
    with pytest.raises(ValueError, match="same number of rows"):
        trainer.minimize("net", lambda x, w: (x * w).sum(), torch.zeros(n, 8), torch.zeros(n + 1))


class Captioned(Task):
    """Pictures with captions, as `default_collate` batches them: a list of strings beside tensors."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 1, dtype=torch.float64)

    def optimizers(self):
        return {"net": torch.optim.SGD(self.net.parameters(), lr=0.1)}

    def loss(self, x, words):
        assert len(words["text"]) == len(x)
        wanted = torch.tensor([float(len(text)) for text in words["text"]], dtype=x.dtype)
        return (self.net(x)[:, 0] - wanted).square().mean()

    def step(self, batch, t):
        return {"loss": t.minimize("net", self.loss, *batch)}


def captioned():
    x = torch.randn(10, 3, generator=generator("x"), dtype=torch.float64)
    rows = [(x[i], {"text": "a" * i}) for i in range(10)]
    return Captioned(), Loader(rows, 10)


def test_micro_batches_cut_captions_with_their_pictures():
    whole = train(captioned, 4)
    for rows in (1, 3, 5):
        assert_same(train(captioned, 4, micro_batch=rows), whole, 1e-12)


# ---------------------------------------------------------------------- precision


class Distill(Task):
    """A difference of two nearly equal outputs: in bf16 its rounding is larger than itself."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = kinds.mlp(8, 32, 8), kinds.mlp(8, 32, 8)
        self.teacher.load_state_dict(self.student.state_dict())
        with torch.no_grad():
            self.teacher[0].weight.mul_(1.2)
        self.seen = []

    def optimizers(self):
        return {"student": torch.optim.SGD(self.student.parameters(), lr=0.0)}

    def loss(self, x):
        a, b = self.student(x), self.teacher(x)
        self.seen.append((a.dtype, (a - b).dtype))
        return (a - b).square().mean()

    def step(self, batch, t):
        return {"loss": t.minimize("student", self.loss, *batch)}


def test_under_bf16_outputs_losses_and_gradients_are_float32():
    losses, x = {}, torch.randn(64, 8, generator=generator("x"))
    for precision in ("fp32", "bf16"):
        seed_all(0)
        task = Distill()
        trainer = Trainer(task, device="cpu", precision=precision)
        loss = trainer.minimize("student", task.loss, x)
        assert loss.dtype == torch.float32
        assert task.seen == [(torch.float32, torch.float32)]
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in task.student.parameters())
        losses[precision] = loss.item()
    assert losses["bf16"] != losses["fp32"], "autocast did not run"
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2)


def test_trainers_of_several_precisions_live_in_one_process():
    task = Distill()
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32), ("bf16", torch.bfloat16)):
        trainer = Trainer(task, device="cpu", precision=precision)
        inner = trainer.task(lambda: (torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        assert inner == dtype, f"{precision} computes in {inner}"


# ---------------------------------------------------------------------- refusals


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_an_absent_device_is_refused(device):
    with pytest.raises(ValueError, match=r"absent: torch sees 0 CUDA devices; use cpu or auto"):
        Trainer(kinds.Noise(), device=device)


def test_unknown_devices_and_precisions_are_refused():
    with pytest.raises(ValueError, match="use auto, cpu, cuda"):
        Trainer(kinds.Noise(), device="gpu")
    with pytest.raises(ValueError, match="fp16"):
        Trainer(kinds.Noise(), device="cpu", precision="fp16")
    with pytest.raises(ValueError, match="use auto, bf16 or fp32"):
        Trainer(kinds.Noise(), device="cpu", precision="double")


def test_clipping_with_lbfgs_is_refused():
    with pytest.raises(ValueError, match="clip=None"):
        Trainer(kinds.Pinn(), device="cpu", clip=1.0)


def test_a_world_that_processes_do_not_see_is_refused(monkeypatch):
    """As accelerate makes of `torchrun` on a machine without an accelerator unless it is told cpu=True."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.Accelerator", lambda **_: SimpleNamespace(process_index=0, num_processes=1))
    with pytest.raises(ValueError, match="started 2 processes but each sees a world of 1"):
        Trainer(kinds.Noise(), device="cpu")


# ---------------------------------------------------------------------- non-finite losses and signals


class Explodes(kinds.Noise):
    def step(self, batch, t):
        (x,) = batch
        scale = float("nan") if t.step == 7 else 1.0
        return {"loss": t.minimize("net", lambda x: self.net(torch.cat([x, x[:, :1]], 1)).mean() * scale, x)}


def test_a_nan_stops_at_its_step_with_the_last_checkpoint_intact(tmp_path):
    data = Loader(Arrays(torch.randn(24, 8)), 12)
    trainer = Trainer(Explodes(), tmp_path, device="cpu", callbacks=[Checkpoint(every=5)])
    with pytest.raises(
        NonFiniteLoss, match=r"loss of 'net' is nan at step 7; the last good checkpoint is .*step-000005"
    ):
        trainer.fit(data, 20)
    fresh = Trainer(Explodes(), tmp_path, device="cpu")
    fresh.load(latest(tmp_path))
    assert fresh.step == 5 and all(p.isfinite().all() for p in fresh.task.parameters())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_resumes_exactly(number, code, tmp_path):
    whole = train(kinds.noise_dropout, 12)

    def at_four(t, metrics):
        if t.step == 4 and not resumed:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    for resumed in (False, True):
        task, data = seeded(kinds.noise_dropout)
        trainer = Trainer(task, tmp_path, device="cpu", callbacks=[every(1, at_four)])
        if not resumed:
            with pytest.raises(Interrupted) as stop:
                trainer.fit(data, 12)
            assert stop.value.code == code
            assert latest(tmp_path).name == "step-000004"
            assert signal.getsignal(number) is before
        else:
            trainer.fit(data, 12)
    torch.testing.assert_close(dict(task.state_dict()), whole["state"], rtol=0, atol=0)


def test_a_second_signal_acts_at_once(tmp_path):
    class Stubborn(kinds.Noise):
        def step(self, batch, t):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("still running after the second Ctrl-C")

    with pytest.raises(KeyboardInterrupt):
        Trainer(Stubborn(), tmp_path, device="cpu").fit(kinds.data(), 3)


def test_a_signal_cuts_an_evaluation_short():
    class Slow(kinds.Noise):
        batches = 0

        def evaluate(self, batch):
            self.batches += 1
            os.kill(os.getpid(), signal.SIGTERM)
            return super().evaluate(batch)

    task, data = Slow(), Loader(Arrays(torch.randn(64, 8)), 4)
    with pytest.raises(Interrupted):
        Trainer(task, device="cpu", callbacks=[Evaluate(data, every=1)]).fit(data, 3)
    assert task.batches == 1


class NanGradient(Task):
    """A finite loss with a gradient that is not: sqrt at 0."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def optimizers(self):
        return {"w": torch.optim.SGD([self.w], lr=0.1)}

    def step(self, batch, t):
        zero = 0.0 if t.step == 5 else 1.0
        return {"loss": t.minimize("w", lambda: ((self.w * zero).sqrt() * zero + 1).mean())}


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"w is not finite after step 5; the last good checkpoint is .*step-000004"):
        Trainer(NanGradient(), tmp_path, device="cpu", callbacks=[Checkpoint(every=2, keep=1)]).fit(None, 6)
    fresh = Trainer(NanGradient(), tmp_path, device="cpu")
    fresh.load(latest(tmp_path))
    assert fresh.task.w.isfinite().all()


def test_without_a_run_directory_they_are_not_returned_either():
    with pytest.raises(
        NonFiniteLoss, match=r"w is not finite after step 5; train again with a lower learning rate or clip=1\.0"
    ):
        Trainer(NanGradient(), device="cpu").fit(None, 6)


@pytest.mark.parametrize(("kind", "named"), [("lr", "initial_lr=0.01"), ("weight_decay", "weight_decay=0.01")])
def test_resuming_with_another_optimiser_names_its_field(kind, named, tmp_path):
    class Other(kinds.Noise):
        def optimizers(self):
            made = super().optimizers()
            made["net"].param_groups[0][kind] = 0.5
            return made

    data = Loader(Arrays(torch.randn(24, 8)), 12)
    Trainer(kinds.Noise(), tmp_path, device="cpu").fit(data, 2)
    with pytest.raises(ValueError, match=named):
        Trainer(Other(), tmp_path, device="cpu").fit(data, 4)


def test_evaluating_after_a_stop_gives_figures():
    data = Loader(Arrays(torch.randn(24, 8)), 12)
    trainer = Trainer(kinds.Noise(), device="cpu", callbacks=[every(2, lambda t, m: t.stop())])
    trainer.fit(data, 9)
    assert trainer.step == 2 and trainer.evaluate(data)["mse"] > 0


def test_a_run_that_stopped_early_stays_stopped(tmp_path):
    class Given(Task):
        def step(self, batch, t):
            return {"m": torch.tensor(1.0)}

    for _ in range(2):
        trainer = Trainer(Given(), tmp_path, device="cpu", callbacks=[EarlyStopping("m", patience=3)])
        trainer.fit(None, 20)
        assert trainer.step == 4


@pytest.mark.parametrize("clip", [0.0, -1.0])
def test_a_clip_that_is_no_norm_is_refused(clip):
    with pytest.raises(ValueError, match=f"positive, got {clip}"):
        Trainer(kinds.Noise(), device="cpu", clip=clip)


def test_batchnorm_under_micro_batches_is_refused():
    task = kinds.Noise()
    task.net.append(nn.BatchNorm1d(8, affine=False))
    with pytest.raises(ValueError, match=r"net.4 is a BatchNorm, which under micro-batches"):
        Trainer(task, device="cpu", micro_batch=2)


def test_only_tensors_are_exchanged():
    trainer = Trainer(kinds.Noise(), device="cpu")
    with pytest.raises(TypeError, match=r"got float 1.0; wrap it in torch.tensor"):
        trainer.reduce({"n": 1.0}, "sum")


def test_logs_follow_their_interval_whatever_the_metrics_are(tmp_path):
    def rate(t, metrics):
        metrics["lr"] = 0.1

    data = Loader(Arrays(torch.randn(24, 8)), 12)
    callbacks = [every(1, rate), Evaluate(data, every=7), Jsonl(every=5)]
    Trainer(kinds.Noise(), tmp_path, device="cpu", callbacks=callbacks).fit(data, 10)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [5, 7, 10]


class Compiled(kinds.Noise):
    def __init__(self, compiled: bool):
        super().__init__()
        if compiled:
            self.net = torch.compile(self.net, backend="eager")


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_a_checkpoint_does_not_depend_on_compilation(order, tmp_path):
    """A run that was begun with torch.compile goes on without it, and the other way round, with its average."""

    def run(path, *parts):
        for compiled, steps in parts:
            seed_all(0)
            ema, data = EMA("net", 0.9), Loader(Arrays(torch.randn(24, 8, generator=generator(0))), 12)
            task = Trainer(Compiled(compiled), path, device="cpu", callbacks=[ema]).fit(data, steps)
        return task, ema

    first, second = order
    _, ema = run(tmp_path / "a", (first, 3), (second, 6))
    whole, average = run(tmp_path / "b", (False, 6))
    weights = load_tensors(latest(tmp_path / "a") / "task.safetensors")
    assert weights.keys() == whole.state_dict().keys()
    assert all(torch.equal(weights[k], v) for k, v in whole.state_dict().items())
    assert ema.average.keys() == average.average.keys() == whole.net.state_dict().keys()
    assert all(torch.equal(ema.average[k], v) for k, v in average.average.items())


def test_weights_of_a_compiled_network_that_are_not_finite_are_not_saved(tmp_path):
    class Broken(Compiled):
        def step(self, batch, t):
            loss = super().step(batch, t)
            next(self.net.parameters()).data.fill_(torch.nan)
            return loss

    with pytest.raises(NonFiniteLoss, match=r"net\.0\.weight is not finite"):
        Trainer(Broken(True), tmp_path, device="cpu").fit(Loader(Arrays(torch.randn(24, 8)), 12), 1)


class Jitter:
    """Rows that draw from the global streams, and a transform that draws from its generator."""

    def __len__(self):
        return 64

    def __getitem__(self, i):
        return (torch.full((8,), float(i)) / 64 + torch.rand(8),)


def shift(sample, g):
    return (sample[0] + 0.1 * torch.randn(8, generator=g),)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_with_augmentation_and_workers_is_bit_exact(workers, tmp_path):
    """Step 11 of 24, 5 steps an epoch; 0 and 2 workers end at the same weights."""

    def run(path, *stops, workers=workers):
        for steps in stops:
            seed_all(0)
            task = kinds.Noise(dropout=0.2)
            data = Loader(Jitter(), 12, transform=shift, workers=workers)
            Trainer(task, path, device="cpu").fit(data, steps)
        return task

    whole = run(tmp_path / "a", 24)
    assert parameters_equal(whole, run(tmp_path / "b", 11, 24))
    assert parameters_equal(whole, run(tmp_path / "c", 24, workers=0))


# ---------------------------------------------------------------------- metrics and evaluation


def test_metrics_stay_on_the_device_until_somebody_reads_them(monkeypatch):
    """20 steps with a log every 10: two transfers, however many callbacks read the same values."""
    transfers = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: transfers.append(1) or tolist(self))
    seen = []
    started = every(1, lambda t, m: transfers.clear() if t.step == 1 else None)
    callbacks = [
        started,
        every(10, lambda t, m: seen.append(t.read(m))),
        every(10, lambda t, m: seen.append(t.read(m))),
    ]
    callbacks.append(every(1, lambda t, m: seen.append(m["loss"])))
    data = Loader(Arrays(torch.randn(24, 8)), 12)
    Trainer(kinds.Noise(), device="cpu", callbacks=callbacks).fit(data, 20)
    assert len(transfers) == 2
    assert all(isinstance(value, torch.Tensor | dict) for value in seen)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_step_never_waits_for_the_gpu():
    """torch raises at any synchronising call between two logging steps."""
    data = Loader(Arrays(torch.randn(64, 8)), 16)

    def guard(t, metrics):
        torch.cuda.set_sync_debug_mode("error" if t.step < 20 else "default")

    try:
        Trainer(kinds.Noise(), device="cuda", callbacks=[every(1, guard)]).fit(data, 20)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_the_gpu_trains_in_bf16_and_resumes_bit_for_bit(tmp_path):
    data = Loader(Arrays(torch.randn(64, 8, generator=generator(0))), 16)

    def run(path, *stops):
        for steps in stops:
            seed_all(0)
            task = kinds.Noise(dropout=0.2)
            trainer = Trainer(task, path, device="auto", clip=1.0)
            assert trainer.device.type == "cuda" and trainer.precision == "bf16"
            trainer.fit(data, steps)
        return task

    assert parameters_equal(run(tmp_path / "a", 20), run(tmp_path / "b", 7, 20))


def test_evaluation_counts_every_sample_once():
    """1,797 samples in batches of 64: the plain mean over samples, not the mean of batch means."""

    class Mean(Task):
        def evaluate(self, batch):
            return {"value": batch[0][:, 0]}

    x = torch.rand(1797, 1, generator=generator("e"), dtype=torch.float64)
    value = Trainer(Mean(), device="cpu").evaluate(Loader(Arrays(x), 64))["value"]
    assert value == pytest.approx(x.mean().item(), abs=1e-12)
    means = torch.stack([b.mean() for b in x[:, 0].split(64)]).mean()
    assert abs(means - x.mean()) > 1e-6, "the plausible mistake would pass"


def test_a_metric_with_weights_is_their_mean_over_everything():
    """Rows of 0 to 9 tokens: neither the mean of row means, nor poisoned by the 0 / 0 of an empty row."""

    class Tokens(Task):
        def evaluate(self, batch):
            return {"loss": (batch[0] / batch[1], batch[1])}

    count = torch.randint(0, 10, (100,), generator=generator("w")).double()
    total = torch.rand(100, generator=generator("t"), dtype=torch.float64) * count
    value = Trainer(Tokens(), device="cpu").evaluate(Loader(Arrays(total, count), 8))["loss"]
    assert value == pytest.approx((total.sum() / count.sum()).item(), abs=1e-12)


def test_evaluation_draws_the_same_noise_every_time():
    task, data = seeded(kinds.noise)
    trainer = Trainer(task, device="cpu")
    first = trainer.evaluate(data)
    torch.randn(3)
    assert trainer.evaluate(data) == first and task.training


def test_evaluate_refuses_a_batch_mean():
    class Mean(Task):
        def evaluate(self, batch):
            return {"value": batch[0].mean()}

    with pytest.raises(ValueError, match="value per sample"):
        Trainer(Mean(), device="cpu").evaluate(Loader(Arrays(torch.rand(8, 1)), 4))


@pytest.mark.parametrize("first", [math.nan, math.inf, -math.inf])
def test_a_first_figure_that_is_not_finite_is_not_the_best(first, tmp_path):
    """It is one report without improvement; the first finite figure is the best so far."""
    series = [first, 3.0, 2.0, first, 2.5, 2.5, 2.5]

    class Given(Task):
        def step(self, batch, t):
            return {"m": torch.tensor(series[t.step])}

    stopping, best = EarlyStopping("m", patience=4), Checkpoint(every=100, best="m")
    trainer = Trainer(Given(), tmp_path, device="cpu", callbacks=[stopping, best])
    trainer.fit(None, len(series))
    assert (stopping.best, stopping.waited, trainer.step) == (2.0, 4, 7)
    assert (best.best, best.best_step) == (2.0, 3)


def test_early_stopping_stops_at_the_hand_counted_step():
    """5 4 3 3.1 3.2 2 2 2.1 2.2: the best at step 6; three reports without improvement end it at step 9."""
    series = [5, 4, 3, 3.1, 3.2, 2, 2, 2.1, 2.2, 0, 0]

    class Given(Task):
        def step(self, batch, t):
            return {"m": torch.tensor(series[t.step])}

    trainer = Trainer(Given(), device="cpu", callbacks=[EarlyStopping("m", patience=3)])
    trainer.fit(None, len(series))
    assert trainer.step == 9


def test_checkpoints_keep_the_newest_and_the_best(tmp_path):
    series = [5, 4, 1, 3, 2, 2, 2, 2, 2, 2]

    class Given(Task):
        def step(self, batch, t):
            return {"m": torch.tensor(float(series[t.step]))}

    Trainer(Given(), tmp_path, device="cpu", callbacks=[Checkpoint(every=4, keep=1, best="m")]).fit(None, 10)
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == ["latest", "step-000003", "step-000008", "step-000010"]


def test_four_hooks_are_called_in_order():
    calls = []

    class Watch(Callback):
        def on_train_begin(self, t):
            calls.append(("begin", t.step))

        def on_step_end(self, t, metrics):
            calls.append(("step", t.step))

        def on_epoch_end(self, t, metrics):
            calls.append(("epoch", t.step))

        def on_train_end(self, t):
            calls.append(("end", t.step))

    Trainer(kinds.Noise(), device="cpu", callbacks=[Watch()]).fit(Loader(Arrays(torch.randn(6, 8)), 3), 3)
    assert calls == [("begin", 0), ("step", 1), ("step", 2), ("epoch", 2), ("step", 3), ("end", 3)]


def test_tensorboard_events_equal_metrics_jsonl(tmp_path):
    """Value for value, in double precision."""
    pytest.importorskip("tensorboard")
    from gen_core import TensorBoard

    task, data = seeded(kinds.noise)
    Trainer(task, tmp_path, device="cpu", callbacks=[Jsonl(every=2), TensorBoard(every=2)]).fit(data, 8)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    read = [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in events.Tensors("loss")]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert read == [(line["step"], line["loss"]) for line in lines]


def test_keys_are_of_values():
    """An integer is its value, whatever type holds it; no two values within or beyond 64 bits share a key."""
    same = [0, np.int64(0), np.uint8(0), torch.tensor(0), False]
    assert {key(zero, "a") for zero in same} == {key(0, "a")} == {key(np.int32(0), np.str_("a"))}
    seeds = [-(2**70), -1, 0, 1, 2**32, 2**64, 2**70]
    assert len({key(seed) for seed in seeds}) == len({numpy_seed(seed) for seed in seeds}) == len(seeds)
    assert all(0 <= numpy_seed(seed) < 2**32 for seed in seeds) and numpy_seed(np.int64(7)) == 7
    with pytest.raises(TypeError):
        key(1.5)


def test_keys_do_not_depend_on_the_process():
    """Python's hash of a string would: it is salted per process."""
    assert key(0, "step", 17) == 5248525022397781422 and math.log2(key("a")) < 63
