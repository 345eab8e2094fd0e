"""The loops: exact optima by sampling, resume, micro-batches, processes, adapters as reference, bad input."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from gen_core import Loader
from gen_core.testing import check_task, difference, launch, load, train
from gen_transformer import Config, Transformer, add_lora
from gen_transformer.alignment import (
    OBJECTIVES,
    AdaptiveKL,
    OnlineTask,
    Pair,
    PairObjective,
    PairTask,
    align,
    fit_preferences,
    pairwise,
)

bandit = load(Path(__file__).with_name("bandit.py"))
PROMPTS = [[3, 1, 4], [9], [2, 6], [5, 3, 5, 8], [9, 7], [1], [2, 2, 2], [8, 4]]


def learn(objective, **options):
    """Policy, metrics and total variation to the optimum after 200 steps of 64 samples."""
    with bandit.float64():
        model = bandit.Bandit()
        options = {"steps": 200, "n": 8, "batch_size": 8, "reward": bandit.reward, "beta": bandit.BETA} | options
        falling = lambda step: 1 - step / options["steps"]
        history = align(
            model, [[0]] * options["batch_size"], objective=objective, max_new_tokens=1, schedule=falling,
            optimizer=lambda parameters: torch.optim.Adam(parameters, 0.05), **options,
        )  # fmt: skip
    return model.p, history, bandit.variation(model.p, bandit.OPTIMUM)


@pytest.mark.parametrize("objective", ["rloo", "reinforce", "ppo"])
def test_kl_in_the_reward_reaches_the_optimum(objective):
    """The tilted policy, of which every sample has the same total reward: there the gradient has no noise."""
    extra = {"epochs": 4, "critic": bandit.Baseline()} if objective == "ppo" else {}
    _, history, apart = learn(objective, **extra)
    assert apart <= 0.001
    expected = bandit.BETA * (bandit.REF * (bandit.REWARD / bandit.BETA).exp()).sum().log()  # E r - beta KL
    assert history[-1]["score"] - bandit.BETA * history[-1]["kl"] == pytest.approx(expected.item(), abs=0.01)


def test_kl_in_the_loss_reaches_the_optimum_but_for_noise():
    assert learn("dr_grpo", batch_size=32)[2] <= 0.02


def test_dividing_by_the_deviation_of_groups_moves_the_optimum():
    """To (.055, .064, .059, .125, .696) for groups of 8, where no other choice of KL is at fault."""
    p, _, _ = learn("grpo", batch_size=32)
    expected = torch.tensor([0.055262, 0.064229, 0.058893, 0.125375, 0.696241], dtype=torch.float64)
    assert bandit.variation(p, expected) < 0.03


def test_a_reward_of_nothing_distils_the_reference():
    teacher = bandit.Bandit(bandit.OPTIMUM)
    _, _, apart = learn("rloo", reward=None, ref=teacher, beta=1.0)
    assert apart <= 0.001


def test_adaptive_kl_finds_the_beta_of_a_target():
    """At the optimum of beta .5 the KL is .539693."""
    beta = AdaptiveKL(0.3, target=0.539693, horizon=1500)
    _, history, apart = learn("rloo", beta=beta, steps=400)
    assert apart < 0.02 and beta.beta.item() == pytest.approx(0.5, abs=0.03)
    assert history[0]["beta"] == pytest.approx(0.3)


def test_an_entropy_bonus_is_a_reward_of_surprise():
    """beta KL(pi || ref) - c H(pi) is minimal, with r, at pi ~ (ref^beta e^r)^(1 / (beta + c))."""
    p, _, _ = learn("rloo", entropy=0.5)
    tilted = (bandit.REF**bandit.BETA * bandit.REWARD.exp()) ** (1 / (bandit.BETA + 0.5))
    assert bandit.variation(p, tilted / tilted.sum()) < 0.001


def test_rejection_sampling_moves_to_the_best_of_n():
    p, history, _ = learn("best-of-n", steps=40)
    assert p[4] > 3 * bandit.REF[4] and history[-1]["score"] > history[0]["score"]


def test_soft_labels_lead_online_dpo_to_the_optimum():
    """Of rewards that the pairs are compared by: sigmoid(r - r'), not the winner alone, which has no optimum."""
    assert learn("dpo", batch_size=32)[2] <= 0.001


def test_given_pairs_lead_dpo_to_the_optimum():
    """Whatever pairs they are, as long as the labels are probabilities of Bradley and Terry."""
    r = bandit.REWARD
    pairs = [Pair([0], [i], [j], torch.sigmoid(r[i] - r[j]).item()) for i in range(5) for j in range(i)]
    with bandit.float64():
        model = bandit.Bandit()
        fit_preferences(
            model, pairs, loss=pairwise("logistic", bandit.BETA), steps=200, batch_size=10,
            schedule=lambda step: 1 - step / 200, optimizer=lambda parameters: torch.optim.Adam(parameters, 0.05),
        )  # fmt: skip
    assert bandit.variation(model.p, bandit.OPTIMUM) <= 0.001


# a cyclic game, regularised towards MU with tau .5
P = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.95], [0.8, 0.05, 0.5]], dtype=torch.float64)
MU = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
NASH = torch.tensor([0.670105, 0.202025, 0.127871], dtype=torch.float64)


