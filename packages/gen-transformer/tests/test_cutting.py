"""Texts cut at blanks have the ids of the whole text, whatever the pre-tokeniser; where they might not, none is cut."""

import json
import random
from itertools import chain

import pytest
import tokenizers
from tokenizers import Regex, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre

from gen_transformer.cutting import PIECE, cut, cuttable
from gen_transformer.tokenizer import GPT2, GPT4, Tokenizer, characters, train_bpe

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre.ByteLevel(add_prefix_space=False, use_regex=False)


def split(pattern, behavior="isolated", invert=False):
    return pre.Split(Regex(pattern), behavior, invert)


CUT = {
    "ours": pre.Sequence([split(GPT4), BYTES]),
    "ours of 2019": pre.Sequence([split(GPT2), BYTES]),
    "Llama 3": pre.Sequence([split(LLAMA3), BYTES]),
    "Qwen": pre.Sequence([split(LLAMA3.replace("{1,3}", "")), BYTES]),
    "o200k": pre.Sequence([split(O200K), BYTES]),
    "GPT-2": pre.ByteLevel(add_prefix_space=False),
    "RoBERTa": pre.ByteLevel(add_prefix_space=True),
    "Falcon": pre.Sequence(
        [pre.Punctuation("contiguous"), pre.ByteLevel(add_prefix_space=False), pre.Digits(), split("[0-9][0-9][0-9]")]
    ),
    "BERT": pre.BertPreTokenizer(),
    "words": pre.Whitespace(),
    "Metaspace": pre.Metaspace(prepend_scheme="first"),
}
WHOLE = {
    "Llama 2": pre.Metaspace(prepend_scheme="first", split=False),
    "names of two words": split(rf"New York|{GPT4}"),
    "the blank goes to the word before": split(r"\s+", "merged_with_previous"),
    "a word looks at what follows": split(r"\w+(?= )|\s+"),
    "the end of the text differs": split(r"\w+$|\w|\s+"),
    "a class with a blank": split(r"[\w ]+|\s+"),
    "anything": split(r".+|\s+"),
    "blanks between words belong to no match": split(r"\d+"),
    "scripts": pre.UnicodeScripts(),
    "blanks are renamed first": pre.Sequence([BYTES, split(GPT4)]),
}


def learned(split, normalizer=None):
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = split
    inner.normalizer = normalizer
    letters = sorted({*pre.ByteLevel.alphabet(), *"".join(texts())})
    trainer = trainers.BpeTrainer(vocab_size=900, show_progress=False, initial_alphabet=letters)
    inner.train_from_iterator(texts(), trainer)
    return inner


def texts():
    """Words that every pattern finds, and noise in which blanks, digits, signs and scripts meet in every way."""
    noise = random.Random(0)
    letters = "abcXYZ éß漢字कि123 \n\t'.,!-_  \r\u00a0\u2028\u200b😀\u0301sdl"
    found = ["".join(noise.choice(letters) for _ in range(2000)) for _ in range(3)]
    return [*found, "it's New York, New York's 12345 a\n\n  b  c's d l'été 漢字 " * 20]


def ids(inner, *pieces):
    return list(chain.from_iterable(inner.encode(piece, add_special_tokens=False).ids for piece in pieces))


@pytest.mark.parametrize("name", CUT)
def test_cut_texts_have_the_ids_of_the_whole(name):
    """At every place there is."""
    inner = learned(CUT[name])
    assert cuttable(json.loads(inner.to_str()))
    for text in texts():
        pieces = list(cut(text, 1))
        assert len(pieces) > 20 and "".join(pieces) == text
        assert ids(inner, *pieces) == ids(inner, text)


@pytest.mark.parametrize("name", WHOLE)
def test_what_may_cross_a_blank_is_not_cut(name):
    """In most of these some id would change."""
    assert not cuttable(json.loads(learned(WHOLE[name]).to_str()))


@pytest.mark.parametrize(
    ("normalizer", "may"),
    [
        (normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]), True),
        (normalizers.Prepend("▁"), False),
        (normalizers.Replace(" ", ""), False),
        (normalizers.Strip(), False),
    ],
)
def test_normalisers_that_see_the_ends_of_a_text_forbid_it(normalizer, may):
    inner = learned(CUT["GPT-2"], normalizer)
    assert cuttable(json.loads(inner.to_str())) == may
    assert (ids(inner, *cut(texts()[3], 1)) == ids(inner, texts()[3])) == may


@pytest.mark.parametrize(
    ("token", "may"),
    [
        (tokenizers.AddedToken("    "), True),
        (tokenizers.AddedToken("New York"), False),
        (tokenizers.AddedToken("York", rstrip=True), False),
        (tokenizers.AddedToken("New York", special=True), True),  # in text it is text
    ],
)
def test_added_tokens_over_a_blank_forbid_it(token, may):
    inner = learned(CUT["GPT-2"])
    (inner.add_special_tokens if token.special else inner.add_tokens)([token])
    tok = Tokenizer(inner)
    assert cuttable(json.loads(tok.inner.to_str())) == may
    text = texts()[3].replace(",", "    ")
    assert (ids(tok.inner, *cut(text, 1)) == ids(tok.inner, text)) == may


def test_a_long_text_goes_to_the_tokeniser_in_pieces(monkeypatch):
    """At most a piece and a word each; the ids, and the merges that are learned, are those of the whole."""
    text = "the cat that sat on the mat, with the hat; " * 8000
    tok = train_bpe([text], 300)
    with monkeypatch.context() as m:
        m.setattr("gen_transformer.tokenizer.cuttable", lambda tokenizer: False)
        assert train_bpe([text], 300).fingerprint == tok.fingerprint
    whole = tok.inner.encode(text, add_special_tokens=False).ids
    assert tok.encode(text) == whole and tok.encode_batch(["a", text, ""]) == [tok.encode("a"), whole, []]
    pieces = list(tok.encode_pieces([text, "a"]))
    assert [number for number, _ in pieces] == [0] * 6 + [1]
    assert max(len(tok.decode(part)) for _, part in pieces) < PIECE + 10
    assert characters(text).decode(characters(text).encode(text)) == text


def test_a_text_without_places_is_one_piece():
    assert list(cut("漢字" * PIECE)) == ["漢字" * PIECE] and list(cut("")) == [""]
