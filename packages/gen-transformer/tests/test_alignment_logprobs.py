"""Log-probs of tokens for every kind of model and padding, and sums that no cut of a batch changes."""

import pytest
import torch
import torch.nn.functional as F

from gen_transformer import Config, Transformer
from gen_transformer.alignment import join, masked_mean, reduce, token_logprobs, whiten

PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
COMPLETIONS = [[1, 2], [7, 7, 7], [4]]


def gpt(pos="learned", dropout=0.0, **options):
    torch.manual_seed(0)
    model = Transformer(Config(vocab=12, dim=16, layers=2, heads=2, context=32, pos=pos, dropout=dropout, **options))
    for p in model.parameters():
        p.data.mul_(8)  # far from uniform
    return model.eval()


def peer():
    """A GPT-2 of transformers, with learned positions."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=12, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


HUGGING = pytest.param("hugging face", marks=[pytest.mark.peers, pytest.mark.filterwarnings("ignore")])
PEER = pytest.param(peer, marks=HUGGING.marks)


def hand(model, prompt, completion, temperature=1.0):
    """One row without padding, token by token."""
    values = []
    for i, token in enumerate(completion):
        ids = torch.tensor([[*prompt, *completion[:i]]])
        logits = model(ids).logits if hasattr(model, "generate") else model.logits(model(ids))
        values.append((logits[0, -1] / temperature).log_softmax(0)[token].item())
    return values


@pytest.mark.parametrize("make", [gpt, lambda: gpt("rope"), PEER], ids=["learned", "rope", "hugging face"])
def test_padding_on_either_side_changes_no_logprob(make):
    """A row's positions begin at its first real token, whatever the model does by default."""
    model = make()
    ids, mask, start = join(PROMPTS, COMPLETIONS)
    for temperature in (1.0, 0.7):
        logp = token_logprobs(model, ids, mask, start, temperature)
        for row, m, prompt, completion in zip(logp, mask[:, start:], PROMPTS, COMPLETIONS, strict=True):
            assert row[m].tolist() == pytest.approx(hand(model, prompt, completion, temperature), abs=1e-5)
            assert not row[~m].any()


def test_garbage_in_padding_changes_nothing():
    model = gpt()
    ids, mask, start = join(PROMPTS, COMPLETIONS)
    other = ids.where(mask, 11)
    assert torch.allclose(token_logprobs(model, ids, mask, start), token_logprobs(model, other, mask, start), atol=1e-6)


def test_logprobs_are_cross_entropies_of_the_token_after():
    model, ids = gpt(), torch.tensor([[1, 2, 3]])
    logp = token_logprobs(model, ids, torch.ones(1, 3).bool(), 1)
    expected = -F.cross_entropy(model.logits(model(ids[:, :-1]))[0], ids[0, 1:], reduction="none")
    assert torch.allclose(logp[0], expected)


def test_refusals():
    ids, mask = torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3).bool()
    with pytest.raises(ValueError, match="follows a prompt"):
        token_logprobs(gpt(), ids, mask, 0)
    with pytest.raises(ValueError, match="temperature 0"):
        token_logprobs(gpt(), ids, mask, 1, temperature=0.0)
    with pytest.raises(ValueError, match="Linear is no LanguageModel"):
        token_logprobs(torch.nn.Linear(2, 2), ids, mask, 1)


# ---------------------------------------------------------------------- sums


def some(b=6, t=4):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(b, t, generator=generator, dtype=torch.float64)
    return x, torch.arange(t) < torch.randint(1, t + 1, (b, 1), generator=generator)


@pytest.mark.parametrize("how", ["token", "sequence", "constant"])
def test_parts_of_a_batch_add_up_to_the_batch(how):
    """With one denominator, however the rows are cut; a mean of the means of parts would be another number."""
    x, mask = some()
    denom = {"token": mask.sum(), "sequence": len(x), "constant": 17.0}[how]
    whole = reduce(x, mask, how, denom)
    for cut in (1, 2, 4):
        parts = [reduce(a, m, how, denom) for a, m in zip(x.split(cut), mask.split(cut), strict=True)]
        assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-12)


def test_reductions_by_hand():
    x, mask = torch.tensor([[1.0, 2.0, 3.0], [8.0, 9.0, float("nan")]]), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    assert [reduce(x, mask, how).item() for how in ("token", "sequence", "constant")] == [3.5, 5.0, 7.0]
    assert reduce(x, mask, "constant", denom=2 * 3).item() == pytest.approx(14 / 6)
    assert reduce(x, torch.zeros_like(mask), "sequence").item() == 0


def test_masked_means_by_hand():
    x, mask = torch.tensor([[1.0, 2.0, 3.0], [8.0, 9.0, float("nan")]]), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    assert masked_mean(x, mask).item() == 3.5
    assert masked_mean(x, mask, 1).tolist() == [2.0, 8.0] and masked_mean(x, mask, 0).tolist() == [4.5, 2.0, 3.0]


def test_whitening():
    """Mean 0 and unbiased variance 1 over the mask, 0 elsewhere; of one number 0."""
    x, mask = some()
    y = whiten(x, mask)
    assert y[mask].mean().item() == pytest.approx(0, abs=1e-12) and y[mask].var().item() == pytest.approx(1, abs=1e-6)
    assert not y[~mask].any()
    kept = whiten(x + 5, mask, shift_mean=False)
    assert kept[mask].mean().item() == pytest.approx((x[mask] + 5).mean().item()) and not kept[~mask].any()
    one = torch.zeros(2, 2).bool()
    one[0, 0] = True
    assert not whiten(torch.full((2, 2), 3.0), one).any()


def test_whitening_of_parts_is_that_of_the_whole():
    x, mask = some()
    parts = [(x[:2], mask[:2]), (x[2:], mask[2:])]
    got = []
    sums = [mask.sum(), x.where(mask, 0).sum()]
    mean = sums[1] / sums[0]
    sums.append((x - mean).where(mask, 0).square().sum())
    for a, m in parts:
        stage = iter(sums)
        got.append(whiten(a, m, total=lambda _, stage=stage: next(stage)))
    assert torch.allclose(torch.cat(got), whiten(x, mask))
