"""Losses on pairs: parity with TRL, minimisers, symmetry, and finite gradients where exponentials are not."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from gen_core.testing import load
from gen_transformer import alignment as al

parity = load(Path(__file__).with_name("trl_losses.py"))
problems = load(Path(__file__).with_name("alignment_problems.py"))
F64, R, REF = problems.F64, problems.R, problems.REF

TRL = {  # mean loss and checksum of its gradient by trl 1.16.0: python trl_losses.py
    "sigmoid": (0.646272574225, -0.058579714257),
    "hinge": (0.903937979010, -0.123680962925),
    "ipo": (2.577534499265, -0.598009734029),
    "robust": (0.634264821601, -0.074039834623),
    "sppo_hard": (4.678755269551, -0.898420015351),
    "sigmoid_norm": (0.683984746580, -0.028243001357),
    "nca_pair": (1.364079713636, -0.025711934408),
    "bco_pair": (1.340405646910, -0.056496769484),
    "apo_zero": (0.976027366653, -0.030720987835),
    "forward_kl": (0.640130333528, -0.068802630428),
    "js_divergence": (0.668327290249, -0.030498894603),
    "kto": (0.488043178546, -0.015334456349),
    "simpo": (0.919458495147, -0.031429986694),
    "orpo": (0.157789617777, -0.013155026551),
    "reward": (2.921135234818, -0.350661629166),
}
MARGINS = torch.linspace(-4, 4, 9, dtype=F64)
PAIRWISE = {
    **{name: lambda h, p, name=name: al.gpo(h, 0.7, name, p) for name in al.LINKS},
    "offset": lambda h, p: al.gpo(h, 0.7, p=p, offset=0.4),
    "ipo": lambda h, p: al.ipo(h, 0.4, p),
    "simpo": lambda h, p: al.simpo(h, 0 * h, 2.0, 0.5, p),
    "orpo": lambda h, p: al.orpo(-1 + h / 9, -1 - h / 9, 0.3, p),
    "bradley_terry": lambda h, p: al.bradley_terry(h, 0 * h, p, margin=0.3),
}


@pytest.mark.parametrize("name", TRL)
def test_losses_are_those_of_trl(name):
    loss, gradient = parity.ours()[name]
    tolerance = 1e-7 if name == "orpo" else 1e-11  # TRL computes ORPO in float32
    assert (loss, parity.checksum(gradient)) == pytest.approx(TRL[name], abs=tolerance)


@pytest.mark.peers
def test_losses_and_gradients_are_those_of_trl_itself():
    pytest.importorskip("trl")
    ours, theirs = parity.ours(), parity.theirs()
    for name, (loss, gradient) in theirs.items():
        tolerance = 1e-7 if name == "orpo" else 1e-15
        assert loss == pytest.approx(ours[name][0], rel=tolerance), name
        assert_close(ours[name][1], gradient, rtol=0, atol=tolerance)


def test_ipo_has_two_conventions():
    """A sum over the tokens is the paper's; a mean over them is TRL's, with a tau of another unit."""
    lp, ref, _ = parity.inputs()
    c, r = lp.sum(1).chunk(2)
    rc, rr = ref.sum(1).chunk(2)
    nc, nr = parity.LENGTHS.double().chunk(2)
    by_sum = al.ipo(al.margin(c, r, rc, rr), 0.3)
    by_mean = al.ipo(al.margin(c, r, rc, rr, lengths=(nc, nr)), 0.3)
    assert_close(by_sum, ((c - rc) - (r - rr) - 1 / 0.6).square())
    assert_close(by_mean, ((c - rc) / nc - (r - rr) / nr - 1 / 0.6).square())


@pytest.mark.parametrize("name", PAIRWISE)
def test_exchanging_a_pair_and_its_label_changes_nothing(name):
    p = torch.linspace(0, 1, 9, dtype=F64)
    assert_close(PAIRWISE[name](-MARGINS, 1 - p), PAIRWISE[name](MARGINS, p), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PAIRWISE)
def test_a_pair_of_equals_with_p_one_half_has_no_gradient(name):
    h = torch.zeros(3, dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(PAIRWISE[name](h, 0.5).sum(), h)
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", PAIRWISE)
def test_a_soft_label_is_the_mean_over_hard_ones(name):
    loss = PAIRWISE[name]
    assert_close(loss(MARGINS, 0.3), 0.3 * loss(MARGINS, 1.0) + 0.7 * loss(MARGINS, 0.0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["logistic", "squared", "hinge", "truncated_quadratic", "savage"])
def test_extreme_margins_have_finite_gradients(name, dtype):
    h = torch.tensor([-1e3, 1e3], dtype=dtype, requires_grad=True)
    for p in (1.0, 0.5, 0.0):
        loss = al.gpo(h, 1.0, name, p)
        assert bool(loss.isfinite().all()) and bool(torch.autograd.grad(loss.sum(), h)[0].isfinite().all())


def test_a_side_without_weight_cannot_overflow():
    """exp(1000) times 0 would be NaN."""
    h = torch.tensor([1e3], requires_grad=True)
    loss = al.gpo(h, 1.0, "exponential", 1.0)
    assert loss.item() == 0 and torch.autograd.grad(loss.sum(), h)[0].item() == 0


@pytest.mark.parametrize("x", [-1e-9, -1e-4, -0.5, -1.0, -50.0, -1e3])
def test_log_odds_of_probabilities_near_0_and_1(x):
    """Against log(p) - log(1 - p) by exact expansions; at p = 1 value and gradient are finite."""
    chosen = torch.tensor([x], dtype=F64, requires_grad=True)
    loss = al.orpo(chosen, torch.tensor([-math.log(2)], dtype=F64), 1.0)  # the odds of the other are 1
    odds = x - (math.log(-math.expm1(x)) if x > -0.7 else math.log1p(-math.exp(x)))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-odds)) if odds > -30 else -odds, rel=1e-9, abs=1e-15)
    assert bool(torch.autograd.grad(loss.sum(), chosen)[0].isfinite())


def test_a_certain_completion_has_a_finite_odds_ratio():
    x = torch.zeros(1, requires_grad=True)
    loss = al.orpo(x, x - 1, 0.1)
    assert bool(loss.isfinite()) and bool(torch.autograd.grad(loss.sum(), x)[0].isfinite())


def test_margins_of_long_completions_are_taken_in_float32():
    c, r = torch.tensor([-1000.0]).bfloat16(), torch.tensor([-1008.0]).bfloat16()
    assert al.margin(c, r, r, c).dtype == torch.float32 and al.margin(c, r, r, c).item() == 16


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "js", al.alpha_divergence(0.5)])
def test_a_divergence_moves_the_optimum(divergence):
    """Any pi is optimal for the rewards beta f'(pi / ref): with labels of those rewards the loss is least there."""
    pi = problems.random_problem(0)[0]
    g = al.DIVERGENCES[divergence] if isinstance(divergence, str) else divergence
    r = 0.5 * g((pi / REF).log())
    i, j = torch.triu_indices(5, 5, 1)
    logits = pi.log().requires_grad_()
    logp = logits.log_softmax(0)
    h = al.margin(logp[i], logp[j], REF.log()[i], REF.log()[j], divergence=divergence)
    (gradient,) = torch.autograd.grad(al.gpo(h, 0.5, p=(r[i] - r[j]).sigmoid()).sum(), logits)
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
    if divergence == "forward_kl":
        assert_close(pi, al.forward_tilted(REF, r, 0.5), rtol=0, atol=1e-12)


