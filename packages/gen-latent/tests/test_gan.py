"""Adversarial losses, penalties and the task, against closed forms; the game under a real trainer."""

import math

import pytest
import torch
from torch import nn

from gen_core import EMA, Arrays, Loader, Step, Trainer
from gen_core.runtime import generator, seed_all
from gen_core.testing import check_task, launch, train
from gen_core.testing import difference as apart
from gen_latent import (
    MLP,
    Augment,
    DCDiscriminator,
    DCGenerator,
    GANTask,
    gradient_penalty,
    hinge,
    least_squares,
    minimax,
    non_saturating,
    pack,
    relativistic,
    squared_gradient,
    wasserstein,
)
from gen_latent.gan import unpack

LOSSES = {
    "minimax": minimax, "non_saturating": non_saturating, "least_squares": least_squares, "hinge": hinge,
    "wasserstein": wasserstein, "relativistic": relativistic,
}  # fmt: skip
double = lambda *values: torch.tensor(values, dtype=torch.float64)


# ---------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    "loss, d, g",
    [
        (minimax, 2 * math.log(2), -math.log(2)),
        (non_saturating, 2 * math.log(2), math.log(2)),
        (least_squares, 0.5, 0.5),
        (hinge, 2.0, 0.0),
        (wasserstein, 0.0, 0.0),
        (relativistic, math.log(2), math.log(2)),
    ],
)
def test_a_discriminator_that_knows_nothing_pays_what_theory_says(loss, d, g):
    zero = double(0, 0)
    assert loss.d(zero, zero).tolist() == pytest.approx([d, d], abs=1e-12)
    assert loss.g(zero, zero).tolist() == pytest.approx([g, g], abs=1e-12)


