import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits

from gen_core import distances
from gen_core.intervals import Estimate, bootstrap, mean, proportion
from gen_core.metrics import (
    PRDC,
    frechet,
    gaussian,
    kid,
    median_distance,
    memorisation,
    mmd,
    nearest_neighbour,
    prdc,
    sliced_wasserstein,
    wasserstein,
)

# Golden values of A against three other sets of the fixture `digits`; the test under `peers` computes them again.
# torchmetrics 1.9.0 FrechetInceptionDistance(Identity(), normalize=True, input_img_size=(1, 8, 8)) in float64
FRECHET = {"half": 0.077455, "noisy": 0.270346, "gaussian": 1.712941}
# torchmetrics 1.9.0 maximum_mean_discrepancy of poly_kernel
KID = {"half": 2.0984179156e-4, "noisy": 2.3399319379e-4, "gaussian": 6.0375958908e-4}
# prdc 0.2 compute_prdc(nearest_k=5)
PRDC_5 = {
    "half": PRDC(0.95768, 0.95434, 0.97996, 0.96659),
    "noisy": PRDC(0.71381, 0.99332, 0.31938, 0.65256),
    "gaussian": PRDC(0.00668, 0.74944, 0.00134, 0.00445),
}
# POT 0.9.7: sqrt(emd2) of squared distances, and sliced_wasserstein_distance(n_projections=500, seed=0)
WASSERSTEIN = {"half": 1.3254528, "noisy": 1.5295460, "gaussian": 2.3506171}
SLICED = {"half": 0.0218448, "noisy": 0.0305472, "gaussian": 0.0478150}


@pytest.fixture(scope="module")
def digits():
    x = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    g = torch.Generator().manual_seed(0)
    order = torch.randperm(1797, generator=g)
    a, half = x[order[:898]], x[order[898:1796]]
    noisy = half + 0.1 * torch.randn(half.shape, generator=g)
    return {"A": a, "half": half, "noisy": noisy, "gaussian": torch.randn(898, 64, generator=g) * a.std(0) + a.mean(0)}


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Frechet


@pytest.mark.parametrize("name, golden", FRECHET.items())
def test_frechet_golden(digits, name, golden):
    assert frechet(digits["A"], digits[name]) == pytest.approx(golden, abs=1e-6)


def test_frechet_of_standardised_gaussians_is_the_closed_form():
    """N(0, I) against N(1, 4 I) in 8 dimensions: |1|^2 + 8 (1 - 2)^2 = 16, with samples whitened to exact moments."""

    def exact(n, seed):
        x = normal(n, 8, seed=seed)
        x = x - x.mean(0)
        return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T  # covariance I, with n - 1

    assert frechet(exact(50, 0), 1 + 2 * exact(70, 1)) == pytest.approx(16, abs=1e-12)


def test_frechet_equals_sqrtm_of_unrelated_covariances():
    a, b = normal(40, 5), normal(60, 5, seed=1) @ normal(5, 5, seed=2) + 1
    s, t = np.cov(a.numpy().T), np.cov(b.numpy().T)
    expected = (a.mean(0) - b.mean(0)).square().sum().item() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert frechet(a, b) == pytest.approx(expected, abs=1e-10)


def test_frechet_with_fewer_samples_than_features_is_exact():
    """Orthogonal supports: S_a S_b = 0, so the distance is the sum of both traces and of the squared mean."""
    a, b = torch.zeros(3, 9, dtype=torch.float64), torch.zeros(4, 9, dtype=torch.float64)
    a[:, :4], b[:, 5:] = normal(3, 4), normal(4, 4, seed=1)
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.var(0).sum() + b.var(0).sum()
    assert frechet(a, b) == pytest.approx(expected.item(), abs=1e-12)
    assert frechet(a, a) == pytest.approx(0, abs=1e-12)


def test_frechet_is_biased_by_1_over_n_and_kid_is_not():
    """Two samples of one N(0, I) in 8 dimensions: halving n doubles Frechet, while KID stays about 0."""
    mean = lambda metric, n: sum(metric(normal(n, 8, seed=i), normal(n, 8, seed=-1 - i)) for i in range(40)) / 40
    assert mean(frechet, 100) / mean(frechet, 200) == pytest.approx(2, abs=0.3)
    assert mean(frechet, 100) > 0.4
    assert mean(kid, 100) == pytest.approx(0, abs=4 * 0.04 / math.sqrt(40))  # standard deviation .04 at n = 100


# KID and MMD


@pytest.mark.parametrize("name, golden", KID.items())
def test_kid_golden(digits, name, golden):
    assert kid(digits["A"], digits[name]) == pytest.approx(golden, abs=1e-9)


