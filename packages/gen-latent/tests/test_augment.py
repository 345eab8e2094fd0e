"""Augmentations: identity at p = 0, keyed by sample, differentiable; and the controller of p."""

import math

import pytest
import torch
from torch import nn

from gen_core import Arrays, Callback, Loader, Step, Trainer
from gen_core.runtime import generator, seed_all
from gen_latent import Augment, GANTask
from gen_latent.augment import TRANSFORMS, colour, cutout, flip, rotate, scale, shift

ALL = tuple(TRANSFORMS)


def pictures(b=6, h=8, w=8, c=3):
    return torch.randn(b, c, h, w, generator=generator("augment", b, h, w))


def numbers(augment, b):
    return torch.rand(b, augment.numbers, generator=generator("u", b))


@pytest.mark.parametrize("shape", [(6, 3, 8, 8), (8, 1, 8, 8), (2, 3, 6, 10)])
def test_nothing_changes_at_p_0_and_everything_may_at_p_1(shape):
    x = torch.randn(shape, generator=generator("x"))
    still, sure = Augment(ALL, p=0.0), Augment(ALL, p=1.0)
    assert torch.equal(still(x, torch.zeros(shape[0], still.numbers)), x)
    assert torch.equal(still(x, numbers(still, shape[0])), x)
    changed = sure(x, numbers(sure, shape[0]))
    assert changed.shape == x.shape and (changed != x).flatten(1).any(1).all()


@pytest.mark.parametrize("name", ALL)
def test_a_sample_is_augmented_by_its_own_numbers(name):
    """Whatever the batch: alone, permuted, or beside others; with as many samples as pixels in a row, too."""
    augment = Augment((name,), p=1.0)
    x = pictures(8)
    u = numbers(augment, 8)
    together = augment(x, u)
    for i in range(8):
        assert torch.allclose(augment(x[i : i + 1], u[i : i + 1])[0], together[i], atol=1e-5)
    order = torch.randperm(8, generator=generator("order"))
    assert torch.allclose(augment(x[order], u[order]), together[order], atol=1e-5)
    other = augment(x[:1].expand_as(x).contiguous(), u)
    assert len({tuple(v.flatten().tolist()) for v in other}) > 1  # one draw for the whole batch would give one picture


def test_each_transformation_is_applied_to_a_share_p_of_the_samples_independently():
    augment, n = Augment(("shift", "colour"), p=0.3), 4000
    x = torch.randn(1, 1, 4, 4, generator=generator("one")).expand(n, -1, -1, -1)
    u = numbers(augment, n)
    same = (augment(x, u) == x).flatten(1).all(1).double().mean().item()
    still = 0.7 + 0.3 / 9  # a shift by (0, 0) is one of nine
    assert same == pytest.approx(still * 0.7, abs=4 * math.sqrt(0.5 * 0.5 / n))


@pytest.mark.parametrize("name", ALL)
def test_gradients_flow_back_to_the_picture(name):
    x = pictures(4).double().requires_grad_()
    augment = Augment((name,), p=1.0).double()
    u = numbers(augment, 4).double()
    augment(x, u).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and (x.grad != 0).flatten(1).any(1).all()


def test_flip_is_the_mirror_image_for_half_of_the_numbers():
    x = pictures(2)
    y = flip(x, torch.tensor([[0.49], [0.51]]))
    assert torch.equal(y[0], x[0].flip(2)) and torch.equal(y[1], x[1])


def test_shift_moves_by_whole_pixels_and_brings_in_zeros():
    x = pictures(9, 8, 16)
    u = torch.cartesian_prod(torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.1, 0.5, 0.9]))
    for y, old, (a, b) in zip(shift(x, u), x, u, strict=True):
        dy, dx = int(a * 3) - 1, int(b * 5) - 2  # up to an eighth of 8 and of 16 pixels
        want = torch.zeros_like(old)
        for i in range(8):
            for j in range(16):
                if 0 <= i + dy < 8 and 0 <= j + dx < 16:
                    want[:, i, j] = old[:, i + dy, j + dx]
        assert torch.equal(y, want)


def test_rotation_turns_pixels_not_proportions():
    """On a picture twice as wide as high, a linear ramp turns by 20 degrees in pixels."""
    h, w = 16, 32
    i, j = torch.meshgrid(torch.arange(h) - h / 2 + 0.5, torch.arange(w) - w / 2 + 0.5, indexing="ij")
    x = torch.stack([i, j])[None]
    y = rotate(x, torch.ones(1, 1))[0]
    angle = math.radians(20)
    middle = (slice(6, 10), slice(13, 19))  # away from the borders
    assert torch.allclose(y[0][middle], (math.cos(angle) * i + math.sin(angle) * j)[middle], atol=1e-4)
    assert torch.allclose(y[1][middle], (math.cos(angle) * j - math.sin(angle) * i)[middle], atol=1e-4)
    assert torch.allclose(rotate(x, torch.full((1, 1), 0.5)), x, atol=1e-4)


