"""Scaling laws are recovered from runs that obey them; designs that cannot tell are called out."""

import math
import warnings

import numpy as np
import pytest
import torch

from gen_transformer.scaling import Law, MixLaw, envelope, extrapolate, fit, fit_mix, isoflop

TRUE = Law(E=1.8172, A=477.8, B=2143.4, alpha=0.3473, beta=0.3672)
SIZES, RATIOS = torch.tensor([5e7, 1e8, 3e8, 1e9, 3e9]), torch.tensor([5.0, 10, 20, 40, 80])
N = SIZES.double().repeat_interleave(5)
D = N * RATIOS.repeat(5)


def noisy(loss, sd=0.003, seed=0):
    g = torch.Generator().manual_seed(seed)
    return loss * torch.exp(sd * torch.randn(len(loss), generator=g, dtype=torch.float64))


@pytest.mark.parametrize("true", [TRUE, Law(0.3, 20.0, 5e4, 0.22, 0.55), Law(2.5, 4e3, 90.0, 0.5, 0.2)])
def test_a_law_without_noise_comes_back(true):
    got = fit(N, D, true.predict(N, D))
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(got, name) == pytest.approx(getattr(true, name), rel=1e-3), name
    assert got.unidentified == ()


def test_small_noise_moves_the_exponents_little_and_outliers_hardly_more():
    sizes = torch.logspace(7.7, 10.2, 16, dtype=torch.float64).repeat_interleave(15)
    tokens = torch.logspace(8.5, 11.5, 15, dtype=torch.float64).repeat(16)
    loss = noisy(TRUE.predict(sizes, tokens))
    law = fit(sizes, tokens, loss)
    assert law.alpha == pytest.approx(TRUE.alpha, abs=0.015)
    assert law.beta == pytest.approx(TRUE.beta, abs=0.015)
    assert law.E == pytest.approx(TRUE.E, abs=0.03)
    loss[::40] *= 1.3
    assert fit(sizes, tokens, loss).alpha == pytest.approx(law.alpha, abs=0.02)


def test_the_objective_is_the_sum_of_huber_losses_of_log_residuals():
    """By hand: a residual r counts r^2 / 2 up to delta and delta (|r| - delta / 2) beyond."""
    loss = noisy(TRUE.predict(N, D))
    law, hand = fit(N, D, loss, delta=2e-3), 0.0
    for n, d, true in zip(N.tolist(), D.tolist(), loss.tolist(), strict=True):
        r = abs(math.log(law.E + law.A / n**law.alpha + law.B / d**law.beta) - math.log(true))
        hand += r * r / 2 if r <= 2e-3 else 2e-3 * (r - 1e-3)
    assert law.objective == pytest.approx(hand, rel=1e-9)
    assert any(r > 2e-3 for r in (law.predict(N, D).log() - loss.log()).abs())  # both branches are in use


def test_the_unit_of_the_loss_and_of_the_axes_only_scales_the_law():
    """Bits instead of nats, millions instead of ones: the same exponents, though the numbers are far apart."""
    loss = noisy(TRUE.predict(N, D))
    law, other = fit(N, D, loss), fit(N / 1e6, D / 1e6, loss / math.log(2))
    assert other.alpha == pytest.approx(law.alpha, abs=1e-5)
    assert other.E == pytest.approx(law.E / math.log(2), rel=1e-5)
    assert other.A == pytest.approx(law.A / math.log(2) / 1e6**law.alpha, rel=1e-3)


def test_optimal_is_the_minimum_over_the_isoflop_line():
    C = 5.76e23
    best, D_best = TRUE.optimal(C)
    assert 6 * best * D_best == pytest.approx(C)
    grid = best * torch.linspace(0.5, 2, 3001, dtype=torch.float64)
    loss = TRUE.predict(grid, C / 6 / grid)
    assert grid[loss.argmin()].item() == pytest.approx(best, rel=1e-3)
    assert best == pytest.approx(73.2e9, rel=0.01)  # the replication's 70 billion parameters of Chinchilla