def brute_mmd(a, b, k):
    """[Gretton12] eq. 3 as it stands: sums over i != j within each set, over all pairs across."""
    n, m = len(a), len(b)
    within = lambda x: sum(k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j)
    cross = sum(k(x, y) for x in a for y in b)
    return (within(a) / (n * (n - 1)) + within(b) / (m * (m - 1)) - 2 * cross / (n * m)).item()


@pytest.mark.parametrize("block", [2**22, 5])
def test_mmd_equals_brute_force_for_unequal_sizes_in_any_blocks(monkeypatch, block):
    monkeypatch.setattr(distances, "BLOCK", block)
    a, b = normal(7, 3), normal(4, 3, seed=1) + 0.5
    assert kid(a, b) == pytest.approx(brute_mmd(a, b, lambda x, y: (x @ y / 3 + 1) ** 3), abs=1e-12)
    rbf = lambda x, y: torch.exp(-(x - y).square().sum() / (2 * 0.7**2))
    assert mmd(a, b, gaussian(0.7)) == pytest.approx(brute_mmd(a, b, rbf), abs=1e-12)


def test_mmd_of_gaussians_is_the_closed_form():
    """k Gaussian of width s, a ~ N(0, 1), b ~ N(m, 1): E k(x, y) = s/r exp(-m^2/2r^2) with r^2 = s^2 + 2."""
    s, m, n = 1.5, 1.0, 3000
    r2 = s**2 + 2
    expected = 2 * s / math.sqrt(r2) * (1 - math.exp(-(m**2) / (2 * r2)))
    assert mmd(normal(n, 1), normal(n, 1, seed=1) + m, gaussian(s)) == pytest.approx(expected, abs=0.02)


def test_mmd_without_a_kernel_takes_the_median_distance():
    a, b = normal(30, 3), normal(20, 3, seed=1)
    pooled = torch.cat([a, b])
    median = torch.pdist(pooled).median().item()
    assert median_distance(a, b) == pytest.approx(median)
    assert mmd(a, b) == pytest.approx(mmd(a, b, gaussian(median)), abs=1e-15)
    assert median_distance(a, b, limit=25) == pytest.approx(torch.pdist(pooled[::2]).median().item())


# Wasserstein


@pytest.mark.parametrize("name, golden", WASSERSTEIN.items())
def test_wasserstein_golden(digits, name, golden):
    assert wasserstein(digits["A"], digits[name]) == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize("name, golden", SLICED.items())
def test_sliced_wasserstein_golden(digits, name, golden):
    """Ours and POT's are independent draws of 500 directions: within 3 standard errors of their difference."""
    ours = [sliced_wasserstein(digits["A"], digits[name], generator=torch.Generator().manual_seed(i)) for i in range(8)]
    ours = torch.tensor(ours, dtype=torch.float64)
    assert abs(ours.mean().item() - golden) < 3 * ours.std().item() * math.sqrt(1 + 1 / 8)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_sliced_wasserstein_of_a_shift_is_the_mean_power_of_its_projections(p):
    """b = a + v moves every slice by u.v, so SW_p = E[|u.v|^p]^(1/p); for p = 2, |v|/sqrt(d)."""
    d, length = 5, 3.0
    a, v = normal(20, d), torch.full((d,), length / math.sqrt(d))
    u1 = torch.nn.functional.normalize(normal(200_000, d, seed=2), dim=1)[:, 0]
    expected = (length * u1).abs().pow(p).mean().item() ** (1 / p)
    got = sliced_wasserstein(a, a + v, 20_000, generator=torch.Generator().manual_seed(0), p=p)
    assert got == pytest.approx(expected, rel=0.01)
    if p == 2:
        assert got == pytest.approx(length / math.sqrt(d), rel=0.01)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("n, m", [(4, 6), (5, 3), (1, 4), (3, 3)])
def test_sliced_wasserstein_in_one_dimension_is_exact_for_unequal_sizes(n, m, p):
    """Repeating each sample m or n times changes no distribution, and makes the sizes equal: match in order."""
    a, b = normal(n, 1), normal(m, 1, seed=1) * 2 + 1
    a_sorted, b_sorted = (x.repeat_interleave(k, 0).sort(0).values for x, k in ((a, m), (b, n)))
    expected = (a_sorted - b_sorted).abs().pow(p).mean().item() ** (1 / p)
    assert sliced_wasserstein(a, b, n=3, p=p) == pytest.approx(expected, abs=1e-12)
    if n == m:
        assert wasserstein(a, b, p) == pytest.approx(expected, abs=1e-12)