def play(first, second):
    return P[first.ids[:, first.start], second.ids[:, second.start]]


@pytest.mark.parametrize("objective", ["self-play", "ipo"])
def test_playing_against_itself_reaches_the_regularised_nash_equilibrium(objective):
    """No reward explains this preference: each arm beats another."""
    with bandit.float64():
        model = bandit.Bandit(MU)
        align(
            model, [[0]] * 32, prefer=play, objective=objective, beta=0.5, n=8, steps=150, batch_size=32,
            max_new_tokens=1, schedule=lambda step: 1 - step / 150,
            optimizer=lambda parameters: torch.optim.Adam(parameters, 0.05),
        )  # fmt: skip
    assert bandit.variation(model.p, NASH) < 0.03


# ---------------------------------------------------------------------- resume, micro-batches, processes


def score(rollout):
    """How often a completion has an even token."""
    return [sum(token % 2 == 0 for token in completion) / len(completion) for _, completion in rollout.pairs()]


def _online(name):
    torch.manual_seed(0)
    model = Transformer(Config(vocab=10, dim=8, layers=1, heads=2, context=16, pos="learned", dropout=0.3))
    beta = AdaptiveKL(0.05, target=0.1, horizon=100) if name == "rloo" else 0.05
    task = OnlineTask(
        model, score, OBJECTIVES[name], n=4, beta=beta, entropy=0.0, epochs=2, minibatches=2, critic=None,
        sampling={"max_new_tokens": 5, "eos": 0}, temperature=0.7,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2),
    )  # fmt: skip
    return task, Loader(PROMPTS, 4, collate=list)


def rloo():
    return _online("rloo")


def ppo():
    return _online("ppo")


def grpo():
    return _online("grpo")


def dapo():
    return _online("dapo")


def dr_grpo():
    return _online("dr_grpo")


def hinge(margins):
    return (1 - margins.h).clamp(min=0) * margins.p + (1 + margins.h).clamp(min=0) * (1 - margins.p)


def even(first, second):
    return torch.sigmoid(torch.tensor(score(first)) - torch.tensor(score(second)))


def pairs():
    """Online, from a mixture with the reference."""
    torch.manual_seed(0)
    model = Transformer(Config(vocab=10, dim=8, layers=1, heads=2, context=16, pos="learned"))
    sampling = {"max_new_tokens": 5, "eos": 0}
    task = PairTask(
        model, PairObjective(hinge, mix=0.25), prefer=even, sampling=sampling,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2),
    )  # fmt: skip
    return task, Loader(PROMPTS, 4, collate=list)


def given():
    torch.manual_seed(0)
    model = Transformer(Config(vocab=10, dim=8, layers=1, heads=2, context=16, pos="learned"))
    data = [Pair(prompt, [i, 0], [2, i, 0], 1.0 if i % 3 else 0.25) for i, prompt in enumerate(PROMPTS)]
    task = PairTask(model, PairObjective(hinge), optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2))
    return task, Loader(data, 4, collate=list)


