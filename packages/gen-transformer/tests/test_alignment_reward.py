"""Reward and preference models: likelihoods, padding, antisymmetry, and what only a preference model can tell."""

import math
from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gen_core.testing import load
from gen_transformer import Config, Transformer
from gen_transformer import alignment as al

problems = load(Path(__file__).with_name("alignment_problems.py"))
F64 = problems.F64


def trunk():
    torch.manual_seed(0)
    return Transformer(Config(vocab=17, dim=16, layers=2, heads=2, context=16))


class Table(nn.Module):
    """A trunk for completions of one token: a row for each."""

    def __init__(self, k):
        super().__init__()
        self.rows = nn.Parameter(torch.eye(k, dtype=F64))

    def logits(self, hidden):
        return hidden

    def forward(self, ids, doc=None):
        return self.rows[ids]


# ---------------------------------------------------------------------- losses


def test_the_loss_is_stationary_at_the_maximum_likelihood_of_its_data():
    """Of 600 comparisons; figures of choix 0.4.1, ilsr_pairwise(6, pairs, alpha=0)."""
    won, lost = problems.pairs()
    x = torch.tensor(problems.CHOIX, dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(al.bradley_terry(x[won], x[lost]).mean(), x)
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-8)


def test_centring_removes_the_constant_that_pairs_leave_open():
    x = torch.tensor([3.0, 2.0], dtype=F64, requires_grad=True)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(al.bradley_terry(x[:1], x[1:], 0.8, centring=0.1).sum(), x)
        x = (x - 2 * gradient).detach().requires_grad_()
    assert x.sum().item() == pytest.approx(0, abs=1e-9)
    assert (x[0] - x[1]).item() == pytest.approx(math.log(4), abs=1e-9)


def test_plackett_luce_is_a_law_over_orders():
    scores = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=F64)
    orders = torch.tensor(list(permutations(range(4))))
    assert (-al.plackett_luce(scores[orders])).exp().sum().item() == pytest.approx(1, abs=1e-14)
    tops = torch.tensor([p + tuple(set(range(4)) - set(p)) for p in permutations(range(4), 2)])
    assert (-al.plackett_luce(scores[tops], top=2)).exp().sum().item() == pytest.approx(1, abs=1e-14)
    pairs = torch.tensor([[0.3, -1.2], [1e3, -1e3], [-1e3, 1e3]], dtype=F64)
    assert_close(al.plackett_luce(pairs), al.bradley_terry(pairs[:, 0], pairs[:, 1]))


def test_plackett_luce_by_sequential_choice():
    s = torch.tensor([0.2, 1.0, -0.5], dtype=F64)
    e = s.exp()
    want = -((e[0] / e.sum()) * (e[1] / (e[1] + e[2]))).log()
    assert_close(al.plackett_luce(s), want)


# ---------------------------------------------------------------------- models


def test_padding_on_either_side_changes_no_reward():
    model = al.RewardModel(trunk(), 16).eval()
    ids = torch.tensor([[5, 6, 7]])
    alone = model(ids, torch.ones(1, 3, dtype=torch.bool))
    left = model(torch.tensor([[9, 9, 5, 6, 7]]), torch.tensor([[False, False, True, True, True]]))
    right = model(torch.tensor([[5, 6, 7, 9, 9]]), torch.tensor([[True, True, True, False, False]]))
    assert_close(left, alone, rtol=0, atol=1e-5)
    assert_close(right, alone, rtol=0, atol=1e-5)


@pytest.mark.peers
def test_padding_changes_no_reward_of_a_hugging_face_trunk():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=17, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    gpt2 = transformers.GPT2Model(config)
    model = al.RewardModel(gpt2, 16).eval()
    alone = model(torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.bool))
    left = model(torch.tensor([[9, 9, 5, 6, 7]]), torch.tensor([[False, False, True, True, True]]))
    assert_close(left, alone, rtol=0, atol=1e-5)


def test_a_row_of_padding_is_named():
    with pytest.raises(ValueError, match="row 1 has no token"):
        al.RewardModel(trunk(), 16)(torch.zeros(2, 3).long(), torch.tensor([[True] * 3, [False] * 3]))


def test_centred_rewards_have_mean_0():
    model = al.RewardModel(trunk(), 16).eval()
    ids, mask = torch.arange(12).reshape(4, 3), torch.ones(4, 3, dtype=torch.bool)
    before = model(ids, mask)
    model.centre(before)
    after = model(ids, mask)
    assert after.mean().item() == pytest.approx(0, abs=1e-6)
    assert_close(after - after[0], before - before[0], rtol=0, atol=1e-6)


def test_preferences_are_antisymmetric_whatever_the_weights():
    """And a completion ties with itself: exactly, not after training."""
    model = al.PreferenceModel(trunk(), 16).eval()
    a, b = torch.tensor([[5, 6, 7], [1, 2, 3]]), torch.tensor([[5, 8, 9], [4, 4, 4]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert_close(model(a, mask, b, mask), -model(b, mask, a, mask), rtol=0, atol=0)
    assert_close(model(a, mask, a, mask), torch.zeros(2), rtol=0, atol=0)
    assert bool((model(a, mask, b, mask) != 0).all())


def fit(model, loss):
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)


def test_a_preference_model_finds_the_winner_that_a_reward_misses():
    """Arm 0 beats each other arm, arm 1 has the highest mean win rate: Bradley-Terry takes arm 1, Nash arm 0."""
    P = problems.CONDORCET
    torch.manual_seed(0)
    game = al.PreferenceModel(Table(4), 4, rank=2).double()
    fit(game, lambda: al.gpo(game.logit(game.trunk.rows[:, None], game.trunk.rows[None]), 1.0, p=P).mean())
    learned = game.logit(game.trunk.rows[:, None], game.trunk.rows[None]).sigmoid().detach()
    assert_close(learned, P, rtol=0, atol=1e-4)
    nash = al.nash(learned, problems.UNIFORM, 0)
    assert al.exploitability(nash, P, problems.UNIFORM, 0) <= 1e-3

    reward = al.RewardModel(Table(4), 4).double()
    one, ids = torch.ones(4, 1, dtype=torch.bool), torch.arange(4)[:, None]
    fit(reward, lambda: al.bradley_terry(*torch.broadcast_tensors((r := reward(ids, one))[:, None], r), p=P).mean())
    r = reward(ids, one).detach()
    winner = al.best_arms(problems.UNIFORM, r)
    assert winner.argmax() == 1
    assert al.exploitability(winner, P, problems.UNIFORM, 0) == pytest.approx(0.05, abs=1e-9)


def test_a_preference_model_of_rank_1_learns_a_cycle():
    P = torch.tensor([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]], dtype=F64)
    torch.manual_seed(0)
    game = al.PreferenceModel(Table(3), 3, rank=1).double()
    logits = lambda: game.logit(game.trunk.rows[:, None], game.trunk.rows[None])
    fit(game, lambda: al.gpo(logits(), 1.0, p=P).mean())
    assert_close(logits().sigmoid(), P, rtol=0, atol=1e-4)
