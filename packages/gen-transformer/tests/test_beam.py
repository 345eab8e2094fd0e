"""Beam search against all sequences there are, and against transformers."""

from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gen_core.testing import load
from gen_transformer.beam import beam_search
from gen_transformer.config import Config
from gen_transformer.generate import complete
from gen_transformer.hf import save
from gen_transformer.model import EncoderDecoder, Transformer
from gen_transformer.prompt import left_pad
from gen_transformer.rnn import CharRNN, RNNConfig
from gen_transformer.sampling import greedy

golden = load(Path(__file__).with_name("generation_golden.py"))


def transformer(seed: int, vocab: int = 5) -> Transformer:
    model = Transformer(Config(vocab=vocab, dim=16, layers=2, heads=2, kv_heads=1, context=32)).eval()
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.6, generator=generator)
    return model


@torch.no_grad()
def all_continuations(model: Transformer, prompt: list[int], n: int) -> tuple[Tensor, Tensor]:
    """Every sequence of n tokens and its log-probability, best first, by one pass over all of them."""
    every = torch.tensor(list(product(range(model.config.vocab), repeat=n)))
    text = torch.cat((torch.tensor(prompt).expand(len(every), -1), every), dim=1)
    logp = model.logits(model(text)).log_softmax(-1)[:, len(prompt) - 1 : -1]
    scores, order = logp.gather(2, every[..., None]).sum((1, 2)).sort(descending=True)
    return every[order], scores


def test_several_ends_are_each_an_end():
    """Two ids in a list; a list of one is that one."""
    model, ids = transformer(3), torch.tensor([[1, 2]])
    one, many = (beam_search(model, ids, 5, width=3, eos=eos) for eos in (0, [0]))
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
    sequences, scores = beam_search(model, ids, 4, width=64, eos=[0, 3])
    for row, score in zip(sequences[0].tolist(), scores[0].tolist(), strict=True):
        text = [i for i in row if i >= 0]
        assert score == -torch.inf or not {0, 3} & {*text[:-1]}
        assert score == -torch.inf or len(text) == 4 or text[-1] in (0, 3)


def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all_625_sequences():
    model, prompt = transformer(3), [1, 2]
    every, scores = all_continuations(model, prompt, 4)
    best, found = beam_search(model, torch.tensor([prompt]), 4, width=125)
    assert torch.equal(best[0], every[:125])
    torch.testing.assert_close(found[0], scores[:125])
    alone = complete(model, torch.tensor([prompt]), 4, warp=greedy)
    assert not torch.equal(alone[0], best[0, 0])  # or the search would have nothing to find


@pytest.mark.parametrize("penalty", [0.0, 1.0, -1])
def test_with_an_end_a_wide_beam_finds_the_best_of_all_sequences_that_end(penalty):
    """Those that hold the end earlier are one sequence, shorter; a score is the sum over length^penalty."""
    model, prompt, eos, n = transformer(0), [3], 0, 4
    every, _ = all_continuations(model, prompt, n)
    cut = {tuple(row[: row.index(eos) + 1] if eos in row else row) for row in every.tolist()}
    score = {}
    for length in range(1, n + 1):
        some, sums = all_continuations(model, prompt, length)
        score |= {tuple(row): s / length**penalty for row, s in zip(some.tolist(), sums.tolist(), strict=True)}
    expected = sorted(cut, key=score.__getitem__, reverse=True)[:10]
    best, found = beam_search(model, torch.tensor([prompt]), n, width=125, length_penalty=penalty, eos=eos)
    assert [tuple(t for t in row if t >= 0) for row in best[0, :10].tolist()] == expected
    assert found[0, :10].tolist() == pytest.approx([score[row] for row in expected], abs=1e-5)
    assert len({len(row) for row in expected}) > 1


@pytest.mark.parametrize("i", range(len(golden.BEAMS)))
def test_sequences_and_scores_are_those_of_transformers(i):
    """Left-padded prompts, `early_stopping="never"` of 5.23.0: it stops when nothing can improve, as we do."""
    width, penalty, eos = golden.BEAMS[i]
    ids, doc = left_pad(golden.PROMPTS)
    found, scores = beam_search(golden.llama(), ids, 8, width, length_penalty=penalty, eos=eos, doc=doc)
    theirs, their_scores = map(torch.tensor, golden.GOLDEN["beams"][i])
    assert torch.equal(F.pad(found, (0, 8), value=-1)[..., :8], theirs)
    torch.testing.assert_close(scores, their_scores, atol=2e-5, rtol=0)


