"""The exact denoiser is checked by Monte Carlo, by Tweedie's formula and by torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from gen_diffusion import Gaussian, GaussianMixture, Observation, Poisson, grid_mixture, matrix, observe
from gen_diffusion.mixture import posterior_mean


@pytest.fixture
def mixture():
    """Three components in three dimensions, none of them round."""
    g = torch.Generator().manual_seed(0)
    roots = torch.randn(3, 3, 3, generator=g, dtype=torch.float64)
    means = 2 * torch.randn(3, 3, generator=g, dtype=torch.float64)
    weights = torch.tensor([0.2, 1.0, 0.8], dtype=torch.float64)
    return GaussianMixture(weights, means, roots @ roots.mT + 0.1 * torch.eye(3))


def test_log_prob_is_torch_distributions(mixture):
    x, sigma = torch.randn(3, 3, dtype=torch.float64), torch.tensor([0.0, 0.5, 7.0], dtype=torch.float64)
    covs = (mixture.eigenvectors * mixture.eigenvalues[:, None]) @ mixture.eigenvectors.mT
    for x_i, s in zip(x, sigma, strict=True):
        noisy = MultivariateNormal(mixture.means, covs + s**2 * torch.eye(3))
        peer = MixtureSameFamily(Categorical(logits=mixture.log_weights), noisy)
        torch.testing.assert_close(mixture.log_prob(x_i[None], s), peer.log_prob(x_i)[None])
    each = torch.cat([mixture.log_prob(x_i[None], s) for x_i, s in zip(x, sigma, strict=True)])
    torch.testing.assert_close(mixture.log_prob(x, sigma), each)  # batch == width: levels go to samples


@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_denoiser_is_tweedie(mixture, sigma):
    """D(x; sigma) = x + sigma^2 grad log p(x; sigma)."""
    x, sigma = (3 * torch.randn(5, 3, dtype=torch.float64)).requires_grad_(), torch.tensor(sigma, dtype=torch.float64)
    (score,) = torch.autograd.grad(mixture.log_prob(x, sigma).sum(), x)
    torch.testing.assert_close(mixture(x, sigma), x + sigma**2 * score)


def test_denoiser_is_the_posterior_mean(mixture):
    """E[x0 | x] by weighting a million draws of the prior with the likelihood of x."""
    x, sigma = torch.tensor([[0.5, -1.0, 0.3]], dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64)
    x0 = mixture.sample(1_000_000, torch.Generator().manual_seed(1))
    weight = (-(x - x0).square().sum(1) / (2 * sigma**2)).softmax(0)
    torch.testing.assert_close(mixture(x, sigma)[0], weight @ x0, atol=0.01, rtol=0)


def test_samples_have_the_moments(mixture):
    x = mixture.sample(400_000, torch.Generator().manual_seed(2))
    w = mixture.log_weights.exp()
    mean = w @ mixture.means
    covs = (mixture.eigenvectors * mixture.eigenvalues[:, None]) @ mixture.eigenvectors.mT
    second = torch.einsum("k,kij->ij", w, covs + mixture.means[:, :, None] * mixture.means[:, None])
    torch.testing.assert_close(x.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(x.T @ x / len(x), second, atol=0.1, rtol=0)


def test_pictures_are_flattened_and_restored():
    mixture = GaussianMixture(torch.ones(2), torch.randn(2, 12), torch.eye(12).expand(2, 12, 12))
    x = torch.randn(5, 3, 2, 2)
    flat = mixture(x.flatten(1), torch.tensor(1.0))
    assert torch.equal(mixture(x, torch.tensor(1.0)), flat.reshape(x.shape))


def test_a_degenerate_component_is_fine_under_noise():
    """A point mass at 1 pulls everything to 1."""
    mixture = GaussianMixture(torch.ones(1), torch.ones(1, 2), torch.zeros(1, 2, 2))
    assert torch.equal(mixture(torch.randn(4, 2), torch.tensor(0.3)), torch.ones(4, 2))


def test_same_seed_same_draw():
    draw = lambda: grid_mixture().sample(5, torch.Generator().manual_seed(0))
    assert torch.equal(draw(), draw())


def test_weights_must_be_positive():
    with pytest.raises(ValueError, match="must be positive"):
        GaussianMixture(torch.tensor([1.0, 0.0]), torch.zeros(2, 1), torch.ones(2, 1, 1))


def test_the_posterior_mean_under_a_fitted_mixture_is_near_that_under_the_true_one():
    """And better than leaving the noise in; more values than fit full covariances are refused."""
    g = torch.Generator().manual_seed(0)
    train, clean = (grid_mixture().sample(n, g).float() for n in (4000, 500))
    noisy = clean + 0.2 * torch.randn(clean.shape, generator=g)
    error = lambda x: (x - clean).square().mean().item()
    best, ours = error(grid_mixture()(noisy, 0.2)), error(posterior_mean(train, noisy, 0.2, components=25))
    assert ours < 1.1 * best < 0.9 * error(noisy)
    with pytest.raises(ValueError, match="a sample has 200 values; full covariances are fitted up to 128"):
        posterior_mean(torch.zeros(9, 200), torch.zeros(2, 200), 0.2)


def observation(mixture, seed=3):
    g = torch.Generator().manual_seed(seed)
    A = matrix(torch.randn(2, 3, generator=g, dtype=torch.float64))
    return observe(A, mixture.sample(1, g)[0], Gaussian(0.4), g)


def shared(mixture, diagonal=False):
    """The mixture with the first covariance in all components, in short and in full."""
    weights, cov = mixture.log_weights.exp(), mixture.covs[0]
    if diagonal:
        cov = cov.diagonal().diag()
    full = GaussianMixture(weights, mixture.means, cov.expand(3, 3, 3))
    return GaussianMixture(weights, mixture.means, cov.diagonal() if diagonal else cov), full


@pytest.mark.parametrize("kind", ["own", "one", "diagonal"])
def test_the_posterior_is_bayes_theorem(mixture, kind):
    """ln p(x | y) = ln p(x) + ln p(y | x) - ln p(y), at x from anywhere."""
    prior = mixture if kind == "own" else shared(mixture, kind == "diagonal")[0]
    obs = observation(prior)
    x = 2 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bayes = prior.log_prob(x) + obs.log_prob(x) - prior.evidence(obs)
    torch.testing.assert_close(prior.posterior(obs).log_prob(x), bayes, rtol=1e-10, atol=1e-8)


def test_the_evidence_and_the_posterior_mean_by_monte_carlo(mixture):
    """p(y) is the mean likelihood over a million draws of the prior, which weighs them to the posterior mean."""
    obs, g = observation(mixture), torch.Generator().manual_seed(1)
    x = mixture.sample(1_000_000, g)
    log_w = obs.log_prob(x)
    assert mixture.evidence(obs).item() == pytest.approx((log_w.logsumexp(0) - math.log(len(x))).item(), abs=0.02)
    posterior = mixture.posterior(obs)
    torch.testing.assert_close(posterior.log_weights.exp() @ posterior.means, log_w.softmax(0) @ x, atol=0.03, rtol=0)


def test_the_conditional_score_is_the_sum_of_the_prior_s_and_the_likelihood_s(mixture):
    """grad ln p(x | y; sigma) by differences, and Tweedie's conditional denoiser, at each noise level."""
    posterior = mixture.posterior(observation(mixture))
    x, h = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 1e-5
    for sigma in (0.3, 2.0):
        steps = h * torch.eye(3, dtype=torch.float64)
        slope = torch.stack([posterior.log_prob(x + s, sigma) - posterior.log_prob(x - s, sigma) for s in steps], 1)
        torch.testing.assert_close(posterior.score(x, sigma), slope / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_shared_covariance_is_that_of_every_component(mixture, diagonal):
    """Density, denoiser, component, radius, draws, and levels of each sample are those of the full form."""
    short, full = shared(mixture, diagonal)
    x = 3 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sigma in (0.0, 0.7, torch.tensor([0.1, 1.0, 5.0, 80.0], dtype=torch.float64), math.inf):
        torch.testing.assert_close(short(x, sigma), full(x, sigma))
        torch.testing.assert_close(short.responsibilities(x, sigma), full.responsibilities(x, sigma))
        if sigma is not math.inf:
            torch.testing.assert_close(short.log_prob(x, sigma), full.log_prob(x, sigma))
    torch.testing.assert_close(short.radius(x), full.radius(x))
    torch.testing.assert_close(short.covs.expand(3, 3, 3), full.covs)
    draws = short.sample(200_000, torch.Generator().manual_seed(0))
    centred = draws - short.means[short.responsibilities(draws).argmax(1)]
    assert centred.shape == (200_000, 3)
    torch.testing.assert_close(draws.mean(0), short.log_weights.exp() @ short.means, atol=0.05, rtol=0)


def test_the_radius_is_chi_distributed():
    """E[radius^2] is the dimension for draws of well separated components, whatever their covariances."""
    g = torch.Generator().manual_seed(0)
    roots = torch.randn(2, 5, 5, generator=g, dtype=torch.float64)
    far = torch.stack([torch.zeros(5), torch.full((5,), 500.0)]).double()
    mixture = GaussianMixture(torch.ones(2).double(), far, roots @ roots.mT + torch.eye(5))
    squares = mixture.radius(mixture.sample(20_000, g)) ** 2
    assert squares.mean().item() == pytest.approx(5, abs=0.1)
    assert squares.var().item() == pytest.approx(10, abs=0.7)


def test_only_linear_gaussian_observations_have_an_exact_posterior(mixture):
    for obs in (
        Observation(lambda x: x[:, :1] ** 2, torch.ones(1), Gaussian(0.1)),
        Observation(matrix(torch.ones(1, 3).double()), torch.ones(1), Poisson(2.0)),
    ):
        with pytest.raises(ValueError, match="for a Linear operator with Gaussian noise alone"):
            mixture.posterior(obs)