def test_the_relativistic_loss_sees_only_differences():
    real, fake = double(3, -2, 0.5), double(1, 1, -4)
    assert torch.allclose(relativistic.d(real, fake), relativistic.d(real + 7, fake + 7), atol=1e-12)
    assert torch.equal(relativistic.g(real, fake), relativistic.d(fake, real))
    assert relativistic.d(real, real).tolist() == pytest.approx([math.log(2)] * 3, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_exact_from_minus_80_to_80(name):
    """-ln sigmoid(l) is max(-l, 0) + ln(1 + e^-|l|); the logarithm of a sigmoid saturates, as does torch's softplus."""
    real = torch.linspace(-80, 80, 640, dtype=torch.float64).requires_grad_()
    fake = real.detach().flip(0).mul(0.7).requires_grad_()
    plus = lambda x: x.clamp_min(0) + (-x.abs()).exp().log1p()
    truth = {
        "minimax": (plus(-real) + plus(fake), -plus(fake)),
        "non_saturating": (plus(-real) + plus(fake), plus(-fake)),
        "least_squares": (((real - 1) ** 2 + fake**2) / 2, (fake - 1) ** 2 / 2),
        "hinge": ((1 - real).clamp_min(0) + (1 + fake).clamp_min(0), -fake),
        "wasserstein": (fake - real, -fake),
        "relativistic": (plus(fake - real), plus(real - fake)),
    }[name]
    loss = LOSSES[name]
    for got, want in zip((loss.d(real, fake), loss.g(real, fake)), truth, strict=True):
        assert torch.allclose(got, want, rtol=1e-12, atol=0)
        slopes, wanted = (torch.autograd.grad(v.sum(), fake, retain_graph=True)[0] for v in (got, want))
        assert slopes.isfinite().all() and torch.allclose(slopes, wanted, rtol=1e-10, atol=1e-12)
    x = torch.tensor([-80.0, 80.0])  # single precision
    assert loss.d(x, -x).isfinite().all() and loss.g(x, -x).isfinite().all()


def test_the_generators_gradient_vanishes_where_it_loses_only_in_the_minimax_game():
    slopes = {}
    for name in ("minimax", "non_saturating"):
        fake = double(-30).requires_grad_()
        slopes[name] = torch.autograd.grad(LOSSES[name].g(fake.detach(), fake).sum(), fake)[0].item()
    assert slopes["minimax"] == pytest.approx(-math.exp(-30), rel=1e-9)
    assert slopes["non_saturating"] == pytest.approx(-1, rel=1e-9)


@pytest.mark.parametrize("shapes", [((4, 1), (4,)), ((1,), (4,)), ((4,), (3,))])
def test_logits_that_would_broadcast_are_refused(shapes):
    with pytest.raises(ValueError, match="real and fake logits have the same shape"):
        relativistic.d(*(torch.zeros(s) for s in shapes))


def test_a_discriminator_with_a_dimension_too_many_is_refused():
    task = GANTask(nn.Linear(1, 2), nn.Linear(2, 1), latents=1)
    with pytest.raises(ValueError, match=r"logits of shape \(6, 1\) for 6 samples; it has to give \(6,\)"):
        task.d_loss(torch.zeros(6, 2), torch.zeros(6, 1), torch.zeros(6, 2, 0), torch.zeros(6))


def integral(f):
    """The integral over x of f(p, q), p and q the densities of N(0, 1) and N(1, 1)."""
    x = torch.linspace(-12, 13, 20_001, dtype=torch.float64)
    p, q = (torch.exp(-((x - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (0, 1))
    return torch.trapezoid(f(x, p, q), x).item()


def test_the_optimal_discriminator_pays_2_ln_2_minus_twice_the_jensen_shannon_divergence():
    """The optimal logit is ln p / q = 1/2 - x; its loss is 1.163451, which makes the divergence .111421 nats."""
    cost = integral(
        lambda x, p, q: p * non_saturating.d(0.5 - x, torch.full_like(x, -1e9)) + q * minimax.d(x * 0 + 1e9, 0.5 - x)
    )
    assert cost == pytest.approx(1.163451, abs=1e-6)
    assert math.log(2) - cost / 2 == pytest.approx(0.111421, abs=5e-6)


# ---------------------------------------------------------------------- penalties


@pytest.mark.parametrize("b", [1, 2, 7, 8])
def test_penalties_of_a_linear_critic_are_25_and_16(b):
    """w = (3, 4): |w|^2 = 25 and (|w| - 1)^2 = 16, whatever the batch; a mean of the logits would give 25 / b^2."""
    x = torch.randn(b, 2, generator=generator("x"), dtype=torch.float64, requires_grad=True)
    d = lambda v: v @ double(3, 4)
    assert squared_gradient(d(x), x).tolist() == pytest.approx([25] * b, abs=1e-10)
    mix = torch.rand(b, generator=generator("mix"), dtype=torch.float64)
    assert gradient_penalty(d, x, x.detach().flip(0), mix).tolist() == pytest.approx([16] * b, abs=1e-10)


@pytest.mark.parametrize("b", [3, 4, 9])
def test_penalties_of_a_quadratic_critic(b):
    """D = x'Ax has the gradient 2Ax; the interpolation is of each sample on its own, with b = width as without."""
    g = generator("quadratic", b)
    a = torch.randn(4, 4, generator=g, dtype=torch.float64)
    a, mix = a + a.T, torch.rand(b, generator=g, dtype=torch.float64)
    d = lambda v: ((v @ a) * v).sum(1)
    real, fake = (torch.randn(b, 4, generator=g, dtype=torch.float64) for _ in range(2))
    x = real.clone().requires_grad_()
    assert torch.allclose(squared_gradient(d(x), x), torch.stack([4 * v @ a @ a @ v for v in real]), atol=1e-10)
    between = torch.stack([m * r + (1 - m) * f for m, r, f in zip(mix, real, fake, strict=True)])
    want = torch.stack([((2 * a @ v).norm() - 1) ** 2 for v in between])
    assert torch.allclose(gradient_penalty(d, real, fake, mix), want, atol=1e-10)


@pytest.mark.parametrize("b", [2, 4, 5])
def test_penalties_of_pictures_are_of_each_picture(b):
    """Pictures 3 x 4 x 4 in batches smaller than, as large as and larger than their width."""
    g = generator("pictures", b)
    w, mix = torch.randn(3, 4, 4, generator=g, dtype=torch.float64), torch.rand(b, generator=g, dtype=torch.float64)
    d = lambda v: (v.square() * w).sum((1, 2, 3)) / 2
    real, fake = (torch.randn(b, 3, 4, 4, generator=g, dtype=torch.float64) for _ in range(2))
    got = gradient_penalty(d, real, fake, mix, target=2.0)
    want = [((w * (m * r + (1 - m) * f)).norm() - 2) ** 2 for m, r, f in zip(mix, real, fake, strict=True)]
    assert torch.allclose(got, torch.stack(want), atol=1e-10)


def test_penalties_train_the_discriminator():
    """The gradient of |w|^2 with respect to w is 2 w: it passes through the gradient."""
    w = double(3, 4).requires_grad_()
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(squared_gradient(x @ w, x).mean(), w)
    assert slope.tolist() == pytest.approx([6, 8], abs=1e-10)


@pytest.mark.parametrize("how", [{"r1": 1.0}, {"r2": lambda step: 0.1}, {"gradient_penalty": 10.0}])
def test_batch_norm_is_refused_with_a_penalty(how):
    d = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Flatten(0))
    with pytest.raises(ValueError, match="discriminator's 1 is a BatchNorm1d, which mixes samples"):
        GANTask(nn.Linear(2, 2), d, latents=2, **how)
    GANTask(nn.Linear(2, 2), d, latents=2)


# ---------------------------------------------------------------------- the Dirac GAN


def dirac(loss, gamma, steps=500, lr=0.1):
    """The game of [Mescheder18] section 2: data at 0, generator at theta, D(x) = psi x; simultaneous, from (1, 1)."""
    theta, psi = double(1).requires_grad_(), double(1).requires_grad_()
    x = double(0).requires_grad_()
    for _ in range(steps):
        real = psi * x
        d = (loss.d(real, psi * theta) + gamma / 2 * squared_gradient(real, x)).sum()
        g = loss.g(real, psi * theta).sum()
        (d_psi,), (g_theta,) = torch.autograd.grad(d, psi, retain_graph=True), torch.autograd.grad(g, theta)
        with torch.no_grad():
            psi -= lr * d_psi
            theta -= lr * g_theta
    return theta.item(), psi.item()


def dirac_recursion(gamma, saturating=False, steps=500, lr=0.1):
    """The same by hand: psi' = psi - lr (s(psi theta) theta + gamma psi), theta' = theta + lr s(-psi theta) psi."""
    theta = psi = 1.0
    s = lambda v: 1 / (1 + math.exp(-v))
    for _ in range(steps):
        push = s(psi * theta) if saturating else s(-psi * theta)
        theta, psi = theta + lr * push * psi, psi - lr * (s(psi * theta) * theta + gamma * psi)
    return theta, psi


@pytest.mark.parametrize("gamma, distance", [(0.0, 0.521), (0.3, 1.1e-3), (1.0, 6.4e-10)])
def test_the_dirac_game_follows_its_recursion(gamma, distance):
    """R1 at gamma = 1 damps it critically; without, the non-saturating game creeps in."""
    theta, psi = dirac(non_saturating, gamma)
    want = dirac_recursion(gamma)
    assert (theta, psi) == (pytest.approx(want[0], rel=1e-6), pytest.approx(want[1], rel=1e-6))
    assert math.hypot(theta, psi) == pytest.approx(distance, rel=0.03)


def test_the_minimax_dirac_game_without_penalty_does_not_converge():
    theta, psi = dirac(minimax, 0.0)
    assert (theta, psi) == pytest.approx(dirac_recursion(0.0, saturating=True), rel=1e-6)
    assert math.hypot(theta, psi) > math.sqrt(2)


# ---------------------------------------------------------------------- what trained discriminators estimate


def trained_critic(loss, steps=200, batch=1000):
    """A small network trained on fresh draws of N(0, 1), real, and N(1, 1), fake."""
    seed_all(0)
    d = nn.Sequential(MLP(1, 32, 1, activation=nn.Tanh), nn.Flatten(0))
    optimizer = torch.optim.Adam(d.parameters(), lr=2e-2, betas=(0.0, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-2 * (1 - step / steps) + 1e-4
        real, fake = torch.randn(batch, 1), torch.randn(batch, 1) + 1
        optimizer.zero_grad()
        loss(d, real, fake).mean().backward()
        optimizer.step()
    with torch.no_grad():
        half = torch.special.ndtri((torch.arange(100_000) + 0.5) / 100_000)[:, None]  # a sample without noise
        return d(half), d(half + 1)


def test_a_trained_discriminator_estimates_the_jensen_shannon_divergence():
    real, fake = trained_critic(lambda d, real, fake: non_saturating.d(d(real), d(fake)))
    assert math.log(2) - non_saturating.d(real, fake).mean().item() / 2 == pytest.approx(0.111421, rel=0.03)


def test_a_critic_with_gradient_penalty_estimates_the_wasserstein_distance():
    """Its slope a minimises -a + lambda (a - 1)^2: 1 + 1 / (2 lambda), 1.01 at 50 but 1.05 at the usual 10."""

    def loss(d, real, fake):
        return wasserstein.d(d(real), d(fake)) + 50 * gradient_penalty(d, real, fake, torch.rand(len(real)))

    real, fake = trained_critic(loss)
    assert (real - fake).mean().item() == pytest.approx(1.0, rel=0.03)


# ---------------------------------------------------------------------- the task


def pictures(n=36, classes=3):
    x = torch.randn(n, 1, 8, 8, generator=generator("pictures"), dtype=torch.float64)
    return Arrays(x, torch.arange(n) % classes, classes=[str(c) for c in range(classes)])


def players(**options):
    return DCGenerator(1, 8, 5, width=8, **options), DCDiscriminator(1, 8, width=8, **options)


def plain():
    return GANTask(*players(), non_saturating, latents=5), Loader(pictures(), 12)


def everything():
    """Labels, all penalties, lazily, with augmentation that adapts and two updates of the discriminator."""
    augment = Augment(("flip", "rotate", "shift", "scale", "colour", "cutout"), p=0.3, every=3, length=1000)
    task = GANTask(
        *players(classes=3), latents=5, r1=lambda step: 0.5 / (1 + step), r2=0.3, gradient_penalty=2.0, lazy=2,
        augment=augment, d_steps=2, conditions=("label",), lr=1e-3, d_lr=2e-3,
    )  # fmt: skip
    return task, Loader(pictures(), 12)


def packed():
    """Two pictures at a time, each with its own augmentation."""
    g, d = DCGenerator(1, 8, 5, width=8), DCDiscriminator(1, 8, width=8, packing=2)
    augment = Augment(("shift", "colour"), p=0.5)
    task = GANTask(g, d, latents=5, r1=1.0, r2=1.0, gradient_penalty=1.0, packing=2, augment=augment)
    return task, Loader(pictures(), 12)


def test_the_task_conforms():
    """Resume is bit for bit; micro-batches and two processes change nothing."""
    check_task(plain, steps=2, only=("micro", "bf16"))
    check_task(everything, only=("resume", "bf16"))  # the stop cuts the adaptation's interval of 3
    check_task(packed, steps=2, only=("micro", "bf16"))


def both():
    return train(everything, 3), train(packed, 3)


def test_micro_batches_and_processes_change_nothing_to_twelve_digits():
    for make, whole, on_two in zip((everything, packed), both(), launch(2, both)[0], strict=True):
        assert apart(train(make, 3, micro_batch=5), whole)[0] < 1e-12
        assert apart(on_two, whole)[0] < 1e-12


class Once(GANTask):
    """One update of one player, with both networks' gradients cleared before it."""

    player = "g"

    def step(self, batch, t):
        x, n = batch[0], len(batch[0])
        self.zero_grad(set_to_none=True)
        draws = t.randn(n, 5), t.rand(n, 2, 0)
        if self.player == "g":
            return {"g": t.minimize("g", self.g_loss, x, *draws)}
        return {"d": t.minimize("d", self.d_loss, x, *draws, t.rand(n))}


@pytest.mark.parametrize("player, other", [("g", "discriminator"), ("d", "generator")])
def test_an_update_leaves_the_other_player_alone(player, other):
    seed_all(0)
    g, d = players()
    task = Once(g, d, non_saturating, latents=5)
    task.player = player
    watched = task.get_submodule(other)
    before = {k: v.clone() for k, v in watched.named_parameters()}
    mover = task.generator if player == "g" else task.discriminator
    first = {k: v.clone() for k, v in mover.named_parameters()}
    Trainer(task, device="cpu").fit(Loader(Arrays(pictures().tensors[0].float()), 12), 1)
    assert all(torch.equal(p, before[k]) for k, p in watched.named_parameters())
    assert all(p.grad is None and p.requires_grad for p in watched.parameters())
    assert all(not torch.equal(p, first[k]) for k, p in mover.named_parameters())


def with_buffers(kind):
    """A discriminator whose forward pass writes into its buffers."""
    if kind == "spectral norm":
        return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 8)), nn.Linear(8, 1), nn.Flatten(0))
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 1), nn.Flatten(0))


