"""Rollouts: their log-probs are those of a teacher-forced pass; where a completion ends; mixtures."""

from pathlib import Path

import pytest
import torch

from gen_core.testing import load
from gen_transformer.alignment import rollout, token_logprobs

models = load(Path(__file__).with_name("test_alignment_logprobs.py"))
PROMPTS = models.PROMPTS


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", ["learned", "rope", models.HUGGING])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.8}])
def test_logprobs_of_sampling_are_those_of_learning(kind, sampling):
    """Prompts of several lengths, with a cache there and without here."""
    model = models.peer() if kind == "hugging face" else models.gpt(kind)
    r = rollout(model, PROMPTS, n=4, max_new_tokens=6, eos=[4, 7], generator=seeded(), **sampling)
    assert r.completion_mask.sum(1).unique().numel() > 1  # some end early
    with torch.no_grad():
        again = token_logprobs(model, r.ids, r.mask, r.start, **sampling)
    assert torch.allclose(r.logp, again, atol=1e-5) and r.group.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_dropout_takes_no_part():
    model = models.gpt(dropout=0.5).train()
    r = rollout(model, PROMPTS, max_new_tokens=5, generator=seeded())
    assert model.training
    with torch.no_grad():
        again = token_logprobs(model.eval(), r.ids, r.mask, r.start)
    assert torch.allclose(r.logp, again, atol=1e-5)


def test_a_completion_ends_with_its_first_end_of_text():
    """The first is real and learned, whatever follows is padding, also where padding is the same id (0)."""
    model = models.gpt()
    r = rollout(model, [[5, 0, 3], [0]], n=16, max_new_tokens=8, eos=0, generator=seeded(1))
    seen = {True: 0, False: 0}
    for (prompt, completion), ended, m in zip(r.pairs(), r.ended.tolist(), r.completion_mask, strict=True):
        assert prompt in ([5, 0, 3], [0]) and 0 not in completion[:-1]
        assert ended == (completion[-1] == 0) and (ended or len(completion) == 8)
        assert m.int().diff().max() <= 0  # no real token after padding
        seen[ended] += 1
    assert all(seen.values())
    assert not r.logp[~r.completion_mask].any()


def test_without_end_of_text_all_have_the_same_length():
    r = rollout(models.gpt(), PROMPTS, max_new_tokens=4, generator=seeded())
    assert r.completion_mask.all() and not r.ended.any()


def test_rows_depend_on_their_own_generator_alone():
    """So rows may be computed on any process, in any company."""
    model, streams = models.gpt(), lambda rows: [torch.Generator().manual_seed(i) for i in rows]
    together = rollout(model, PROMPTS, n=2, max_new_tokens=6, eos=7, generator=streams(range(6))).pairs()
    for i, prompt in enumerate(PROMPTS):
        own = streams([2 * i, 2 * i + 1])
        alone = rollout(model, [prompt], n=2, max_new_tokens=6, eos=7, generator=own)
        assert alone.pairs() == together[2 * i : 2 * i + 2]


def test_a_mixture_is_geometric_in_each_token():
    """policy^(1 - alpha) ref^alpha, normalised; alpha 0 is the policy, alpha 1 the reference."""
    policy, ref = models.gpt(), models.gpt("rope")
    for alpha in (0.0, 0.25, 1.0):
        r = rollout(
            policy, PROMPTS, n=2, max_new_tokens=5, eos=7, temperature=0.7, mix=(ref, alpha), generator=seeded()
        )
        doc = r.mask.long() - 1
        with torch.no_grad():
            a, b = (m.logits(m(r.ids, doc=doc)) for m in (policy, ref))
        mixed = (((1 - alpha) * a + alpha * b) / 0.7).log_softmax(-1)[:, r.start - 1 : -1]
        expected = mixed.gather(2, r.ids[:, r.start :, None])[..., 0].where(r.completion_mask, 0)
        assert torch.allclose(r.logp, expected, atol=1e-5)


def test_greedy_is_certain():
    r = rollout(models.gpt(), PROMPTS, n=2, max_new_tokens=4, temperature=0)
    assert torch.equal(r.ids[::2], r.ids[1::2]) and not r.logp.any()


def test_samples_can_be_learned_from():
    """They come from inference, and a loss may still keep them for its backward pass."""
    model = models.gpt()
    r = rollout(model, PROMPTS, max_new_tokens=4, generator=seeded())
    (r.logp * token_logprobs(model, r.ids, r.mask, r.start)).sum().backward()


def test_refusals():
    model = models.gpt()
    with pytest.raises(ValueError, match="at least 1 prompt"):
        rollout(model, [], max_new_tokens=2)
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        rollout(model, [[1], []], max_new_tokens=2)
    with pytest.raises(ValueError, match="one vocabulary"):
        small = load(Path(__file__).with_name("bandit.py")).Bandit()
        rollout(model, PROMPTS, max_new_tokens=2, mix=(small, 0.5))
    with pytest.raises(ValueError, match="share of the reference"):
        rollout(model, PROMPTS, max_new_tokens=2, mix=(model, 1.5))
