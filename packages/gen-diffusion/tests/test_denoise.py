"""Preconditioning and the loss, which are two views of one statement: unit variance in, unit variance out."""

import pytest
import torch
from torch import nn

from gen_diffusion import Preconditioned, denoising_loss, edm_weight, log_normal


class Constant(nn.Module):
    """Answers `value` everywhere and remembers what it was given."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = value

    def forward(self, x, c_noise, **cond):
        self.x, self.c_noise, self.cond = x, c_noise, cond
        return torch.full_like(x, self.value)


SIGMAS = [1e-3, 0.02, 0.5, 3.0, 80.0]


@pytest.mark.parametrize("sigma_data", [0.5, 1.7])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_network_that_answers_zero_costs_one(sigma, sigma_data):
    """With data of standard deviation sigma_data the weighted loss is 1 at every level."""
    g = torch.Generator().manual_seed(0)
    x0 = sigma_data * torch.randn(2000, 50, generator=g, dtype=torch.float64)
    noise, s = torch.randn(2000, 50, generator=g, dtype=torch.float64), torch.full((2000,), sigma, dtype=torch.float64)
    loss = edm_weight(s, sigma_data) * denoising_loss(Preconditioned(Constant(), sigma_data), x0, s, noise)
    assert loss.mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_network_sees_and_owes_unit_variance(sigma):
    """c_in normalises the input; c_out^2 times the weight is 1."""
    net, sigma = Constant(), torch.tensor(sigma, dtype=torch.float64)
    x = (0.25 + sigma**2).sqrt() * torch.randn(100_000, 1, dtype=torch.float64)
    Preconditioned(net, 0.5)(x, sigma)
    assert net.x.std() == pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(net.c_noise, (sigma.log() / 4).expand(len(x)))
    c_out = Preconditioned(Constant(1.0), 0.5)(torch.zeros(1, 1, dtype=torch.float64), sigma)
    assert (edm_weight(sigma, 0.5) * c_out**2).item() == pytest.approx(1.0)


def test_ends_of_the_axis():
    """At sigma = 0 the data is returned as it is; at an enormous sigma the network answers alone. Nothing overflows."""
    x, d = torch.randn(4, 4), Preconditioned(Constant(1.0), 0.5)
    assert torch.equal(d(x, torch.tensor(0.0)), x)
    torch.testing.assert_close(d(1e30 * x, torch.tensor(1e30)), torch.full((4, 4), 0.5))
    mixed = d(x, torch.tensor([0.0, 1e-20, 1.0, 1e30]))
    assert torch.equal(mixed[0], x[0]) and mixed.isfinite().all()


@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (3, 3, 3, 3), (3, 1, 4, 2)])
def test_levels_go_to_samples(shape):
    """Each sample has its own level, also where the batch is as large as the other dimensions."""
    d, x, sigma = Preconditioned(Constant(0.3)), torch.randn(shape), torch.tensor([0.1, 1.0, 10.0])
    torch.testing.assert_close(d(x, sigma), torch.cat([d(x[i : i + 1], sigma[i]) for i in range(3)]))
    noise, constant = torch.randn(shape), lambda x, sigma: torch.ones_like(x)
    each = torch.cat([denoising_loss(d, x[i : i + 1], sigma[i : i + 1], noise[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(denoising_loss(d, x, sigma, noise), each)
    torch.testing.assert_close(denoising_loss(constant, x, sigma, noise), (x - 1).square().flatten(1).mean(1))


def test_conditions_reach_the_network():
    net, label = Constant(), torch.tensor([1, 2])
    denoising_loss(Preconditioned(net), torch.zeros(2, 1), torch.ones(2), torch.zeros(2, 1), label=label)
    assert net.cond["label"] is label


def test_half_precision_networks_give_full_precision_estimates():
    """Under autocast the network answers in bf16, but the skip connection must not be rounded to it."""
    d, x = Preconditioned(nn.Identity()), torch.randn(2, 3)
    d.net.forward = lambda x, c_noise: x.bfloat16()
    assert d(x, torch.tensor(0.5)).dtype == torch.float32


def test_log_normal_moments():
    sigma = log_normal(torch.randn(100_000, generator=torch.Generator().manual_seed(0)), -0.5, 1.7)
    assert sigma.log().mean() == pytest.approx(-0.5, abs=0.02) and sigma.log().std() == pytest.approx(1.7, abs=0.02)


def test_sigma_data_is_positive():
    with pytest.raises(ValueError, match="must be positive"):
        Preconditioned(Constant(), 0.0)


@pytest.mark.parametrize("sigma", [-1.0, torch.tensor(-0.5), torch.tensor([0.1, float("nan")]), float("nan")])
def test_a_level_is_a_standard_deviation(sigma):
    with pytest.raises(ValueError, match="0 or above"):
        Preconditioned(Constant())(torch.zeros(2, 2), sigma)


def test_a_level_of_another_shape_is_refused():
    """(b, 1) with b == width would broadcast to something plausible; where types are checked, that check says it."""
    for sigma in (torch.ones(2, 1), torch.ones(3)):
        with pytest.raises((ValueError, TypeError)):
            Preconditioned(Constant())(torch.zeros(2, 2), sigma)