def test_sliced_wasserstein_draws_from_its_generator():
    a, b = normal(20, 3), normal(30, 3, seed=1)
    one, same, other = (sliced_wasserstein(a, b, 10, generator=torch.Generator().manual_seed(i)) for i in (0, 0, 1))
    assert one == same != other


def test_wasserstein_recovers_a_permuted_shift():
    a = normal(30, 4)
    v = torch.tensor([3.0, 0.0, 4.0, 0.0])
    assert wasserstein(a, a[torch.randperm(30)] + v) == pytest.approx(5, abs=1e-12)
    assert wasserstein(a, a[torch.randperm(30)] + v, p=1) == pytest.approx(5, abs=1e-12)


# Precision, recall, density, coverage


@pytest.mark.parametrize("name, golden", PRDC_5.items())
def test_prdc_golden(digits, name, golden):
    assert prdc(digits["A"], digits[name]) == pytest.approx(golden, abs=1e-4)


def test_prdc_by_hand():
    """On a line with k = 1: the real balls are (-1, 1), (0, 2), (1, 9), the fake ones (-9, 10), (0.5, 19.5)."""
    real, fake = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([0.5, 10.0])
    assert prdc(real, fake, k=1) == (1 / 2, 3 / 3, (2 + 0) / 2, 2 / 3)
    assert prdc(torch.tensor([2.0, 5.0]), torch.tensor([0.0, 1.0]), k=1) == (
        1,
        0,
        1,
        1 / 2,
    )  # 2 is on the edge of (0, 2)


def test_prdc_swaps_precision_and_recall_with_its_arguments(digits):
    forth, back = prdc(digits["A"], digits["noisy"]), prdc(digits["noisy"], digits["A"])
    assert (forth.precision, forth.recall) == (back.recall, back.precision)
    assert forth.recall - forth.precision > 0.25  # noise lies outside of the data, but is wide enough to surround them


def test_prdc_sees_mode_collapse_as_lost_recall():
    """Real: two far clusters. Fake: one of them. Every fake is plausible, half of the real samples are out of reach."""
    real = torch.cat([normal(200, 3), normal(200, 3, seed=1) + 100])
    p, r, d, c = prdc(real, normal(200, 3, seed=2))
    assert p > 0.9
    assert d > 0.85
    assert 0.4 < r <= 0.5
    assert 0.4 < c <= 0.5


def test_prdc_of_copies():
    """A ball is open and its sample no neighbour of itself: copies of the data score k, not k + 1, over k."""
    real = normal(50, 3)
    assert prdc(real, real.clone(), k=4) == (1, 1, 1, 1)


@pytest.mark.parametrize("block", [7, 100])
def test_neighbours_do_not_depend_on_the_blocks(monkeypatch, block):
    a, b = normal(23, 3), normal(17, 3, seed=1) + 0.3
    found = lambda: [*prdc(a, b), *nearest_neighbour(a[:17], b), memorisation(a, b, b + 1), wasserstein(a[:17], b)]
    whole = found()
    monkeypatch.setattr(distances, "BLOCK", block)
    assert found() == pytest.approx(whole, rel=1e-12)


# Memorisation and the two-sample test


def test_memorisation_is_1_for_fresh_samples_and_0_for_copies(digits):
    train, test = digits["A"][:449], digits["A"][449:]
    assert memorisation(digits["half"], train, test) == pytest.approx(1, abs=0.05)
    assert memorisation(train, train, test) == 0
    assert memorisation(train + 0.05 * torch.randn(train.shape), train, test) < 0.5
    fake, to_train, to_test = torch.tensor([[0.0, 100.0, 200.0], [1.0, 2.0, 9.0], [4.0, 10.0, 11.0]])
    assert memorisation(fake, fake + to_train, fake - to_test) == 2 / 10


def test_nearest_neighbours_are_of_the_same_set_by_half_always_or_never():
    a, b = normal(300, 4), normal(300, 4, seed=1)
    assert nearest_neighbour(a, b) == pytest.approx((0.5, 0.5), abs=0.06)
    assert nearest_neighbour(a, b).distance == pytest.approx(0.5, abs=0.06)
    assert nearest_neighbour(a, b + 100) == (1, 1) and nearest_neighbour(a, b + 100).distance == 1
    assert nearest_neighbour(a, a.clone()) == (0, 0) and nearest_neighbour(a, a.clone()).distance == 1


