"""The variational bound against closed forms, sums of KL divergences written out, and the likelihood that it bounds."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from gen_diffusion import GaussianMixture, keyed
from gen_diffusion.bound import _times, elbo, optimal_variance, posterior_error
from gen_diffusion.schedule import linear_betas, zero_terminal_snr

DOUBLE = torch.float64


def chain(T):
    """Ho's linear betas, from 0.1 / T to 20 / T."""
    return (1 - linear_betas(T, 0.1 / T, 20 / T)).cumprod(0)


def gaussian(v):
    """The denoiser of N(0, v), one dimension."""
    return lambda x, sigma: x * v / (v + sigma[:, None] ** 2)


@pytest.fixture
def quadrature(monkeypatch):
    """Four points (x0, n) = (+-1, +-1): equal weights that average exactly whatever is quadratic in two normals."""
    monkeypatch.setattr("gen_diffusion.bound.randn_like", lambda x, _: torch.tensor([[1.0], [-1.0]] * 2, dtype=x.dtype))
    return torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=DOUBLE)


@pytest.mark.parametrize(
    ("T", "v", "small", "large"),
    [(100, 1.0, 1.3465, 0.0), (100, 0.05, 1.0259, 0.0614), (1000, 1.0, 0.4649, 0.0), (1000, 0.05, 0.4364, 0.0063)],
)
def test_gap_of_gaussian_data(quadrature, T, v, small, large):
    """N(0, v) and its denoiser: the optimal variance closes the gap, for the reverse step is Gaussian."""
    truth = -0.5 * (1 + math.log(2 * math.pi * v))  # E ln p(x)
    gap = lambda kind: truth - elbo(gaussian(v), v**0.5 * quadrature, chain(T), kind).mean().item()
    assert gap("small") == pytest.approx(small, abs=1e-4)
    assert gap("large") == pytest.approx(large, abs=1e-4)
    assert gap("optimal") == pytest.approx(0.0, abs=1e-4)


def test_no_variance_and_no_denoiser_beats_the_truth(quadrature):
    """Scaled variances and wrong denoisers have gaps above 0, and above that of the variance optimal for them."""
    v, a, g = 0.4, chain(50), torch.Generator().manual_seed(0)
    truth, x = -0.5 * (1 + math.log(2 * math.pi * v)), v**0.5 * quadrature
    for wrong in (0.1, 0.4, 1.3):
        best = optimal_variance(a, posterior_error(gaussian(wrong), x, (1 / a - 1).sqrt()))
        bound = elbo(gaussian(wrong), x, a, best).mean()
        assert bound <= truth + 1e-9
        torch.testing.assert_close(bound, elbo(gaussian(wrong), x, a).mean())  # "optimal" is that variance
        for _ in range(5):
            other = best * (0.3 * torch.randn(50, generator=g, dtype=DOUBLE)).exp()
            assert elbo(gaussian(wrong), x, a, other).mean() < bound


def test_posterior_error_of_gaussian_data(quadrature):
    """Var[x0 | x] = v sigma^2 / (v + sigma^2); v at infinity, where x is the noise."""
    v, sigmas = 0.4, torch.tensor([0.0, 0.1, 1.0, 30.0, math.inf], dtype=DOUBLE)
    blind = lambda x, sigma: torch.where(sigma[:, None].isinf(), 0.0, gaussian(v)(x, sigma))
    error = posterior_error(blind, v**0.5 * quadrature, sigmas, draws=3, batch=7)
    exact = torch.where(sigmas.isinf(), v, v * sigmas**2 / (v + sigmas**2))
    torch.testing.assert_close(error, exact)


@pytest.mark.parametrize("b", [3, 4])
def test_bound_is_the_sum_of_divergences(monkeypatch, b):
    """Ho's eq. 5 written out in the variance-preserving state, each sample by itself (batch == width among them)."""
    g = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(b, 3, generator=g, dtype=DOUBLE) for _ in range(2))
    monkeypatch.setattr("gen_diffusion.bound.randn_like", lambda *_: noise)
    a, v = torch.tensor([0.9, 0.6, 0.2, 0.05], dtype=DOUBLE), torch.tensor([0.2, 0.3, 0.4, 0.8], dtype=DOUBLE)
    denoiser = lambda x, sigma: (x / (1 + sigma[:, None])).tanh()
    bound = -kl_divergence(Normal(a[3].sqrt() * x0, (1 - a[3]).sqrt()), Normal(torch.zeros(()).double(), 1.0))
    for t in range(4):
        x_t = a[t].sqrt() * x0 + (1 - a[t]).sqrt() * noise
        guess = denoiser(x_t / a[t].sqrt(), ((1 - a[t]) / a[t]).sqrt().expand(b))
        if t == 0:
            bound = bound + Normal(guess, v[0].sqrt()).log_prob(x0)
            continue
        before, alpha = a[t - 1], a[t] / a[t - 1]
        mean = lambda x, x_t=x_t, before=before, alpha=alpha, a_t=a[t]: (
            before.sqrt() * (1 - alpha) / (1 - a_t) * x + alpha.sqrt() * (1 - before) / (1 - a_t) * x_t
        )
        std = ((1 - before) / (1 - a[t]) * (1 - alpha)).sqrt()
        bound = bound - kl_divergence(Normal(mean(x0), std), Normal(mean(guess), v[t].sqrt()))
    torch.testing.assert_close(elbo(denoiser, x0, a, v), bound.sum(1))


