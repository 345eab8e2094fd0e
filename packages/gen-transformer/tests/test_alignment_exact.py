"""Closed forms of KL-regularised learning: against published figures, stationarity under autograd, and enumeration."""

import math
from itertools import combinations, cycle, product
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from gen_core.testing import load
from gen_transformer import alignment as al

problems = load(Path(__file__).with_name("alignment_problems.py"))
ESTIMATES, F64, R, REF, random_problem = (
    problems.ESTIMATES,
    problems.F64,
    problems.R,
    problems.REF,
    problems.random_problem,
)
TWO_TOKENS, TWO_TOKEN_REWARD = problems.TWO_TOKENS, problems.TWO_TOKEN_REWARD


def near(x, figures, atol=1e-6):
    assert_close(x, torch.tensor(figures, dtype=F64), rtol=0, atol=atol)


PROBLEMS = [(REF, R, 0.5)] + [(*random_problem(seed), beta) for seed, beta in ((0, 0.3), (1, 1.0), (2, 3.0))]


# ---------------------------------------------------------------------- optima and KL estimates in the loss


def test_reverse_kl_optimum():
    """pi* = ref exp(r / beta) / Z with value beta log Z."""
    pi = al.tilted(REF, R, 0.5)
    near(pi, [0.125477, 0.171475, 0.156224, 0.231789, 0.315034])
    near(torch.stack([pi @ R, al.kl(pi, REF), al.objective(pi, REF, R, 0.5)]), [0.849517, 0.539693, 0.579671])
    assert al.objective(pi, REF, R, 0.5).item() == pytest.approx(0.5 * (REF @ (R / 0.5).exp()).log().item(), rel=1e-14)


@pytest.mark.parametrize("ref, r, beta", PROBLEMS)
def test_each_point_maximises_what_it_claims_to(ref, r, beta):
    """No policy drawn around it does better."""
    objectives = {
        al.tilted: lambda pi: pi @ r - beta * al.kl(pi, ref),
        al.forward_tilted: lambda pi: pi @ r - beta * al.kl(ref, pi),
        al.chi_tilted: lambda pi: pi @ r - beta / 2 * (((pi - ref).square() / ref).sum()),
    }
    g = torch.Generator().manual_seed(3)
    for point, value in objectives.items():
        pi = point(ref, r, beta)
        assert pi.sum().item() == pytest.approx(1, abs=1e-12) and bool((pi >= 0).all())
        for _ in range(50):
            other = torch.randn(len(r), generator=g, dtype=F64).softmax(0)
            for step in (1e-3, 0.1, 1.0):
                assert value(torch.lerp(pi, other, step)) <= value(pi) + 1e-12


def test_fixed_points_of_a_kl_in_the_loss():
    near(al.fixed_point(REF, R, 0.5, "k3"), [0.129598, 0.120653, 0.079513, 0.092041, 0.578196])
    near(al.fixed_point(REF, R, 0.5, "k3_reversed"), [0.116, 0.267, 0.2235, 0.229, 0.1645])
    near(al.fixed_point(REF, R, 0.5, "k1"), [0.0, 0, 0, 0, 1])
    values = [al.objective(al.fixed_point(REF, R, 0.5, name), REF, R, 0.5) for name in ("k3", "k3_reversed")]
    near(torch.stack(values), [0.492589, 0.539921])
    for right in ("reward", "k2", "k3_ratio"):
        assert_close(al.fixed_point(REF, R, 0.5, right), al.tilted(REF, R, 0.5), rtol=0, atol=0)


def expected_gradient(logits, ref, r, beta, estimate):
    """Of the loss that on-policy sampling would give: samples are weighed by their probability, not by gradient."""
    logp = logits.log_softmax(0)
    loss = -r * logp + beta * estimate(logp - ref.log())
    return torch.autograd.grad((logp.detach().exp() * loss).sum(), logits)[0]