@pytest.mark.parametrize("loss", [relativistic, non_saturating], ids=["paired", "not paired"])
@pytest.mark.parametrize("kind", ["spectral norm", "batch norm"])
def test_buffers_of_the_discriminator_stay_through_the_generators_update(kind, loss):
    """Running statistics and power iterations are of its own updates; its answers and gradients are as ever."""
    seed_all(0)
    task = GANTask(nn.Linear(3, 2), with_buffers(kind), loss, latents=3).train()
    parts = torch.randn(12, 2), torch.randn(12, 3), torch.rand(12, 2, 0)
    before = {k: v.clone() for k, v in task.discriminator.named_buffers()}
    assert before
    value = task.g_loss(*parts)
    value.backward()
    assert all(torch.equal(v, before[k]) for k, v in task.discriminator.named_buffers())
    twin = with_buffers(kind)
    twin.load_state_dict(task.discriminator.state_dict())
    real = twin(parts[0]) if loss.paired else torch.zeros(12)
    fake = twin(task.generator(parts[1]))
    assert value.item() == pytest.approx(loss.g(real, fake).mean().item(), abs=1e-4)  # one more power iteration
    task.d_loss(*parts, torch.zeros(12))
    assert any(not torch.equal(v, before[k]) for k, v in task.discriminator.named_buffers())


