import math
from functools import partial

import pytest
import torch

from gen_latent import Bernoulli, Categorical, Gaussian, ItakuraSaito, LogisticMixture, Normal, diag_gaussian, kl
from gen_latent.distributions import kl_standard


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("spread", [0.3, 3.0])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_discrete_likelihoods_sum_to_one_over_their_levels(levels, spread):
    """End bins included, with means outside of the range and scales from a fraction of a bin to the whole range."""
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)[:, None, None]
    params = spread * randn(1, 15, 7)
    params[:, 10:] = 2 * params[:, 10:] - 4
    for likelihood, out in ((partial(LogisticMixture, levels=levels), params), (
        partial(Categorical, levels=levels), spread * randn(1, levels, 7))):  # fmt: skip
        p = [
            likelihood(out[..., i : i + 1].expand(levels, -1, 1)).log_prob(values).exp().sum().item() for i in range(7)
        ]
        assert p == pytest.approx([1.0] * 7, abs=1e-6)


def test_the_logistic_mixture_stays_a_probability_in_single_precision():
    values = torch.linspace(-1, 1, 256)[:, None, None]
    params = (3 * randn(1, 15, 1)).float().expand(256, -1, -1)
    log_p = LogisticMixture(params).log_prob(values)
    assert log_p.isfinite().all()
    assert log_p.double().exp().sum().item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("log_scale", [-1.2, -3.0])
def test_a_logistic_mixture_of_one_is_the_logistic_distribution_of_each_bin(log_scale):
    mean = 0.3
    params = torch.tensor([0.0, mean, log_scale], dtype=torch.float64).reshape(1, 3, 1).expand(5, -1, -1)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    edges = (torch.tensor([-math.inf, -0.75, -0.25, 0.25, 0.75, math.inf], dtype=torch.float64) - mean) / math.exp(
        log_scale
    )
    log_p = LogisticMixture(params, levels=5, components=1).log_prob(x[:, None, None])
    torch.testing.assert_close(log_p, edges.sigmoid().diff().log())


@pytest.mark.parametrize("sigma", [0.002, 0.3])
def test_a_gaussian_integrates_to_one_down_to_its_floor(sigma):
    x = torch.linspace(-12 * sigma, 12 * sigma, 4001, dtype=torch.float64)
    p = Gaussian(sigma).double()(torch.zeros(4001, 1, dtype=torch.float64)).log_prob(x[:, None]).exp()
    assert torch.trapezoid(p, x).item() == pytest.approx(1.0, abs=1e-9)


def test_bernoulli_and_itakura_saito_are_densities():
    logits = 3 * randn(5, 1)
    both = [Bernoulli(logits).log_prob(torch.full_like(logits, v)).exp() for v in (0.0, 1.0)]
    torch.testing.assert_close(both[0] + both[1], torch.ones(5, dtype=torch.float64))

    x = torch.linspace(0, 60, 200_001, dtype=torch.float64)[:, None]
    p = ItakuraSaito(torch.full_like(x, 0.4)).log_prob(x).exp()
    assert torch.trapezoid(p, x[:, 0]).item() == pytest.approx(1.0, abs=1e-6)


def test_itakura_saito_is_minus_the_divergence_which_knows_no_scale():
    """ln p(x; y) - ln p(x; x) = -(x/y - ln(x/y) - 1), the same for (cx, cy)."""
    x, y = randn(4, 3).exp(), randn(4, 3, seed=1).exp()
    gap = lambda x, y: ItakuraSaito(y.log()).log_prob(x) - ItakuraSaito(x.log()).log_prob(x)
    torch.testing.assert_close(gap(x, y), -(x / y - (x / y).log() - 1).sum(1))
    torch.testing.assert_close(gap(7 * x, 7 * y), gap(x, y))
    assert (gap(x, x) == 0).all()


@pytest.mark.parametrize("shape", [(3, 2, 4), (3, 3, 3), (2, 1, 6)])
def test_a_sample_has_the_sum_over_its_coordinates_and_twice_the_picture_has_twice_the_log_likelihood(shape):
    """A mean over pixels would weigh the KL too much; a row must not see another, whether sizes differ or not."""
    for make, x, channels in (
        (Bernoulli, (randn(*shape) > 0).double(), 1),
        (Gaussian(0.4).double(), randn(*shape), 1),
        (ItakuraSaito, randn(*shape).exp(), 1),
        (partial(Categorical, levels=5), randn(*shape).sign(), 5),
        (partial(LogisticMixture, levels=5, components=2), randn(*shape).sign(), 6),
    ):
        out = randn(shape[0], channels * shape[1], *shape[2:], seed=1)
        log_p = make(out).log_prob(x)
        assert log_p.shape == shape[:1]
        twice = make(torch.cat([out, out], 2)).log_prob(torch.cat([x, x], 2))
        torch.testing.assert_close(twice, 2 * log_p)
        for i in range(shape[0]):
            torch.testing.assert_close(make(out[i : i + 1]).log_prob(x[i : i + 1])[0], log_p[i])


def test_samples_follow_the_probabilities_and_the_mean_is_theirs():
    n = 40_000
    for make, out in (
        (Bernoulli, randn(1, 3)),
        (partial(Categorical, levels=4), randn(1, 12, 1)),
        (partial(LogisticMixture, levels=9, components=2), randn(1, 6, 1)),
        (Gaussian(0.4).double(), randn(1, 3)),
        (ItakuraSaito, randn(1, 3)),
    ):
        p = make(out.expand(n, *out.shape[1:]))
        x = p.sample(generator())
        assert torch.equal(x, p.sample(generator()))
        error = x.std(0) / n**0.5
        exact = p.mean[0]
        if isinstance(p, LogisticMixture):  # its mean is of the logistic distributions, not of their rounded values
            values = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None, None]
            probability = make(out.expand(9, -1, -1)).log_prob(values).exp()
            exact = (values[:, :, 0] * probability[:, None]).sum(0, keepdim=True)
        assert ((x.mean(0) - exact).abs() < 4 * error).all()


