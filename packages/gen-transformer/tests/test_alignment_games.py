"""Preferences without a reward: the regularised Nash policy and the steps that do or do not reach it."""

import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from gen_core.testing import load
from gen_transformer import alignment as al

problems = load(Path(__file__).with_name("alignment_problems.py"))
F64, CYCLE, CYCLE_REF, CONDORCET, UNIFORM = (
    problems.F64,
    problems.CYCLE,
    problems.CYCLE_REF,
    problems.CONDORCET,
    problems.UNIFORM,
)


def near(x, figures, atol=1e-6):
    assert_close(x, torch.tensor(figures, dtype=F64), rtol=0, atol=atol)


def random_game(seed, k):
    g = torch.Generator().manual_seed(seed)
    P = (3 * torch.randn(k, k, generator=g, dtype=F64)).sigmoid()
    return (P + 1 - P.T) / 2, torch.randn(k, generator=g, dtype=F64).softmax(0)


@pytest.mark.parametrize(
    "P, ref, tau, figures",
    [
        (CYCLE, CYCLE_REF, 0.5, [0.670105, 0.202025, 0.127871]),
        (CYCLE, CYCLE_REF, 0.1, [0.543301, 0.156709, 0.299989]),
        (CYCLE, CYCLE_REF, 0.05, [0.463034, 0.196312, 0.340654]),
        (CYCLE, CYCLE_REF, 0, [0.391304, 0.260870, 0.347826]),
        (CONDORCET, UNIFORM, 0.5, [0.279447, 0.352235, 0.184159, 0.184159]),
        (CONDORCET, UNIFORM, 0.1, [0.484760, 0.430505, 0.042367, 0.042367]),
        (CONDORCET, UNIFORM, 0.05, [0.657684, 0.313522, 0.014397, 0.014397]),
        (CONDORCET, UNIFORM, 0, [1.0, 0, 0, 0]),
    ],
)
def test_nash(P, ref, tau, figures):
    near(al.nash(P, ref, tau), figures)


@pytest.mark.parametrize("k", [2, 5, 30])
@pytest.mark.parametrize("tau", [1.0, 0.03, 0.003])
def test_nobody_gains_over_the_nash_policy(k, tau):
    P, ref = random_game(k, k)
    pi = al.nash(P, ref, tau)
    assert abs(al.exploitability(pi, P, ref, tau)) < 1e-12
    assert_close(pi, al.tilted(ref, P @ pi, tau), rtol=0, atol=1e-11)


def test_exploitability_is_the_gain_of_the_best_opponent():
    """max_q P(q, pi) - tau KL(q, ref) by gradient ascent, against the closed form."""
    P, ref = random_game(1, 4)
    pi, tau = random_game(2, 4)[1], 0.2
    value = lambda q, p: q @ P @ p - tau * al.kl(q, ref) + tau * al.kl(p, ref)
    q = al.tilted(ref, P @ pi, tau)
    assert al.exploitability(pi, P, ref, tau) == pytest.approx(value(q, pi).item() - 0.5, abs=1e-14)
    g = torch.Generator().manual_seed(0)
    for _ in range(100):
        other = (q.log() + 0.3 * torch.randn(4, generator=g, dtype=F64)).softmax(0)
        assert value(other, pi) <= value(q, pi)


def test_offline_ipo_is_not_nash():
    """It answers the reference only; and a reward fitted to cyclic preferences names the wrong winner."""
    gaps = [
        al.exploitability(al.ipo_point(P, mu, 0.1), P, mu, 0.1) for P, mu in ((CYCLE, CYCLE_REF), (CONDORCET, UNIFORM))
    ]
    assert gaps == pytest.approx([0.0839, 0.0376], abs=5e-5)
    near(CONDORCET.mean(1), [0.5375, 0.7125, 0.375, 0.375], atol=1e-12)


