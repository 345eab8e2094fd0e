"""The task under a trainer that is a few lines long."""

import math

import pytest
import torch
from torch import nn

from gen_core.step import Step
from gen_diffusion import (
    MLP,
    DiffusionTask,
    Director,
    Preconditioned,
    Uncertainty,
    UNet,
    grid,
    grid_mixture,
    masked_loss,
    moons,
    ot_pairing,
)


class FakeTrainer(Step):
    """`Trainer`'s draws and updates for one process; keeps what the loss was given."""

    def __init__(self, task, seed=0, micro_batch=None):
        self.optimizers = task.optimizers()
        self.generator = torch.Generator().manual_seed(seed)
        self.micro_batch = micro_batch

    def randn(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.get_default_dtype())

    def randn_like(self, x):
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)

    def rand(self, *shape):
        return torch.rand(*shape, generator=self.generator)

    def minimize(self, name, loss, *batch):
        self.batch = batch
        n = len(batch[0])
        micros = list(zip(*(x.split(self.micro_batch or n) for x in batch), strict=True))
        self.optimizers[name].zero_grad()
        losses = [loss(*micro) * len(micro[0]) / n for micro in micros]
        sum(losses).backward()
        self.gradient = [p.grad.clone() for group in self.optimizers[name].param_groups for p in group["params"]]
        self.optimizers[name].step()
        return sum(losses).detach()


def unet_task(**kwargs):
    torch.manual_seed(0)
    task = DiffusionTask(Preconditioned(UNet(1, 8, num_classes=3)), conditions={"label": 3}, **kwargs)
    for p in task.parameters():
        nn.init.normal_(p, std=0.1)
    return task


def test_micro_batches_do_not_change_the_update():
    """Noise, levels and dropped labels are arguments of the loss: pieces of 3 give the gradient of the whole."""
    results = []
    torch.set_default_dtype(torch.float64)
    try:
        for micro_batch in (None, 3):
            task = unet_task()
            trainer = FakeTrainer(task, micro_batch=micro_batch)
            batch = (torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3)
            loss = task.step(batch, trainer)["loss"]
            results.append((loss, trainer.gradient))
    finally:
        torch.set_default_dtype(torch.float32)
    (whole, g_whole), (pieces, g_pieces) = results
    torch.testing.assert_close(pieces, whole, atol=1e-12, rtol=0)
    scale = max(g.abs().max() for g in g_whole)
    for a, b in zip(g_pieces, g_whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12 * scale, rtol=0)


def test_labels_are_dropped_sample_by_sample():
    """The share of the null class over many small steps is binomial: its mean and its variance are right."""
    task = DiffusionTask(Preconditioned(MLP(2, 4, 1, num_classes=3)), conditions={"label": 3}, p_drop=0.25)
    trainer, counts = FakeTrainer(task), []
    x, label = torch.zeros(16, 2), torch.zeros(16, dtype=torch.long)
    for _ in range(400):
        task.step((x, label), trainer)
        dropped = trainer.batch[3] == 3
        assert (trainer.batch[3][~dropped] == 0).all()
        counts.append(dropped.sum().item())
    counts = torch.tensor(counts, dtype=torch.float64)
    assert counts.mean() == pytest.approx(16 * 0.25, abs=0.3)
    assert counts.var() == pytest.approx(16 * 0.25 * 0.75, rel=0.3)  # dropped as a batch it would be 48


def test_levels_follow_the_distribution_that_was_asked_for():
    task = DiffusionTask(Preconditioned(MLP(2, 4, 1)), levels=lambda z: (2.0 + 0.1 * z).exp())
    trainer = FakeTrainer(task)
    task.step(torch.zeros(2000, 2), trainer)
    _, sigma, noise = trainer.batch
    assert sigma.log().mean() == pytest.approx(2.0, abs=0.02) and sigma.log().std() == pytest.approx(0.1, abs=0.01)
    assert noise.std() == pytest.approx(1.0, abs=0.03)


