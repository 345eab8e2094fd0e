"""MCGDiff on a Gaussian prior, where the law of its chain, and so Z, is known; and its limits."""

import itertools
import math

import pytest
import torch

from gen_diffusion import (
    Gaussian,
    GaussianMixture,
    Observation,
    convergence,
    exponential,
    matrix,
    mcgdiff,
    mcgdiff_sample,
    smc,
)

A = torch.tensor([[0.6, -0.8], [0.4, 0.3]], dtype=torch.float64)  # orthogonal rows: singular values 1 and 1/2
MU = torch.tensor([1.0, -0.5], dtype=torch.float64)
PRIOR = GaussianMixture(torch.ones(1).double(), MU[None], torch.ones(2).double())
LEVELS = exponential(30, 0.05, 20.0).double()


def observation(sigma):
    return Observation(matrix(A), torch.tensor([0.3, 0.9], dtype=torch.float64), Gaussian(sigma))


def chain_evidence(obs, levels=LEVELS):
    """ln p(y) of the chain: coordinate i passes y_i / s_i at the level noise / s_i, in the step across it."""
    svd, total = obs.A.svd, 0.0
    for mu, s, y in zip(svd.Vt(MU[None])[0], svd.s, svd.Ut(obs.y[None])[0] / svd.s, strict=True):
        level, m, v = obs.noise.sigma / s, 0.0, levels[0] ** 2
        for sigma, sigma_next in itertools.pairwise(levels):
            end = torch.maximum(sigma_next, level)
            rho = (end / sigma) ** 2
            shrink = rho + (1 - rho) / (1 + sigma**2)  # x to x_end, about mu
            std = end * (1 - rho).sqrt()
            if sigma_next == 0 and level < sigma:  # kappa = 1: the last kernel is N(D, sigma^2), then the noise
                shrink, std = 1 / (1 + sigma**2), torch.hypot(sigma, level)
            m, v = mu + shrink * (m - mu), shrink**2 * v + std**2
            if level >= sigma_next:
                break
        total += -((y - m) ** 2 / v + (2 * math.pi * v).log()) / 2 - s.log()
    return float(total)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.3, float(LEVELS[12]), 3.0])
@pytest.mark.parametrize("sigma_data", [math.inf, 1.5])
def test_z_is_unbiased(sigma, sigma_data):
    """Whether the noise is below the last level, between two levels, exactly one of them, or none at all."""
    obs = observation(sigma)
    model = mcgdiff(PRIOR, obs, LEVELS, sigma_data=sigma_data)
    (row,) = convergence(model, (50,), 400, log_z=chain_evidence(obs), generator=draws())
    half = row.z.high - row.z.value
    assert abs(row.z.value - 1) < 2 * half and half < 0.15


def test_the_spread_of_the_data_makes_an_exact_guess():
    """For N(0, S) data the guess with sigma_data = sqrt(S) is p(y | x): weights become equal as steps become small."""
    prior, obs = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 2).double(), torch.ones(2).double()), None
    obs = observation(0.3)
    levels = exponential(200, 0.02, 50.0).double()
    ess = [
        smc(mcgdiff(prior, obs, levels, sigma_data=s), 400, ess=0, generator=draws()).ess[-1] for s in (1.0, math.inf)
    ]
    assert ess[0] > 0.85 * 400 and ess[1] < 0.5 * 400


@pytest.mark.parametrize("order", [1, 2])
def test_the_posterior_is_reached(order):
    """Mean and covariance of the weighted particles with many levels, two different levels of noise."""
    obs = observation(0.4)
    posterior = PRIOR.posterior(obs)
    levels = exponential(100, 0.02, 30.0).double()
    particles = smc(mcgdiff(PRIOR, obs, levels, order=order), 3000, generator=draws())
    w = particles.log_w.exp()
    mean = w @ particles.x
    cov = (w[:, None] * (particles.x - mean)).T @ (particles.x - mean)
    torch.testing.assert_close(mean, posterior.means[0], atol=0.05, rtol=0)
    torch.testing.assert_close(cov, posterior.covs, atol=0.05, rtol=0)


def test_inpainting_without_noise_returns_what_was_seen():
    """And the other coordinate is drawn from its conditional law."""
    cov = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    prior = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 2).double(), cov)
    obs = Observation(matrix(torch.tensor([[1.0, 0.0]]).double()), torch.ones(1).double(), Gaussian(0.0))
    levels = exponential(100, 0.01, 50.0).double()
    x = smc(mcgdiff(prior, obs, levels, sigma_data=1.0), 4000, generator=draws()).draw(draws())
    torch.testing.assert_close(x[:, 0], torch.ones(4000).double(), atol=1e-5, rtol=0)
    assert x[:, 1].mean().item() == pytest.approx(0.8, abs=0.05)
    assert x[:, 1].var().item() == pytest.approx(0.36, abs=0.05)


def test_a_level_of_noise_above_the_first_is_no_constraint():
    obs = observation(1000.0)
    x = mcgdiff_sample(PRIOR, obs, 20 * torch.randn(4000, 2, generator=draws()).double(), LEVELS, generator=draws(1))
    torch.testing.assert_close(x.mean(0), MU, atol=0.06, rtol=0)


def test_values_outside_the_range_of_the_operator_are_noise():
    """Three rows of rank one: the constant of what lies outside belongs to Z."""
    rows = matrix(torch.tensor([[1.0, 2.0], [0.5, 1.0], [0.0, 0.0]]).double())
    obs = Observation(rows, torch.tensor([0.4, -0.2, 0.5]).double(), Gaussian(0.5))
    levels = exponential(200, 0.01, 100.0).double()
    log_z = smc(mcgdiff(PRIOR, obs, levels, sigma_data=1.0), 2000, generator=draws()).log_z
    assert log_z.item() == pytest.approx(PRIOR.evidence(obs).item(), abs=0.1)


def test_bad_options_are_refused():
    for option in ({"kappa": 0.0}, {"eta": 0.0}, {"sigma_data": 0.0}, {"order": 3}):
        with pytest.raises(ValueError, match="mcgdiff needs"):
            mcgdiff(PRIOR, observation(0.3), LEVELS, **option)
    with pytest.raises(ValueError, match="decrease and end at 0"):
        mcgdiff(PRIOR, observation(0.3), LEVELS[:-1])
    with pytest.raises(ValueError, match="needs a Linear operator with Gaussian noise"):
        mcgdiff(PRIOR, Observation(lambda x: x**2, torch.ones(2), Gaussian(0.1)), LEVELS)