def test_an_average_that_forgets_at_once_is_the_generator_buffers_included():
    class Running(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))

        def forward(self, z):
            return self.net(z)

    seed_all(0)
    task = GANTask(Running(), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), latents=5, r1=1.0)
    ema = EMA("generator", 0.0)
    Trainer(task, device="cpu", callbacks=[ema]).fit(Loader(Arrays(torch.randn(24, 2)), 12), 3)
    own = {k: v.clone() for k, v in task.generator.state_dict().items()}
    with ema.swapped() as average:
        assert all(torch.equal(v, own[k]) for k, v in average.state_dict().items())
    assert own["net.1.num_batches_tracked"] == 6  # once in each player's loss


def test_fake_i_carries_the_label_of_real_i():
    """Two networks that show their label: a relativistic pair of unlike labels would have unlike logits."""
    seen = []

    class Show(nn.Module):
        def __init__(self, where):
            super().__init__()
            self.gain, self.where = nn.Parameter(torch.ones(())), where

        def forward(self, x, label):
            seen.append((self.where, label.clone()))
            shown = self.gain * label.float()
            return shown[:, None] if self.where == "g" else shown + 0 * x.sum(1)

    task = GANTask(Show("g"), Show("d"), latents=1, conditions=("label",))
    label = torch.arange(12) % 5
    trainer = Trainer(task, device="cpu")
    trainer.fit(Loader(Arrays(torch.zeros(12, 1), label), 12, shuffle=False), 1)
    assert len(seen) == 6 and all(torch.equal(shown, label) for _, shown in seen)
    draws = torch.randn(12, 1), torch.rand(12, 2, 0)
    assert task.g_loss(torch.zeros(12, 1), *draws, label).item() == pytest.approx(math.log(2), abs=1e-6)
    with pytest.raises(ValueError, match="batch of 1 tensors lacks conditions"):
        task.step((torch.zeros(12, 1),), trainer)