MAKES = [rloo, ppo, grpo, dapo, dr_grpo, pairs, given]


@pytest.mark.parametrize("make", MAKES, ids=lambda f: f.__name__)
def test_resume_and_micro_batches_change_nothing(make):
    """Bit for bit after resuming, 1e-8 in micro-batches."""
    check_task(make, only=("resume", "micro"))


def _all():
    return {make.__name__: train(make, 3) for make in MAKES}


def test_two_processes_equal_one():
    """Each with its own random numbers, and the completions of a prompt on one of them."""
    one, two = _all(), launch(2, _all)[0]
    for name in one:
        apart, where = difference(two[name], one[name])
        assert apart < 1e-8, (name, where, apart)


# ---------------------------------------------------------------------- a network


def tiny(**options):
    torch.manual_seed(1)
    return Transformer(Config(vocab=10, dim=16, layers=1, heads=2, context=16, pos="learned", **options))


run = partial(
    align, prompts=PROMPTS, batch_size=8, n=4, max_new_tokens=4, eos=0, beta=0.02,
    optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2),
)  # fmt: skip


def test_adapters_learn_with_their_own_base_as_reference():
    """No second copy: the base is as it was, and the KL begins at 0."""
    model = tiny()
    base = {name: p.clone() for name, p in model.named_parameters()}
    add_lora(model, rank=4, targets=("q", "v", "up", "down"))
    history = run(model, reward=score, steps=30, optimizer=lambda parameters: torch.optim.Adam(parameters, 0.05))
    assert abs(history[0]["kl"]) < 1e-5 and sum(h["kl"] for h in history[-10:]) > 0.1
    assert sum(h["score"] for h in history[-10:]) > sum(h["score"] for h in history[:10])
    frozen = {n.replace(".base", ""): p for n, p in model.named_parameters() if not n.endswith((".a", ".b"))}
    assert all(torch.equal(p, base[name]) for name, p in frozen.items())


@pytest.mark.parametrize("objective", ["gspo", "cispo", "dapo", "nash-md"])
def test_other_objectives_learn(objective):
    how = {"prefer": even} if objective == "nash-md" else {"reward": score}
    history = run(tiny(), objective=objective, steps=25, **how)
    assert sum(h["score"] for h in history[-5:]) > sum(h["score"] for h in history[:5])


def test_an_objective_of_your_own():
    """Any function of the experience: here the score alone, without baseline."""
    mine = replace(OBJECTIVES["rloo"], advantage=lambda e: e.spread(e.score))
    assert len(run(tiny(), reward=score, objective=mine, steps=2)) == 2


def test_groups_of_equal_scores_are_counted_and_move_nothing():
    for objective in ("rloo", "grpo", "dapo"):
        model = tiny()
        before = {name: p.clone() for name, p in model.named_parameters()}
        options = {"beta": 0.0, "reward": lambda r: [0.1] * len(r.ids), "steps": 1, "objective": objective}
        history = run(model, **options)
        assert history[0]["equal_groups"] == 1
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"reward of row 3 is nan; its completion is \["):
        run(tiny(), reward=lambda r: [float("nan") if i == 3 else 0.0 for i in range(len(r.ids))], steps=1)
    with pytest.raises(ValueError, match="number for each of the 32 rows"):
        run(tiny(), reward=lambda r: [0.0], steps=1)
    with pytest.raises(ValueError, match="use one of reinforce, rloo"):
        run(tiny(), reward=score, objective="trpo", steps=1)
    with pytest.raises(ValueError, match="10 tokens and the reference 12"):
        other = Transformer(Config(vocab=12, dim=16, layers=1, heads=2, context=16))
        run(tiny(), reward=score, ref=other, steps=1)
    with pytest.raises(ValueError, match="give prefer"):
        run(tiny(), reward=score, objective="nash-md", steps=1)
    with pytest.raises(ValueError, match="temperature 0"):
        run(tiny(), reward=score, temperature=0.0, steps=1)
