"""Kalman filter, smoother and EM against the dense joint Gaussian, Fisher's identity and golden values of pykalman."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.distributions import MultivariateNormal

from gen_latent import (
    Belief,
    LinearGaussianSSM,
    affine,
    em_steps,
    fit_em,
    kalman_filter,
    pad_sequences,
    product,
    rts_smoother,
    stack,
    taylor,
    unscented,
)
from gen_latent.kalman import Affine, update

NAN = torch.nan


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(n: int, seed: int) -> torch.Tensor:
    root = normal(n, n, seed=seed)
    return root @ root.T / n + 0.1 * torch.eye(n)


def random_model(n: int = 2, p: int = 3, seed: int = 0, **changes) -> LinearGaussianSSM:
    rotation = torch.linalg.qr(normal(n, n, seed=seed)).Q
    return LinearGaussianSSM(
        m=normal(n, seed=seed + 1),
        P=covariance(n, seed + 2),
        F=0.9 * rotation,
        Q=covariance(n, seed + 3),
        H=normal(p, n, seed=seed + 4),
        R=covariance(p, seed + 5),
        b=normal(n, seed=seed + 6),
        d=normal(p, seed=seed + 7),
        **changes,
    )


def dense(model: LinearGaussianSSM, t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and covariance of (x_1..x_t) by its block-tridiagonal precision, and H, R of all times as one matrix."""
    n, eye = len(model.m), torch.eye(t, dtype=torch.float64)
    lower = torch.eye(n * t).double() - torch.kron(torch.diag(torch.ones(t - 1), -1).double(), model.F.contiguous())
    noise = torch.block_diag(model.P, *[model.Q] * (t - 1))
    cov = torch.linalg.inv(lower.T @ torch.linalg.inv(noise) @ lower)
    b = model.b.expand(t - 1, n) if model.b.ndim == 1 else model.b[: t - 1]
    mean = torch.linalg.solve(lower, torch.cat([model.m[None], b]).flatten())
    return mean, cov, torch.kron(eye, model.H), torch.kron(eye, model.R)


