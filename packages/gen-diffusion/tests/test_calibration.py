"""The calibration report passes exact draws, and each of its figures catches the fault it is there for."""

import math
from functools import partial

import pytest
import torch

from gen_diffusion import (
    Gaussian,
    GaussianMixture,
    Observation,
    ParticleSampler,
    Problem,
    calibrate,
    difference,
    isotropic,
    lattice_levels,
    lattice_problem,
    mcgdiff_sample,
    moments_sample,
    twisted,
    twisted_sample,
    untwisted,
)
from gen_diffusion.calibration import kolmogorov_smirnov

PROBLEMS = [lattice_problem(4, 2, i) for i in range(4)]
LEVELS = lattice_levels(4, 40)


def exact(denoiser, obs, x, sigmas, *, generator=None):
    return denoiser.denoiser.posterior(obs).sample(len(x), generator)


def repeated_mean(denoiser, obs, x, sigmas, *, generator=None):
    posterior = denoiser.denoiser.posterior(obs)
    return (posterior.log_weights.exp() @ posterior.means).expand_as(x)


def too_narrow(denoiser, obs, x, sigmas, *, generator=None):
    """Draws of the right modes whose spread is six tenths of what it should be, as without fresh noise (1 / sqrt 2)."""
    posterior = denoiser.denoiser.posterior(obs)
    draws, k = posterior.draw(len(x), generator)
    return posterior.means[k] + 0.6 * (draws - posterior.means[k])


def one_mode(denoiser, obs, x, sigmas, *, generator=None):
    posterior = denoiser.denoiser.posterior(obs)
    top = posterior.log_weights.argmax()
    alone = GaussianMixture(torch.ones(1).double(), posterior.means[top][None], posterior.covs)
    return alone.sample(len(x), generator)


def report(sampler, problems=PROBLEMS, **options):
    return calibrate(sampler, problems, LEVELS, **{"n": 500, "slices": 50, **options})


@pytest.fixture(scope="module")
def truth():
    return report(exact)


def test_exact_draws_pass(truth):
    gap = difference(truth, truth, "sw")
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)
    assert 0.6 < truth.estimate("sw").value / truth.estimate("floor").value < 1.6
    assert truth.estimate("mode_tv").value < 0.03 and truth.estimate("ks").value < 0.06
    assert truth.estimate("coverage").value == pytest.approx(0.9, abs=0.02)
    assert truth.estimate("log_z_error") is None and truth.estimate("calls").value == 0


def test_a_posterior_mean_repeated_is_caught_by_the_spread(truth):
    """Sliced Wasserstein alone would prefer it to samplers that find the modes but weigh them wrongly."""
    fraud = report(repeated_mean)
    assert fraud.estimate("ks").value > 0.9 and fraud.estimate("coverage").value == 0


def test_draws_of_too_little_spread_are_caught(truth):
    """The modes and their weights are right; the radius and the credible intervals are not."""
    narrow = report(too_narrow)
    assert narrow.estimate("mode_tv").value < 0.03
    assert narrow.estimate("ks").value > 0.3 and narrow.estimate("coverage").value < 0.88
    assert difference(narrow, truth, "ks").low > 0


def test_a_lost_mode_is_caught():
    found = report(one_mode)
    lost = [1 - p.prior.posterior(p.obs).log_weights.exp().max().item() for p in PROBLEMS]
    assert found.values("mode_tv").tolist() == pytest.approx(lost, abs=0.02)


@pytest.mark.parametrize("sampler", [moments_sample, mcgdiff_sample])
def test_particles_are_calibrated_at_a_call_a_level(sampler):
    """Spread, coverage and ln Z of an SMC run with 40 levels and 500 particles."""
    found = report(sampler, slices=20)
    assert found.estimate("ks").value < 0.15 and found.estimate("coverage").value == pytest.approx(0.9, abs=0.05)
    assert found.estimate("sw").value < 10 * found.estimate("floor").value
    assert found.estimate("log_z_error").value < 0.6
    assert found.estimate("calls").value == 40
    assert found.estimate("gradients").value == (80 if sampler is moments_sample else 0)


