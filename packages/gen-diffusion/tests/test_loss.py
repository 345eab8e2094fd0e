"""Levels, weights and pairings of the objectives, against what each is by definition."""

import itertools
import math

import pytest
import torch

from gen_diffusion import (
    Uncertainty,
    linear_betas,
    min_snr_weight,
    noised,
    ot_pairing,
    uniform_discrete,
    uniform_flow,
    variational_weight,
)

Z = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)  # quantiles of the standard normal


def test_uniform_times():
    """t = sigma / (1 + sigma) is uniform on (0, 1); discrete times are equally likely, each at its own level."""
    sigma = uniform_flow(Z)
    torch.testing.assert_close(sigma / (1 + sigma), (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    tails = torch.tensor([-6.0, 6.0])
    torch.testing.assert_close(uniform_flow(tails), torch.tensor([9.866e-10, 1.0136e9]), rtol=1e-3, atol=0.0)
    abar = (1 - linear_betas(100)).cumprod(0)
    values, counts = uniform_discrete(Z, abar).unique(return_counts=True)
    torch.testing.assert_close(values, (1 / abar - 1).sqrt())
    assert (counts == 40).all()


def test_min_snr_is_the_smaller():
    """[Hang23]: for x0 errors min(SNR, 5); an eps loss, whose weight is SNR, is never weighted more than 5 / SNR."""
    sigma = torch.tensor([0.1, 0.5, 2.0])
    assert min_snr_weight(sigma).tolist() == pytest.approx([5.0, 4.0, 0.25])


@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (0.0, 2.0)])
def test_the_variational_weight_makes_nats(mean, std):
    """For N(0, s^2) the mean squared error is s^2 sigma^2 / (s^2 + sigma^2), whose integral over sigma^3 is known."""
    s, z = 0.5, torch.linspace(-3, 3, 20_001, dtype=torch.float64)
    sigma = (mean + std * z).exp()
    error, density = s**2 * sigma**2 / (s**2 + sigma**2), (-(z**2) / 2).exp() / math.sqrt(2 * math.pi)
    integral = torch.trapezoid(variational_weight(sigma, mean, std) * error * density, z)
    antiderivative = 0.5 * (sigma**2 / (s**2 + sigma**2)).log()
    assert integral.item() == pytest.approx((antiderivative[-1] - antiderivative[0]).item(), rel=1e-6)


def test_learned_uncertainty_finds_the_loss_of_each_level():
    """At the optimum e^u is the mean loss at that level, so every level's gradient has the same size."""
    uncertainty, sigma = Uncertainty(), torch.logspace(-2, 1.5, 400)
    loss = 0.3 + sigma**0.5 / (1 + sigma)
    assert torch.equal(uncertainty(loss, sigma), loss)  # at first it changes nothing
    optimizer = torch.optim.Adam(uncertainty.parameters(), lr=0.03)
    for _ in range(400):
        optimizer.zero_grad()
        uncertainty(loss, sigma).mean().backward()
        optimizer.step()
    with torch.no_grad():
        e_u = (uncertainty(torch.zeros(400), sigma)).exp()
    torch.testing.assert_close(e_u, loss, rtol=0.05, atol=0.0)


@pytest.mark.parametrize("shape", [(6, 6), (6, 2), (6, 1, 2, 2)])
def test_pairing_is_the_best_permutation(shape):
    """Brute force over all 720, equal width and batch included; the noise stays the same set of draws."""
    x0, noise = torch.randn(shape), torch.randn(shape)
    paired = ot_pairing(x0, noise)
    cost = lambda n: (x0 - n).square().sum()
    best = min(cost(noise[list(order)]) for order in itertools.permutations(range(6)))
    assert cost(paired).item() == pytest.approx(best.item(), rel=1e-6)
    assert sorted(paired.flatten().tolist()) == sorted(noise.flatten().tolist())


def test_noised_reaches_both_ends():
    x0, noise, sigma = torch.randn(3, 3), torch.randn(3, 3), torch.tensor([0.0, 2.0, math.inf])
    x = noised(x0, sigma, noise)
    assert torch.equal(x[0], x0[0]) and torch.equal(x[2], noise[2])
    torch.testing.assert_close(x[1], x0[1] + 2 * noise[1])
