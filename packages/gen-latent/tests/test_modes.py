"""Counting modes: samplers whose answer is known."""

import math

import pytest
import torch

from gen_core.runtime import generator
from gen_latent.modes import count_modes, good_share, nearest_mode, too_narrow

MEANS, STD = torch.cartesian_prod(*[torch.arange(-4.0, 5.0, 2.0)] * 2), 0.05


def draw(n, *, std=STD, modes=25, seed=0):
    g = generator("modes", seed)
    return MEANS[torch.randint(modes, (n,), generator=g)] + std * torch.randn(n, 2, generator=g)


def modes(x):
    return count_modes(nearest_mode(x, MEANS, STD), 25)


def test_the_data_themselves():
    """Within three standard deviations lie 98.89 % of a Gaussian in the plane; KL of n counts is about (k - 1) / 2n."""
    found = modes(draw(2500))
    assert found.covered == 25 and found.good == pytest.approx(1 - math.exp(-4.5), abs=0.006)
    assert 0.001 < found.divergence < 0.012
    many = modes(draw(400_000))
    assert many.good == pytest.approx(0.98889, abs=0.0006)
    assert many.divergence == pytest.approx(24 / (2 * 400_000 * 0.989), rel=0.9)
    assert not too_narrow(found.good, 2500, 2) and not too_narrow(many.good, 400_000, 2)


def test_a_collapsed_sampler():
    found = modes(draw(2500, modes=5))
    assert found.covered == 5 and found.divergence == pytest.approx(math.log(5), abs=0.01)


def test_a_sampler_that_is_too_narrow_is_flagged():
    found = modes(draw(2500, std=0.5 * STD))
    assert found.good > 0.999 and found.covered == 25 and too_narrow(found.good, 2500, 2)


def test_a_sampler_that_is_too_wide_has_few_good_samples():
    found = modes(draw(2500, std=2 * STD))
    assert found.good == pytest.approx(1 - math.exp(-9 / 8), abs=0.03) and not too_narrow(found.good, 2500, 2)


def test_nothing_found():
    assert count_modes(torch.full((7,), -1), 25) == (0, 0.0, math.inf)
    with pytest.raises(ValueError, match="there are 25 modes, counted from 0, but a sample was given to mode 25"):
        count_modes(torch.tensor([3, 25]), 25)


@pytest.mark.parametrize("d", [1, 2, 3, 10])
def test_the_good_share_is_the_mass_of_a_ball(d):
    x = torch.randn(200_000, d, generator=generator("ball", d))
    assert good_share(d, 2.0) == pytest.approx((x.norm(dim=1) < 2).double().mean().item(), abs=0.005)
    assert good_share(1) == pytest.approx(math.erf(3 / math.sqrt(2)), abs=1e-12)
