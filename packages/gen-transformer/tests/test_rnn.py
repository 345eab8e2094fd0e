"""Recurrent language models: equations by hand, documents apart, and a source whose entropy is known."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gen_core.testing import load
from gen_transformer.generate import complete
from gen_transformer.rnn import CharRNN, RNNConfig
from gen_transformer.sampling import sampler, temperature

Markov = load(Path(__file__).with_name("markov.py")).Markov
CELLS = ["rnn", "lstm", "gru"]


def made(cell: str = "lstm", vocab: int = 7, layers: int = 2) -> CharRNN:
    torch.manual_seed(0)
    return CharRNN(RNNConfig(vocab=vocab, dim=9, layers=layers, cell=cell)).double().eval()


def test_an_lstm_is_its_equations_on_one_hot_characters():
    """One-hot input means that a character picks a column of the input matrix; gates in the order i, f, g, o."""
    model, ids = made(layers=1), torch.tensor([[3, 1, 6, 1]])
    w, u, b = model.rnn.weight_ih_l0, model.rnn.weight_hh_l0, model.rnn.bias_ih_l0 + model.rnn.bias_hh_l0
    h = c = torch.zeros(9, dtype=torch.float64)
    for t, char in enumerate(ids[0]):
        i, f, g, o = (w[:, char] + u @ h + b).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        torch.testing.assert_close(model(ids)[0, t], h, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.logits(h), model.head.weight @ h)


@pytest.mark.parametrize("cell", CELLS)
def test_packed_documents_are_read_as_if_each_were_alone(cell: str):
    model, g = made(cell), torch.Generator().manual_seed(1)
    ids = torch.randint(7, (2, 12), generator=g)
    doc = torch.tensor([[-1, -1, 0, 0, 0, 1, 1, 1, 1, 2, -1, -1], [4, 4, 4, 4, 4, 4, 7, 9, 9, 9, 9, 9]])
    hidden = model(ids, doc=doc)
    for row, own in enumerate(doc):
        for d in own.unique():
            alone = model(ids[row, own == d][None])[0]
            want = torch.zeros_like(alone) if d < 0 else alone
            torch.testing.assert_close(hidden[row, own == d], want, rtol=0, atol=1e-12)


def test_nothing_leaks_into_the_next_document_not_even_a_gradient():
    model = made("gru")
    ids, doc = torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([[0, 0, 0, 1, 1, 1]])
    other = ids.clone()
    other[0, :3] = torch.tensor([6, 6, 0])
    assert torch.equal(model(ids, doc=doc)[0, 3:], model(other, doc=doc)[0, 3:])
    assert not torch.equal(model(ids)[0, 3:], model(other)[0, 3:])
    model(ids, doc=doc)[0, 3:].sum().backward()
    gradient = model.rnn.weight_ih_l0.grad.abs().sum(0)
    assert (gradient[[1, 2, 3]] == 0).all() and (gradient[[4, 5, 6]] > 0).all()


@pytest.mark.parametrize("cell", CELLS)
def test_many_to_one_is_the_last_step_of_many_to_many(cell: str):
    """Of every row, whatever its length and wherever its padding."""
    model, ids = made(cell), torch.randint(7, (3, 8), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model.last(ids), model(ids)[:, -1])
    doc = torch.tensor([[0] * 8, [0] * 5 + [-1] * 3, [-1] * 6 + [0, 0]])
    hidden = model(ids, doc=doc)
    ends = torch.stack([hidden[0, 7], hidden[1, 4], hidden[2, 7]])
    torch.testing.assert_close(model.last(ids, doc=doc), ends, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_calls_that_go_on_equal_one_call(cell: str):
    model, ids = made(cell), torch.randint(7, (2, 9), generator=torch.Generator().manual_seed(3))
    doc = torch.tensor([[-1, -1, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 2, 2, 2, 2, 2, 2]])
    for given in (None, doc):
        cache, parts = model.cache(2, 9), []
        for start, end in ((0, 4), (4, 5), (5, 9)):
            parts.append(model(ids[:, start:end], doc=None if given is None else given[:, start:end], cache=cache))
        assert cache.used == 9
        torch.testing.assert_close(torch.cat(parts, 1), model(ids, doc=given), rtol=0, atol=1e-12)


def test_new_characters_go_on_in_the_last_document():
    model, ids = made(), torch.tensor([[5, 1, 2, 3, 4]])
    cache = model.cache(1, 5)
    model(ids[:, :3], doc=torch.tensor([[-1, 8, 8]]), cache=cache)
    torch.testing.assert_close(model(ids[:, 3:], cache=cache), model(ids[:, 1:])[:, 2:], rtol=0, atol=1e-12)


def test_characters_can_be_taken_back_and_rows_reordered():
    """A crop into the middle of a call, as after rejected drafts, and the rows of a beam."""
    model, ids = made(), torch.randint(7, (2, 8), generator=torch.Generator().manual_seed(4))
    cache = model.cache(2, 20)
    model(ids[:, :3], cache=cache)
    model(torch.cat((ids[:, 3:5], 6 - ids[:, 5:7]), 1), cache=cache)  # two right, two wrong
    cache.crop(5)
    assert cache.used == 5
    torch.testing.assert_close(model(ids[:, 5:6], cache=cache), model(ids)[:, 5:6], rtol=0, atol=1e-12)
    cache.crop(5)
    cache.reorder(torch.tensor([1, 1, 0]))
    rows = ids[[1, 1, 0]]
    torch.testing.assert_close(model(rows[:, 5:], cache=cache), model(rows)[:, 5:], rtol=0, atol=1e-12)


def test_draws_after_a_seed_phrase_follow_the_softmax_at_the_temperature():
    """Sixteen thousand draws at temperature .5 and 2 by Pearson's chi-squared; the coldest is the likeliest."""
    model = made("gru", vocab=5)
    model.head.weight.data *= 8
    seed = torch.tensor([[2, 0, 4, 1]])
    logits = model.logits(model.last(seed))[0]
    for t in (0.5, 2.0):
        g = torch.Generator().manual_seed(5)
        drawn = complete(model, seed.expand(16_000, -1), 1, warp=temperature(t), generator=g)
        expected = 16_000 * (logits / t).softmax(0).detach()
        chi2 = ((drawn.flatten().bincount(minlength=5) - expected).square() / expected).sum().item()
        assert chi2 < 18.5  # p = .001 with 4 degrees of freedom
    cold = complete(model, seed, 12, warp=sampler(0.0))[0]
    for n in range(12):
        assert cold[n] == model.logits(model.last(torch.cat((seed[0], cold[:n]))[None])).argmax()