@pytest.mark.parametrize("ref, r, beta", PROBLEMS)
@pytest.mark.parametrize("name", ["k2", "k3", "k3_ratio", "k3_reversed"])
def test_the_expected_gradient_of_each_estimate_vanishes_at_its_point(ref, r, beta, name):
    beta = 20 * beta if name == "k3_reversed" else beta  # off the boundary, which no logits reach
    pi = al.fixed_point(ref, r, beta, name)
    gradient = expected_gradient(pi.log().requires_grad_(), ref, r, beta, ESTIMATES[name])
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@pytest.mark.parametrize("ref, r, beta", PROBLEMS)
def test_k1_in_the_loss_regularises_nothing(ref, r, beta):
    """Its expected gradient is that of the reward alone."""
    logits = random_problem(9, len(r))[1].requires_grad_()
    alone = expected_gradient(logits, ref, r, 0.0, ESTIMATES["k1"])
    assert_close(expected_gradient(logits, ref, r, beta, ESTIMATES["k1"]), alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["k1", "k3", "k3_ratio"])
def test_estimates_are_unbiased_in_value_and_the_reversed_one_is_not(name):
    pi = al.tilted(REF, R, 0.5)
    expected = lambda name: (pi * ESTIMATES[name](pi.log() - REF.log())).sum().item()
    assert expected(name) == pytest.approx(al.kl(pi, REF).item(), rel=1e-12)
    assert abs(expected("k3_reversed") - al.kl(pi, REF).item()) > 0.1


def test_a_chi_squared_point_on_the_boundary_drops_completions():
    pi = al.chi_tilted(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 10.0]), 1.0)
    near(pi, [0.0, 1.0], atol=1e-12)


def test_extreme_betas_are_finite():
    for beta in (1e-3, 1e6):
        for point in (al.tilted, al.forward_tilted, al.chi_tilted):
            assert point(REF, R, beta).sum().item() == pytest.approx(1, abs=1e-12)
    assert_close(al.forward_tilted(REF, R, 1e8), REF, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "ref, r, beta, message",
    [
        (REF, R, 0.0, "beta is positive"),
        (REF * 2, R, 1.0, "sum to 1"),
        (torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 1.0, "positive probabilities"),
        (REF, R * math.nan, 1.0, "rewards are finite"),
    ],
)
def test_wrong_problems_are_named(ref, r, beta, message):
    with pytest.raises(ValueError, match=message):
        al.tilted(ref, r, beta)


# ---------------------------------------------------------------------- groups


def mean_centred(x):
    return x - x.mean(1, keepdim=True)


def leave_one_out(x):
    return (x - x.mean(1, keepdim=True)) * x.shape[1] / (x.shape[1] - 1)


def standardised(x):
    return mean_centred(x) / (x.std(1, keepdim=True) + 1e-4)


def test_standardised_rewards_have_two_points_above_a_critical_beta_and_none_below():
    """pi = ref exp(r / (beta sigma)), sigma the standard deviation of r under pi itself."""
    low, high = al.std_points(REF, R, 1.0)
    assert (low.stable, high.stable) == (False, True)
    assert low.sigma == pytest.approx(0.146221, abs=1e-6) and high.sigma == pytest.approx(0.540692, abs=1e-6)
    near(high.pi, [0.142122, 0.185648, 0.161669, 0.225851, 0.284710])
    assert al.std_points(REF, R, 2.0)[-1].sigma == pytest.approx(0.505607, abs=1e-6)
    critical = al.critical_beta(REF, R)
    assert al.std_points(REF, R, 0.5) == [] and al.std_points(REF, R, critical * 0.999) == []
    assert len(al.std_points(REF, R, critical * 1.001)) == 2
    for point in al.std_points(REF, R, 1.3):
        assert_close(point.pi, al.tilted(REF, R, 1.3 * point.sigma), rtol=0, atol=1e-9)
        assert (point.pi @ (R - point.pi @ R).square()).sqrt().item() == pytest.approx(point.sigma, abs=1e-9)


def test_equal_rewards_have_no_standard_deviation():
    with pytest.raises(ValueError, match="all rewards are equal"):
        al.std_points(REF, torch.ones(5), 1.0)


def test_group_estimators_over_all_groups():
    """Mean-centring shrinks the gradient by (G - 1) / G, leave-one-out does not, standardising bends it."""
    pi = al.tilted(REF, R, 0.5)
    true = R - pi @ R
    for n in (2, 4, 8):
        assert_close(al.expected_advantage(pi, R, n, mean_centred), true * (n - 1) / n, rtol=0, atol=1e-13)
        assert_close(al.expected_advantage(pi, R, n, leave_one_out), true, rtol=0, atol=1e-13)
    h = al.expected_advantage(pi, R, 2, lambda x: mean_centred(x) / (x.std(1, keepdim=True, correction=1) + 1e-4))
    ratio = (pi * (h - pi @ h)) / (pi * true)
    near(ratio, [0.7278, 0.7431, 0.7080, 0.6490, 0.7445], atol=6e-5)