def test_lazy_penalties_equal_eager_ones_over_an_interval():
    """With constant weights, every fourth step at four times the strength gives the gradients' mean of every step."""

    class Still(Step):
        """A trainer that adds up gradients and changes nothing."""

        def __init__(self, task):
            self.task, self.step, self.g = task, 0, generator("still")
            self.total = [torch.zeros_like(p) for p in task.discriminator.parameters()]

        def randn(self, *shape):
            return torch.randn(*shape, generator=self.g)

        def rand(self, *shape):
            return torch.rand(*shape, generator=self.g)

        def minimize(self, name, loss, *batch):
            if name == "d":
                gradients = torch.autograd.grad(loss(*batch), list(self.task.discriminator.parameters()))
                self.total = [a + b for a, b in zip(self.total, gradients, strict=True)]
            return torch.zeros(())

    totals = {}
    for lazy in (1, 4):
        seed_all(0)
        g, d = players()
        d.head.linear.weight.data.mul_(20)
        task = GANTask(g, d, latents=5, r1=3.0, r2=2.0, gradient_penalty=1.0, lazy=lazy)
        still, x = Still(task), pictures().tensors[0][:12].float()
        for still.step in range(4):
            still.g.manual_seed(0)  # the same draws at each step: the mean over steps is that of one
            task.step(x, still)
        totals[lazy] = still.total
    for a, b in zip(totals[1], totals[4], strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * a.abs().max())


