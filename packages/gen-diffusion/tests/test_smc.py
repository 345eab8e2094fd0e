"""Particles on a chain whose normalising constant is known: a Gaussian prior seen through one number.

Z is that of the discrete chain, by a recursion of its mean and covariance; ln p(y) itself is 2.5 nats away.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from gen_diffusion import (
    Gaussian,
    GaussianMixture,
    Observation,
    Twist,
    convergence,
    isotropic,
    likelihood,
    matrix,
    mcgdiff,
    moments,
    multinomial,
    plot_convergence,
    residual,
    smc,
    stratified,
    systematic,
    twisted,
    untwisted,
)
from gen_diffusion.twisted import Look

MU, LAST = 1.5, 1e-2
A = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 2)))
OBS = Observation(matrix(A), torch.tensor([3.0], dtype=torch.float64), Gaussian(0.3))
PRIOR = GaussianMixture(torch.ones(1).double(), torch.full((1, 2), MU).double(), torch.ones(2).double())
_ROOT_ABAR = torch.linspace(0.0067, 1, 21, dtype=torch.float64)
SIGMAS = (1 / _ROOT_ABAR**2 - 1).clamp_min(0).sqrt()


def chain_law(eta=1.0, order=1):
    """Mean (one for both coordinates) and variance of x0 by the recursion of (x, x before), which is affine."""
    m, v = torch.zeros(2).double(), torch.full((2, 2), float(SIGMAS[0]) ** 2).double()
    shrink = lambda s: 1 / (1 + s**2)
    for i, (s, s_next) in enumerate(itertools.pairwise(SIGMAS)):
        std = eta * s_next * (1 - (s_next / s) ** 2).sqrt()
        keep, std = (s_next**2 - std**2).sqrt() / s, std if s_next > 0 else LAST
        ahead = 0.0
        if order == 2 and 0 < i < len(SIGMAS) - 2:
            ahead = (s / s_next).log() / (SIGMAS[i - 1] / s).log() / 2
        here = keep + (1 - keep) * (1 + ahead) * shrink(s)
        before = -(1 - keep) * ahead * shrink(SIGMAS[max(i - 1, 0)])
        F = torch.tensor([[here, before], [1.0, 0.0]]).double()
        m = F @ (m - MU) + MU
        v = F @ v @ F.T + torch.tensor([[std**2, 0.0], [0.0, 0.0]]).double()
    return m[0], v[0, 0]


def exact(**chain):
    """ln Z of the chain, and its posterior mean."""
    m, v = chain_law(**chain)
    total = v * (A @ A.T)[0, 0] + OBS.noise.sigma**2
    gap = OBS.y[0] - m * A.sum()
    log_z = -(gap**2 / total + (2 * math.pi * total).log()) / 2
    return log_z.item(), m + v * A[0] * gap / total


def bootstrap(obs):
    """The twist of `isotropic`, without its guidance: particles move as the prior's do."""
    twist = isotropic(obs)

    def look(denoise, x, sigma):
        x0, _, log_twist = twist.look(denoise, x, sigma)
        return Look(x0, x0, log_twist)

    return Twist(look, twist.target)


def model(twist=isotropic, **options):
    return twisted(PRIOR, OBS, SIGMAS, twist=twist, kappa=LAST / float(SIGMAS[-2]), **options)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def covers(estimate, truth=1.0):
    return (
        estimate.low - 0.6 * (estimate.high - estimate.low)
        < truth
        < estimate.high + 0.6 * (estimate.high - estimate.low)
    )  # four standard errors


def test_the_normalising_constant_is_that_of_the_discrete_chain():
    """Not ln p(y): the two differ by 2.5 nats at 20 levels."""
    log_z, _ = exact()
    assert log_z == pytest.approx(-39.168, abs=1e-3)
    assert PRIOR.evidence(OBS).item() == pytest.approx(-36.61356, abs=1e-5)
    particles = smc(model(), 100, runs=200, generator=draws())
    assert (particles.log_z - log_z).exp().mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("resample", [multinomial, residual, stratified, systematic])
