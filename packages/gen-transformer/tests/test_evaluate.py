"""Bits per byte in closed form, windows by brute force, log-likelihoods against the model's own softmax."""

import math
from types import SimpleNamespace

import pytest
import torch

from gen_transformer.config import Config
from gen_transformer.evaluate import Score, loglikelihood, multiple_choice, score, score_each
from gen_transformer.model import Transformer
from gen_transformer.tokenizer import characters, train_bpe

TEXT = "Où est la bibliothèque ? 図書館 — the library 📚 is over there.\n" * 3


class Uniform:
    """Every id is as likely as any other."""

    def __init__(self, vocab, context=16):
        self.config = SimpleNamespace(vocab=vocab, context=context)

    def __call__(self, ids, *, doc=None, cache=None):
        return torch.zeros(*ids.shape, 1)

    def logits(self, hidden):
        return hidden.new_zeros(*hidden.shape[:-1], self.config.vocab)

    def cache(self, batch, length):
        raise AssertionError("scoring needs no cache")


class Recency(Uniform):
    """Prefers the ids that it has seen, so every token of context changes the result."""

    def __call__(self, ids, *, doc=None, cache=None):
        return torch.nn.functional.one_hot(ids, self.config.vocab).double().cumsum(1)

    def logits(self, hidden):
        return hidden.sqrt()


@pytest.fixture(scope="module")
def tok():
    return train_bpe([TEXT], 300, specials=["<s>"])


@pytest.fixture(scope="module")
def llama(tok):
    torch.manual_seed(0)
    model = Transformer(Config(vocab=len(tok), dim=32, layers=2, heads=4, kv_heads=2, context=24, dropout=0.3))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("vocab", [300, 280, 270])
def test_a_uniform_model_costs_log2_of_the_vocabulary_per_token(vocab):
    """bits per byte = tokens log2 V / UTF-8 bytes, with characters of 1 to 4 bytes and whatever tokenizer."""
    tok = train_bpe([TEXT], vocab, specials=["<s>"])
    got = score(Uniform(len(tok)), tok, [TEXT, TEXT[:9]], bos=tok.special("<s>"))
    tokens = len(tok.encode(TEXT)) + len(tok.encode(TEXT[:9]))
    size = len(TEXT.encode()) + len(TEXT[:9].encode())
    assert (got.tokens, got.bytes) == (tokens, size)
    assert got.bits_per_byte == pytest.approx(tokens * math.log2(len(tok)) / size, rel=1e-6)
    assert got.perplexity == pytest.approx(len(tok), rel=1e-6)


def test_without_bos_neither_the_first_token_nor_its_bytes_count():
    tok = characters("é😀ab")
    got = score(Uniform(len(tok)), tok, ["😀ab", "é", ""])
    assert (got.tokens, got.bytes) == (2, 2)
    assert got.bits_per_byte == pytest.approx(2.0)


@pytest.mark.parametrize(("context", "stride"), [(16, 16), (16, 5), (16, 1), (7, 3), (1, 1)])
@pytest.mark.parametrize("n", [1, 2, 7, 16, 17, 40])
def test_windows_predict_every_token_once_and_from_all_they_can_see(context, stride, n):
    """Against a loop over tokens that finds each one's window by counting strides."""
    tok = characters(TEXT, specials=["<s>"])
    ids, model = tok.encode(TEXT[:n]), Recency(len(tok))
    row = [tok.special("<s>"), *ids]
    want = 0.0
    for i in range(1, len(row)):
        end = min(len(row) - 1, context + stride * max(0, math.ceil((i - context) / stride)))  # of the token's window
        seen = torch.tensor([row[max(0, end - context) : i]])
        want -= model.logits(model(seen))[0, -1].log_softmax(-1)[row[i]].item()
    got = score(model, tok, [TEXT[:n]], bos=row[0], context=context, stride=stride)
    assert got.tokens == n
    assert got.nats == pytest.approx(want, rel=1e-9)


def test_no_result_depends_on_the_batch_or_on_the_other_texts(llama, tok):
    texts = [TEXT, TEXT[:10], "", TEXT[5:90]]
    want = [score(llama, tok, [t], bos=0, stride=7, batch_size=1).nats if t else 0.0 for t in texts]
    for size in (1, 2, 3, 100):
        got = [s.nats for s in score_each(llama, tok, texts, bos=0, stride=7, batch_size=size)]
        assert got == pytest.approx(want, rel=1e-5)


def test_dropout_is_off_while_scoring_and_modes_are_as_before(llama, tok):
    llama.train()
    llama.blocks[0].eval()
    first, second = (score(llama, tok, [TEXT], bos=0) for _ in range(2))
    assert first == second
    assert llama.training and llama.blocks[1].training and not llama.blocks[0].training


def own_loglikelihood(model, ids, count):
    model.eval()
    with torch.no_grad():
        logp = model.logits(model(torch.tensor([ids[:-1]]))).log_softmax(-1)[0]
    rows = range(len(ids) - 1 - count, len(ids) - 1)
    return sum(logp[i, ids[i + 1]].item() for i in rows), all(logp[i].argmax() == ids[i + 1] for i in rows)


