"""Samplers against what is known exactly: the order of the solver, the variance of Gaussian data, the batch."""

import math
from functools import partial

import pytest
import torch

from gen_diffusion import (
    GaussianMixture,
    ancestral,
    annealed_langevin,
    churn,
    corrected,
    ddim,
    dpmpp_2m,
    dpmpp_2m_sde,
    euler,
    exponential,
    flow,
    flow_heun,
    heun,
    initial_noise,
    karras,
    keyed,
    sample,
)

S = 0.5


def gaussian(x, sigma):
    """The exact denoiser of N(0, S^2), for one level or one per sample."""
    s = sigma.reshape(sigma.shape + (1,) * (x.ndim - 1) * sigma.ndim)
    return x * S**2 / (S**2 + s**2)


def lattice(d=8):
    """The 25 unit Gaussians on {-16, -8, 0, 8, 16}^2, repeated along the dimensions."""
    side = torch.arange(-2.0, 3.0, dtype=torch.float64) * 8
    means = torch.cartesian_prod(side, side).repeat(1, d // 2)
    weights = torch.rand(25, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return GaussianMixture(weights, means, torch.eye(d, dtype=torch.float64).expand(25, d, d))


ORDERS = [(euler, 1.0), (ddim(), 1.0), (heun, 2.0), (churn(0.0, step=euler), 1.0), (dpmpp_2m, 2.0), (flow_heun, 2.0)]


@pytest.mark.parametrize(("step", "order"), ORDERS)
def test_order_on_gaussian_data(step, order):
    """The ODE's solution is x(sigma) ~ sqrt(S^2 + sigma^2); stop before 0, where the last step is Euler by design."""
    x = torch.full((1, 1), 80.0, dtype=torch.float64)

    def error(n):
        sigmas = karras(n)[:-1]
        exact = x * ((S**2 + sigmas[-1] ** 2) / (S**2 + sigmas[0] ** 2)).sqrt()
        return (sample(gaussian, x, sigmas, step) - exact).abs().item()

    assert math.log2(error(400) / error(800)) == pytest.approx(order, abs=0.1)


@pytest.fixture(scope="module")
def curve():
    """16 starts in 8 dimensions on the mixture, and where the ODE takes them from 80 to 0.002 (Heun, 1000 steps)."""
    mixture, sigmas = lattice(), partial(karras, sigma_min=0.002, sigma_max=80.0)
    x = 80 * torch.randn(16, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference = sample(mixture, x, sigmas(1000)[:-1])
    return lambda step, n: (sample(mixture, x, sigmas(n)[:-1], step) - reference).abs().mean().item()


@pytest.mark.parametrize("step", [heun, dpmpp_2m, flow_heun], ids=["heun", "dpmpp_2m", "flow_heun"])
def test_second_order_on_the_mixture(curve, step):
    """Halving the steps divides the error by four; Euler's is not yet at its own order there."""
    assert math.log2(curve(step, 80) / curve(step, 160)) >= 1.9


def test_no_correction_at_zero():
    """Heun calls the denoiser twice per step, but once in the last: there dx/dsigma would divide by 0."""
    levels = []

    def counting(x, sigma):
        levels.append(sigma.item())
        return gaussian(x, sigma)

    x = sample(counting, torch.ones(2, 3), karras(7))
    assert len(levels) == 2 * 7 - 1 and min(levels) > 0 and x.isfinite().all()


def test_churn_0_is_the_ode():
    x = 80 * initial_noise(range(4), (3,))
    assert torch.equal(sample(gaussian, x, karras(9), churn(0.0)), sample(gaussian, x, karras(9), heun))


def variance(step, n):
    """The exact variance after `n` steps on N(0, S^2) data, started at its own S^2 + sigma_max^2.

    The sampler is linear in the start and in the noise of each step. Row 0 carries the start, row j the noise of
    step j, each of unit size; their squares add up.
    """
    sigmas = karras(n)
    x = torch.zeros(n + 1, 1, dtype=torch.float64)
    x[0] = (S**2 + sigmas[0] ** 2).sqrt()
    for j in range(n):
        unit = torch.zeros_like(x)
        unit[j + 1] = 1
        x, _ = step(gaussian, x, sigmas[j], sigmas[j + 1], steps=n, randn_like=lambda _, unit=unit: unit)
    return x.square().sum().item()


@pytest.mark.parametrize("amount", [10.0, 80.0])
def test_churn_keeps_the_variance_of_gaussian_data(amount):
    """Noise added and noise removed cancel, up to the error of the solver."""
    assert variance(churn(amount), 400) == pytest.approx(S**2, rel=0.004)
    assert variance(churn(amount, s_noise=1.1), 400) > 1.05 * S**2  # so the test sees a wrong amount of noise


def test_churn_is_algorithm_2():
    """One step by hand: gamma is capped at sqrt(2) - 1, and s_noise multiplies after the root."""
    still = lambda denoise, x, sigma, sigma_next, **_: (x, sigma)
    sigma, zero = torch.tensor(3.0), torch.zeros(1, 1)
    for amount, gamma in ((0.8, 0.1), (1000.0, math.sqrt(2) - 1)):
        step = churn(amount, 1.5, step=still)
        x, sigma_hat = step(gaussian, zero, sigma, sigma / 2, steps=8, randn_like=torch.ones_like)
        assert sigma_hat.item() == pytest.approx(3 * (1 + gamma))
        assert x.item() == pytest.approx(1.5 * 3 * math.sqrt((1 + gamma) ** 2 - 1), rel=1e-5)
    outside = churn(0.8, s_max=2.0, step=still)
    assert torch.equal(outside(gaussian, zero, sigma, sigma / 2, steps=8, randn_like=torch.ones_like)[0], zero)


def test_churn_refuses_a_negative_amount():
    with pytest.raises(ValueError, match="cannot be negative"):
        churn(-1.0)


STEPS = {
    "euler": euler,
    "heun": heun,
    "flow_heun": flow_heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde(),
    "ddim": ddim(0.6),
    "ancestral": ancestral(),
    "ancestral large": ancestral("large"),
    "churn": churn(20.0),
    "churn 2m": churn(20.0, step=dpmpp_2m),
    "corrected": corrected(),
    "corrected heun": corrected(heun, n=2),
    "langevin": annealed_langevin(n=2),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_batch_is_its_samples(step):
    """A batch of 8 equals 8 batches of 1, equal in size to the width too, with fresh noise in the steps."""
    mixture, sigmas, indices = lattice(), karras(6), range(100, 108)
    draw = lambda i: sample(mixture, sigmas[0] * initial_noise(i, (8,), seed=3), sigmas, step, generator=keyed(3, i))
    singly = torch.cat([draw([i]) for i in indices])
    torch.testing.assert_close(draw(indices), singly, atol=1e-5, rtol=1e-5)


def test_steps_draw_from_the_generator_only():
    x = 80 * initial_noise(range(4), (3,))
    state = torch.get_rng_state()
    draw = lambda seed: sample(gaussian, x, karras(5), churn(9.0), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_callback_sees_each_step():
    """x and x0 are those at sigma: Euler's next x lies on the line between them."""
    seen, sigmas = [], karras(5)
    x = sample(gaussian, torch.full((1, 2), 80.0), sigmas, euler, callback=seen.append)
    assert [s.index for s in seen] == [0, 1, 2, 3, 4]
    assert [s.sigma.item() for s in seen] == pytest.approx(sigmas[:-1].tolist())
    torch.testing.assert_close(seen[0].x0, gaussian(seen[0].x, seen[0].sigma))
    ratio = sigmas[1].item() / sigmas[0].item()
    torch.testing.assert_close(seen[1].x, seen[0].x0 + ratio * (seen[0].x - seen[0].x0))
    torch.testing.assert_close(x, seen[-1].x0)  # a last step to 0 lands on the estimate


def test_sampling_the_mixture_reaches_every_mode():
    """The shares of 4,000 samples in the 25 modes are the mixture's weights, within chance."""
    mixture = lattice(2)
    x = sample(
        mixture,
        160 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).double(),
        karras(20, sigma_max=160.0),
    )
    share = torch.cdist(x, mixture.means).argmin(1).bincount(minlength=25) / len(x)
    assert (share - mixture.log_weights.exp()).abs().sum() / 2 < 0.04
    gap = mixture.log_prob(mixture.sample(4000, torch.Generator().manual_seed(1))).mean() - mixture.log_prob(x).mean()
    assert abs(gap) < 0.1


STOCHASTIC = {
    "ancestral": (ancestral(), 0.02),
    "ddim": (ddim(0.6), 0.01),
    "dpmpp_2m_sde": (dpmpp_2m_sde(), 0.003),
    "dpmpp_2m_sde half": (dpmpp_2m_sde(0.5), 0.003),
    "churn 2m": (churn(20.0, step=dpmpp_2m), 0.03),
}


def linear_variance(step, sigmas):
    """The exact variance of a linear sampler at the end, each draw of noise carried by a row of its own."""
    draws = len(sigmas) - 1
    x, used = torch.zeros(draws + 1, 1, dtype=torch.float64), [0]
    x[0] = (S**2 + sigmas[0] ** 2).sqrt()

    def unit(like):
        used[0] += 1
        out = torch.zeros_like(like)
        out[used[0]] = 1
        return out

    x = sample(gaussian, x, sigmas, lambda *a, **k: step(*a, **{**k, "randn_like": unit}))
    assert used[0] in (draws - 1, draws)  # each step but perhaps the last, to 0, draws once
    return x.square().sum().item()


@pytest.mark.parametrize(("step", "tolerance"), STOCHASTIC.values(), ids=STOCHASTIC)
def test_reverse_processes_keep_the_variance_of_gaussian_data(step, tolerance):
    """Noise added and taken away balance: an exact recursion, with no random number in it."""
    assert linear_variance(step, karras(800)) == pytest.approx(S**2, rel=tolerance)


def test_the_order_of_the_stochastic_solver():
    """The variance of dpmpp_2m_sde approaches the truth as 1 / n^2, that of ancestral sampling as 1 / n."""
    error = lambda step, n: abs(linear_variance(step, karras(n)[:-1]) - (S**2 + 0.002**2))
    assert math.log2(error(dpmpp_2m_sde(), 200) / error(dpmpp_2m_sde(), 400)) == pytest.approx(2.0, abs=0.2)
    assert math.log2(error(ancestral(), 200) / error(ancestral(), 400)) == pytest.approx(1.0, abs=0.2)


def test_ancestral_is_ddim_with_eta_1():
    """... and the Bayes posterior of the forward process: x' ~ q(x' | x, x0) for one sample by hand."""
    x, one = torch.full((1, 1), 3.0, dtype=torch.float64), torch.ones_like
    levels = torch.tensor([2.0, 0.5], dtype=torch.float64)
    a, _ = ancestral()(gaussian, x, *levels, randn_like=one)
    b, _ = ddim(1.0)(gaussian, x, *levels, randn_like=one)
    torch.testing.assert_close(a, b)
    x0 = gaussian(x, levels[0])
    precision = 1 / 0.5**2 + 1 / (2.0**2 - 0.5**2)  # of x' given x0 and x
    mean = (x0 / 0.5**2 + x / (2.0**2 - 0.5**2)) / precision
    torch.testing.assert_close(a, mean + precision**-0.5)


def test_large_variance_is_beta():
    """In the variance-preserving scale the fresh noise of a step has variance beta_t, or that of q(x' | x, x0)."""
    x, zero = torch.zeros(1, 1, dtype=torch.float64), torch.zeros_like
    sigma, sigma_next = torch.tensor([2.0, 1.9], dtype=torch.float64)
    beta = 1 - (1 + sigma_next**2) / (1 + sigma**2)
    small = (1 - 1 / (1 + sigma_next**2)) / (1 - 1 / (1 + sigma**2)) * beta
    for variance, expected in (("small", small), ("large", beta)):
        noisy, _ = ancestral(variance)(gaussian, x, sigma, sigma_next, randn_like=torch.ones_like)
        still, _ = ancestral(variance)(gaussian, x, sigma, sigma_next, randn_like=zero)
        assert ((noisy - still) ** 2 / (1 + sigma_next**2)).item() == pytest.approx(expected.item())


def test_langevin_moves_leave_the_right_variance():
    """The moves x + (a/2) score + sqrt(a) z at the level arrived at keep (S^2 + sigma^2) / (1 - b / 4), exactly.

    x is multiplied by 1 - b / 2 with b = step_size sigma^2 / (S^2 + sigma^2) in each move.
    """
    levels, step = torch.tensor([2.0, 1.0], dtype=torch.float64), annealed_langevin(0.4, n=1)
    total = S**2 + 1.0
    b = 0.4 / total
    x = torch.full((1, 1), math.sqrt(total / (1 - b / 4)), dtype=torch.float64)
    moved, _ = step(gaussian, x, *levels, randn_like=torch.zeros_like)
    fresh, _ = step(gaussian, torch.zeros_like(x), *levels, randn_like=torch.ones_like)
    assert (moved**2 + fresh**2).item() == pytest.approx((x**2).item())


def test_annealed_langevin_reaches_the_mixture():
    """Too few moves at a level leave the cloud too wide (0.6 nats with 5 of them); twice the noise would cost a nat."""
    mixture, g = lattice(2), torch.Generator().manual_seed(0)
    x = 40 * torch.randn(1000, 2, generator=g).double()
    x = sample(mixture, x, exponential(30, 0.1, 40.0), annealed_langevin(0.2, 25), generator=g)
    gap = mixture.log_prob(mixture.sample(1000, g)).mean() - mixture.log_prob(x).mean()
    assert abs(gap) < 0.2


def test_correction_moves_towards_the_level():
    """Its moves leave one variance as it is: T / (1 - a / (2 T)) with T = S^2 + sigma^2 and a = 2 (snr sigma)^2."""
    stay = lambda denoise, x, sigma, sigma_next, **_: (x, x)
    total, size = S**2 + 1.0, 2 * 0.3**2
    levels = torch.tensor([1.1, 1.0], dtype=torch.float64)
    x = torch.full((1, 1), math.sqrt(total / (1 - size / (2 * total))), dtype=torch.float64)
    moved, _ = corrected(stay, 0.3)(gaussian, x, *levels, randn_like=torch.zeros_like)
    fresh, _ = corrected(stay, 0.3)(gaussian, torch.zeros_like(x), *levels, randn_like=torch.ones_like)
    assert (moved**2 + fresh**2).item() == pytest.approx((x**2).item())


def test_predictor_and_corrector_sample_points_in_the_plane():
    """Two dimensions, where a step that divides by each sample's own score would throw some of them far away."""
    mixture, g = lattice(2), torch.Generator().manual_seed(0)
    x = 160 * torch.randn(2000, 2, generator=g).double()
    x = sample(mixture, x, karras(40, sigma_max=160.0), corrected(), generator=g)
    gap = mixture.log_prob(mixture.sample(2000, g)).mean() - mixture.log_prob(x).mean()
    assert abs(gap) < 0.15


@pytest.mark.parametrize("step", [euler, heun, flow_heun, dpmpp_2m, dpmpp_2m_sde(), ddim(0.5), ancestral(), churn(9.0)])
def test_sampling_from_infinity(step):
    """At an infinite level x is the noise itself, and E[x0 | x] the mean: 60 steps give the variance of the data."""

    def exact(x, sigma):
        return torch.zeros_like(x) if sigma == math.inf else gaussian(x, sigma)

    g = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, 1, generator=g, dtype=torch.float64)
    x = sample(exact, noise, flow(60), step, generator=g)
    assert x.std().item() == pytest.approx(S, rel=0.07)


def test_flow_heun_is_heun_on_the_straight_path():
    """x_t + (t' - t) (u + u') / 2 by hand, from t = 1."""
    velocity = lambda x_t, t: (x_t - (1 - t) * x0(x_t, t)) / t - x0(x_t, t)
    x0 = lambda x_t, t: torch.zeros_like(x_t) if t == 1 else gaussian(x_t / (1 - t), torch.tensor(t / (1 - t)))
    x = start = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t, t_next in ((1.0, 0.75), (0.75, 0.5), (0.5, 0.25)):
        u = velocity(x, t)
        euler_step = x + (t_next - t) * u
        x = x + (t_next - t) * (u + velocity(euler_step, t_next)) / 2
    exact = lambda x, sigma: torch.zeros_like(x) if sigma == math.inf else gaussian(x, sigma)
    ours = sample(exact, start, flow(4)[:-1], flow_heun)
    torch.testing.assert_close(ours * 0.75, x)


@pytest.mark.parametrize(
    "sigmas", [[1.0], [1.0, 2.0, 0.0], [1.0, 1.0, 0.0], [2.0, 1.0, -1.0], [float("nan"), 1.0, 0.0]]
)
def test_levels_that_do_not_decrease_are_refused(sigmas):
    with pytest.raises(ValueError, match="must decrease"):
        sample(gaussian, torch.ones(1, 1), torch.tensor(sigmas))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ddim(1.5), "from 0 to 1"),
        (lambda: dpmpp_2m_sde(-1.0), "cannot be negative"),
        (lambda: corrected(snr=0.0), r"\(0, 1\)"),
        (lambda: annealed_langevin(5.0), r"\(0, 4\)"),
    ],
)
def test_bad_amounts_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_langevin_refuses_to_begin_at_infinity():
    with pytest.raises(ValueError, match="finite noise level"):
        sample(gaussian, torch.ones(1, 1), flow(4), annealed_langevin())
