"""Tokenizers: round trips, known merges, ids that transformers reads alike, control tokens that text cannot forge."""

from itertools import pairwise

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gen_transformer.tokenizer import Tokenizer, bytes_per_token, characters, fertility, train_bpe

HARD = "".join(map(chr, range(1, 0x300))) + "漢字かな한국어 🙂👩‍👩‍👧🇫🇷 a\r\nb\r\r\n c\u00a0d\u2028 \n\n  \t x  "
PROSE = "the quick brown fox isn't quick; l'été où 12345 renards naïfs couraient, they'll run again. " * 4


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_bpe([PROSE, HARD], 400, ["<|end|>", "<|user|>"])


def test_three_merges_of_a_known_text():
    """aa, then of two equally frequent pairs ab (known earlier) before (aa)a, then (aa)(ab)."""
    tok = train_bpe(["aaabdaaabac"], 259)
    assert tok.encode("aaabdaaabac") == [258, ord("d"), 258, ord("a"), ord("c")]
    assert tok.pieces[256:] == [b"aa", b"ab", b"aaab"]


def test_merges_are_the_most_frequent_pairs():
    """Against the definition: count all pairs, merge the best everywhere, again."""
    words = ["abababcab", "bcbcabc", "cabbage", "abacab"]
    tok = train_bpe(["\n".join(words)], 256 + 8, pattern=r"\w+")
    split = [[bytes([b]) for b in w.encode()] for w in words]
    known = [bytes([b]) for b in range(256)]
    for merge in tok.pieces[256:]:
        pairs = [(a, b) for w in split for a, b in pairwise(w)]
        best = min(set(pairs), key=lambda p: (-pairs.count(p), known.index(p[0]), known.index(p[1])))
        assert merge == b"".join(best)
        known.append(merge)
        for w in split:
            i = 0
            while i < len(w) - 1:
                if (w[i], w[i + 1]) == best:
                    w[i : i + 2] = [merge]
                i += 1


def test_the_first_ids_are_the_bytes(bpe):
    assert bpe.pieces[:256] == [bytes([b]) for b in range(256)]
    assert bpe.specials == {"<|end|>": 398, "<|user|>": 399} and len(bpe) == 400


@pytest.mark.parametrize("text", [HARD, PROSE, "<|end|> is text", "", " ", "\n"])
def test_round_trip_and_bytes(bpe, text):
    for tok in (bpe, characters(HARD + PROSE + "<|>", ["<|end|>"])):
        ids = tok.encode(text)
        assert tok.decode(ids) == text == tok.decode(torch.tensor(ids, dtype=torch.long))
        assert tok.bytes[torch.tensor(ids, dtype=torch.long)].sum() == len(text.encode())
        assert tok.encode_batch([text, "abc"]) == [ids, tok.encode("abc")]


@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_any_unicode_comes_back(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert sum(len(bpe.pieces[i]) for i in ids) == len(text.encode())


def test_text_never_becomes_a_control_token(bpe):
    for tok in (bpe, characters(PROSE + "<|end|>", ["<|end|>"])):
        ids = tok.encode("say <|end|> now<|end|>")
        assert tok.special("<|end|>") not in ids and tok.decode(ids) == "say <|end|> now<|end|>"
        assert tok.decode([tok.special("<|end|>")]) == "<|end|>" and tok.bytes[tok.special("<|end|>")] == 0


def test_the_same_text_gives_the_same_tokenizer():
    a, b = (train_bpe([PROSE, HARD], 380) for _ in range(2))
    assert a.fingerprint == b.fingerprint != train_bpe([PROSE], 380).fingerprint


@pytest.mark.parametrize("kind", ["bpe", "characters"])
def test_a_saved_tokenizer_gives_the_same_ids_here(tmp_path, bpe, kind):
    tok = bpe if kind == "bpe" else characters(HARD + PROSE + "<|>", ["<|end|>"])
    tok.save(tmp_path)
    for again in (Tokenizer.load(tmp_path), Tokenizer.load(tmp_path / "tokenizer.json")):
        assert again.encode(HARD + "<|end|>") == tok.encode(HARD + "<|end|>")
        assert (again.fingerprint, again.specials, again.pieces) == (tok.fingerprint, tok.specials, tok.pieces)


@pytest.mark.peers
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["bpe", "characters"])
def test_transformers_reads_the_same_ids(tmp_path, bpe, kind):
    transformers = pytest.importorskip("transformers")
    tok = bpe if kind == "bpe" else characters(HARD + PROSE + "<|>", ["<|end|>"])
    tok.save(tmp_path)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for theirs in (fast, transformers.AutoTokenizer.from_pretrained(tmp_path)):
        assert theirs(HARD + PROSE)["input_ids"] == tok.encode(HARD + PROSE)
        assert theirs.decode(tok.encode(PROSE)) == PROSE
        assert theirs.convert_tokens_to_ids("<|end|>") == tok.special("<|end|>")


