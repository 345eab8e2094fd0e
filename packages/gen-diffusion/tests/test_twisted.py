"""Twists: closed forms on Gaussians, a classifier, conditions, and observations without a Gaussian."""

import math
from functools import partial

import pytest
import torch

from gen_diffusion import (
    Gaussian,
    GaussianMixture,
    Observation,
    ParticleSampler,
    exponential,
    isotropic,
    likelihood,
    matrix,
    mcgdiff,
    moments,
    noisy,
    smc,
    twisted,
    twisted_sample,
)

LEVELS = exponential(60, 0.03, 40.0).double()
CLASSES = GaussianMixture(
    torch.tensor([1.0, 2.0, 1.0]).double(),
    torch.tensor([[-3.0, 0.0], [0.0, 2.0], [3.0, -1.0]]).double(),
    torch.tensor([0.5, 0.8]).double(),
)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def test_moments_are_those_of_x0_given_x():
    """ln N(y; A m, A C A^T + noise) with the mean and covariance of p(x0 | x), by weighing draws of the prior."""
    obs = Observation(matrix(torch.tensor([[1.0, 0.5], [0.2, -1.0]]).double()), torch.ones(2).double(), Gaussian(0.5))
    x, sigma = torch.tensor([[-1.0, 1.0], [2.0, 0.5]]).double(), torch.tensor(1.3).double()
    look = moments(obs).look(CLASSES, x, sigma)
    prior = CLASSES.sample(1_000_000, draws())
    A = obs.A.dense()
    for row in range(2):
        w = (-(x[row] - prior).square().sum(1) / (2 * sigma**2)).softmax(0)
        mean = w @ prior
        cov = (w[:, None] * (prior - mean)).T @ (prior - mean)
        seen = torch.distributions.MultivariateNormal(A @ mean, A @ cov @ A.T + 0.25 * torch.eye(2))
        assert look.log_twist[row].item() == pytest.approx(seen.log_prob(obs.y).item(), abs=0.02)
        guided = mean + cov @ A.T @ torch.linalg.solve(seen.covariance_matrix, obs.y - A @ mean)
        torch.testing.assert_close(look.guided[row], guided, atol=0.03, rtol=0)


@pytest.mark.parametrize("twist", [isotropic, moments])
def test_a_gaussian_prior_is_answered_exactly(twist):
    """Mean, covariance and ln p(y), for an operator with a zero row and one that repeats: its rank counts."""
    prior = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 3).double(), torch.ones(3).double())
    A = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [2.0, 0.0, 2.0]]).double()
    obs = Observation(matrix(A), torch.tensor([1.0, 0.1, 1.5]).double(), Gaussian(0.3))
    levels = exponential(150, 0.02, 50.0).double()
    particles = smc(twisted(prior, obs, levels, twist=twist, order=2), 2000, generator=draws())
    posterior = prior.posterior(obs)
    x = particles.draw(draws())
    assert particles.log_z.item() == pytest.approx(prior.evidence(obs).item(), abs=0.05)
    torch.testing.assert_close(particles.mean(), posterior.means[0], atol=0.06, rtol=0)
    torch.testing.assert_close(x.T.cov(), posterior.covs, atol=0.08, rtol=0)


def test_an_exact_classifier_gives_the_conditional_law_and_the_weight_of_its_class():
    """ln p(c | x; sigma) as the twist: the draws are those of component c, Z its weight."""
    log_prob = lambda x, sigma: CLASSES.responsibilities(x, sigma)[:, 2].log()
    model = twisted(CLASSES, log_prob, LEVELS, twist=noisy, shape=(2,), order=2)
    particles = smc(model, 2000, generator=draws())
    assert particles.log_z.item() == pytest.approx(math.log(0.25), abs=0.05)
    assert particles.ess.min() > 1500
    x = particles.draw(draws())
    torch.testing.assert_close(x.mean(0), CLASSES.means[2], atol=0.12, rtol=0)
    torch.testing.assert_close(x.var(0), CLASSES.eigenvalues, atol=0.12, rtol=0)