def test_a_random_part_of_the_steps_is_unbiased():
    """5 strata over the 19 steps after the first, which they do not divide: the mean over 4,000 copies of one point."""
    a, x = chain(20), torch.tensor([[0.7, -1.2]], dtype=DOUBLE)
    g, many = torch.Generator().manual_seed(0), x.expand(4000, 2)
    part = elbo(gaussian(0.5), many, a, "large", steps=5, generator=g)
    full = elbo(gaussian(0.5), many, a, "large", generator=g)
    error = (part.var() / len(many) + full.var() / len(many)).sqrt().item()
    assert part.mean().item() == pytest.approx(full.mean().item(), abs=3 * error)
    assert error < 0.1  # an evaluation of the wrong weight, 4 / 5, would be seen
    draws = elbo(gaussian(0.5), many, a, "large", steps=5, draws=4, generator=g)
    assert draws.var().item() == pytest.approx(part.var().item() / 4, rel=0.2)


def test_every_step_is_counted_once():
    """The mean weight with which a time is evaluated is 1, and the first time is always there."""
    g, size = torch.Generator().manual_seed(0), torch.rand(20, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    t, weight = _times(size, 5, 2, 20000, g)
    assert t.shape == (20000, 12) and ((t == 0).sum(1) == 2).all()
    mean = torch.zeros(20, dtype=DOUBLE).index_add(0, t.flatten(), weight.flatten()) / 20000
    torch.testing.assert_close(mean, torch.ones_like(mean), atol=0.03, rtol=0)


def test_a_sample_is_independent_of_the_batch():
    """Of its neighbours, with one generator each, and of how many rows a call takes."""
    a, x = chain(30), torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    one = lambda i, **options: elbo(gaussian(0.5), x[i], a, "small", generator=keyed(0, i), **options)
    together = one([0, 1, 2, 3, 4], steps=7)
    each = torch.cat([one([i], steps=7, batch=2) for i in range(5)])
    torch.testing.assert_close(together, each, rtol=1e-12, atol=1e-12)


def test_bound_stays_below_the_mixture():
    """Two components of two dimensions: the mean bound lies below the mean log-likelihood, and not far."""
    means = torch.tensor([[1.0, 0.5], [-1.0, 0.0]], dtype=DOUBLE)
    mixture = GaussianMixture(
        torch.tensor([0.3, 0.7], dtype=DOUBLE), means, 0.05 * torch.eye(2).double().expand(2, 2, 2)
    )
    x = mixture.sample(400, torch.Generator().manual_seed(0))
    bound = elbo(mixture, x, chain(200), generator=torch.Generator().manual_seed(1)).mean()
    truth = mixture.log_prob(x).mean()
    assert truth - 0.1 < bound < truth


def test_zero_terminal_signal(quadrature):
    """The last level is infinite, its prior term 0; the bound of Gaussian data is still tight."""
    v, a = 0.4, (1 - zero_terminal_snr(linear_betas(100, 1e-3, 0.2))).cumprod(0)
    blind = lambda x, sigma: torch.where(sigma[:, None].isinf(), 0.0, gaussian(v)(x, sigma))
    assert a[-1] == 0
    bound = elbo(blind, v**0.5 * quadrature, a).mean().item()
    assert bound == pytest.approx(-0.5 * (1 + math.log(2 * math.pi * v)), abs=1e-9)


def test_conditions_follow_their_samples():
    """Label c says that the data are N(c, 0.1); another order of samples is another order of results."""
    mean = lambda x, sigma, label: label[:, None] + 0.1 / (0.1 + sigma[:, None] ** 2) * (x - label[:, None])
    label, x = torch.tensor([0, 1, 2]), torch.tensor([[0.0], [1.0], [2.0]], dtype=DOUBLE)
    bound = lambda i, label: elbo(mean, x[i], chain(100), "large", draws=20, label=label[i], generator=keyed(0, i))
    right = bound([0, 1, 2], label)
    assert (right > -1).all() and (bound([0, 1, 2], label.flip(0))[[0, 2]] < -10).all()
    torch.testing.assert_close(right, torch.cat([bound([i], label) for i in range(3)]))


@pytest.mark.parametrize(
    ("a", "options", "message"),
    [
        (torch.tensor([0.5, 0.9]), {}, "must decrease"),
        (torch.tensor([1.0, 0.9]), {}, "must decrease"),
        (torch.tensor([0.9]), {}, "at least 2"),
        (torch.tensor([0.9, 0.5]), {"variance": torch.tensor([0.1, 0.0])}, "positive reverse variances"),
        (torch.tensor([0.9, 0.5]), {"variance": "large", "steps": 2}, "steps must be from 1"),
    ],
)
def test_bad_input_is_one_sentence(a, options, message):
    with pytest.raises(ValueError, match=message) as error:
        elbo(gaussian(1.0), torch.zeros(2, 1), a, **options)
    assert "\n" not in str(error.value)