def test_alpha_divergences_join_both_kls():
    x = torch.linspace(-2, 2, 5, dtype=F64)
    assert_close(al.alpha_divergence(1e-6)(x), x, rtol=1e-5, atol=1e-5)
    assert_close(al.alpha_divergence(1.0)(x) - 1, al.DIVERGENCES["forward_kl"](x))
    with pytest.raises(ValueError, match="reverse_kl"):
        al.alpha_divergence(0.0)


@pytest.mark.parametrize("link", al.LINKS)
def test_links_agree_on_small_margins_up_to_scale(link):
    """f'(0) < 0, and second order f''(0) / f'(0) decides the pull to the reference."""
    x = torch.zeros((), dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(al.LINKS[link](x), x, create_graph=True)
    curvature = torch.autograd.grad(slope, x)[0].item() if slope.requires_grad else 0.0
    ratios = {"logistic": -0.5, "squared": -1, "hinge": 0, "exponential": -1, "truncated_quadratic": -1, "savage": -0.5}
    assert slope.item() < 0 and curvature / slope.item() == pytest.approx(ratios[link], abs=1e-12)


# ---------------------------------------------------------------------- where training leads


@pytest.mark.parametrize("sampler", [REF, torch.tensor([0.05, 0.1, 0.5, 0.15, 0.2], dtype=F64)])
def test_the_population_optimum_of_dpo_is_the_tilted_policy(sampler):
    """With labels P(i over j) = sigmoid(r_i - r_j) its gradient vanishes there, whatever pairs are drawn."""
    logits = al.tilted(REF, R, 0.5).log().requires_grad_()
    ratio = logits.log_softmax(0) - REF.log()
    loss = al.gpo(ratio[:, None] - ratio, 0.5, p=(R[:, None] - R).sigmoid())
    (gradient,) = torch.autograd.grad((sampler[:, None] * sampler * loss).sum(), logits)
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-13)


