"""Posterior samplers beside closed forms: Gaussian data, two modes, exact limits; and what every one has to respect."""

import math
from functools import partial

import pytest
import torch

from gen_diffusion import (
    Gaussian,
    GaussianMixture,
    Linear,
    Observation,
    Poisson,
    channel_mean,
    daps,
    ddim,
    ddnm,
    ddrm,
    dps,
    exponential,
    inpaint,
    karras,
    keyed,
    matrix,
    mgdm,
    phase_retrieval,
    pigdm,
    pigdm_denoiser,
    sample,
)

METHODS = {
    "dps": dps,
    "pigdm": pigdm,
    "ddrm": ddrm,
    "ddrm, fresh noise of ddim": partial(ddrm, fresh="ddim"),
    "ddnm": ddnm,
    "daps": daps,
    "daps by Langevin moves": partial(daps, langevin=5),
    "mgdm": partial(mgdm, gradients=2, denoising=3),
}
SCALED = {"dps", "pigdm", "daps", "daps by Langevin moves"}  # those with the option sigma_data
EXACT = ("pigdm", "ddrm", "ddrm, fresh noise of ddim", "ddnm", "daps")  # those with an exact limit of no noise
every = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
A2 = matrix(torch.tensor([[1.0, 0.5, -0.3], [0.2, -0.4, 0.9]], dtype=torch.float64))
Y2 = torch.tensor([0.7, -1.1], dtype=torch.float64)


def normal(n, shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(x, sigma, std=1.0, mean=0.0):
    """The denoiser of N(mean, std^2 I)."""
    s = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return mean + (x - mean) * std**2 / (std**2 + s**2)


def two_modes():
    """Weights .3 and .7 at -4 and 4 of the second coordinate."""
    means = torch.tensor([[0.0, -4.0], [0.0, 4.0]], dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.3, 0.7]).double(), means, torch.eye(2).double().expand(2, 2, 2))


def posterior(A, y, sigma, std=1.0):
    """Mean and covariance of N(0, std^2 I) given y = A x + sigma n."""
    M = A.dense()
    K = std**2 * M.T @ torch.linalg.inv(std**2 * M @ M.T + sigma**2 * torch.eye(len(M), dtype=torch.float64))
    return K @ y, std**2 * (torch.eye(M.shape[1], dtype=torch.float64) - K @ M)


@pytest.mark.parametrize("std", [1.0, 3.0])
@pytest.mark.parametrize("level", [0.01, 0.5, 40.0])
def test_pigdm_is_exact_for_round_gaussian_data(std, level):
    """E[x0 | x, y] by conditioning N(0, std^2 I) on both at once: the variance is that of this axis and of the data."""
    x, obs = normal(4, (3,)), Observation(A2, Y2, Gaussian(0.4))
    both = torch.cat([A2.dense(), torch.eye(3, dtype=torch.float64)])
    noise = torch.diag(torch.tensor([0.4**2] * 2 + [level**2] * 3, dtype=torch.float64))
    K = std**2 * both.T @ torch.linalg.inv(std**2 * both @ both.T + noise)
    exact = torch.cat([Y2.expand(4, 2), x], 1) @ K.T
    torch.testing.assert_close(pigdm_denoiser(partial(gaussian, std=std), obs, std)(x, level), exact)
    levels = torch.full((4,), level, dtype=torch.float64)  # one for each sample
    torch.testing.assert_close(pigdm_denoiser(partial(gaussian, std=std), obs, std)(x, levels), exact)