@pytest.mark.parametrize("ess", [0.0, 0.5, 1.0])
def test_z_is_unbiased_for_every_resampling_and_threshold(resample, ess):
    (row,) = convergence(
        model(), (10,), 1500, log_z=exact()[0], target=exact()[1], resample=resample, ess=ess, generator=draws()
    )
    assert covers(row.z) and row.z.high - row.z.low < 0.1


@pytest.mark.parametrize("twist", [moments, likelihood, bootstrap])
@pytest.mark.parametrize("chain", [{}, {"eta": 0.7}, {"order": 2}])
def test_z_is_unbiased_for_every_twist_and_chain(twist, chain):
    """The twist and the proposal cancel: only the variance depends on them. N = 10 for those that guide."""
    n = 2000 if twist is bootstrap else 10
    (row,) = convergence(model(twist, **chain), (n,), 20_000 // n * 3, log_z=exact(**chain)[0], generator=draws())
    assert covers(row.z) and row.z.high - row.z.low < 0.6


def test_variance_and_error_fall_as_one_over_n():
    """N var(Z / Z*) and N MSE of the mean are flat, and 20 times those of unguided particles are above them."""
    log_z, target = exact()
    rows = convergence(model(), (10, 100, 400), 400, log_z=log_z, target=target, generator=draws())
    (plain,) = convergence(model(bootstrap), (400,), 50, log_z=log_z, target=target, generator=draws())
    variances, errors = ([getattr(row, name).value for row in rows] for name in ("n_variance", "n_error"))
    assert all(covers(row.z) for row in rows)
    assert max(variances) < 1.5 * min(variances) and max(errors) < 1.5 * min(errors)
    assert plain.n_variance.value > 20 * max(variances)


def test_the_exact_twist_has_equal_weights_and_an_exact_constant():
    """For a Gaussian prior `moments` is p(y | x): in the limit of many levels ESS = N and Z = p(y)."""
    lost = []  # share of particles that are not effective, about the width of a step
    for n in (60, 240):
        levels = torch.cat([torch.logspace(3, -3, n).double(), torch.zeros(1).double()])
        particles = smc(twisted(PRIOR, OBS, levels, twist=moments, order=2), 500, ess=0, generator=draws())
        lost.append(1 - particles.ess[-1].item() / 500)
    assert lost[1] < 0.25 and lost[1] < 0.4 * lost[0]
    assert particles.log_z.item() == pytest.approx(PRIOR.evidence(OBS).item(), abs=0.05)
    unit = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 2).double(), torch.ones(2).double())
    x = torch.randn(9, 2, generator=draws(), dtype=torch.float64)
    for sigma in (0.1, 1.0, 30.0):  # of unit variance, where both twists are exact: scale of r^2 and of the gradient
        tilted = unit.posterior(OBS)(x, torch.tensor(sigma).double())
        for twist in (isotropic, moments):
            look = twist(OBS).look(unit, x, torch.tensor(sigma).double())
            torch.testing.assert_close(look.guided, tilted)


def test_importance_sampling_is_the_degenerate_case():
    """No twist, no resampling: Z is the mean likelihood of the prior's draws, and the mean is weighed by it."""
    x = float(SIGMAS[0]) * torch.randn(500, 2, generator=draws(), dtype=torch.float64)
    particles = smc(twisted(PRIOR, OBS, SIGMAS, twist=untwisted, kappa=0), x, ess=0, generator=draws(1))
    log_w = OBS.log_prob(particles.x)
    assert particles.log_z.item() == pytest.approx((log_w.logsumexp(0) - math.log(500)).item())
    torch.testing.assert_close(particles.mean(), log_w.softmax(0) @ particles.x)
    assert particles.ancestors.unique(dim=0).tolist() == [list(range(500))]


def test_what_belongs_to_a_particle_is_resampled_with_it():
    """The twist and the estimates of the state are those of its x, after any resampling."""
    chain = model()

    class Watched:
        steps, initial, begin = chain.steps, chain.initial, chain.begin

        def move(self, step, state, noise):
            look = chain.twist.look(PRIOR, state[0], SIGMAS[step])
            for kept, fresh in zip(state[1:4], look, strict=True):
                torch.testing.assert_close(kept, fresh)
            return chain.move(step, state, noise)

    assert smc(Watched(), 20, runs=3, ess=1, generator=draws()).ancestors.shape == (3, 20, 20)