@pytest.mark.parametrize("link", ["logistic", "squared", "exponential", "truncated_quadratic", "savage"])
def test_training_two_completions_reaches_the_minimiser(link):
    h = torch.zeros((), dtype=F64, requires_grad=True)
    optimiser = torch.optim.LBFGS([h], lr=0.5, max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure():
        optimiser.zero_grad()
        loss = al.gpo(h, 0.5, link, 0.8)
        loss.backward()
        return loss

    optimiser.step(closure)
    assert 0.5 * h.item() == pytest.approx(al.gpo_minimiser(0.8, link), abs=1e-6)


@pytest.mark.parametrize("tau, figure", [(1.0, 0.622459), (0.5, 0.731059), (0.1, 0.993307)])
def test_with_a_certain_preference_ipo_stays_and_dpo_does_not(tau, figure):
    """IPO: pi(y1) = sigmoid(1 / (2 tau)). DPO: the margin grows as the logarithm of the steps."""
    h = torch.zeros((), dtype=F64, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(al.ipo(h, tau), h)
        h = (h - 0.3 * gradient).detach().requires_grad_()
    assert h.sigmoid().item() == pytest.approx(figure, abs=1e-6)
    margins, h = [], torch.zeros((), dtype=F64, requires_grad=True)
    for step in range(1, 1001):
        (gradient,) = torch.autograd.grad(al.gpo(h, 1.0), h)
        h = (h - gradient).detach().requires_grad_()
        if step in (10, 100, 1000):
            margins.append(h.item())
    growth = [b - a for a, b in pairwise(margins)]
    assert growth == pytest.approx([math.log(10)] * 2, rel=0.1)


def test_conservative_and_robust_labels_differ():
    """cDPO stops at log((1 - eps) / eps) / beta; the robust loss has the expectation of clean labels."""
    h = torch.tensor([1.7], dtype=F64)
    noisy = 0.9 * al.robust(h, 0.5, 0.1) + 0.1 * al.robust(-h, 0.5, 0.1)  # a tenth of the pairs exchanged
    assert_close(noisy, al.gpo(h, 0.5), rtol=0, atol=1e-14)
    cdpo = 0.9 * al.gpo(h, 0.5) + 0.1 * al.gpo(-h, 0.5)
    assert_close(al.gpo(h, 0.5, p=0.9), cdpo, rtol=0, atol=1e-14)
    assert abs((al.robust(h, 0.5, 0.1) - cdpo).item()) > 0.05


def test_the_optimum_of_sppo():
    """log pi - log ref = (P(y over the policy) - 1/2) / beta."""
    ratio = (torch.tensor([0.9, 0.2], dtype=F64) - 0.5) / 0.3
    assert_close(
        al.sppo(ratio, torch.tensor([0.9, 0.2], dtype=F64), 0.3), torch.zeros(2, dtype=F64), rtol=0, atol=1e-15
    )


def test_the_reference_point_of_kto():
    """At least 0, without gradient; and a batch of one kind works."""
    ratios = torch.tensor([-1.0, 0.5], requires_grad=True)
    assert al.kto_reference(ratios).item() == 0 and al.kto_reference(ratios + 1).item() == 0.75
    assert not al.kto_reference(ratios).requires_grad
    loss = al.kto(ratios, 1.0, al.kto_reference(ratios), 0.5)
    assert_close(loss, 1 - (0.5 * ratios).sigmoid())


@pytest.mark.parametrize("p", [-0.1, 1.5, torch.tensor([0.5, 2.0]), math.nan])
def test_a_label_is_a_probability(p):
    with pytest.raises(ValueError, match="probability from 0 to 1"):
        al.gpo(torch.zeros(2), 0.1, p=p)