class Bowl(nn.Module):
    """D(x) = sum w x^2 / 2, whose gradient is w x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(double(1.0, -2.0, 0.5))

    def forward(self, x):
        return (x.square() * self.w).sum(1) / 2


class Add(nn.Module):
    """An augmentation that adds its numbers, and notes the logits that it is shown."""

    numbers = 3

    def forward(self, x, u):
        return x + u

    def watch(self, logits):
        self.seen = logits


def test_each_players_loss_is_the_sum_of_its_parts():
    """By hand: the logistic terms, half of each gamma, lambda; real and fake are augmented by numbers of their own."""
    g, bowl = generator("parts"), Bowl()
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    task = GANTask(nn.Linear(2, 3).double(), bowl, non_saturating, latents=2, augment=Add())
    x, z, u, mix = draw(5, 3), draw(5, 2), draw(5, 2, 3), torch.rand(5, generator=g, dtype=torch.float64)
    fake, plus = task.generator(z).detach(), lambda v: nn.functional.softplus(v).mean()
    logits = [bowl(v).detach() for v in (x + u[:, 0], fake + u[:, 1])]
    length = lambda v: (bowl.w.detach() * v).norm(dim=1)
    between = mix[:, None] * x + (1 - mix[:, None]) * fake
    parts = {
        "r1": 0.7 / 2 * length(x + u[:, 0]).square().mean(),
        "r2": 0.3 / 2 * length(fake + u[:, 1]).square().mean(),
        "penalty": 2.0 * (length(between) - 1).square().mean(),
    }
    plain = plus(-logits[0]) + plus(logits[1])
    strengths = {"r1": 0.7, "r2": 0.3, "penalty": 2.0}
    assert task.d_loss(x, z, u, mix).item() == pytest.approx(plain.item(), rel=1e-12)
    for name, part in parts.items():
        value = task.d_loss(x, z, u, mix, **{name: strengths[name]})
        assert value.item() == pytest.approx((plain + part).item(), rel=1e-12)
    whole = task.d_loss(x, z, u, mix, **strengths)
    assert whole.item() == pytest.approx((plain + sum(parts.values())).item(), rel=1e-12)
    assert torch.allclose(task.augment.seen, logits[0])  # what the controller hears is of real samples
    assert task.g_loss(x, z, u).item() == pytest.approx(plus(-logits[1]).item(), rel=1e-12)
    task.losses = relativistic
    assert task.g_loss(x, z, u).item() == pytest.approx(plus(logits[0] - logits[1]).item(), rel=1e-12)


def test_a_step_updates_the_discriminator_as_often_as_it_should_at_rates_of_their_own():
    calls = []

    class Count(Step):
        step, world = 0, 1
        randn, rand = staticmethod(torch.randn), staticmethod(torch.rand)

        def minimize(self, name, loss, *batch):
            calls.append((name, batch[1]))
            return torch.zeros(())

    task = GANTask(*players(), latents=5, d_steps=3, lr=1e-3, d_lr=4e-3)
    task.step(torch.zeros(4, 1, 8, 8), Count())
    assert [name for name, _ in calls] == ["d", "d", "d", "g"]
    assert len({tuple(z.flatten().tolist()) for _, z in calls}) == 4  # other latents each time
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in task.optimizers().items()}
    assert rates == {"g": 1e-3, "d": 4e-3}


def test_the_penalties_are_of_the_pictures_before_augmentation():
    """StyleGAN2-ADA's R1: an augmentation that halves a picture halves the gradient with respect to the picture."""

    class Halve(nn.Module):
        numbers = 1

        def forward(self, x, u):
            return x / 2

        def watch(self, logits):
            pass

    d = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Flatten(0))
    d[0].weight.data = torch.tensor([[3.0, 4.0]])
    task = GANTask(nn.Linear(1, 2), d, wasserstein, latents=1, r1=1.0, augment=Halve())
    parts = torch.zeros(6, 2), torch.zeros(6, 1), torch.zeros(6, 2, 1), torch.zeros(6)
    difference = task.d_loss(*parts, r1=2.0) - task.d_loss(*parts)
    assert difference.item() == pytest.approx(25 / 4, rel=1e-6)