def test_bootstrap_intervals_hold_the_truth_and_are_functions_of_the_generator():
    loss = noisy(TRUE.predict(N, D))
    law, again = (fit(N, D, loss, bootstrap=k, generator=torch.Generator().manual_seed(1)) for k in (40, 2))
    assert len(law.resamples) == 40 and law.resamples[:2] == again.resamples
    for of in (lambda l: l.alpha, lambda l: l.beta, lambda l: l.optimal(1e21)[0]):
        low, high = law.interval(of)
        assert low < of(law) < high and low < of(TRUE) < high
    wide, narrow = law.interval(lambda l: l.E), law.interval(lambda l: l.E, 0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    with pytest.raises(ValueError, match="pass bootstrap=200 to fit"):
        TRUE.interval(lambda l: l.E)


@pytest.mark.parametrize(
    ("tokens", "named", "reason"),
    [
        (torch.full_like(D, 1e10), ("beta",), "beta: all have .* the same D"),
        (20 * N, ("alpha", "beta"), "alpha and beta: D grows with N along one line"),
        (3e4 * N**0.7, ("alpha", "beta"), "along one line"),
        (1e9 * (1 + 0.1 * RATIOS.repeat(5) / 80), ("beta",), "the same D"),
    ],
    ids=["one D", "one D/N", "one power of N", "nearly one D"],
)
def test_designs_that_cannot_identify_an_exponent_are_named(tokens, named, reason):
    with pytest.warns(UserWarning, match=reason):
        law = fit(N, tokens, noisy(TRUE.predict(N, tokens)))
    assert law.unidentified == named


def test_one_size_leaves_alpha_open():
    with pytest.warns(UserWarning, match="alpha: all have .* the same N"):
        assert fit(torch.full_like(D, 1e9), D, TRUE.predict(1e9, D)).unidentified == ("alpha",)


def test_too_narrow_a_range_shows_in_the_standard_error():
    sizes, tokens = 1e9 * N / N.mean(), 1e9 * (1 + RATIOS.repeat(5) / 80)
    with pytest.warns(UserWarning, match="beta: its standard error is .* spread D further"):
        assert "beta" in fit(sizes, tokens, noisy(TRUE.predict(sizes, tokens), 0.01)).unidentified


def test_extrapolation_fits_the_small_and_is_right_about_the_large():
    loss = noisy(TRUE.predict(N, D), 1e-4)
    law, errors = extrapolate(N, D, loss, C=5e20)
    assert len(errors) == int((6 * N * D > 5e20).sum()) and 3 < len(errors) < 15
    assert errors.abs().max() < 5e-3
    small = 6 * N * D <= 5e20
    assert law == fit(N[small], D[small], loss[small])


def test_isoflop_vertices_are_exact_where_the_valley_is_symmetric():
    """With alpha = beta the loss over log N at one C is a cosh around the optimum: the parabola's vertex is there."""
    law = Law(1.7, 400.0, 900.0, 0.3, 0.3)
    C = torch.tensor([1e18, 1e19, 1e20, 1e21]).double().repeat_interleave(7)
    best = torch.tensor([law.optimal(c)[0] for c in C.tolist()]).double()
    n = best * torch.logspace(-0.5, 0.5, 7, dtype=torch.float64).repeat(4)
    power = isoflop(n, C, law.predict(n, C / 6 / n))
    assert power.exponent == pytest.approx(0.5, abs=1e-6)
    assert power(1e22) == pytest.approx(law.optimal(1e22)[0], rel=1e-5)
    with pytest.raises(ValueError, match=r"at 1e\+18 FLOP have no minimum"):
        isoflop(n, C, -law.predict(n, C / 6 / n) + 100)


def test_the_envelope_of_training_curves_has_the_exponent_of_the_optimum():
    sizes = torch.logspace(7, 10.5, 60, dtype=torch.float64)
    tokens = torch.logspace(7.5, 13, 200, dtype=torch.float64)
    loss = TRUE.predict(sizes[:, None], tokens[None])
    budgets = torch.logspace(18, 21.5, 12, dtype=torch.float64)
    power = envelope(sizes, 6 * sizes[:, None] * tokens, loss, budgets)
    assert power.exponent == pytest.approx(TRUE.beta / (TRUE.alpha + TRUE.beta), abs=0.01)
    assert power(1e20) == pytest.approx(TRUE.optimal(1e20)[0], rel=0.05)
    with pytest.raises(ValueError, match=r"no training curve spans 1e\+30 FLOP"):
        envelope(sizes, 6 * sizes[:, None] * tokens, loss, [1e30])


def test_bad_runs_are_named():
    with pytest.raises(ValueError, match="got 25 N, 24 D, 25 loss"):
        fit(N, D[1:], N)
    with pytest.raises(ValueError, match="loss must be positive and finite in every run, got nan"):
        fit(N, D, torch.where(N > 1e9, math.nan, 1.0))
    with pytest.raises(ValueError, match="6 runs or more, got 4"):
        fit(N[:4], D[:4], D[:4])


# ---------------------------------------------------------------------- mixtures

CROISSANT = torch.tensor([100.7e6, 202.5e6, 341.5e6]).double()  # parameters without tables, XXS to S
MIX = MixLaw(E=1.7, B=300.0, alpha=0.33, c1=0.4, c2=0.6, c3=1.7)


def design(shares):
    return CROISSANT.repeat_interleave(len(shares)), torch.tensor(shares * 3).double()


def test_the_joint_law_predicts_a_larger_model_and_an_unseen_mixture():
    """Three sizes, three mixtures as in CroissantLLM: exponents to 2 %, losses of 1.2 billion parameters to .5 %."""
    n, p = design([0.2, 0.4, 0.6])
    law = fit_mix(n, p, MIX.predict(n, p))
    assert law.alpha == pytest.approx(MIX.alpha, rel=0.02)
    assert law.E == pytest.approx(MIX.E, rel=0.02)
    for share in (0.2, 0.3, 0.5, 0.6, 0.75):
        assert law.predict(1214.3e6, share) == pytest.approx(MIX.predict(1214.3e6, share), rel=0.005)


def test_four_shares_and_the_language_alone_identify_the_effective_share():
    n, p = design([0.1, 0.3, 0.6, 1.0])
    law = fit_mix(n, p, MIX.predict(n, p))
    for share in torch.linspace(0.1, 1, 10, dtype=torch.float64).tolist():
        assert law.ratio(share) == pytest.approx(MIX.ratio(share), rel=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_the_effective_share_ends_at_one_and_never_falls_whatever_the_losses(seed):
    """Even where noise asks for more: losses that rise with the share."""
    n, p = design([0.2, 0.4, 0.6])
    law = fit_mix(n, p, noisy(MIX.predict(n, p), 0.05, seed))
    f = law.ratio(torch.linspace(0, 1, 999, dtype=torch.float64))
    assert f[0] == 0 and f[-1] == 1
    assert (f.diff() > -1e-6).all()


def test_bad_mixtures_are_named():
    n, p = design([0.2, 0.4, 0.6])
    with pytest.raises(ValueError, match=r"lies in \(0, 1\], got p=60"):
        fit_mix(n, 100 * p, n)
    with pytest.raises(ValueError, match="needs 3 sizes and 3 shares, got 3 and 1"):
        fit_mix(n, torch.full_like(p, 0.5), n)


def test_plain_lists_and_arrays_are_runs_too():
    loss = TRUE.predict(N, D)
    law = fit(N.tolist(), np.asarray(D), loss.tolist())
    assert law == fit(N, D, loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit([int(n) for n in N], [int(d) for d in D], loss)
