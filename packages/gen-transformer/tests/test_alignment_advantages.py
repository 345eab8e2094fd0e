"""Weights of tokens: figures on which OpenRLHF, verl and trl 1.9 agree, identities, and exact means of baselines."""

import math
from itertools import product
from pathlib import Path

import pytest
import torch

from gen_core.testing import load
from gen_transformer.alignment import (
    AdaptiveKL,
    gae,
    group_normalize,
    informative,
    leave_one_out,
    reward_to_go,
    shape_rewards,
    whiten,
)

bandit = load(Path(__file__).with_name("bandit.py"))
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
VALUES = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.4, 0.3, 0.9, 0.9]], dtype=torch.float64)
KL = torch.tensor([[0.02, -0.01, 0.03, 0.0, 0.01], [0.05, 0.02, -0.04, 0.7, 0.7]], dtype=torch.float64)
SCORE = torch.tensor([1.0, -0.5], dtype=torch.float64)
REWARDS = shape_rewards(SCORE, KL, torch.zeros_like(KL), MASK, beta=0.1)
GAE = {  # gamma, lam: advantages of both rows
    (1.0, 1.0): [[0.895, 0.797, 0.696, 0.599, 0.499], [-1.003, -0.898, -0.796, 0, 0]],
    (1.0, 0.95): [[0.773669, 0.711230, 0.642347, 0.574050, 0.499], [-0.920290, -0.858200, -0.796, 0, 0]],
    (0.99, 0.9): [[0.638840, 0.609248, 0.573792, 0.539609, 0.499], [-0.834484, -0.814236, -0.796, 0, 0]],
}


def test_the_score_is_at_the_last_real_token():
    """Not one place later, in the padding, and in a row without tokens nowhere."""
    assert torch.allclose(REWARDS[0], torch.tensor([-0.002, 0.001, -0.003, 0.0, 0.999], dtype=torch.float64))
    assert torch.allclose(REWARDS[1], torch.tensor([-0.005, -0.002, -0.496, 0, 0], dtype=torch.float64))
    assert not shape_rewards(SCORE, KL, KL, torch.zeros_like(MASK), beta=0.1).any()
    bonus = shape_rewards(SCORE, KL, KL, MASK, beta=0.1, entropy=0.5)
    assert bonus[0, 0].item() == pytest.approx(-0.01)


@pytest.mark.parametrize("gamma, lam", GAE)
def test_gae_figures(gamma, lam):
    expected = torch.tensor(GAE[gamma, lam], dtype=torch.float64)
    advantages, returns = gae(REWARDS, VALUES, MASK, gamma, lam)
    assert torch.allclose(advantages, expected, atol=1e-6)
    assert torch.allclose(returns, (advantages + VALUES) * MASK)


def test_gae_identities():
    """lam = gamma = 1: the reward to go minus the value; lam = 0: the error of one step."""
    to_go = torch.stack([REWARDS[:, t:].sum(1) for t in range(5)], 1)
    assert torch.allclose(gae(REWARDS, VALUES, MASK, 1.0, 1.0)[0], (to_go - VALUES) * MASK)
    after = torch.cat(((VALUES * MASK)[:, 1:], torch.zeros(2, 1)), 1)
    assert torch.allclose(gae(REWARDS, VALUES, MASK, 0.9, 0.0)[0], (REWARDS + 0.9 * after - VALUES) * MASK)
    assert torch.allclose(reward_to_go(REWARDS, MASK), to_go * MASK)


def test_garbage_in_padding_changes_nothing():
    junk = lambda x: x.where(MASK, float("nan"))
    for a, b in zip(gae(junk(REWARDS), junk(VALUES), MASK), gae(REWARDS, VALUES, MASK), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(shape_rewards(SCORE, junk(KL), KL * 0, MASK, 0.1), REWARDS)
    assert torch.equal(whiten(junk(VALUES), MASK), whiten(VALUES, MASK))


def test_whitened_advantages():
    """The unbiased variance of verl and trl, without the -.117920 that verl leaves in the padding."""
    y = whiten(gae(REWARDS, VALUES, MASK, 1.0, 1.0)[0], MASK)
    assert torch.allclose(y[1], torch.tensor([-1.317142, -1.191600, -1.069645, 0, 0], dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("n, centred", [(2, 0.5), (4, 0.75)])
def test_baselines_by_enumeration_of_all_groups(n, centred):
    """The mean gradient with leave-one-out is the true one; with the group's own mean it is (n - 1) / n of it."""
    p, r = bandit.OPTIMUM, bandit.REWARD
    groups = torch.tensor(list(product(range(5), repeat=n)))
    chance = p[groups].prod(1)
    eye = torch.eye(5, dtype=torch.float64)

    def gradient(weights):
        return torch.einsum("g,gi,gik->k", chance, weights.view(-1, n), eye[groups] - p) / n

    scores = r[groups].flatten()
    true = p * (r - p @ r)
    assert torch.allclose(gradient(leave_one_out(scores, n)), true, atol=1e-14)
    assert torch.allclose(gradient(group_normalize(scores, n, std=False)), centred * true, atol=1e-14)


def test_equal_scores_weigh_exactly_nothing():
    """.1 has no exact mean; a rounding error over 1e-4 would still move the policy."""
    equal = torch.full((16,), 0.1)
    for f in (leave_one_out, group_normalize):
        assert not f(equal, 8).any()
    mixed = torch.cat((equal[:4], torch.tensor([0.0, 1.0, 0.0, 1.0])))
    assert informative(mixed, 4).tolist() == [False] * 4 + [True] * 4
    expected = 0.5 / (math.sqrt(1 / 3) + 1e-4)  # unbiased
    assert group_normalize(mixed, 4)[4:].tolist() == pytest.approx([-expected, expected] * 2)


def test_adaptive_kl_turns_towards_its_target():
    beta = AdaptiveKL(0.1, target=5.0, horizon=1000)
    beta.update(50.0, n=100)  # far above: the error is clipped at .2
    assert beta.beta.item() == pytest.approx(0.1 * 1.02)
    beta.update(4.5, n=100)
    assert beta.beta.item() == pytest.approx(0.1 * 1.02 * 0.99)
    assert "beta" in beta.state_dict()


def test_refusals():
    with pytest.raises(ValueError, match="from 2 completions on"):
        leave_one_out(torch.zeros(3), 1)
    with pytest.raises(ValueError, match="no groups of 2"):
        group_normalize(torch.zeros(3), 2)
    with pytest.raises(ValueError, match="are positive"):
        AdaptiveKL(0.0)
