"""The conformance suite passes what is right and catches each mistake that peers and users make."""

import random
from pathlib import Path

import pytest
import torch
from torch import nn

from gen_core import Arrays, Loader
from gen_core.runtime import generator
from gen_core.testing import check_task, launch, load

kinds = load(Path(__file__).with_name("kinds.py"))


def test_conforming_tasks_pass():
    check_task(kinds.noise, overfit=300)
    check_task(kinds.gan, only=("resume", "micro"))
    check_task(kinds.pinn, steps=3, only=("resume", "micro"))


class RankSchedule(kinds.Noise):
    """Steps a scheduler once per process, as accelerate's prepared scheduler does."""

    def optimizers(self):
        self.made = super().optimizers()
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.made["net"], lambda s: 1 / (1 + s))
        return self.made

    def step(self, batch, t):
        for group in self.made["net"].param_groups:
            group["initial_lr"] = 1e-2 / (1 + t.step * t.world)
        return super().step(batch, t)


class SameNoise(kinds.Noise):
    """Every rank draws from the same seed, as after set_seed(s)."""

    def step(self, batch, t):
        (x,) = batch
        noise = torch.randn(x.shape, generator=generator(t.seed, t.step), dtype=x.dtype)
        return {"loss": t.minimize("net", self.loss, x, t.rand(len(x), dtype=x.dtype), noise)}


class OwnStream(kinds.Noise):
    """Noise from a stream of its own, which no checkpoint holds."""

    def __init__(self):
        super().__init__()
        self.random = random.Random(0)

    def step(self, batch, t):
        (x,) = batch
        sigma = torch.tensor([self.random.random() for _ in x], dtype=x.dtype)
        return {"loss": t.minimize("net", self.loss, x, sigma, t.randn_like(x))}


class Normalised(kinds.Noise):
    """BatchNorm: the statistics of a micro-batch are not those of the batch."""

    def __init__(self):
        super().__init__()
        self.net.insert(1, nn.BatchNorm1d(16))


class NarrowTeacher(kinds.Noise):
    """An exponential average kept in bf16, where a decay of .9999 never moves."""

    def __init__(self):
        super().__init__()
        self.register_buffer("teacher", torch.zeros(16, 9, dtype=torch.bfloat16))

    def step(self, batch, t):
        self.teacher.lerp_(self.net[0].weight.detach().to(torch.bfloat16), 1e-4)
        return super().step(batch, t)


class UnweightedTail(kinds.Noise):
    """The mean of masked means, over micro-batches with other numbers of valid rows."""

    def masked(self, x, sigma, noise):
        valid = (x[:, 0] > 0).to(x.dtype)
        per_row = (self.net(torch.cat([x + noise, sigma[:, None]], 1)) - x).square().mean(1)
        return (per_row * valid).sum() / valid.sum().clamp(min=1)

    def step(self, batch, t):
        (x,) = batch
        sigma = t.rand(len(x), dtype=x.dtype)
        return {"loss": t.minimize("net", self.masked, x, sigma, t.randn_like(x))}


class LeakedGradients(kinds.Gan):
    """The generator's loss fills the discriminator's gradients, which its next update uses."""

    def optimizers(self):
        self.made = super().optimizers()
        return self.made

    def step(self, batch, t):
        (x,) = batch
        z = t.randn(len(x), 4, dtype=x.dtype)
        self.d_loss(x, z).backward()
        self.made["d"].step()
        loss = self.g_loss(z)
        loss.backward()
        self.made["g"].step()
        self.made["g"].zero_grad()
        for p in self.d.parameters():
            p.grad.mul_(0.5)
        return {"loss": loss.detach()}


class LocalSearch(kinds.Pinn):
    """A line search on the loss of this process's rows alone."""

    def optimizers(self):
        self.made = super().optimizers()
        return self.made

    def step(self, batch, t):
        (x,) = batch

        def closure():
            self.made["net"].zero_grad()
            loss = t.model(self.loss, x[:, :1])
            loss.backward()
            return loss

        return {"loss": self.made["net"].step(closure).detach()}


def rank_schedule():
    return RankSchedule(), kinds.data()


def same_noise():
    return SameNoise(), kinds.data()


def own_stream():
    return OwnStream(), kinds.data()


def normalised():
    return Normalised(), kinds.data()


def narrow_teacher():
    return NarrowTeacher(), Loader(Arrays(torch.randn(64, 8)), 12)


def unweighted_tail():
    return UnweightedTail(), kinds.data()


def leaked_gradients():
    return LeakedGradients(), kinds.data()


def local_search():
    return LocalSearch(), kinds.data()


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (rank_schedule, "world"),
        (same_noise, "world"),
        (own_stream, "resume"),
        (normalised, "micro"),
        (narrow_teacher, "bf16"),
        (unweighted_tail, "micro"),
        (leaked_gradients, "resume"),
        (local_search, "world"),
    ],
)
def test_each_seeded_mistake_is_caught(make, check):
    with pytest.raises(AssertionError, match=f"the task does not conform\n- {check}: "):
        check_task(make, only=(check,))


def fails():
    raise RuntimeError("from the other side")


def hangs():
    import time

    time.sleep(30)


def test_launch_reports_failures_and_hangs():
    with pytest.raises(AssertionError, match="from the other side"):
        launch(2, fails)
    with pytest.raises(AssertionError, match="took longer than 2 s"):
        launch(2, hangs, timeout=2)