def test_a_sampler_of_twice_the_right_spread_is_told_from_the_data():
    """In 64 dimensions all neighbours, of narrow and of wide samples, are narrow: the shares are 1 and 0, whose mean
    would be the ideal."""
    share = nearest_neighbour(normal(300, 64), 2 * normal(300, 64, seed=1))
    assert share == pytest.approx((1, 0), abs=0.02) and share.distance > 0.98


def test_nearest_neighbours_that_coincide_count_in_parts():
    assert nearest_neighbour(torch.zeros(6, 2), torch.zeros(6, 2)) == pytest.approx((5 / 11, 5 / 11))


# Inputs


def test_images_any_float_dtype_and_no_gradient():
    a, b = normal(12, 3, 2, 2), normal(9, 3, 2, 2, seed=1)
    flat = frechet(a.flatten(1), b.flatten(1)), kid(a.flatten(1), b.flatten(1)), prdc(a.flatten(1), b.flatten(1))
    assert (frechet(a, b), kid(a, b), prdc(a, b)) == flat
    assert kid(a.float().requires_grad_(), b.float()) == pytest.approx(flat[1], rel=1e-5)
    assert kid(a.bfloat16(), b.bfloat16()) == pytest.approx(kid(a.bfloat16().double(), b.bfloat16().double()), abs=0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: frechet(normal(9, 3), normal(9, 4)), "3 and 4 features; use the same"),
        (lambda: kid(normal(9, 3), normal(1, 3)), "second set has 1 samples but at least 2"),
        (lambda: prdc(normal(9, 3), normal(5, 3)), "second set has 5 samples but at least 6"),
        (lambda: prdc(normal(9, 3), normal(5, 3), k=0), "at least 1, got 0"),
        (lambda: frechet(normal(9, 3) / 0, normal(9, 3)), "9 samples of the first set are not finite; drop"),
        (lambda: wasserstein(normal(9, 3), normal(5, 3)), "9 and 5; drop"),
        (lambda: nearest_neighbour(normal(9, 3), normal(5, 3)), "as many samples of both sets, got 9 and 5; drop"),
        (lambda: mmd(torch.ones(4, 2), torch.ones(4, 2)), "bandwidth must be above 0"),
        (lambda: bootstrap(kid, normal(9, 3), normal(9, 3), level=1.5), "level=1.5"),
    ],
)
def test_errors_name_value_rule_and_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Intervals


def test_bootstrap_of_a_mean_is_the_textbook_interval():
    """metric = difference of means: value -+ 1.96 sqrt(s_a^2/n + s_b^2/m), up to the Monte Carlo error of the draws."""
    a, b = normal(60, 1), 3 * normal(40, 1, seed=1)
    metric = lambda a, b: (a.mean() - b.mean()).item()
    got = bootstrap(metric, a, b, draws=4000, generator=torch.Generator().manual_seed(0))
    half = 1.959964 * math.sqrt(a.var() / 60 + b.var() / 40)
    assert got.value == metric(a, b)
    assert got.n == 40
    assert got.high - got.value == pytest.approx(half, rel=0.04)
    assert got.value - got.low == pytest.approx(half, rel=0.04)


@pytest.mark.parametrize(
    "metric, n, m, shift, floor, widest",
    [
        (kid, 100, 100, 0.0, 0.95, 1.6),  # one distribution: holds 0, the true value
        (kid, 100, 60, 0.5, 0.9, 1.15),
        (frechet, 100, 100, 0.0, 0.95, 1.6),
        (frechet, 100, 60, 0.5, 0.9, 1.15),
        (lambda a, b: prdc(a, b).precision, 100, 100, 0.5, 0.85, 1.15),
        (lambda a, b: nearest_neighbour(a, b).a, 60, 60, 0.5, 0.9, 1.15),
    ],
    ids=["kid-same", "kid", "frechet-same", "frechet", "precision", "1nn"],
)
def test_bootstrap_covers_the_expectation_of_the_metric(metric, n, m, shift, floor, widest):
    """Intervals of 95 % from 150 pairs of samples hold E[metric] in 95 % of them, less 3 binomial deviations (.05).

    Not by being wide: their mean half-width over 1.96 true standard deviations is near 1 for distinct distributions,
    and sqrt(2) for equal ones, where half samples count the quadratic term twice. Resampling with replacement covers
    1 % and 4 % in the two equal cases. Neighbour counts, being no smooth function of the sample, get 90 % for 95 %.
    """
    g = torch.Generator().manual_seed(0)

    def pair():
        return torch.randn(n, 6, generator=g), torch.randn(m, 6, generator=g) + shift

    population = torch.tensor([metric(*pair()) for _ in range(600)], dtype=torch.float64)
    truth = 0.0 if metric is kid and shift == 0 else population.mean().item()
    estimates = [bootstrap(metric, *pair(), draws=30, generator=g) for _ in range(150)]
    assert sum(e.low < truth < e.high for e in estimates) / 150 >= floor
    width = sum(e.high - e.low for e in estimates) / 150
    assert 0.9 < width / (2 * 1.96 * population.std().item()) < widest