# ---------------------------------------------------------------------- packing, sampling, errors


@pytest.mark.parametrize("shape", [(4,), (3, 2, 2)])
def test_packing_puts_samples_in_a_row_side_by_side(shape):
    x = torch.arange(6 * math.prod(shape)).float().view(6, *shape)
    p = pack(x, 3)
    assert p.shape == (2, 3 * shape[0], *shape[1:])
    assert torch.equal(p[1], torch.cat([x[3], x[4], x[5]]))
    assert torch.equal(unpack(p, 3), x) and pack(x, 1) is x
    with pytest.raises(ValueError, match="6 samples cannot be judged 4 at a time"):
        pack(x, 4)


def test_samples_are_a_function_of_the_generator():
    seed_all(0)
    task = GANTask(*players(classes=3), latents=5, conditions=("label",))
    label = torch.arange(6) % 3
    a, b = (task.sample(6, generator=generator("s"), label=label) for _ in range(2))
    assert torch.equal(a, b) and not a.requires_grad and a.shape == (6, 1, 8, 8)
    assert not torch.equal(a, task.sample(6, generator=generator("other"), label=label))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"latents": 0}, "latents is at least 1, got 0"),
        ({"lazy": 0}, "lazy is at least 1, got 0"),
        ({"lazy": 4}, "lazy=4 spaces out penalties, and there is none"),
        ({"packing": 2, "conditions": ("label",)}, "takes no condition"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GANTask(*players(), **{"latents": 5} | options)


def test_training_moves_the_generator_to_the_data():
    """A shifted Gaussian: the samples' mean becomes the data's, and their spread of its order."""
    seed_all(0)
    x = torch.tensor([2.0, -1.0]) + 0.5 * torch.randn(2000, 2, generator=generator("data"))
    d = nn.Sequential(MLP(2, 32, 32, 1), nn.Flatten(0))
    task = GANTask(MLP(2, 32, 32, 2), d, latents=2, r1=0.1, r2=0.1, lr=2e-3)
    ema = EMA("generator", 0.98)
    Trainer(task, device="cpu", callbacks=[ema]).fit(Loader(Arrays(x), 64), 300)
    with ema.swapped():
        y = task.sample(4000, generator=generator("y"))
    assert y.mean(0).tolist() == pytest.approx([2.0, -1.0], abs=0.15)
    assert y.std(0).tolist() == pytest.approx([0.5, 0.5], abs=0.3)
