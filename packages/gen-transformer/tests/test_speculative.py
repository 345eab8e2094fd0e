"""Speculative decoding: whatever the draft says, the text is distributed as the model's own."""

from dataclasses import dataclass

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from gen_transformer.config import Config
from gen_transformer.generate import complete, generate
from gen_transformer.model import EncoderDecoder, Transformer
from gen_transformer.prompt import left_pad
from gen_transformer.rnn import CharRNN, RNNConfig
from gen_transformer.sampling import choose, greedy, min_p, sampler, temperature, top_k, top_p
from gen_transformer.speculative import Tally, judge

WARPS = {
    "T=1": temperature(1),
    "T=.5": temperature(0.5),
    "top_k 2": top_k(2),
    "top_p .9": top_p(0.9),
    "top_p .7": top_p(0.7),
    "top_p .5": top_p(0.5),
    "min_p .3": min_p(0.3),
    "greedy": greedy,
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Tokens:
    used: int = 0

    def crop(self, length: int) -> None:
        self.used = min(self.used, length)


class Markov:
    """A language model whose next token depends on the last one alone."""

    def __init__(self, seed: int, vocab: int = 6):
        self.table = 1.5 * torch.randn(vocab, vocab, generator=seeded(seed))
        self.config = Config(vocab=vocab, dim=vocab, layers=1, heads=1, pos="none")

    def __call__(self, ids: Tensor, *, doc: Tensor | None = None, cache: Tokens | None = None) -> Tensor:
        if cache is not None:
            cache.used += ids.shape[1]
        return self.table[ids]

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def cache(self, batch: int, length: int) -> Tokens:
        return Tokens()


def transformer(seed: int, dim: int = 16, layers: int = 1, **more) -> Transformer:
    model = Transformer(Config(vocab=13, dim=dim, layers=layers, heads=2, context=64, **more)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4, generator=seeded(seed))
    return model


def rounds(p: Tensor, q: Tensor, rows: int, k: int) -> tuple[Tensor, Tensor]:
    """What `rows` rounds from token 0 give, `(rows, k + 1)` with -1 where a round was over, and how many stood."""
    u = torch.rand(rows, k + 1, 3, generator=seeded(1))
    text = torch.zeros(rows, k + 1, dtype=torch.long)
    for i in range(k):
        text[:, i + 1] = choose(q[text[:, i]], u[:, i, 0])
    stood, token = judge(p[text], q[text[:, :-1]], text[:, 1:], u)
    out = torch.cat((text[:, 1:], torch.zeros(rows, 1, dtype=torch.long)), dim=1)
    out[torch.arange(rows), stood] = token
    return out.where(torch.arange(k + 1) <= stood[:, None], -1), stood


def check_counts(drawn: Tensor, p: Tensor) -> None:
    """Tokens of probability 0 do not occur, the others as often as chi squared lets them."""
    counts, possible = drawn.bincount(minlength=len(p)).double(), p > 0
    assert (counts[~possible] == 0).all()
    expected = len(drawn) * p[possible].double() / p.double().sum()
    if len(expected) > 1 and expected.min() >= 5:
        assert chisquare(counts[possible].numpy(), expected.numpy()).pvalue > 0.001


@pytest.mark.parametrize("name", WARPS)
def test_rounds_have_the_distribution_of_the_model_alone(name):
    """20,000 rounds of two Markov models; acceptance by unwarped probabilities or a warped residual fail here."""
    p, q = (WARPS[name](Markov(seed).table).softmax(-1) for seed in (0, 1))
    out, stood = rounds(p, q, 20_000, k=3)
    first = out[:, 0].bincount(minlength=6) / len(out)
    assert (first - p[0]).abs().sum() / 2 < 0.012
    before = torch.cat((torch.zeros(len(out), 1, dtype=torch.long), out[:, :-1]), dim=1)
    for state in range(6):
        check_counts(out[(before == state) & (out >= 0)], p[state])
    if name != "greedy":
        assert 0 < stood.float().mean() < 3


@pytest.mark.parametrize("name", WARPS)
def test_as_many_guesses_stand_as_the_distributions_share(name):
    """P(accept) = sum of min(p, q): [Leviathan23] theorem 3.5."""
    p, q = (WARPS[name](Markov(seed).table).softmax(-1) for seed in (0, 1))
    _, stood = rounds(p, q, 20_000, k=1)
    assert stood.float().mean().item() == pytest.approx(torch.minimum(p[0], q[0]).sum().item(), abs=0.012)


@pytest.mark.parametrize("name", ["T=1", "top_k 2", "top_p .7", "min_p .3"])
def test_texts_have_the_distribution_of_the_model_alone(name):
    """The same from end to end, caches and all, by the transitions of a long text."""
    model, draft = Markov(2), Markov(3)
    text = complete(model, torch.zeros(1, 1).long(), 800, warp=WARPS[name], draft=draft, generator=seeded(0))[0]
    p = WARPS[name](model.table).softmax(-1)
    for state in range(6):
        check_counts(text[1:][text[:-1] == state], p[state])


def test_greedy_text_is_that_of_the_model_alone_on_200_pairs():
    """Acceptance by the softmax at temperature 0, as if it were 1, gives other tokens in some of them."""
    tally, start = Tally(), torch.zeros(1, 1).long()
    for seed in range(200):
        model, draft = Markov(seed), Markov(seed + 1000)
        draft.table += model.table
        plain = complete(model, start, 8, warp=greedy)
        assert torch.equal(complete(model, start, 8, warp=greedy, draft=draft, k=3, tally=tally), plain)
    assert 0.2 < tally.acceptance < 0.9


@pytest.mark.parametrize("warp", [temperature(1), greedy, sampler(0.9, k=5, p=0.8, r=1.3)])
def test_a_draft_that_is_the_model_is_always_right_and_changes_no_text(warp):
    model, tally = transformer(0, layers=2), Tally()
    ids, doc = left_pad([[1, 2, 3, 4], [5], [6, 7]])
    plain = complete(model, ids, 17, doc=doc, warp=warp, generator=seeded(3))
    same = complete(model, ids, 17, doc=doc, warp=warp, generator=seeded(3), draft=model, k=5, tally=tally)
    assert torch.equal(plain, same)
    assert tally.acceptance == 1 and tally.proposed == 3 * 14


def test_repetition_sees_in_a_guessed_text_what_it_would_see_without_a_draft():
    model, draft = transformer(1, layers=2), transformer(2)
    warp = sampler(0, r=1.8)
    ids, doc = left_pad([[1, 2, 3], [4]])
    with_draft = complete(model, ids, 20, doc=doc, warp=warp, draft=draft)
    assert torch.equal(with_draft, complete(model, ids, 20, doc=doc, warp=warp))
    assert not torch.equal(with_draft, complete(model, ids, 20, doc=doc, warp=greedy))


@pytest.mark.parametrize("draft", [None, transformer(2)])
def test_a_packed_prompt_goes_on_as_its_last_document_alone(draft):
    """Attention, positions and the tokens that repetition knows of."""
    model, warp = transformer(1, layers=2), sampler(0, r=1.8)
    ids, doc = torch.tensor([[7, 8, 9, 10, 11, 12, 1, 2, 3]]), torch.tensor([[0] * 3 + [1] * 3 + [2] * 3])
    alone = complete(model, ids[:, 6:], 20, warp=warp)
    assert torch.equal(complete(model, ids, 20, doc=doc, warp=warp, draft=draft), alone)


def test_rows_do_not_depend_on_each_other():
    model, draft = transformer(3, layers=2), transformer(4)
    prompts = [[1, 2, 3, 4], [5], [6, 7]]
    ids, doc = left_pad(prompts)
    together = complete(model, ids, 12, doc=doc, draft=draft, generator=[seeded(i) for i in range(3)])
    for i, prompt in enumerate(prompts):
        alone = complete(model, torch.tensor([prompt]), 12, draft=draft, generator=seeded(i))
        assert torch.equal(alone[0], together[i])


def test_a_translation_and_a_recurrent_network_speculate_too():
    torch.manual_seed(0)
    cfg = Config(vocab=13, dim=16, layers=1, heads=2, context=32)
    pair = EncoderDecoder(Config(vocab=13, dim=16, layers=1, heads=2, context=32, causal=False), cfg).eval()
    for p in pair.parameters():
        torch.nn.init.normal_(p, std=0.3)
    source, source_doc = left_pad([[1, 2, 3, 4, 5], [6, 7]])
    rnn = CharRNN(RNNConfig(vocab=13, dim=8)).eval()
    start = torch.zeros(2, 1).long()
    for model, draft in ((pair.given(source, source_doc), rnn), (rnn, pair.given(source, source_doc))):
        plain = complete(model, start, 10, warp=greedy)
        assert torch.equal(complete(model, start, 10, warp=greedy, draft=draft), plain)


@pytest.mark.parametrize(
    "options, said",
    [({"draft": Markov(0, 5)}, "5 tokens and the model 6"), ({"draft": Markov(0), "k": 0}, "at least 1 token ahead")],
)
def test_what_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        generate(Markov(0), torch.zeros(1, 1).long(), 3, **options)