def test_ipo_is_a_weighted_regression():
    """The minimiser of E[(h - (P - 1/2) / tau)^2] over pairs of mu, h = d(y) - d(y'), by least squares."""
    P, mu = random_game(3, 5)
    weight = (mu[:, None] * mu).sqrt().flatten()
    eye = torch.eye(5, dtype=F64)
    design = (eye[:, None] - eye[None]).reshape(25, 5)
    target = ((P - 0.5) / 0.2).flatten()
    d = torch.linalg.pinv(weight[:, None] * design) @ (weight * target)
    assert_close(al.ipo_point(P, mu, 0.2), (mu.log() + d).softmax(0), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "T, figure", [(100, 5.05e-4), (1000, 5.15e-6), pytest.param(10_000, 1.43e-7, marks=pytest.mark.slow)]
)
def test_nash_md_with_a_falling_rate(T, figure):
    pi, eta = CYCLE_REF, math.log(T) / (0.1 * T)
    for _ in range(T):
        pi = al.nash_md_step(pi, CYCLE, CYCLE_REF, 0.1, eta)
    assert al.kl(al.nash(CYCLE, CYCLE_REF, 0.1), pi).item() == pytest.approx(figure, rel=0.01)


def test_nash_md_at_a_constant_rate_ends_beside_nash():
    """Its opponent is a mixture with the reference, which has a Nash policy of its own."""
    pi = CYCLE_REF
    for _ in range(3000):
        pi = al.nash_md_step(pi, CYCLE, CYCLE_REF, 0.1, 0.5)
    assert_close(al.nash_md_step(pi, CYCLE, CYCLE_REF, 0.1, 0.5), pi, rtol=0, atol=1e-12)
    assert al.kl(al.nash(CYCLE, CYCLE_REF, 0.1), pi) > 1e-5


@pytest.mark.parametrize("tau, self_play, mirror_prox", [(0.1, 3.2e-9, 1.2e-10), (0.05, 8.1e-5, 1.7e-6)])
def test_mirror_prox_is_faster_than_self_play(tau, self_play, mirror_prox):
    a = b = CYCLE_REF
    for _ in range(200):
        a = al.mirror_step(a, a, CYCLE, CYCLE_REF, tau, 0.5)
        b = al.nash_mp_step(b, CYCLE, CYCLE_REF, tau, 0.5)
    best = al.nash(CYCLE, CYCLE_REF, tau)
    assert al.kl(best, b) < 0.1 * al.kl(best, a)
    assert al.kl(best, a) <= self_play and al.kl(best, b) <= mirror_prox


def test_online_ipo_reaches_nash():
    """Gradient descent on the exact expected loss, both samples from the policy without gradient."""
    logits = UNIFORM.log().requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.05)
    tau = 0.1
    for _ in range(800):
        logp = logits.log_softmax(0)
        pi, ratio = logp.detach().exp(), logp - UNIFORM.log()
        loss = al.ipo(ratio[:, None] - ratio, tau, CONDORCET)
        optimiser.zero_grad()
        (pi[:, None] * pi * loss).sum().backward()
        optimiser.step()
    assert_close(logits.softmax(0).detach(), al.nash(CONDORCET, UNIFORM, tau), rtol=0, atol=1e-6)


def test_the_average_of_sppo_plays_well_and_its_last_policy_cycles_outward():
    rock_paper_scissors = torch.tensor([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]], dtype=F64)
    pi = torch.tensor([0.4, 0.3, 0.3], dtype=F64)
    third, total = torch.full((3,), 1 / 3, dtype=F64), torch.zeros(3, dtype=F64)
    start = al.kl(third, pi)
    for _ in range(4000):
        pi = al.mirror_step(pi, pi, rock_paper_scissors, third, 0.0, 0.05)
        total += pi
    assert_close(total / 4000, third, rtol=0, atol=0.02)
    assert al.kl(third, pi) > 2 * start


def test_the_share_of_the_reference_in_a_geometric_mixture():
    pi, ref = torch.tensor([0.9, 0.1], dtype=F64), torch.tensor([0.2, 0.8], dtype=F64)
    assert_close(al.geometric(pi, ref, 0), pi)
    assert_close(al.geometric(pi, ref, 1), ref)


def test_wrong_games_are_named():
    with pytest.raises(ValueError, match=r"P\[0, 1\] \+ P\[1, 0\]"):
        al.nash(torch.tensor([[0.5, 0.9], [0.2, 0.5]]), torch.tensor([0.5, 0.5]), 0.1)
    with pytest.raises(ValueError, match="lower eta"):
        al.mirror_step(CYCLE_REF, CYCLE_REF, CYCLE, CYCLE_REF, 0.1, 11.0)