def test_weights_by_hand():
    """Two steps of a model with known weights: log Z, ESS, ancestors and families."""

    class Two:
        steps = 1

        def initial(self, n, noise):
            return torch.arange(float(n))

        def begin(self, x):
            return x, torch.tensor([0.0, 0.0, -math.inf, math.log(2.0)])

        def move(self, step, state, noise):
            return state + 10, state * math.log(2.0)

    kept = smc(Two(), 4, ess=0)
    weights = torch.tensor([1.0, 2.0, 0.0, 16.0])
    assert kept.log_z.item() == pytest.approx(math.log(weights.mean()))
    torch.testing.assert_close(kept.log_w.exp().float(), weights / weights.sum())
    torch.testing.assert_close(kept.ess.float(), torch.tensor([16 / 6, 19**2 / 261]))
    moved = smc(Two(), 4, ess=1, generator=draws())
    picked = (moved.x - 10).long()
    assert picked.tolist() == moved.ancestors[0].tolist()
    assert moved.log_z.item() == pytest.approx(math.log((2.0**picked).mean() * 4 / 4), abs=1e-6)
    assert moved.roots == len(picked.unique())


@pytest.mark.parametrize("resample", [multinomial, systematic])
def test_the_standard_error_of_log_z_covers(resample):
    """Within 1.96 reported errors of ln Z in 95 % of runs, and as large as the spread over runs."""
    particles = smc(model(), 200, runs=600, resample=resample, ess=0.9, generator=draws())
    off = (particles.log_z - exact()[0]).abs() / particles.log_z_error
    assert particles.roots.double().mean() > 30
    assert 0.91 <= (off < 1.96).double().mean() <= 0.98
    assert 0.8 < particles.log_z_error.square().mean() / particles.log_z.var() < 1.25


def test_one_family_alone_has_no_standard_error():
    particles = smc(model(bootstrap), 5, ess=1, resample=multinomial, generator=draws())
    assert particles.roots == 1 and particles.log_z_error.isinf()


def test_runs_in_a_batch_are_runs():
    """Equal first particles and no noise from resampling: each run of a batch is the run alone."""
    x = float(SIGMAS[0]) * torch.randn(12, 2, generator=draws(), dtype=torch.float64)
    chain = twisted(PRIOR, OBS, SIGMAS, twist=untwisted, eta=1e-9, kappa=0)
    both, one = smc(chain, x, runs=2, ess=0), smc(chain, x[6:], ess=0)
    torch.testing.assert_close(both.log_z[1], one.log_z)
    torch.testing.assert_close(both.x[1], one.x)
    assert both.draw(draws()).shape == (12, 2) and one.draw(draws()).shape == (6, 2)


def test_the_same_seed_is_the_same_run_and_the_global_stream_is_untouched():
    state = torch.get_rng_state()
    first, again = (smc(model(), 20, generator=draws(0)).x for _ in range(2))
    assert torch.equal(first, again) and torch.equal(state, torch.get_rng_state())


def test_one_particle_and_bad_requests():
    alone = smc(model(), 1, generator=draws())
    assert alone.x.shape == (1, 2) and alone.log_z.isfinite() and alone.log_z_error.isinf()
    with pytest.raises(ValueError, match="share of effective particles"):
        smc(model(), 10, ess=1.5)
    with pytest.raises(ValueError, match="share the particles evenly"):
        smc(model(), torch.zeros(5, 2).double(), runs=2)
    with pytest.raises(ValueError, match="all particles have weight 0"):
        smc(twisted(PRIOR, lambda x0: x0[:, 0] / 0.0 * 0 - math.inf, SIGMAS, twist=untwisted, shape=(2,)), 4)


def test_the_plot_has_a_point_for_each_count():
    rows = convergence(mcgdiff(PRIOR, OBS, SIGMAS), (5, 20), 10, batch=60, generator=draws())
    figure = plot_convergence(rows)
    assert [row.n for row in rows] == [5, 20] and rows[0].z.n == 10
    assert [len(axes.lines[0].get_xdata()) for axes in figure.axes] == [2, 2, 2]