def test_the_expected_advantage_is_that_of_ordered_groups():
    """By brute force over all K^n ordered groups."""
    pi, r = random_problem(4, 3)[0], torch.tensor([0.0, 1.0, 1.0], dtype=F64)
    groups = torch.tensor(list(product(range(3), repeat=4)))
    weight = pi[groups].prod(1)
    want = [
        (weight * standardised(r[groups])[:, 0])[groups[:, 0] == a].sum() / weight[groups[:, 0] == a].sum()
        for a in range(3)
    ]
    assert_close(al.expected_advantage(pi, r, 4, standardised), torch.stack(want), rtol=0, atol=1e-12)


def test_fixed_points_of_finite_groups():
    near(al.group_point(REF, R, 0.5, 2, standardised), [0.166297, 0.213318, 0.188152, 0.224968, 0.207265])
    near(al.group_point(REF, R, 0.5, 8, standardised), [0.055262, 0.064229, 0.058893, 0.125375, 0.696241])
    assert_close(al.group_point(REF, R, 0.5, 4, leave_one_out), al.tilted(REF, R, 0.5), rtol=0, atol=1e-11)
    want = al.tilted(REF, R, 0.5 * 4 / 3)  # a gradient that is 3/4 of the true one over-weighs an exact KL
    assert_close(al.group_point(REF, R, 0.5, 4, mean_centred), want, rtol=0, atol=1e-11)


def test_what_never_comes_to_rest_is_said():
    signs = cycle((1, -1))
    with pytest.raises(ValueError, match="does not come to rest"):
        al.group_point(REF, R, 0.5, 2, lambda x: next(signs) * mean_centred(x))


def test_equal_rewards_in_a_group_give_no_gradient():
    h = al.expected_advantage(REF, torch.ones(5), 4, standardised)
    assert_close(h, torch.zeros(5, dtype=F64), rtol=0, atol=0)


# ---------------------------------------------------------------------- best of n


@pytest.mark.parametrize(
    "n, kl, reward, win",
    [
        (2, 0.157655, 0.564750, 0.650750),
        (4, 0.592656, 0.804234, 0.785679),
        (16, 1.758973, 1.249239, 0.931961),
        (64, 2.809469, 1.481226, 0.972182),
    ],
)
def test_best_of_n(n, kl, reward, win):
    pi = al.best_of_n(REF, R, n)
    wins = pi @ al.win_rate(R[:, None].expand(5, 5), R[None].expand(5, 5)) @ REF
    near(torch.stack([al.kl(pi, REF), pi @ R, wins]), [kl, reward, win])
    assert kl < math.log(n) - (n - 1) / n and win <= n / (n + 1)