class Blind(nn.Module):
    """Looks at nothing but x; it has a parameter only for there to be something to optimise."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x, c_noise, label=None):
        return self.gain * x.tanh()


def test_the_unit_of_the_data_makes_no_difference():
    """Data and sigma_data ten times as large: the levels follow, so the loss is the same number."""
    x, losses = torch.randn(50, 4), []
    for unit in (1.0, 10.0):
        task = DiffusionTask(Preconditioned(Blind(), sigma_data=0.5 * unit))
        losses.append(task.step(unit * x, FakeTrainer(task))["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert task.levels(torch.zeros(1)).log().item() == pytest.approx(-1.2 + math.log(10))


def test_validation_loss_is_per_sample_and_repeatable():
    """Keyed as the Trainer keys it; at the beginning it is 1 for data of standard deviation sigma_data."""
    x, label = grid(4000, torch.Generator().manual_seed(0))
    task = DiffusionTask(Preconditioned(MLP(2, num_classes=25)), conditions={"label": 25})

    @torch.no_grad()
    def evaluate():
        torch.manual_seed(3)
        return task.evaluate((x, label))["loss"]

    assert evaluate().shape == (4000,) and torch.equal(evaluate(), evaluate())
    assert evaluate().mean() == pytest.approx(1.0, abs=0.02)


def test_labels_are_ignored_by_a_task_without_classes():
    task = DiffusionTask(Preconditioned(MLP(2)))
    x, label = moons(6)
    torch.manual_seed(0)
    with_labels = task.evaluate((x, label))["loss"]
    torch.manual_seed(0)
    assert torch.equal(task.evaluate(x)["loss"], with_labels)


def test_training_approaches_the_exact_denoiser():
    """On the grid of Gaussians the best possible loss is known; 500 steps come near it, and stay above it."""
    torch.manual_seed(0)
    task, mixture = DiffusionTask(Preconditioned(MLP(2, 64)), lr=3e-3), grid_mixture()
    trainer = FakeTrainer(task)
    for i in range(500):
        x, _ = grid(256, torch.Generator().manual_seed(i))
        task.step(x, trainer)
    x, _ = grid(5000, torch.Generator().manual_seed(1000))
    sigma = task.levels(torch.randn(5000))
    noisy = x + sigma[:, None] * torch.randn(5000, 2)
    with torch.no_grad():
        trained, exact = task.denoiser(noisy, sigma), mixture(noisy, sigma)
    weight = (1 / sigma**2 + 4)[:, None]
    cost = lambda a, b: (weight * (a - b) ** 2).mean().item()
    assert cost(trained, exact) < 0.06
    assert cost(trained, x) == pytest.approx(cost(exact, x) + cost(trained, exact), rel=0.02)  # Pythagoras


def test_every_condition_of_a_sample_is_dropped_together():
    """Label, tokens and picture: a sample has all of them or none, and parts without a name are ignored."""
    seen = {}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, x, c_noise, **cond):
            seen.update(cond)
            return self.gain * x

    conditions = {"label": 7, "text": 0, "dense": 0}
    task = DiffusionTask(Preconditioned(Net()), conditions=conditions, p_drop=0.5)
    batch = (torch.randn(64, 2), torch.ones(64).long(), torch.full((64, 64), 3), torch.ones(64, 1, 2, 2), "ignored")
    task.step(batch, FakeTrainer(task))
    dropped = seen["label"] == 7
    assert 10 < dropped.sum() < 54
    assert torch.equal(dropped, (seen["text"] == 0).all(1)) and torch.equal(~dropped, (seen["text"] == 3).all(1))
    assert torch.equal(dropped, (seen["dense"] == 0).flatten(1).all(1))
    with pytest.raises(ValueError, match=r"lacks conditions: .*'dense'"):
        task.evaluate(batch[:2])


def test_pairing_looks_at_the_global_batch():
    """Each process keeps its own rows of the noise that all of them paired."""
    batches, whole = [], (torch.randn(8, 2), torch.randn(8, 2))

    class Rank(FakeTrainer):
        def __init__(self, task, rank):
            super().__init__(task)
            self.rank, self.given = rank, iter(whole)

        def randn_like(self, x):
            return whole[1][self.rank * 4 : self.rank * 4 + 4]

        def gather(self, x):
            return next(self.given)

    task = DiffusionTask(Preconditioned(MLP(2)), pairing=ot_pairing)
    for rank in (0, 1):
        trainer = Rank(task, rank)
        task.step(whole[0][rank * 4 : rank * 4 + 4], trainer)
        batches.append(trainer.batch[2])
    assert torch.equal(torch.cat(batches), ot_pairing(*whole))


def test_latent_door():
    """The denoiser is trained on what `encode` gives; the encoder's weights are none of the task's."""
    encoder = nn.Linear(4, 2)
    task = DiffusionTask(Preconditioned(MLP(2)), encode=encoder)
    trainer = FakeTrainer(task)
    x = torch.randn(5, 4)
    task.step(x, trainer)
    assert torch.equal(trainer.batch[0], encoder(x)) and not trainer.batch[0].requires_grad
    assert not any("encode" in name for name in task.state_dict())


def test_uncertainty_is_trained_beside_the_network():
    task = DiffusionTask(Preconditioned(MLP(2)), uncertainty=Uncertainty())
    trainer, before = FakeTrainer(task), task.uncertainty.linear.weight.clone()
    for _ in range(2):
        task.step(torch.randn(16, 2), trainer)
    assert not torch.equal(task.uncertainty.linear.weight, before)
    assert task.evaluate(torch.randn(3, 2))["loss"].shape == (3,)


def padded(b=9, frames=20):
    """As many trajectories as features; what goes beyond the ends is NaN in a second copy."""
    x = torch.randn(b, frames, 9, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(frames) < torch.tensor([20, 17, 15, 10, 8, 5, 3, 1, 20])[:b, None]
    return x, torch.where(mask[:, :, None], x, torch.nan), mask


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_padding_is_not_trained_on(micro_batch):
    """Whatever it holds, the loss and the gradient are the same; and so is a validation loss."""
    results, (x, other, mask) = [], padded()
    for data in (x, other):
        torch.manual_seed(0)
        net = Director(width=8, depth=1, heads=2, patch=5)
        for p in net.parameters():
            nn.init.normal_(p, std=0.2)
        task = DiffusionTask(Preconditioned(net), conditions={"mask": False}, mask="mask", p_drop=1.0)
        trainer = FakeTrainer(task, micro_batch=micro_batch)
        torch.manual_seed(2)
        held_out = task.evaluate((data, mask))["loss"]
        loss = task.step((data, mask), trainer)["loss"]
        assert torch.equal(trainer.batch[-1], mask)  # never dropped, though all is
        results.append((loss, held_out, trainer.gradient))
    (loss, held_out, gradient), (loss_other, held_out_other, gradient_other) = results
    assert torch.equal(loss, loss_other) and loss.isfinite() and torch.equal(held_out, held_out_other)
    assert all(map(torch.equal, gradient, gradient_other)) and any(g.abs().sum() > 0 for g in gradient)


def test_a_masked_loss_is_the_mean_over_what_is_real():
    """By hand, sample by sample, of a mask of frames and of one of pixels; the mask has the name it was given."""
    seen = {}

    def denoiser(x, sigma, **cond):
        seen.update(cond, x=x)
        return 0.5 * x

    x, other, mask = padded()
    sigma, noise = torch.linspace(0.1, 2, 9), torch.randn(9, 20, 9)
    loss = masked_loss(denoiser, other, sigma, noise, mask, valid=mask)
    for i, frames in enumerate(mask.sum(1).tolist()):
        error = 0.5 * (x[i] + sigma[i] * noise[i]) - x[i]
        assert loss[i].item() == pytest.approx(error[:frames].square().mean().item(), rel=1e-5)
    assert torch.equal(seen["valid"], mask) and (seen["x"][~mask] == 0).all()
    pictures, pixels = torch.randn(4, 3, 4, 4), torch.rand(4, 1, 4, 4) < 0.5  # the same pixels of all channels
    loss = masked_loss(lambda x, sigma: 0 * x, pictures, sigma[:4], torch.zeros_like(pictures), pixels)
    for i in range(4):
        torch.testing.assert_close(loss[i], pictures[i][:, pixels[i, 0]].square().mean())


def test_a_mask_is_told_to_the_denoiser_while_captions_are_dropped():
    seen = {}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, x, c_noise, **cond):
            seen.update(cond)
            return self.gain * x

    x, _, mask = padded()
    task = DiffusionTask(Preconditioned(Net()), conditions={"real": False, "text": 0}, mask="real", p_drop=1.0)
    task.step((x, mask, torch.ones(9, 5).long()), FakeTrainer(task))
    assert torch.equal(seen["real"], mask) and (seen["text"] == 0).all()
    with pytest.raises(ValueError, match=r"mask='mask' is none of the conditions \['text'\]"):
        DiffusionTask(Preconditioned(Net()), conditions={"text": 0}, mask="mask")
    with pytest.raises(ValueError, match="pairing compares whole samples"):
        DiffusionTask(Preconditioned(Net()), conditions={"mask": False}, mask="mask", pairing=ot_pairing)
