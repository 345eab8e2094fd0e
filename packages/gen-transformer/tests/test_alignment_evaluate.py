"""The frontier's axes: sequence KL without bias, win rates with ties, best-of-n, intervals over prompts."""

import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from gen_core.testing import load
from gen_transformer import alignment as al

problems = load(Path(__file__).with_name("alignment_problems.py"))
F64 = problems.F64


def test_the_mean_sequence_kl_is_that_of_whole_completions():
    """By enumeration of the two-token problem, whose completions differ in length; it varies less than log-ratios."""
    tree = problems.TWO_TOKENS
    best = tree.conditionals(al.tilted(tree.law(tree.ref), problems.TWO_TOKEN_REWARD, 1.0))

    def tables(policy):  # vocabulary: a, b, x, y
        out = torch.full((3, 2, 4), -math.inf, dtype=F64)
        out[:, 0, :2] = policy[1:3]
        out[:2, 1, 2:] = policy[3:5]
        out[2, 1] = torch.tensor([9.0, 1, 2, 3])  # after the end: whatever
        return out

    each = al.sequence_kl(tables(best), tables(tree.ref), tree.mask)
    law = tree.law(best)
    want = al.kl(law, tree.law(tree.ref))
    ratio = (tree.tokens(best) - tree.tokens(tree.ref)).sum(1)
    assert (law @ each).item() == pytest.approx(want.item(), rel=1e-12)
    assert (law @ ratio).item() == pytest.approx(want.item(), rel=1e-12)
    assert law @ (each - want).square() < law @ (ratio - want).square()
    assert bool((each >= 0).all()) and bool((ratio < 0).any())


def test_a_token_that_the_policy_never_takes_adds_nothing():
    pi = torch.tensor([[[0.0, -math.inf]]], dtype=F64)
    ref = torch.tensor([[[0.0, 0.0]]], dtype=F64)
    assert al.sequence_kl(pi, ref, torch.ones(1, 1, dtype=torch.bool)).item() == pytest.approx(math.log(2))


def test_win_rates_count_ties_half():
    a, b = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 0.0, 3.0])
    assert al.win_rate(a, b).tolist() == [0.5, 1.0, 0.0]
    assert al.win_rate(a, b, lambda a, b: (a - b).sigmoid())[0].item() == 0.5


def test_a_point_has_intervals_over_prompts():
    """Samples of one prompt that agree are one observation, not many."""
    prompts = torch.tensor([0.0, 1.0, 0.5, 0.2], dtype=F64)
    once, often = prompts[:, None], prompts[:, None].expand(4, 100)
    a, b = al.point("x", once, once, once), al.point("x", often, often, often)
    assert (a.reward.low, a.reward.high, a.reward.n) == pytest.approx((b.reward.low, b.reward.high, b.reward.n))
    assert a.row()["kl"]["unit"] == "nat" and a.row()["kl_is"] == "estimate"


def test_a_reward_that_is_no_number_names_its_sample():
    x = torch.zeros(3, 2)
    x[2, 1] = math.nan
    with pytest.raises(ValueError, match="reward of sample 1 of prompt 2"):
        al.point("x", x, x, x)
    with pytest.raises(ValueError, match="2 prompts or more"):
        al.point("x", x[:1], x[:1], x[:1])


def test_best_of_n_points_are_unbiased():
    """Over many prompts with the bandit's law: reward and win rate within their intervals of the exact ones."""
    ref, r = problems.REF, problems.R
    g = torch.Generator().manual_seed(0)
    rewards, others = (r[torch.multinomial(ref.expand(4000, 5), 16, True, generator=g)] for _ in range(2))
    for n, point in zip((1, 4, 16), al.best_of_n_points(rewards, (1, 4, 16), others), strict=True):
        law = al.best_of_n(ref, r, n)
        wins = law @ al.win_rate(r[:, None].expand(5, 5), r.expand(5, 5)) @ ref
        for estimate, exact in ((point.reward, law @ r), (point.win, wins)):
            assert abs(estimate.value - exact.item()) < 2 * (estimate.high - estimate.low)
        assert point.bound and point.kl.value >= al.kl(law, ref).item() - 1e-12
        assert point.name == f"best of {n}" and point.row()["kl_is"] == "bound"


def test_without_opponents_the_win_rate_is_its_bound():
    (point,) = al.best_of_n_points(torch.rand(3, 4, generator=torch.Generator().manual_seed(0)), (3,))
    assert point.win.value == 0.75
    assert_close(point.kl.value, math.log(3) - 2 / 3)