def test_the_kl_is_torchs_and_monte_carlos_and_exactly_zero_between_equals():
    q, p = Normal(randn(6, 3), randn(6, 3, seed=1).exp()), Normal(randn(6, 3, seed=2), randn(6, 3, seed=3).exp())
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mean, q.std), torch.distributions.Normal(p.mean, p.std)
    )
    torch.testing.assert_close(kl(q, p), reference, rtol=0, atol=1e-10)
    unit = Normal(torch.zeros_like(q.mean), torch.ones_like(q.std))
    torch.testing.assert_close(kl_standard(q), kl(q, unit), rtol=0, atol=1e-12)
    assert (kl(q, q) == 0).all() and (kl_standard(unit) == 0).all()

    z = q.at(randn(40_000, 6, 3, seed=4))
    draws = q.log_prob(z) - p.log_prob(z)
    assert ((draws.mean(0) - kl(q, p).sum(1)).abs() < 4 * draws.std(0) / 200).all()


def test_an_encoders_second_half_is_the_logarithm_of_the_deviation():
    params, x = randn(5, 6), randn(5, 3, seed=1)
    q = diag_gaussian(params)
    reference = torch.distributions.Normal(params[:, :3], params[:, 3:].exp())
    torch.testing.assert_close(q.log_prob(x), reference.log_prob(x).sum(1))
    with pytest.raises(ValueError, match="7 numbers"):
        diag_gaussian(randn(5, 7))


def test_fit_sets_the_best_deviation():
    """[Rybkin21]: the root of the mean squared error; a little more or less is less likely."""
    x, mean = randn(50, 4), 0.3 * randn(50, 4, seed=1)
    likelihood = Gaussian().double()
    likelihood.fit((x - mean) ** 2)
    assert likelihood.sigma.item() == pytest.approx((x - mean).square().mean().sqrt().item(), rel=1e-12)
    best = likelihood(mean).log_prob(x).sum()
    for factor in (0.98, 1.02):
        assert Normal(mean, likelihood.sigma.expand_as(mean) * factor).log_prob(x).sum() < best


def test_a_deviation_never_falls_below_its_floor_and_is_not_stuck_there():
    """Constant data would send the density to infinity; and a clamp would have no gradient left to come back by."""
    likelihood = Gaussian(0.5, floor=0.1)
    optimizer = torch.optim.SGD(likelihood.parameters(), lr=0.05)
    zeros = torch.zeros(8, 3)
    for _ in range(200):
        optimizer.zero_grad()
        (-likelihood(zeros).log_prob(zeros).mean()).backward()
        optimizer.step()
    assert 0.1 <= likelihood.sigma.item() < 0.15
    assert likelihood.log_excess.grad.item() != 0
    likelihood.fit(0.0)
    assert likelihood.sigma.item() == pytest.approx(0.1, rel=1e-5)
    with pytest.raises(ValueError, match="sigma > floor > 0"):
        Gaussian(0.1, floor=0.2)


def test_data_of_another_shape_are_refused_instead_of_broadcast():
    with pytest.raises(ValueError, match=r"shape \(1, 8\) but the distribution \(8, 8\)"):
        Normal(randn(2, 8, 8), randn(2, 8, 8).exp()).log_prob(randn(2, 1, 8))


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (ItakuraSaito, 1),
        (partial(Categorical, levels=5), 5),
        (partial(LogisticMixture, levels=5, components=2), 6),
        (Gaussian(), 1),
        (Bernoulli, 1),
    ],
)
def test_a_decoder_of_too_many_channels_is_refused_by_every_likelihood(make, channels):
    """Otherwise one grey channel is scored against three, or against the first of them, without a word."""
    p = make(torch.zeros(4, 3 * channels, 8))
    with pytest.raises(ValueError, match=r"\(1, 8\)|torch.Size\(\[4, 1, 8\]\)"):
        p.log_prob(torch.ones(4, 1, 8))
    p.log_prob(torch.ones(4, 3, 8))


def test_values_between_the_levels_and_negative_powers_are_no_data():
    """The probabilities of the levels add up to 1; those of other values are not among them."""
    grid = torch.linspace(-1, 1, 17)
    for likelihood in (Categorical, LogisticMixture):
        likelihood.check(grid, levels=17)
        likelihood.check(2 * grid, levels=17, low=-2.0, high=2.0)
        for wrong in (grid + 0.03, 1.25 * grid):
            with pytest.raises(ValueError, match=r"17 levels from -1 to 1, got .*; round the data"):
                likelihood.check(wrong, levels=17)
    LogisticMixture.check(torch.arange(256) / 127.5 - 1)
    ItakuraSaito.check(torch.tensor([0.0, 3.0]))
    with pytest.raises(ValueError, match="powers, got -1"):
        ItakuraSaito.check(torch.tensor([2.0, -1.0]))


def test_grey_levels_are_no_binary_data():
    Bernoulli.check(torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"0s and 1s, got values from 0 to 0\.5; binarise"):
        Bernoulli.check(torch.tensor([0.0, 0.5]))