def condition(model: LinearGaussianSSM, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ln p of what is seen of y (t, p), and mean and covariance of all states and all missing y given it."""
    mean, cov, h, r = dense(model, len(y))
    d = model.d.expand(y.shape) if model.d.ndim == 1 else model.d[: len(y)]
    mean = torch.cat([mean, h @ mean + d.flatten()])
    cov = torch.cat([torch.cat([cov, cov @ h.T], 1), torch.cat([h @ cov, h @ cov @ h.T + r], 1)])
    seen = torch.cat([torch.zeros(len(y) * len(model.m), dtype=torch.bool), ~y.flatten().isnan()])
    rest = ~seen
    s = cov[seen][:, seen]
    value = y.flatten()[seen[-y.numel() :]]
    gain = torch.linalg.solve(s, cov[seen][:, rest]).T
    log_prob = MultivariateNormal(mean[seen], s).log_prob(value) if len(value) else torch.zeros(())
    return log_prob, mean[rest] + gain @ (value - mean[seen]), cov[rest][:, rest] - gain @ cov[seen][:, rest]


def gappy(t: int, p: int = 3, seed: int = 20) -> torch.Tensor:
    """Observations with single values, whole frames and one whole sensor's run missing."""
    y = 2 * normal(t, p, seed=seed)
    y[normal(t, p, seed=seed + 1) > 1] = NAN
    if t > 6:
        y[2:4] = NAN
        y[4:6, 0] = NAN
    return y


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("gaps", [False, True])
def test_filter_and_smoother_are_the_dense_joint_gaussian(gaps: bool):
    """Ragged, of lengths down to 1: likelihood, means, covariances and cross-covariances of each sequence."""
    model, lengths = random_model(), [9, 1, 5, 2]
    data = [gappy(t, seed=t) if gaps else normal(t, 3, seed=t) for t in lengths]
    filtered = model.filter(data)
    smoothed = model.smooth(data)
    n = 2
    for i, (y, t) in enumerate(zip(data, lengths, strict=True)):
        log_prob, mean, cov = condition(model, y)
        assert filtered.log_likelihood[i].item() == pytest.approx(log_prob.item(), abs=1e-10)
        close(smoothed.mean[i, :t].flatten(), mean[: n * t])
        blocks = cov[: n * t, : n * t].reshape(t, n, t, n)
        close(smoothed.cov[i, :t], torch.stack([blocks[s, :, s] for s in range(t)]))
        for s in range(t - 1):
            close(smoothed.cross_cov[i, s], blocks[s + 1, :, s])
        log_prob, mean, cov = condition(model, y[:t])
        close(filtered.mean[i, t - 1], mean[n * (t - 1) : n * t])


def test_padding_and_company_change_nothing():
    """A sequence alone, in a batch, and with missing frames appended gives the same; a transition that explodes too."""
    for model in (random_model(), replace(random_model(), F=torch.eye(2) * 1e3)):
        y = gappy(7)
        alone = model.smooth([y])
        batch = model.smooth([normal(60, 3, seed=3), y])
        close(batch.mean[1, :7], alone.mean[0], atol=1e-9)
        close(batch.cov[1, :7], alone.cov[0], atol=1e-9)
        assert model.log_prob([y, y[:1]])[0].item() == pytest.approx(model.log_prob([y])[0].item(), abs=1e-12)


def test_missing_is_removed_and_not_zero():
    """Nothing observed has probability one, and the state is the prior's."""
    model = random_model()
    nothing = torch.full((1, 4, 3), NAN)
    assert model.log_prob(nothing).item() == 0
    close(model.smooth(nothing).mean[0].flatten(), dense(model, 4)[0])


def test_covariances_stay_positive_over_2000_steps_of_a_nearly_exact_sensor():
    model = LinearGaussianSSM(
        torch.zeros(2),
        1e6 * torch.eye(2),
        torch.tensor([[1.0, 1], [0, 1]]),
        1e-10 * torch.eye(2),
        torch.tensor([[1.0, 0]]),
        torch.tensor([[1e-10]]),
    )
    filtered = model.filter(normal(1, 2000, 1).cumsum(1))
    for cov in (filtered.cov, rts_smoother(filtered).cov):
        assert (torch.linalg.eigvalsh(cov)[..., 0] > 0).all()
        assert torch.equal(cov, cov.mT)


def test_singular_noise_is_defined():
    """A constant velocity without noise is known from two exact looks; an exact look at what is known is refused."""
    free = LinearGaussianSSM(
        torch.zeros(2),
        torch.eye(2),
        torch.tensor([[1.0, 1], [0, 1]]),
        torch.zeros(2, 2),
        torch.tensor([[1.0, 0]]),
        torch.tensor([[1e-6]]),
    )
    line = 1 + 0.5 * torch.arange(10.0)
    smoothed = free.smooth([line])
    close(smoothed.mean[0, :, 1], torch.full((10,), 0.5).double(), atol=1e-4)
    spread = torch.tensor([[1.0, s] for s in range(10)]).double()
    exact = torch.linalg.inv(torch.eye(2) + spread.T @ spread / 1e-6) @ spread.T @ line.double() / 1e-6
    close(smoothed.mean[0, 0], exact, atol=1e-8)
    with pytest.raises(ValueError, match="covariance of a predicted observation is not positive definite"):
        replace(free, P=torch.zeros(2, 2), R=torch.zeros(1, 1)).log_prob([line])


def test_the_entropy_that_q_lacks_is_that_of_the_dense_posterior():
    """ln p = Q + entropy of states and missing values in frames that are partly seen: every term of Q is checked."""
    model, data = random_model(), [gappy(9), gappy(4, seed=7), gappy(1, seed=5)]
    step = next(em_steps(model, data))
    entropy = 0.0
    for y in data:
        cov = condition(model, y)[2]
        states = torch.ones(2 * len(y), dtype=torch.bool)
        partly = (y.isnan() & ~y.isnan().all(1, keepdim=True))[y.isnan()]
        use = torch.cat([states, partly])
        entropy += torch.logdet(2 * torch.pi * torch.e * cov[use][:, use]).item() / 2
    assert step.entropy == pytest.approx(entropy, abs=1e-9)


def test_the_gradient_of_the_likelihood_is_that_of_q():
    """Fisher's identity: at the current parameters both have the same derivative, for every parameter."""
    model, data = random_model(), [gappy(9), gappy(4, seed=7), normal(1, 3)]
    statistics = model.expect(data)
    for name in ("m", "P", "F", "b", "Q", "H", "d", "R"):
        value = getattr(model, name).clone().requires_grad_()
        changed = replace(model)
        object.__setattr__(changed, name, value)
        (a,) = torch.autograd.grad(changed.log_prob(data).sum(), value)
        (b,) = torch.autograd.grad(changed.expected_log_prob(statistics), value)
        if name in "PQR":
            a, b = a + a.T, b + b.T
        close(a, b, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_em_never_lowers_the_likelihood(seed: int):
    """Ragged, with gaps and sequences of length 1; each step adds at least what it adds to Q."""
    truth = random_model(seed=seed)
    _, y = truth.sample(6, 30, torch.Generator().manual_seed(seed))
    y[normal(*y.shape, seed=seed) > 1] = NAN
    data = pad_sequences(y, lengths=[30, 1, 17, 2, 30, 8])
    start = random_model(seed=seed + 100)
    fit = fit_em(start, data, steps=12, tolerance=0.0)
    for step, after in zip(fit.steps, fit.log_likelihoods[1:], strict=True):
        assert after - step.log_likelihood >= step.q_new - step.q - 1e-8 >= -2e-8


def test_the_m_step_is_the_maximum_of_q():
    """The gradient of Q vanishes at the new parameters, also if some are fixed."""
    data = [normal(20, 3), normal(30, 3, seed=1).cumsum(0)]
    for fixed in (frozenset(), frozenset({"F"}), frozenset({"b", "d", "R"})):
        model = random_model(fixed=fixed)
        statistics = model.expect(data)
        best = model.maximise(statistics)
        for name in ("m", "P", "F", "b", "Q", "H", "d", "R"):
            if name in fixed:
                assert torch.equal(getattr(best, name), getattr(model, name))
                continue
            value = getattr(best, name).clone().requires_grad_()
            changed = replace(best)
            object.__setattr__(changed, name, value)
            (slope,) = torch.autograd.grad(changed.expected_log_prob(statistics), value)
            close(slope, torch.zeros_like(slope), atol=1e-7)


def test_em_of_several_sequences_has_no_transition_across_their_border():
    """Statistics of a batch are the sums of those of each sequence."""
    model, data = random_model(), [gappy(9), gappy(4, seed=7)]
    both, each = model.expect(data), [model.expect([y]) for y in data]
    for i in range(3):
        for a, b, c in zip(both[i], each[0][i], each[1][i], strict=True):
            close(a, b + c, atol=1e-9)


def test_sequences_of_length_one_keep_the_transition():
    model = random_model()
    new = model.maximise(model.expect([normal(1, 3), normal(1, 3, seed=1)]))
    assert torch.equal(new.F, model.F) and torch.equal(new.Q, model.Q)
    unseen = model.maximise(model.expect(torch.full((1, 5, 3), NAN)))
    assert torch.equal(unseen.H, model.H) and torch.equal(unseen.R, model.R)


def test_known_inputs_move_the_states():
    """An offset that changes with time: the dense Gaussian with it, in the likelihood and in EM."""
    model = replace(random_model(), b=normal(8, 2, seed=40), d=normal(9, 3, seed=41), fixed=frozenset())
    y = gappy(9)
    assert model.log_prob([y]).item() == pytest.approx(condition(model, y)[0].item(), abs=1e-10)
    fit = fit_em(model, [y, y[:5]], steps=5, tolerance=0.0)
    assert torch.equal(fit.model.b, model.b) and fit.smallest_rise > 0
    with pytest.raises(ValueError, match="b has 8 rows"):
        model.log_prob([normal(12, 3)])


def test_samples_have_the_moments_of_the_dense_gaussian():
    model = random_model()
    x, y = model.sample(50_000, 3, torch.Generator().manual_seed(0))
    mean, cov, h, r = dense(model, 3)
    flat = torch.cat([x.flatten(1), y.flatten(1)], 1)
    want = torch.cat([mean, h @ mean + model.d.repeat(3)])
    joint = torch.cat([torch.cat([cov, cov @ h.T], 1), torch.cat([h @ cov, h @ cov @ h.T + r], 1)])
    z = (flat - want) @ torch.linalg.inv(torch.linalg.cholesky(joint)).T  # standard normal, if all is right
    assert (z.mean(0).abs() < 5 / len(z) ** 0.5).all()
    assert ((z.T.cov() - torch.eye(z.shape[1])).abs() < 8 / len(z) ** 0.5).all()


def test_sensors_fused_are_a_product_of_gaussians():
    """A camera (2-D) and a microphone (a projection): stacked, in turn, or as a product, it is one posterior."""
    prior = Belief(normal(3)[None], covariance(3, 1)[None])
    camera = Affine(normal(2, 3, seed=2), normal(2, seed=3), covariance(2, 4))
    microphone = Affine(normal(1, 3, seed=5), normal(1, seed=6), covariance(1, 7))
    y = normal(1, 3, seed=8)
    both, log_prob = update(prior, y, stack(camera, microphone))
    first, a = update(prior, y[:, :2], camera)
    second, b = update(first, y[:, 2:], microphone)
    close(second.mean, both.mean)
    close(second.cov, both.cov)
    close(a + b, log_prob)
    # as a product: each sensor's likelihood of the state is a Gaussian, here that of an invertible sensor
    full = Affine(torch.eye(3).double(), torch.zeros(3).double(), covariance(3, 9))
    seen = update(prior, y, full)[0]
    fused = product(prior, Belief(y, full.cov[None]))
    close(seen.mean, fused.mean)
    close(seen.cov, fused.cov)


def test_a_sensor_more_never_raises_the_entropy():
    prior = Belief(torch.zeros(1, 3).double(), covariance(3, 1)[None])
    sensors = [Affine(normal(1, 3, seed=s), torch.zeros(1).double(), covariance(1, s)) for s in range(6)]
    dets = [update(prior, torch.zeros(1, k).double(), stack(*sensors[:k]))[0].cov.det().item() for k in range(1, 7)]
    assert all(a > b for a, b in pairwise(dets))


def test_fusion_with_missing_sensors_is_dense_conditioning():
    """Two sensors, each missing at random: the same as the rows of the dense Gaussian removed."""
    camera = Affine(normal(2, 3, seed=2), normal(2, seed=3), covariance(2, 4))
    microphone = Affine(normal(1, 3, seed=5), normal(1, seed=6), covariance(1, 7))
    both = stack(camera, microphone)
    model = replace(random_model(n=3), H=both.weight, R=both.cov, d=both.offset)
    y = normal(12, 3, seed=9)
    y[normal(12, seed=10) > 0.3, :2] = NAN
    y[normal(12, seed=11) > 0.3, 2] = NAN
    log_prob, mean, _ = condition(model, y)
    assert model.log_prob([y]).item() == pytest.approx(log_prob.item(), abs=1e-10)
    close(model.smooth([y]).mean[0].flatten(), mean[:36])


@pytest.mark.parametrize("rule", [taylor, unscented])
def test_extended_and_unscented_filters_are_exact_for_linear_functions(rule):
    model, data = random_model(), [gappy(9), normal(4, 3)]
    start = Belief(model.m[None], model.P[None])
    linear = model.filter(data)
    other = kalman_filter(
        data, start, rule(lambda x: x @ model.F.T + model.b, model.Q), rule(lambda x: x @ model.H.T + model.d, model.R)
    )
    close(other.log_likelihood, linear.log_likelihood)
    a, b = rts_smoother(other), rts_smoother(linear)
    close(a.mean[0], b.mean[0])
    close(a.cov[0], b.cov[0])
    close(a.cross_cov[0], b.cross_cov[0])


def test_unscented_moments_of_a_square_are_exact():
    """E[x^2] and Var[x^2] of N(m, v) are m^2 + v and 2 v^2 + 4 m^2 v: exact with n + kappa = 3; Taylor's miss v."""
    m, v = 0.75, 0.25
    s = Belief(torch.tensor([[m]]).double(), torch.tensor([[[v]]]).double())
    noise = torch.zeros(1, 1).double()

    def moments(rule):
        w, b, c = rule(torch.square, noise)(s, 0)
        return (w * m + b).item(), (w * v * w + c).item()

    assert moments(unscented) == pytest.approx((m**2 + v, 2 * v**2 + 4 * m**2 * v), abs=1e-12)
    assert moments(taylor) == pytest.approx((m**2, 4 * m**2 * v), abs=1e-12)


def test_unscented_beats_extended_on_a_bearing():
    """An angle to a target whose place is uncertain: closer to the posterior mean, here by importance sampling."""
    start = Belief(torch.tensor([[1.0, 0.0]]).double(), torch.diag(torch.tensor([0.1, 1.0]).double())[None])
    still, noise = affine(torch.eye(2).double(), 1e-9 * torch.eye(2).double()), 0.05 * torch.eye(1).double()

    def angle(x):
        return torch.atan2(x[:, 1:], x[:, :1])

    y = [torch.tensor([[0.8]]).double()]
    x = start.mean + normal(400_000, 2) @ torch.linalg.cholesky(start.cov[0]).T
    w = (-(angle(x) - 0.8).square()[:, 0] / 2 / 0.05).softmax(0)
    exact = w @ x
    errors = [
        (kalman_filter(y, start, still, rule(angle, noise)).mean[0, 0] - exact).norm() for rule in (unscented, taylor)
    ]
    assert errors[0] < 0.7 * errors[1]


def test_bad_models_and_data_are_refused():
    model = random_model()
    with pytest.raises(ValueError, match="R must be a covariance"):
        replace(model, R=-torch.eye(3))
    with pytest.raises(ValueError, match=r"H has the shape \(3, 3\); 2 states and 3 observations need \(3, 2\)"):
        replace(model, H=torch.eye(3))
    with pytest.raises(ValueError, match=r"fixed names \['A'\]"):
        replace(model, fixed=frozenset({"A"}))
    with pytest.raises(ValueError, match="put one sequence"):
        model.log_prob(normal(5, 3))
    with pytest.raises(ValueError, match="one and the same dimension"):
        model.log_prob([normal(5, 3), normal(5, 2)])
    with pytest.raises(ValueError, match="length of 1 to 5"):
        pad_sequences(normal(2, 5, 3), lengths=[5, 0])
    with pytest.raises(ValueError, match="infinite"):
        model.log_prob([torch.full((2, 3), torch.inf)])
    with pytest.raises(ValueError, match="observations of 2 dimensions, and the model has 3"):
        model.log_prob([normal(5, 2)])