def test_any_function_of_clean_data_tilts_the_prior():
    """exp(-|x0_1| / 2) as p(y | x0): its mean under the prior is Z, and weighs the prior's draws to the mean."""
    log_potential = lambda x0: -x0[:, 0].abs() / 2
    particles = smc(
        twisted(CLASSES, log_potential, LEVELS, twist=likelihood, shape=(2,), order=2), 4000, generator=draws()
    )
    prior = CLASSES.sample(400_000, draws(1))
    log_w = log_potential(prior)
    assert particles.log_z.item() == pytest.approx((log_w.logsumexp(0) - math.log(len(prior))).item(), abs=0.06)
    torch.testing.assert_close(particles.mean(), log_w.softmax(0) @ prior, atol=0.12, rtol=0)


def test_nonlinear_observations_are_weighed_by_their_likelihood():
    """The square of a coordinate: two modes of equal weight by symmetry, and E|x| by quadrature."""
    prior = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 1).double(), torch.ones(1).double())
    obs = Observation(lambda x: x**2, torch.ones(1).double(), Gaussian(0.5))
    sampler = ParticleSampler(twisted, {"twist": likelihood, "order": 2, "shape": (1,)})
    noise = 40 * torch.randn(3000, 1, generator=draws()).double()
    x = sampler(prior, obs, noise, LEVELS, generator=draws(1))
    grid = torch.linspace(-5, 5, 2001).double()[:, None]
    truth = (obs.log_prob(grid) - grid[:, 0] ** 2 / 2).softmax(0) @ grid.abs()
    assert (x > 0).double().mean().item() == pytest.approx(0.5, abs=0.1)
    assert x.abs().mean().item() == pytest.approx(truth.item(), abs=0.03)


def test_conditions_reach_the_denoiser_at_every_call():
    """A denoiser of two classes: the posterior is that of the class that was given."""
    seen = []

    def denoiser(x, sigma, *, label):
        seen.append(label)
        return 4.0 * label[:, None] + (x - 4.0 * label[:, None]) / (1 + sigma**2)

    obs = Observation(matrix(torch.eye(1).double()), torch.tensor([5.0]).double(), Gaussian(1.0))
    for label, mean in ((0, 2.5), (1, 4.5)):
        noise = 40 * torch.randn(2000, 1, generator=draws()).double()
        given = torch.full((2000,), label)
        x = twisted_sample(denoiser, obs, noise, LEVELS, generator=draws(), label=given, order=2)
        assert x.mean().item() == pytest.approx(mean, abs=0.07)
        assert x.var().item() == pytest.approx(0.5, abs=0.08)
    assert len(seen) == 120  # one call for each level


def test_bad_requests_are_refused():
    obs = Observation(matrix(torch.eye(2).double()), torch.ones(2).double(), Gaussian(0.5))
    for option in ({"eta": 0.0}, {"eta": 1.1}, {"order": 0}, {"kappa": -1.0}):
        with pytest.raises(ValueError, match="twisted needs"):
            twisted(CLASSES, obs, LEVELS, **option)
    with pytest.raises(ValueError, match="decrease and end at 0"):
        twisted(CLASSES, obs, LEVELS.flip(0))
    with pytest.raises(ValueError, match="needs a Linear operator with Gaussian noise"):
        twisted(CLASSES, Observation(lambda x: x, torch.ones(2), Gaussian(0.5)), LEVELS)
    with pytest.raises(ValueError, match="share one observation"):
        twisted(CLASSES, Observation(obs.A, torch.ones(7, 2).double(), Gaussian(0.5)), LEVELS)
    with pytest.raises(ValueError, match=r"pass twisted\(..., shape=...\)"):
        smc(twisted(CLASSES, lambda x0: x0[:, 0], LEVELS, twist=likelihood), 5)


@pytest.mark.parametrize("model", [twisted, partial(twisted, twist=moments), mcgdiff])
def test_particles_are_of_the_type_of_the_observation(model):
    """A network in single precision is called in single precision, whatever the type of the levels."""
    seen = set()

    def denoiser(x, sigma):
        seen.add(x.dtype)
        return x / (1 + sigma**2)

    obs = Observation(matrix(torch.tensor([[1.0, 0.5]])), torch.ones(1), Gaussian(0.5))
    assert smc(model(denoiser, obs, LEVELS), 5, generator=draws()).x.dtype == torch.float32
    double = Observation(obs.A, obs.y.double(), obs.noise)
    x = ParticleSampler(model)(denoiser, double, torch.randn(5, 2, generator=draws()), LEVELS, generator=draws())
    assert x.dtype == torch.float32 and seen == {torch.float32}