@pytest.mark.parametrize("sigma", [0.0, 0.4])
def test_daps_is_exact_for_round_gaussian_data_in_any_number_of_steps(sigma):
    sigmas = torch.tensor([200.0, 3.0, 0.0], dtype=torch.float64)
    x = daps(
        partial(gaussian, std=2.0), Observation(A2, Y2, Gaussian(sigma)), sigmas[0] * normal(40_000, (3,)), sigmas,
        sigma_data=2.0, generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    mean, cov = posterior(A2, Y2, sigma, 2.0)
    torch.testing.assert_close(x.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(x.T.cov(), cov, atol=0.1, rtol=0)


def test_pigdm_draws_the_gaussian_posterior():
    sigmas = karras(100, 0.01, 80.0)
    x = pigdm(
        gaussian, Observation(A2, Y2, Gaussian(0.4)), 80 * normal(20_000, (3,)), sigmas,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    mean, cov = posterior(A2, Y2, 0.4)
    torch.testing.assert_close(x.mean(0), mean, atol=0.04, rtol=0)
    torch.testing.assert_close(x.T.cov(), cov, atol=0.12, rtol=0)  # first-order steps lose a tenth of the variance


def test_langevin_moves_draw_what_is_drawn_exactly():
    obs, x = Observation(A2, Y2, Gaussian(0.4)), 80 * normal(10_000, (3,))
    sigmas = torch.tensor([80.0, 2.0, 0.0], dtype=torch.float64)
    g = torch.Generator().manual_seed(1)
    drawn = daps(gaussian, obs, x, sigmas, langevin=150, step_size=0.1, generator=g)
    mean, cov = posterior(A2, Y2, 0.4)
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), cov, atol=0.08, rtol=0)


def variance_of_ddrm(sigmas, fresh, eta=0.85):
    """Of one unseen coordinate of N(0, 1) data: a step is x0 + keep (x - x0) / s + std n with x0 = x / (1 + s^2)."""
    v = float(sigmas[0]) ** 2
    for s, t in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        std = eta * t * (1 if fresh == "paper" else math.sqrt(1 - (t / s) ** 2))
        v = ((1 + math.sqrt(t**2 - std**2) * s) / (1 + s**2)) ** 2 * v + std**2
    return v


def test_ddrm_has_the_variance_of_its_paper_and_with_ddim_noise_the_right_one():
    """Where nothing is seen the paper's gives .72; noise over sqrt(2), or a mean as a sample, would give .36."""
    obs = Observation(inpaint(torch.tensor([False])), torch.zeros(0), Gaussian(0.5))
    x, g, sigmas = 80 * normal(40_000, (1,)), torch.Generator().manual_seed(1), karras(100, 0.01, 80.0)
    for fresh in ("paper", "ddim"):
        drawn = ddrm(gaussian, obs, x, sigmas, fresh=fresh, generator=g).var().item()
        assert drawn == pytest.approx(variance_of_ddrm(sigmas, fresh), rel=0.03)
    assert variance_of_ddrm(sigmas, "paper") == pytest.approx(0.72, abs=0.03)
    assert variance_of_ddrm(karras(1000, 0.002, 80.0), "ddim") == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("ddnm", "daps by Langevin moves")])
def test_modes_that_the_observation_cannot_tell_apart_have_their_weights(name):
    """The first coordinate is seen; the second keeps its modes at .3 and .7."""
    obs = Observation(inpaint(torch.tensor([True, False])), torch.tensor([0.5]).double(), Gaussian(0.3))
    method = partial(mgdm, gradients=3, denoising=25) if name == "mgdm" else METHODS[name]
    sigmas = karras(15 if name == "mgdm" else 40, 0.05, 80.0)
    x = method(two_modes(), obs, sigmas[0] * normal(1500, (2,)), sigmas, generator=torch.Generator().manual_seed(1))
    assert (x[:, 1] > 0).double().mean().item() == pytest.approx(0.7, abs=0.06)
    assert x[:, 0].mean().item() == pytest.approx(0.5 / 1.09, abs=0.2)


@pytest.mark.parametrize("method", [pigdm, partial(daps, sigma_data=0.5), partial(dps, sigma_data=0.5)])
def test_a_grey_picture_is_coloured_in_all_tints_that_it_may_have(method):
    """Three tints of one grey keep their shares .5, .3 and .2: none is lost, and their mean is no draw."""
    tints = torch.tensor([[0.6, -0.3, -0.3], [-0.3, 0.6, -0.3], [-0.3, -0.3, 0.6]], dtype=torch.float64)
    means = tints[:, :, None].expand(3, 3, 4).flatten(1)
    covs = 0.1**2 * torch.eye(12, dtype=torch.float64).expand(3, 12, 12)
    prior = GaussianMixture(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), means, covs)
    obs, sigmas = Observation(channel_mean((3, 2, 2)), torch.zeros(1, 2, 2), Gaussian(0.05)), karras(40, 0.02, 40.0)
    x = method(prior, obs, 40 * normal(4000, (3, 2, 2)), sigmas, generator=torch.Generator().manual_seed(1))
    colour = x.mean((2, 3))
    shares = colour.argmax(1).bincount(minlength=3) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), rtol=0, atol=0.04)
    assert (colour.amax(1) > 0.4).double().mean() > 0.98  # of a tint, not between them