def test_drafts_and_padding_leave_the_text_as_it_is():
    """The state goes back when a draft is rejected; rows with padding on their left say what they say alone."""
    model, draft = made("lstm", vocab=5), made("rnn", vocab=5)
    ids, doc = torch.tensor([[3, 1, 2], [0, 0, 4]]), torch.tensor([[0, 0, 0], [-1, -1, 0]])
    want = [complete(model, row[own >= 0][None], 15, warp=sampler(0.0))[0] for row, own in zip(ids, doc, strict=True)]
    assert torch.equal(complete(model, ids, 15, doc=doc, warp=sampler(0.0)), torch.stack(want))
    assert torch.equal(complete(model, ids, 15, doc=doc, warp=sampler(0.0), draft=draft), torch.stack(want))


def learned(source, steps: int) -> CharRNN:
    """An RNN after `steps` batches of fresh text."""
    torch.manual_seed(0)
    model = CharRNN(RNNConfig(vocab=source.symbols, dim=32, cell="rnn"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=steps)
    text = source.draw(32 * steps // 20, 20 * 32 + 1).unfold(1, 33, 32).flatten(0, 1)
    for ids in text[torch.randperm(len(text), generator=source.generator)].split(32):
        loss = F.cross_entropy(model.logits(model(ids[:, :-1])).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def excess(model: CharRNN, source, ids: Tensor) -> Tensor:
    """-log q + log p of every symbol that has two before it: its mean is a divergence, 0 at best."""
    logits = model.logits(model(ids[:, :-1]))[:, 1:].double()
    return F.cross_entropy(logits.transpose(1, 2), ids[:, 2:], reduction="none") - source.nll(ids)


def test_a_markov_source_is_learned_to_its_entropy_rate_and_never_below():
    """H is -sum p(a, b) p(c | a, b) log p(c | a, b); an NLL below it could only come from seeing the answer."""
    source = Markov(4)
    model = learned(source, 400)
    ids = source.draw(256, 402)
    gap = excess(model, source, ids)
    own = source.nll(ids)
    error = own.mean(1).std().item() / 16  # of the mean over the rows
    assert own.mean().item() == pytest.approx(source.entropy_rate(), abs=4 * error)
    assert 0 < gap.mean().item() < 0.01


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="id 7 is outside of the vocabulary"):
        made()(torch.tensor([[7]]))
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        RNNConfig(vocab=3, dim=4, layers=0)
    model = made()
    with pytest.raises(ValueError, match="holds 3 tokens and 4 are needed"):
        model(torch.zeros(1, 4, dtype=torch.long), cache=model.cache(1, 3))