def test_bytes_of_a_tokenizer_with_blanks_as_bars_and_a_byte_fallback(tmp_path):
    """Llama's kind: "▁" is a blank, <0xC3> a byte, runs of blanks that were added are text, <s> is none."""
    vocab = {"<unk>": 0, "<s>": 1, "▁": 2, "a": 3, "▁a": 4} | {f"<0x{b:02X}>": 5 + b for b in range(256)}
    model = tokenizers.models.BPE(vocab, [("▁", "a")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    inner = tokenizers.Tokenizer(model)
    inner.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    d = tokenizers.decoders
    inner.decoder = d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse()])
    inner.add_special_tokens(["<unk>", "<s>"])
    inner.add_tokens(["aaaa"])
    inner.save(str(tmp_path / "tokenizer.json"))
    tok = Tokenizer.load(tmp_path)
    assert tok.bos is None
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="$A <s>", special_tokens=[("<s>", 1)])
    assert Tokenizer(inner).bos is None
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert Tokenizer(inner).bos == 1 and Tokenizer(inner).encode("a") == tok.encode("a")
    text = "a aé<s> 🙂 aaaa"
    ids = tok.encode(text)
    assert tok.decode(ids) == text and tok.special("<s>") not in ids and "aaaa" not in tok.specials
    assert b"".join(tok.pieces[i] for i in ids) == text.encode() and tok.bytes[tok.special("<s>")] == 0


def test_fertility_counts_tokens_per_word():
    tok = characters("ab cé")
    assert fertility(tok, "ab  cé") == 6 / 2
    assert bytes_per_token(tok, "ab  cé") == 7 / 6


def test_training_on_a_language_makes_it_cheaper():
    english, french = (
        "the cat that sat on the mat with the hat " * 20,
        "l'été dernier où nous étions déjà ailleurs " * 20,
    )
    a, b, both = (train_bpe(t, 300) for t in ([english], [french], [english, french]))
    assert fertility(a, english) < fertility(both, english) < fertility(b, english)
    assert fertility(b, french) < fertility(both, french) < fertility(a, french)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train_bpe([], 300), "empty text"),
        (lambda: train_bpe(["a"], 256, ["<s>"]), "vocab must be at least 257"),
        (lambda: train_bpe(["a"], 300, ["<s>", "<s>"]), "names that differ"),
        (lambda: characters(""), "empty one"),
        (lambda: characters("abc").encode("abé漢"), "'é漢' is not among the 3 characters"),
        (lambda: train_bpe(["abc"], 256).encode("a\ud800b"), "the text has '.ud800', half of a surrogate pair"),
        (lambda: train_bpe(["abc"], 256).encode_batch(["a", "\udfff"]), "the text has '.udfff', half of a surrogate"),
        (lambda: characters("abc").decode([0, 3]), "id 3 lies outside the vocabulary 0..2"),
        (lambda: characters("abc", ["<s>"]).special("<e>"), "no control token '<e>'; there are: <s>"),
        (lambda: fertility(characters("a "), "  "), "no words"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no tokenizer\.json that can be read"):
        Tokenizer.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        Tokenizer.load(tmp_path / "absent")