@every
def test_a_sample_does_not_depend_on_its_batch(method):
    """A batch of 6 is 6 batches of 1 under the same noise, also with an observation for each sample."""
    sigmas = exponential(6, 0.1, 10.0)
    x, y = 10 * normal(6, (2,)), normal(6, (1,), 3)
    A = inpaint(torch.tensor([True, False]))
    one, each = Observation(A, y[0], Gaussian(0.3)), Observation(A, y, Gaussian(0.3))
    together = [method(two_modes(), obs, x, sigmas, generator=keyed(0, range(6))) for obs in (one, each)]
    for i in range(6):
        rows = Observation(A, y[i], Gaussian(0.3))
        for obs, batch in zip((one, rows), together, strict=True):
            alone = method(two_modes(), obs, x[i : i + 1], sigmas, generator=keyed(0, [i]))
            torch.testing.assert_close(alone[0], batch[i], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_units_do_not_matter_and_nothing_is_clipped(name):
    """x, y, sigma and sigma_data times 50: the draws times 50, far outside of [-1, 1]."""
    A, sigmas, x = inpaint(torch.tensor([True, False])), exponential(6, 0.1, 10.0), 10 * normal(5, (2,))
    far = lambda x, sigma: gaussian(x, sigma, mean=3.0)
    scaled = lambda x, sigma: 50 * far(x / 50, torch.as_tensor(sigma) / 50)
    unit = {"sigma_data": 50.0} if name in SCALED else {}
    obs = [Observation(A, torch.tensor([2.0 * c]).double(), Gaussian(0.3 * c)) for c in (1, 50)]
    draws = METHODS[name](far, obs[0], x, sigmas, generator=keyed(0, range(5)))
    more = METHODS[name](scaled, obs[1], 50 * x, 50 * sigmas, generator=keyed(0, range(5)), **unit)
    torch.testing.assert_close(more, 50 * draws, rtol=1e-5, atol=1e-5)
    assert more.abs().max() > 50


@every
def test_randomness_is_that_of_the_generator(method):
    """Seed 0 twice gives the same draws, another seed others; torch's own generator is untouched."""
    obs = Observation(inpaint(torch.tensor([True, False])), torch.zeros(1), Gaussian(0.3))
    draw = lambda seed: method(
        two_modes(), obs, 5 * normal(3, (2,)), exponential(4, 0.1, 5.0), generator=torch.Generator().manual_seed(seed)
    )
    state = torch.get_rng_state()
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", METHODS)
def test_the_network_is_called_once_a_step(name):
    calls = []
    counted = lambda x, sigma: (calls.append(len(x)), gaussian(x, sigma))[1]
    obs = Observation(inpaint(torch.tensor([True, False])), torch.zeros(1), Gaussian(0.3))
    METHODS[name](counted, obs, 5 * normal(3, (2,)), exponential(7, 0.1, 5.0))
    assert len(calls) == (3 + 5 * (2 + 3) if name == "mgdm" else 7)  # mgdm: `denoising`, then 5 levels between the ends


@pytest.mark.parametrize("name", EXACT)
def test_an_observation_without_noise_is_met_exactly(name):
    """Also by an operator of deficient rank, whose singular values near 0 are divided by nowhere."""
    rows = torch.tensor([[1.0, 2.0, 0.0], [2.0, 4.0, 1e-14], [0.0, 1.0, 1.0]], dtype=torch.float64)
    for A in (A2, matrix(rows)):
        y = A(normal(1, (3,), 5))[0]
        sigmas = karras(20, 0.01, 20.0)
        x = METHODS[name](gaussian, Observation(A, y, Gaussian(0.0)), 20 * normal(4, (3,)), sigmas)
        torch.testing.assert_close(A(x), y.expand(4, -1), rtol=1e-6, atol=2e-4)


@every
def test_with_nothing_seen_the_prior_is_drawn(method):
    """A mask without an observed pixel: finite draws of unit variance or a little less, centred."""
    obs = Observation(inpaint(torch.zeros(1, 2, 2, dtype=torch.bool)), torch.zeros(0), Gaussian(0.5))
    sigmas = karras(20, 0.02, 40.0)
    x = method(gaussian, obs, 40 * normal(500, (1, 2, 2)), sigmas, generator=torch.Generator().manual_seed(1))
    assert x.mean().abs() < 0.12 and 0.4 < x.var() < 1.2
    if method is pigdm:
        start = 40 * normal(5, (1, 2, 2))
        plain = sample(gaussian, start, sigmas, ddim(1.0), generator=keyed(0, range(5)))
        torch.testing.assert_close(pigdm(gaussian, obs, start, sigmas, generator=keyed(0, range(5))), plain)


def test_nonlinear_operators_and_counts_are_restored():
    """dps, daps and mgdm bring A(x) nearer to what was seen than the prior's draws are."""
    truth, g = normal(1, (1, 4, 4), 7)[0], torch.Generator().manual_seed(0)
    sigmas, x = karras(30, 0.05, 20.0), 20 * normal(20, (1, 4, 4))
    prior = sample(gaussian, x, sigmas, ddim(1.0), generator=g)
    A = phase_retrieval(1)
    for obs in (
        Observation(A, A(truth[None])[0], Gaussian(0.1)),
        Observation(lambda x: x, torch.poisson(20 * (truth + 5)), Poisson(20.0, 5.0)),
    ):
        distance = lambda x, obs=obs: obs.noise.distance(obs.y, obs.A(x)).median()
        for method in (partial(dps, scale=0.5), partial(daps, langevin=50, curvature=100.0), partial(mgdm, repeats=2)):
            restored = method(gaussian, obs, x, sigmas, generator=g)
            assert restored.isfinite().all() and distance(restored) < 0.8 * distance(prior)


def test_conditions_are_part_of_the_denoiser():
    """The same draws as those of a denoiser that knows its label."""
    labelled = lambda x, sigma, label: gaussian(x, sigma, mean=label[:, None].double())
    obs, sigmas = Observation(A2, Y2, Gaussian(0.4)), karras(10, 0.05, 20.0)
    label, x = torch.tensor([0, 3]), 20 * normal(2, (3,))
    draws = pigdm(partial(labelled, label=label), obs, x, sigmas, generator=keyed(0, [0, 1]))
    fixed = pigdm(partial(gaussian, mean=3.0), obs, x[1:], sigmas, generator=keyed(0, [1]))
    torch.testing.assert_close(draws[1:], fixed)


def test_bad_input_is_one_sentence():
    x, sigmas = normal(2, (3,)), karras(5, 0.1, 10.0)
    bare = Linear(lambda x: x, lambda y: y, (3,), (3,))
    at = lambda A, y, noise=None: Observation(A, y, noise or Gaussian(0.1))
    for method, obs, levels, words in (
        (pigdm, at(A2, Y2), torch.tensor([math.inf, 1.0, 0.0]), "begin at a finite noise level"),
        (ddrm, at(inpaint(torch.ones(2, dtype=torch.bool)), torch.zeros(2)), sigmas, r"shape \(2,\), but x has \(3,\)"),
        (dps, at(inpaint(torch.ones(2, dtype=torch.bool)), torch.zeros(2)), sigmas, r"shape \(2,\), but x has \(3,\)"),
        (daps, at(A2, Y2.expand(5, 2)), sigmas, "5 observations for 2 samples"),
        (ddrm, at(bare, torch.zeros(3)), sigmas, r"decomposed\(A\)"),
        (ddnm, at(bare, torch.zeros(3)), sigmas, r"decomposed\(A\)"),
        (pigdm, at(phase_retrieval(), torch.zeros(3)), sigmas, "needs a linear operator and Gaussian noise"),
        (ddrm, at(A2, Y2.abs().round(), Poisson(1.0)), sigmas, "needs a linear operator and Gaussian noise"),
        (daps, at(lambda x: x.abs(), torch.zeros(3)), sigmas, "needs the curvature"),
        (mgdm, at(A2, Y2, Gaussian(0.0)), sigmas, "no density"),
        (partial(daps, langevin=3), at(A2, Y2, Gaussian(0.0)), sigmas, "need noise, got sigma=0"),
        (partial(ddrm, eta=2.0), at(A2, Y2), sigmas, r"eta lies in \[0, 1\]"),
        (dps, at(A2, Y2), sigmas.flip(0), "must decrease"),
        (daps, at(A2, Y2), sigmas.flip(0), "must decrease"),
        (mgdm, at(A2, Y2), sigmas.flip(0), "must decrease"),
    ):
        with pytest.raises(ValueError, match=words):
            method(gaussian, obs, x, levels)
