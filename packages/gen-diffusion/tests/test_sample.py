"""Samplers against what is known exactly: the order of the solver, the variance of Gaussian data, the batch."""

import math
from functools import partial

import pytest
import torch

from gen_diffusion import GaussianMixture, churn, euler, heun, initial_noise, karras, keyed, sample

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


@pytest.mark.parametrize(("step", "order"), [(euler, 1.0), (heun, 2.0), (churn(0.0, step=euler), 1.0)])
def test_order_on_gaussian_data(step, order):
    """The ODE's solution is x(sigma) ~ sqrt(S^2 + sigma^2); stop before 0, where the last step is Euler by design."""
    x = torch.full((1, 1), 80.0, dtype=torch.float64)

    def error(n):
        sigmas = karras(n)[:-1]
        exact = x * ((S**2 + sigmas[-1] ** 2) / (S**2 + sigmas[0] ** 2)).sqrt()
        return (sample(gaussian, x, sigmas, step) - exact).abs().item()

    assert math.log2(error(400) / error(800)) == pytest.approx(order, abs=0.1)


def test_heun_is_second_order_on_the_mixture():
    """64 points of the 25-component mixture in 8 dimensions, 80 to 0.002, against Heun with 1000 steps."""
    mixture, sigmas = lattice(), partial(karras, sigma_min=0.002, sigma_max=80.0)
    x = 80 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference = sample(mixture, x, sigmas(1000)[:-1])
    error = [(sample(mixture, x, sigmas(n)[:-1]) - reference).abs().mean() for n in (80, 160)]
    assert math.log2(error[0] / error[1]) >= 1.9


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


@pytest.mark.parametrize(
    ("step", "golden"),
    [
        (euler, [0.6242568933936853, -0.42022175744120877, 0.06154514511461927]),
        (heun, [0.3915353445916842, -0.33358946217294017, 0.06120629074330598]),
        (churn(1.2, 1.1, s_min=0.5), [0.21477497521171485, 0.26309608060798584, 0.23477576200222167]),
    ],
    ids=["euler", "heun", "churn"],
)
def test_steps_are_those_of_k_diffusion(step, golden, monkeypatch):
    """sample_euler and sample_heun of k-diffusion 4601bf0, printed by k_diffusion_golden.py; noise is all ones."""
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    sigmas = torch.tensor([80.0, 10.0, 1.0, 0.1, 0.0], dtype=torch.float64)
    x = torch.tensor([[80.0, -40.0, 5.0]], dtype=torch.float64)
    ours = sample(lambda x, sigma: torch.tanh(x / (1 + sigma)), x, sigmas, step)
    assert ours[0].tolist() == pytest.approx(golden, abs=1e-12)


@pytest.mark.parametrize("step", [euler, heun, churn(20.0), churn(20.0, step=euler)])
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