def test_an_estimate_prints_its_sample_size():
    assert str(Estimate(0.07745, 0.0528, 0.1021, 898)) == "0.07745 [0.0528, 0.1021] at n=898"


def test_an_interval_of_a_share_stays_within_0_and_1():
    """Of 30 samples some 29 lie within the balls: half samples would put the upper end above 1."""
    a, b = normal(30, 2), normal(30, 2, seed=1)
    precision = lambda a, b: prdc(b, a).precision
    free, bounded = (
        bootstrap(precision, a, b, draws=20, bounds=bounds, generator=torch.Generator().manual_seed(0))
        for bounds in ((-math.inf, math.inf), (0, 1))
    )
    assert free.high > 1 == bounded.high and bounded.low == free.low > 0
    assert bounded.figure() == {"value": bounded.value, "interval": [bounded.low, 1], "n": 30, "unit": "1"}


def test_intervals_of_a_proportion_and_of_a_mean_are_the_closed_forms():
    """Wilson's interval holds the p with |share - p| = z sqrt(p (1 - p) / n); none or all of n still leave doubt."""
    got = proportion(0.3, 50)
    for p in (got.low, got.high):
        assert abs(0.3 - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / 50), rel=1e-6)
    assert proportion(0.0, 10).low == 0 < proportion(0.0, 10).high and proportion(1.0, 10).high == 1
    x = normal(40)
    assert mean(x).high - x.mean().item() == pytest.approx(1.959964 * x.std().item() / math.sqrt(40), rel=1e-6)


# Live comparison


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FRECHET)
def test_golden_values_are_those_of_the_peers(digits, name):
    """torchmetrics 1.9.0, prdc 0.2, POT 0.9.7: what they say of the digits is what stands above, and what we say."""
    import ot
    from prdc import compute_prdc
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import maximum_mean_discrepancy, poly_kernel

    class Identity(torch.nn.Module):
        num_features = 64

        def forward(self, x):
            return x.flatten(1)

    a, b = digits["A"].double(), digits[name].double()
    fid = FrechetInceptionDistance(Identity(), normalize=True, input_img_size=(1, 8, 8)).set_dtype(torch.float64)
    fid.update(a.view(-1, 1, 8, 8), real=True)
    fid.update(b.view(-1, 1, 8, 8), real=False)
    assert fid.compute().item() == pytest.approx(FRECHET[name], abs=1e-6)
    assert fid.compute().item() == pytest.approx(frechet(a, b), abs=1e-9)

    peer = maximum_mean_discrepancy(poly_kernel(a, a), poly_kernel(a, b), poly_kernel(b, b)).item()
    assert peer == pytest.approx(KID[name], abs=1e-12)
    assert peer == pytest.approx(kid(a, b), abs=1e-11)

    peer = compute_prdc(a.numpy(), b.numpy(), 5)
    assert PRDC(**peer) == pytest.approx(PRDC_5[name], abs=1e-5)
    assert PRDC(**peer) == pytest.approx(prdc(a, b), abs=1e-12)

    peer = ot.emd2([], [], ot.dist(a.numpy(), b.numpy())) ** 0.5
    assert peer == pytest.approx(WASSERSTEIN[name], abs=1e-6)
    assert peer == pytest.approx(wasserstein(a, b), abs=1e-9)
    assert ot.sliced_wasserstein_distance(a.numpy(), b.numpy(), n_projections=500, seed=0) == pytest.approx(
        SLICED[name], abs=1e-6
    )


@pytest.mark.peers
def test_sliced_wasserstein_of_unequal_sizes_equals_pot_on_the_same_directions():
    """POT 0.9.7, given our directions: a, b of 13 and 29 samples in 4 dimensions, p = 1, 2 and 3."""
    import ot

    a, b = normal(13, 4), normal(29, 4, seed=1) * 2
    u = normal(4, 50, seed=3)
    for p in (1, 2, 3):
        peer = ot.sliced_wasserstein_distance(a.numpy(), b.numpy(), projections=(u / u.norm(dim=0)).numpy(), p=p)
        ours = sliced_wasserstein(a, b, 50, generator=torch.Generator().manual_seed(3), p=p)
        assert ours == pytest.approx(peer, abs=1e-12)