def test_a_good_twist_beats_importance_sampling_by_a_paired_interval():
    problems, few = [lattice_problem(4, 3, i) for i in range(5)], {"n": 100, "clouds": 1, "slices": 5}
    blind = report(ParticleSampler(twisted, {"twist": untwisted}), problems, **few)
    gap = difference(report(moments_sample, problems, **few), blind, "log_z_error")
    assert gap.high < 0 and gap.n == 5


def test_the_difference_is_that_of_pairs():
    """Figures that differ by a constant on problems of any size have an interval without width."""
    a, b = report(exact, PROBLEMS[:2]), report(exact, PROBLEMS[2:])
    gap = difference(a, b, "sw")
    assert gap.low <= gap.value <= gap.high
    assert gap.value == pytest.approx((a.values("sw") - b.values("sw")).mean().item())
    with pytest.raises(ValueError, match="compared on the same problems"):
        difference(a, b, "log_z_error")


def test_problems_are_a_function_of_seed_and_index_alone():
    state = torch.get_rng_state()
    same, other = lattice_problem(4, 2, 1), lattice_problem(4, 2, 1, seed=1)
    assert torch.equal(same.obs.y, PROBLEMS[1].obs.y) and not torch.equal(other.obs.y, same.obs.y)
    assert torch.equal(state, torch.get_rng_state())
    s = same.obs.A.svd.s
    assert len(s) == 2 and (s <= 1).all() and same.obs.noise.sigma <= s.max()
    assert same.prior.means.abs().max() == 16 and torch.equal(same.prior.covs, torch.eye(4).double())
    with pytest.raises(ValueError, match="even dimension"):
        lattice_problem(3, 1, 0)


@pytest.mark.parametrize("sampler", [twisted_sample, moments_sample, mcgdiff_sample])
def test_units_do_not_matter(sampler):
    """x, y, sigma and the levels in other units: the same draws, and nothing is clipped to a range of pictures."""
    problem, c = PROBLEMS[0], 1000.0
    prior, obs = problem.prior, problem.obs
    scaled = GaussianMixture(prior.log_weights.exp(), c * prior.means, c**2 * prior.eigenvalues)
    far = Observation(obs.A, c * obs.y, Gaussian(c * obs.noise.sigma))
    x = LEVELS[0] * torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = []
    for scale, denoiser, seen in ((1.0, prior, obs), (c, scaled, far)):
        options = {"twist": partial(isotropic, sigma_data=11.3 * scale)} if sampler is twisted_sample else {}
        g = torch.Generator().manual_seed(1)
        draws.append(sampler(denoiser, seen, scale * x, scale * LEVELS, generator=g, **options) / scale)
    torch.testing.assert_close(*draws, rtol=1e-6, atol=1e-6)
    assert draws[0].abs().max() > 1


def test_kolmogorov_smirnov_by_hand_and_by_scipy():
    from scipy.stats import ks_2samp

    assert kolmogorov_smirnov(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0, 4.0])) == pytest.approx(2 / 3)
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(200, generator=g), 1.2 * torch.randn(300, generator=g)
    assert kolmogorov_smirnov(a, b) == pytest.approx(ks_2samp(a.numpy(), b.numpy()).statistic)


def test_levels_reach_from_beyond_the_modes_to_below_their_spread():
    levels = lattice_levels(8)
    assert len(levels) == 101 and levels[0] == pytest.approx(48 * math.sqrt(8)) and levels[-2] == pytest.approx(0.03)


def test_a_problem_of_ones_own():
    """Any mixture, seen by any linear operator."""
    mine = [Problem(PROBLEMS[0].prior, PROBLEMS[i].obs, (0, "mine", i)) for i in (1, 2)]
    assert calibrate(exact, mine, LEVELS, n=50, slices=5).estimate("coverage").value > 0.8