@pytest.mark.peers
def test_sequences_and_scores_are_those_of_transformers_live():
    model = golden.llama()
    peer = golden.theirs(model)
    ids, doc = left_pad(golden.PROMPTS)
    for width, penalty, eos in golden.BEAMS:
        found, scores = beam_search(model, ids, 8, width, length_penalty=penalty, eos=eos, doc=doc)
        theirs, their_scores = golden.beams(peer, width, penalty, eos)
        assert torch.equal(F.pad(found, (0, 8), value=-1)[..., :8], theirs)
        torch.testing.assert_close(scores, their_scores, atol=1e-5, rtol=0)


@pytest.mark.peers
def test_translations_are_those_of_marian_live(tmp_path):
    """Left-padded sources, the decoder's first token of the peer, ends at 3."""
    from transformers import MarianMTModel

    half = {"vocab": 13, "dim": 16, "layers": 2, "heads": 2, "context": 32, "norm": "layer", "post_norm": True}
    half |= {"pos": "sinusoidal_halves", "mlp": "gelu", "bias": "all", "tie": True}
    pair = EncoderDecoder(Config(**half, causal=False), Config(**half)).eval()
    for i, p in enumerate(pair.parameters()):
        torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=0.4, generator=torch.Generator().manual_seed(i))
    save(pair, tmp_path)
    peer = MarianMTModel.from_pretrained(tmp_path).eval()
    source, source_doc = left_pad([[1, 2, 3, 4, 5], [6, 5]])
    for width, penalty in ((1, 1.0), (2, 0.0), (4, 1.0)):
        theirs = peer.generate(
            source,
            attention_mask=(source_doc >= 0).long(),
            num_beams=width,
            length_penalty=penalty,
            early_stopping="never" if width > 1 else False,
            max_new_tokens=10,
            do_sample=False,
            eos_token_id=3,
        )[:, 1:]
        first = torch.full((2, 1), peer.config.decoder_start_token_id)
        ours = beam_search(pair.given(source, source_doc), first, 10, width, length_penalty=penalty, eos=3)[0][:, 0]
        for mine, their in zip(ours.tolist(), theirs.tolist(), strict=True):
            text = [token for token in mine if token >= 0]
            assert text == their[: len(text)]
            assert len(text) == len(their) or text[-1] == 3


def test_width_1_is_greedy_and_rows_do_not_depend_on_each_other():
    model, prompts = transformer(2, vocab=11), [[3, 1, 4], [9], [2, 6]]
    ids, doc = left_pad(prompts)
    assert torch.equal(beam_search(model, ids, 9, 1, doc=doc)[0][:, 0], complete(model, ids, 9, doc=doc, warp=greedy))
    together, scores = beam_search(model, ids, 9, 3, doc=doc)
    for i, prompt in enumerate(prompts):
        alone, score = beam_search(model, torch.tensor([prompt]), 9, 3)
        assert torch.equal(alone[0], together[i])
        torch.testing.assert_close(score[0], scores[i], atol=1e-5, rtol=0)


def test_scores_of_a_translation_and_of_a_recurrent_network_are_those_of_the_whole_text():
    """Were cached rows not reordered with the beams, later tokens would be scored after another text."""
    torch.manual_seed(0)
    decoder = Config(vocab=7, dim=16, layers=2, heads=2, context=32)
    pair = EncoderDecoder(Config(vocab=7, dim=16, layers=1, heads=2, context=32, causal=False), decoder).eval()
    rnn = CharRNN(RNNConfig(vocab=7, dim=16)).eval()
    for p in [*pair.parameters(), *rnn.parameters()]:
        torch.nn.init.normal_(p, std=0.5)
    source, source_doc = left_pad([[1, 2, 3, 4, 5], [6, 5]])
    for model in (pair.given(source, source_doc), rnn):
        found, scores = beam_search(model, torch.zeros(2, 1).long(), 6, 3)
        text = F.pad(found, (1, 0)).flatten(0, 1)
        with torch.no_grad():
            logp = model.logits(model(text))[:, :-1].log_softmax(-1)
        again = logp.gather(2, text[:, 1:, None]).sum((1, 2)).reshape(2, 3)
        torch.testing.assert_close(scores, again, atol=1e-5, rtol=0)
        assert (scores.diff(dim=1) <= 0).all()


def test_what_is_refused():
    with pytest.raises(ValueError, match="at least 1 wide, got 0"):
        beam_search(transformer(0), torch.tensor([[1]]), 4, 0)
    with pytest.raises(ValueError, match="the prompt is empty"):
        beam_search(transformer(0), torch.zeros(1, 0).long(), 4, 2)