def test_loglikelihood_tokenises_jointly_and_gives_trailing_blanks_to_the_continuation(llama, tok):
    pairs = [
        ("Où est", " la"),
        ("Où est ", "la"),
        ("Où est \n ", "la"),
        ("the li", "brary is"),
        ("", "Où"),
        (" ", "est"),
    ]
    got = loglikelihood(llama, tok, pairs, empty=tok.special("<s>"), batch_size=4)
    for (context, continuation), value in zip(pairs, got, strict=True):
        stem, whole = tok.encode(context.rstrip()), tok.encode(context + continuation)
        ids = (stem or [tok.special("<s>")]) + whole[len(stem) :]
        assert value[0] == pytest.approx(own_loglikelihood(llama, ids, len(whole) - len(stem))[0], rel=1e-5)
    assert got[0] == pytest.approx(got[1], rel=1e-6)  # one text, one split


def test_bos_stands_before_every_context(llama, tok):
    bos, (context, continuation) = tok.special("<s>"), ("the", " library")
    ids, n = tok.encode(context + continuation), len(tok.encode(context))
    want = own_loglikelihood(llama, [bos, *ids], len(ids) - n)
    assert loglikelihood(llama, tok, [(context, continuation)], bos=bos)[0][0] == pytest.approx(want[0], rel=1e-5)
    assert loglikelihood(llama, tok, [("", "the")], bos=bos) == loglikelihood(llama, tok, [("", "the")], empty=bos)


def test_a_long_context_is_cut_on_the_left(llama, tok):
    context, continuation = TEXT.strip(), "\nOù est"
    before = tok.encode(context)
    after = tok.encode(context + continuation)[len(before) :]
    assert len(before) > 24
    want = own_loglikelihood(llama, [*before, *after][-25:], len(after))  # 24 inputs, the last id is only predicted
    assert loglikelihood(llama, tok, [(context, continuation)])[0][0] == pytest.approx(want[0], rel=1e-5)


def test_greedy_is_true_exactly_for_what_greedy_decoding_says(llama):
    tok = characters("abcdefgh")
    ids = tok.encode("a")
    with torch.no_grad():
        llama.eval()
        for _ in range(3):
            ids.append(int(llama.logits(llama(torch.tensor([ids])))[0, -1].argmax()))
    tok = characters("".join(map(chr, range(97, 97 + len(llama.logits(torch.zeros(32)))))))  # a character for each id
    text = tok.decode(ids)
    other = text[:2] + ("a" if text[2] != "a" else "b") + text[3:]
    (_, yes), (_, no) = loglikelihood(llama, tok, [("a", text[1:]), ("a", other[1:])])
    assert yes and not no


def test_multiple_choice_takes_the_likeliest_or_the_likeliest_per_character():
    """A uniform model prefers the shortest choice; per character, one with few tokens for its length."""
    tok = train_bpe(["abcdefgh" * 9], 264)
    assert [len(tok.encode(t)) for t in ("x", "abcdefgh", "xyz")] == [1, 1, 3]
    model = Uniform(len(tok))
    questions = [("q", ["xyz", "x"], 1), ("q", ["xyz", "x"], 0), ("q", ["x", "abcdefgh"], 1)]
    got = multiple_choice(model, tok, questions)
    assert got.plain == pytest.approx(1 / 3)  # x beats xyz; of equally likely ones the first is taken
    assert got.normalised == pytest.approx(2 / 3)  # x and xyz are equal per character: the first


def test_errors_name_what_is_missing(llama, tok):
    with pytest.raises(ValueError, match="no token to predict"):
        score(llama, tok, [""], bos=0)
    with pytest.raises(ValueError, match="stride <= context <= 24, got 30 and 24"):
        score(llama, tok, [TEXT], stride=30)
    with pytest.raises(ValueError, match="nothing stands before 'x'; pass empty="):
        loglikelihood(llama, tok, [("", "x")])
    with pytest.raises(ValueError, match="a continuation has 1 to 24"):
        loglikelihood(llama, tok, [("the", TEXT)])
    with pytest.raises(ValueError, match="a continuation has 1 to 24"):
        loglikelihood(llama, tok, [("the", "")])
    with pytest.raises(ValueError, match="'rary' adds 0 tokens"):  # it merges with its context into one
        loglikelihood(llama, tok, [("the lib", "rary")])
    with pytest.raises(ValueError, match="no questions"):
        multiple_choice(llama, tok, [])
    for answer in (-1, 2):
        with pytest.raises(ValueError, match=f"the answer of question 1 is choice {answer} of 2; count from 0"):
            multiple_choice(llama, tok, [("the", [" a", " b"], 1), ("the", [" a", " b"], answer)])


def test_the_score_of_a_known_cost():
    assert Score(nats=8 * math.log(2), tokens=4, bytes=2).bits_per_byte == pytest.approx(4.0)
    assert Score(nats=8 * math.log(2), tokens=4, bytes=2).perplexity == pytest.approx(4.0)