def test_best_of_n_with_ties_by_enumeration():
    """All K^n draws, a winner among equals drawn evenly: the share of a completion within a tie is that of `ref`."""
    r = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=F64)
    ref, want = random_problem(5, 4)[0], torch.zeros(4, dtype=F64)
    for draw in product(range(4), repeat=3):
        best = [a for a in draw if r[a] == max(r[b] for b in draw)]
        for a in best:
            want[a] += ref[list(draw)].prod() / len(best)
    assert_close(al.best_of_n(ref, r, 3), want, rtol=0, atol=1e-14)
    assert_close(al.best_of_n(ref, torch.ones(4), 7), ref, rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_the_best_of_n_estimate_is_the_mean_over_subsets(n):
    rewards = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    want = torch.stack([rewards[:, list(s)].amax(1) for s in combinations(range(6), n)]).mean(0)
    assert_close(al.best_of_n_estimate(rewards, n), want, rtol=0, atol=1e-14)


def test_pass_at_k_is_the_share_of_subsets_with_a_success():
    for c, k in product(range(6), range(1, 6)):
        want = [any(i < c for i in s) for s in combinations(range(5), k)]
        assert al.pass_at_k(5, torch.tensor(c), k).item() == pytest.approx(sum(want) / len(want), abs=1e-15)
    assert al.pass_at_k(10_000, torch.tensor([1]), 100).item() == pytest.approx(0.01, rel=1e-12)


def test_more_than_there_is_cannot_be_estimated():
    with pytest.raises(ValueError, match="draw more"):
        al.best_of_n_estimate(torch.zeros(3), 4)
    with pytest.raises(ValueError, match="draw more"):
        al.pass_at_k(3, torch.tensor(1), 4)
    with pytest.raises(ValueError, match="are 0 to n=3"):
        al.pass_at_k(3, torch.tensor([4]), 1)


# ---------------------------------------------------------------------- token by token


def value(policy):
    return al.objective(TWO_TOKENS.law(policy), TWO_TOKENS.law(TWO_TOKENS.ref), TWO_TOKEN_REWARD, 1.0).item()


def test_two_tokens():
    """The optimum of whole completions, and the points of penalties per token, which leave value behind."""
    tree, r = TWO_TOKENS, TWO_TOKEN_REWARD
    best = tree.conditionals(al.tilted(tree.law(tree.ref), r, 1.0))
    at = {"".join(state): i for i, state in enumerate(tree.states)}
    assert best[at["a"]].exp().item() == pytest.approx(0.457396, abs=1e-6)
    assert best[at["ay"]].exp().item() == pytest.approx(0.355461, abs=1e-6)
    assert value(best) == pytest.approx(0.518228, abs=1e-6) and value(tree.ref) == pytest.approx(0.32, abs=1e-12)
    assert tree.soft_values(r, 1.0)[at["a"]].item() == pytest.approx(math.log(0.99 + 0.01 * math.exp(4)), abs=1e-12)
    for name, a, ay, J in (("k2", 0.694628, 0.355461, 0.403537), ("k3", 0.834040, 0.753319, -0.060499)):
        point = tree.token_level(r, 1.0, name)
        assert point[at["a"]].exp().item() == pytest.approx(a, abs=1e-6)
        assert point[at["ay"]].exp().item() == pytest.approx(ay, abs=1e-6)
        assert value(point) == pytest.approx(J, abs=1e-6)


def random_tree(seed):
    g = torch.Generator().manual_seed(seed)
    ref = [torch.randn((3,) * (t + 1), generator=g, dtype=F64).softmax(-1) for t in range(3)]
    return ref, al.full_tree(ref), 2 * torch.randn(27, generator=g, dtype=F64)


def test_soft_values_by_recursion_and_the_optimum_by_enumeration():
    """V(s) = beta log sum ref exp(V / beta) from the leaves up; pi* of 27 sequences is the tilted law."""
    ref, tree, r = random_tree(0)
    V = r.reshape(3, 3, 3)
    values = [V]
    for step in reversed(ref):
        V = 0.7 * (step.log() + V / 0.7).logsumexp(-1)
        values.insert(0, V)
    want = torch.cat([v.flatten() for v in values])
    assert_close(tree.soft_values(r, 0.7), want, rtol=0, atol=1e-12)
    best = tree.conditionals(al.tilted(tree.law(tree.ref), r, 0.7))
    soft = tree.soft_values(r, 0.7)
    assert_close(best - tree.ref, (soft - soft[tree.parent]) / 0.7, rtol=0, atol=1e-12)
    joint = ref[0][:, None, None] * ref[1][:, :, None] * ref[2]
    assert_close(tree.law(tree.ref), joint.flatten(), rtol=0, atol=1e-14)


def sequence_gradient(tree, policy, r, beta, loss):
    """Expected gradient in the logits; `loss(logp, ref)` of the tokens (sequences, length) is a number a sequence."""
    logits = policy.clone().requires_grad_()
    now = tree.policy(logits)
    each = loss(tree.tokens(now), tree.tokens(tree.ref))
    return torch.autograd.grad((tree.law(now).detach() * each).sum(), logits)[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_which_penalties_reach_the_optimum_of_whole_completions(seed):
    """KL in the reward of the sequence, in the reward to go, and k2 of the summed log-ratio do."""
    _, tree, r = random_tree(seed)
    beta, best = 0.7, tree.conditionals(al.tilted(tree.law(tree.ref), r, 0.7))

    def in_reward(logp, ref):
        return -(r - beta * (logp - ref).detach().sum(1)) * logp.sum(1)

    def to_go(logp, ref):
        rest = (logp - ref).detach().flip(1).cumsum(1).flip(1)
        return -((r[:, None] - beta * rest) * logp).sum(1)

    def k2_of_sums(logp, ref):
        return -r * logp.sum(1) + beta * (logp - ref).sum(1).square() / 2

    for loss in (in_reward, to_go, k2_of_sums):
        gradient = sequence_gradient(tree, best, r, beta, loss)
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["k2", "k3", "k3_ratio"])
def test_penalties_per_token_stop_elsewhere(seed, name):
    """Their expected gradient vanishes at `token_level`, not at the optimum."""
    _, tree, r = random_tree(seed)
    loss = lambda logp, ref: -r * logp.sum(1) + 0.7 * ESTIMATES[name](logp - ref).sum(1)
    gradient = sequence_gradient(tree, tree.token_level(r, 0.7, name), r, 0.7, loss)
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
    best = tree.conditionals(al.tilted(tree.law(tree.ref), r, 0.7))
    assert sequence_gradient(tree, best, r, 0.7, loss).abs().max() > 1e-2


def test_a_policy_of_far_logits_is_finite():
    logits = torch.tensor([0.0, 1e4, -1e4, 0, 0], dtype=F64, requires_grad=True)
    policy = TWO_TOKENS.policy(logits)
    assert bool(policy.isfinite().all())
    assert bool(torch.autograd.grad(policy.sum(), logits)[0].isfinite().all())


def test_a_completion_inside_another_is_refused():
    with pytest.raises(ValueError, match="a token that ends it"):
        al.Tree.of({"a": 0.5, "ab": 0.5})
    with pytest.raises(ValueError, match="sum to 1"):
        al.Tree.of({"a": 0.5, "b": 0.4})


# ---------------------------------------------------------------------- minimisers of pairwise losses


@pytest.mark.parametrize("p", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("link", ["logistic", "squared", "hinge", "exponential", "truncated_quadratic", "savage"])
def test_minimisers_of_pairwise_losses(p, link):
    """No point of a fine grid is below, and those of logistic, squared and exponential are the published ones."""
    x = al.gpo_minimiser(p, link)
    risk = lambda h: al.gpo(h, 1.0, link, p)
    grid = torch.linspace(-6, 6, 12001, dtype=F64)
    assert risk(torch.tensor([x], dtype=F64)).item() <= risk(grid).min().item() + 1e-12
    logit = math.log(p / (1 - p))
    known = {"logistic": logit, "squared": 2 * p - 1, "exponential": logit / 2, "hinge": 1.0}
    assert x == pytest.approx(known.get(link, x), abs=1e-12)


def test_the_minimiser_of_a_link_of_ones_own():
    assert al.gpo_minimiser(0.8, lambda x: torch.nn.functional.softplus(-x)) == pytest.approx(math.log(4), abs=1e-9)
    with pytest.raises(ValueError, match="finite minimiser"):
        al.gpo_minimiser(1.0, "logistic")


# ---------------------------------------------------------------------- the tree as a language model


def test_a_tree_policy_gives_completions_their_law():
    """Log-probabilities of whole completions by `token_logprobs`, and rollouts that end where completions do."""
    policy, tree = al.TreePolicy(TWO_TOKENS), TWO_TOKENS
    with torch.no_grad():
        policy.table_logits += random_problem(0, 5)[1]
    a, b, x, y = range(4)
    ids = torch.tensor([[policy.bos, a, x], [policy.bos, a, y], [policy.bos, b, policy.eos]])
    logp = al.token_logprobs(policy, ids, torch.ones(3, 3, dtype=torch.bool), 1)
    assert_close(logp.sum(1).exp(), tree.law(policy.table()))
    rolled = al.rollout(
        policy, [[policy.bos]], n=2000, max_new_tokens=2, eos=policy.eos, generator=torch.Generator().manual_seed(0)
    )
    scores = policy.reward(torch.tensor([1.0, 2.0, 3.0], dtype=F64))(rolled)
    share = torch.stack([(scores == value).double().mean() for value in (1, 2, 3)])
    assert_close(share, tree.law(policy.table()).detach(), rtol=0, atol=0.05)
    again = al.token_logprobs(policy, rolled.ids, rolled.mask, rolled.start)
    assert_close(again.float(), rolled.logp, rtol=0, atol=1e-6)  # generation is in float32
