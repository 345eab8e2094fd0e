"""What is kept of a distribution, and that a draw follows it."""

from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare

from gen_core.testing import load
from gen_transformer.sampling import (
    below,
    choose,
    compose,
    greedy,
    min_p,
    repetition,
    sampler,
    temperature,
    top_k,
    top_p,
    uniforms,
)

golden = load(Path(__file__).with_name("generation_golden.py"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("i, options", list(enumerate(golden.WARPS)))
def test_probabilities_are_those_of_transformers(i, options):
    """Random and tied logits, the processors of 5.23.0 in its order: same support, same probabilities."""
    probs = sampler(**options)(golden.logits(), golden.SEEN).softmax(-1)
    theirs = torch.tensor(golden.GOLDEN["warps"][i])
    assert torch.equal(probs > 0, theirs > 0)
    torch.testing.assert_close(probs, theirs, atol=1e-6, rtol=0)


@pytest.mark.peers
def test_probabilities_are_those_of_transformers_live():
    for options in golden.WARPS:
        ours = sampler(**options)(golden.logits(), golden.SEEN).softmax(-1)
        torch.testing.assert_close(ours, golden.warped(**options), atol=1e-6, rtol=0)


def test_temperature_is_a_power_of_the_probabilities():
    probs = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    for t in (0.5, 2.0, 3):
        power = probs ** (1 / t)
        torch.testing.assert_close(temperature(t)(probs.log()).softmax(-1), power / power.sum())


def test_temperature_0_is_the_limit_of_small_ones():
    logits = golden.numbers(5, 9)
    torch.testing.assert_close(temperature(0)(logits).softmax(-1), temperature(1e-4)(logits).softmax(-1))
    assert temperature(0) is greedy


def test_top_k_keeps_what_ties_with_the_last():
    kept = top_k(2)(torch.tensor([[1.0, 3.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]])).isfinite()
    assert kept.tolist() == [[True, True, True, False], [False, False, True, True]]
    assert top_k(99)(golden.logits()).isfinite().all()


@pytest.mark.parametrize("p, kept", [(0.3, 1), (0.5, 1), (0.51, 2), (0.79, 2), (0.81, 3), (0.96, 4), (1.0, 4)])
def test_top_p_keeps_the_token_that_crosses(p, kept):
    """Of .5, .3, .15, .05 the fewest that reach p, and one at least."""
    probs = torch.tensor([[0.15, 0.5, 0.05, 0.3]], dtype=torch.float64)
    assert (top_p(p)(probs.log()).softmax(-1) > 0).sum() == kept


def test_order_matters_and_is_from_left_to_right():
    """A nucleus of the flattened distribution is larger than that of the sharp one."""
    logits = torch.tensor([[0.6, 0.3, 0.08, 0.02]]).log()
    flat_first, flat_last = compose(temperature(3), top_p(0.85)), compose(top_p(0.85), temperature(3))
    assert (flat_first(logits).isfinite().sum(), flat_last(logits).isfinite().sum()) == (3, 2)


def test_repetition_makes_seen_tokens_rarer_whatever_their_sign():
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    assert repetition(2)(logits, torch.tensor([[-1, 0, 1, -1, 0]])).tolist() == [[1.0, -4.0, 2.0, -2.0]]


def test_draws_follow_the_distribution():
    probs = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.29, 0.01, 0.0])
    drawn = choose(probs.expand(20_000, -1), torch.rand(20_000, generator=seeded(0)))
    counts = drawn.bincount(minlength=7).double()
    assert (counts[probs == 0] == 0).all()
    assert chisquare(counts[probs > 0].numpy(), 20_000 * probs[probs > 0].double().numpy()).pvalue > 0.001


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_no_draw_is_a_token_of_probability_0(u):
    """At both ends of [0, 1), whatever 50,000 numbers sum to in float32."""
    probs = torch.rand(64, 50_000, generator=seeded(1)).softmax(-1)
    probs[:, :100] = probs[:, -100:] = 0
    drawn = choose(probs, torch.full((64,), u))
    assert (probs.gather(1, drawn[:, None]) > 0).all()
    assert (drawn == (100 if u == 0 else 49_899)).all()


def test_numbers_of_a_row_depend_on_its_generator_alone():
    u = uniforms(seeded(3), 3, 20)
    assert torch.equal(uniforms(seeded(3), 1, 20), u[:1])
    assert torch.equal(uniforms(seeded(3), 3, 7), u[:, :7])
    own = uniforms([seeded(5), seeded(6)], 2, 4)
    assert torch.equal(own[1:], uniforms(seeded(6), 1, 4))
    assert not torch.equal(u[0], u[1])


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: temperature(-1), "at least 0, got -1"),
        (lambda: top_k(0), "at least 1 token, got 0"),
        (lambda: below(0), "at least 1 token has to remain, got 0"),
        (lambda: top_p(0), "above 0, got 0"),
        (lambda: min_p(1.5), "0 to 1, got 1.5"),
        (lambda: repetition(0), "positive, got 0"),
        (lambda: repetition(2)(golden.logits()), "tokens so far"),
        (lambda: uniforms([seeded(0)], 2, 5), "1 for 2 rows"),
        (lambda: choose(torch.full((1, 3), torch.nan), torch.zeros(1)), "not finite"),
    ],
)
def test_what_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