def test_scale_is_even_in_both_directions_and_as_often_up_as_down():
    h = w = 16
    i, j = torch.meshgrid(torch.arange(h) - h / 2 + 0.5, torch.arange(w) - w / 2 + 0.5, indexing="ij")
    x, middle = torch.stack([i, j])[None].expand(3, -1, -1, -1), (slice(4, 12), slice(4, 12))
    for y, factor in zip(scale(x, torch.tensor([[0.0], [0.5], [1.0]])), (1 / 1.2, 1.0, 1.2), strict=True):
        assert torch.allclose(y[0][middle], factor * i[middle], atol=1e-4)
        assert torch.allclose(y[1][middle], factor * j[middle], atol=1e-4)


def test_colour_changes_brightness_saturation_and_contrast():
    x = pictures(4)
    middle = torch.full((4, 3), 0.5)
    assert torch.allclose(colour(x, middle), x, atol=1e-5)
    brighter, grey, flat = (middle.clone() for _ in range(3))
    brighter[:, 0], grey[:, 1], flat[:, 2] = 0.75, 0.0, 0.0
    assert torch.allclose(colour(x, brighter), x + 0.25, atol=1e-5)
    assert torch.allclose(colour(x, grey), x.mean(1, keepdim=True).expand_as(x), atol=1e-5)
    y = colour(x, flat)
    assert torch.allclose(y.std((1, 2, 3)), x.std((1, 2, 3)) / 2, rtol=1e-4)
    assert torch.allclose(y.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-5)


def test_cutout_removes_a_rectangle_of_half_the_size():
    y = cutout(torch.ones(3, 2, 8, 12), torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.999, 0.5]]))
    assert (y[0] == 0).sum(dim=(1, 2)).tolist() == [4 * 6] * 2
    assert (y[0, :, 2:6, 3:9] == 0).all()
    assert (y[1, :, :2, :3] == 0).all() and (y[1] == 0).sum() == 2 * 2 * 3  # a quarter of it is inside
    assert (y[2] == 0).sum() == 2 * 2 * 6


@pytest.mark.parametrize(
    "options, message",
    [({"names": ("shift", "sharpen")}, "no augmentation 'sharpen'"), ({"p": 1.5}, "p is a probability, got 1.5")],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Augment(**options)


# ---------------------------------------------------------------------- the controller


class Constant(nn.Module):
    """A discriminator that says the same of every picture."""

    def __init__(self, logit):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(self, x):
        return self.logit.expand(len(x)) + 0 * x.sum((1, 2, 3))


class Blank(nn.Module):
    def __init__(self):
        super().__init__()
        self.grey = nn.Parameter(torch.zeros(()))

    def forward(self, z):
        return self.grey.expand(len(z), 1, 4, 4)


class Follow(Callback):
    def __init__(self):
        self.p = []

    def on_step_end(self, t, metrics):
        self.p.append(t.read(metrics)["augment/p"])


def probabilities(logit, steps=9, micro_batch=None, **options):
    seed_all(0)
    augment = Augment(("shift",), every=4, length=1000, **options)
    follow = Follow()
    task = GANTask(Blank(), Constant(logit), latents=1, augment=augment, lr=1e-9)
    data = Loader(Arrays(torch.zeros(20, 1, 4, 4)), 10)
    Trainer(task, device="cpu", micro_batch=micro_batch, callbacks=[follow]).fit(data, steps)
    return follow.p


def test_p_rises_by_exactly_the_samples_between_two_adjustments_over_the_length():
    """batch 10, every 4 steps, length 1,000: by .04 after steps 4 and 8, when all logits are positive."""
    rise = pytest.approx([0.1] * 3 + [0.14] * 4 + [0.18] * 2, abs=1e-7)
    assert probabilities(2.0, p=0.1) == rise
    assert probabilities(2.0, p=0.1, micro_batch=3) == rise
    assert probabilities(-2.0, p=0.1) == pytest.approx([0.1] * 3 + [0.06] * 4 + [0.02] * 2, abs=1e-7)
    assert probabilities(-2.0, p=0.02)[-1] == 0.0  # and no further
    assert probabilities(2.0, p=0.99)[-1] == 1.0
    assert probabilities(2.0, p=0.1, target=None) == pytest.approx([0.1] * 9, abs=1e-7)


def test_p_follows_the_mean_sign_not_the_mean_logit():
    """With 7 of 10 logits positive r_t is .4: below a target of .6 and above one of .3, however large the logits."""
    logits = torch.tensor([0.1] * 7 + [-50.0] * 3)

    class Alone(Step):
        world, step = 1, 3
        gather = staticmethod(lambda x: x)

    for target, p in ((0.6, 0.46), (0.3, 0.54)):
        augment = Augment(("flip",), p=0.5, target=target, every=4, length=1000)
        augment.watch(logits)
        assert augment.adapt(Alone(), 10)["augment/p"].item() == pytest.approx(p, abs=1e-6)
        assert not augment.heard.any() and not augment.noted.any()
        augment.watch(torch.full((10,), torch.nan))  # of one bad batch: no sign, and p stays a number
        assert augment.adapt(Alone(), 10)["augment/p"].isfinite()
