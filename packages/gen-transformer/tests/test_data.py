"""Text to rows: nothing is lost, doubled or predicted across documents, and packing is near the bound."""

import json
import pickle
from collections import Counter
from itertools import chain, islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gen_core import Loader
from gen_transformer.data import Corpus, Packed, Windows, pack, read, write_shard
from gen_transformer.tokenizer import characters, train_bpe

LETTERS = "abcdefghijklmnopqrstuvwxyz "


def texts(n: int = 40, longest: int = 90, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(LETTERS), size)) for size in rng.integers(1, longest, n)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """40 documents of 1 to 89 characters in three shards."""
    folder, tok, docs = tmp_path_factory.mktemp("shards"), characters(LETTERS), texts()
    for i, part in enumerate((docs[:7], docs[7:8], docs[8:])):
        write_shard(folder / str(i), tok, part)
    return Corpus(*(folder / str(i) for i in range(3)), tokenizer=tok)


# ---------------------------------------------------------------------- reading


def test_a_folder_is_read_in_order(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"two\r\nlines")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/c.jsonl").write_text('{"text": "é"}\n\n{"text": "four", "id": 3}\n')
    (tmp_path / "a.md").write_bytes("\ufeffone".encode())
    (tmp_path / "picture.png").write_bytes(b"\x89")
    assert list(read(tmp_path)) == ["one", "two\nlines", "é", "four"]
    assert list(read(tmp_path / "sub/c.jsonl")) == ["é", "four"]


def test_files_that_are_not_utf8_are_named_counted_and_not_guessed(tmp_path):
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_bytes("été".encode("latin-1"))
    with pytest.warns(UserWarning, match=r"1 of 2 files are not utf-8: .*b\.txt \(byte 0xe9\)"):
        assert list(read(tmp_path)) == ["fine"]
    with pytest.raises(ValueError, match=r"1 of 1 files are not utf-8: .*b\.txt"):
        list(read(tmp_path / "b.txt"))
    assert list(read(tmp_path / "b.txt", encoding="latin-1")) == ["été"]


def test_a_line_of_json_ends_with_the_line_alone(tmp_path):
    """U+2028, U+2029 and U+0085 may stand in a string, and a mark may stand before the first line."""
    texts = ["a\u2028b\u2029c\u0085d", "e\x0bf\x1cg", "\U0001f600"]
    lines = [json.dumps({"text": text}, ensure_ascii=i < 1) for i, text in enumerate(texts * 2)]
    (tmp_path / "a.jsonl").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    for encoding in ("utf-8", "UTF8"):
        assert list(read(tmp_path / "a.jsonl", encoding=encoding)) == texts * 2


def test_half_of_a_surrogate_pair_is_named_with_its_line(tmp_path):
    """JSON can write it, no text can hold it. A whole pair is a character, and an escaped backslash is none."""
    lines = [r'{"text": "\ud83d\ude00"}', r'{"text": "\\ud83d"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert list(read(tmp_path)) == ["\U0001f600", r"\ud83d"]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, r'{"id": 1, "text": "a \ud83d"}']))
    with pytest.raises(ValueError, match=r"a\.jsonl line 3 has '\\ud83d', half of a surrogate pair; take it out"):
        list(read(tmp_path))


def test_what_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(ValueError, match="holds no text"):
        list(read(tmp_path))
    with pytest.raises(FileNotFoundError, match="neither a file nor a folder"):
        list(read(tmp_path / "absent"))
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n')
    with pytest.raises(ValueError, match=r"b\.jsonl line 2 is no JSON object with a text under the key 'text'"):
        list(read(tmp_path / "b.jsonl"))
    for value in ("3", "null", '["a"]'):
        (tmp_path / "c.jsonl").write_text(f'{{"text": {value}}}\n')
        with pytest.raises(ValueError, match=r"c\.jsonl line 1 is no JSON object with a text"):
            list(read(tmp_path / "c.jsonl"))


# ---------------------------------------------------------------------- shards


def test_shards_hold_the_documents(corpus):
    docs, tok = texts(), characters(LETTERS)
    assert len(corpus) == sum(map(len, docs)) and corpus.vocab == 27
    for (a, b), text in zip(pairwise(corpus.offsets.tolist()), docs, strict=True):
        assert tok.decode(corpus.tokens(a, b)) == text
    whole = tok.encode("".join(docs))
    for a, b in ((0, len(corpus)), (5, 5), (100, 700), (len(corpus) - 1, len(corpus))):
        assert corpus.tokens(a, b).tolist() == whole[a:b]


def test_a_corpus_goes_to_a_worker_as_names(corpus):
    sent = pickle.dumps(corpus)
    assert len(sent) < 1000 < len(corpus)
    assert torch.equal(pickle.loads(sent).tokens(3, 900), corpus.tokens(3, 900))


def test_an_end_token_follows_every_document(tmp_path):
    tok = train_bpe(texts(), 300, ["<|end|>"])
    write_shard(tmp_path / "a", tok, ["one", "", "two"], end="<|end|>")
    corpus = Corpus(tmp_path / "a")
    assert tok.decode(corpus.tokens(0, len(corpus))) == "one<|end|>two<|end|>" and len(corpus.offsets) == 3


def test_ids_beyond_16_bits_are_kept(tmp_path):
    tok = characters("".join(map(chr, range(0x10000, 0x20002))))
    write_shard(tmp_path / "a", tok, [chr(0x20001)])
    assert Corpus(tmp_path / "a").tokens(0, 1).tolist() == [2**16 + 1]


def test_a_shard_appears_whole_or_not_at_all(tmp_path):
    def failing():
        yield "abc"
        raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError, match="fire"):
        write_shard(tmp_path / "a", characters(LETTERS), failing())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="every document is empty"):
        write_shard(tmp_path / "a", characters(LETTERS), ["", ""])
    write_shard(tmp_path / "a", characters(LETTERS), ["abc"])
    with pytest.raises(FileExistsError, match="is there already"):
        write_shard(tmp_path / "a", characters(LETTERS), ["abc"])


def test_a_shard_of_another_tokenizer_or_cut_off_is_refused(tmp_path):
    write_shard(tmp_path / "a", characters(LETTERS), ["abc"])
    with pytest.raises(ValueError, match="a has tokens of tokenizer"):
        Corpus(tmp_path / "a", tokenizer=characters("abc"))
    tokens = tmp_path / "a/tokens.bin"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(ValueError, match="cut off: it holds 2 of 3 tokens"):
        Corpus(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="no shard of tokens"):
        Corpus(tmp_path)


# ---------------------------------------------------------------------- packing


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), max_size=60), T=st.integers(50, 70))
def test_best_fit_is_the_definition(lengths, T):
    """Against a scan over all rows for the least room that suffices; only which of equally full rows may differ."""
    rows: list[list[int]] = []
    for n in sorted(lengths, reverse=True):
        fitting = [r for r in rows if sum(r) + n <= T]
        if fitting:
            max(fitting, key=sum).append(n)
        else:
            rows.append([n])
    packed = pack(lengths, T)
    assert sorted(chain.from_iterable(packed)) == list(range(len(lengths)))
    assert sorted(sum(lengths[i] for i in row) for row in packed) == sorted(map(sum, rows))


def test_packing_is_within_its_bound_and_beats_next_fit():
    """Pieces cut from full rows fit that many rows; best fit decreasing needs at most 11/9 of them."""
    rng = np.random.default_rng(0)
    cuts = [np.diff([0, *np.sort(rng.choice(np.arange(1, 512), 3, replace=False)), 512]) for _ in range(200)]
    lengths = rng.permutation(np.concatenate(cuts))
    best, following = pack(lengths, 512), pack(lengths, 512, order="next_fit")
    assert 200 <= len(best) <= 203 < 240 < len(following)
    assert sorted(chain.from_iterable(following)) == list(range(800))
    assert all(lengths[row].sum() <= 512 for row in best + following)


def test_packing_a_hundred_thousand_documents_takes_a_moment():
    """Comparing every document with every row, 5e9 pairs, would outlast the time limit of a test."""
    lengths = np.random.default_rng(0).integers(1, 2049, 100_000)
    rows = pack(lengths, 2048)
    assert lengths.sum() / (len(rows) * 2048) > 0.998


def test_a_piece_longer_than_the_row_is_an_error():
    with pytest.raises(ValueError, match="1 to T=8 tokens, got one of 9"):
        pack([3, 9], 8)


# ---------------------------------------------------------------------- rows


def transitions(dataset) -> tuple[Counter, Counter]:
    """How often each id is an input, and each (id, target) is asked for."""
    inputs, asked = Counter(), Counter()
    for ids, targets, weight, *rest in (dataset[i] for i in range(len(dataset))):
        doc = rest[0] if rest else torch.zeros_like(ids)
        assert ids.shape == targets.shape == weight.shape == doc.shape == (dataset.T,)
        assert not weight[doc < 0].any() and not ids[doc < 0].any()
        inputs.update(ids[doc >= 0].tolist())
        asked.update(zip(ids[weight > 0].tolist(), targets[weight > 0].tolist(), strict=True))
    return inputs, asked


def within(docs: list[str]) -> tuple[Counter, Counter]:
    ids = [characters(LETTERS).encode(text) for text in docs]
    return Counter(chain.from_iterable(ids)), Counter(chain.from_iterable(map(pairwise, ids)))


@pytest.mark.parametrize("T", [3, 16, 17, 64, 5000])
@pytest.mark.parametrize("order", ["best_fit_decreasing", "next_fit"])
def test_packed_rows_hold_every_token_once_and_ask_for_every_next_token_of_a_document(corpus, T, order):
    data = Packed(corpus, T, order=order)
    assert transitions(data) == within(texts())
    assert data.utilisation == pytest.approx(len(corpus) / (len(data) * T))


@pytest.mark.parametrize("T", [3, 16, 17, 64, 200, 5000])
def test_windows_ask_for_every_next_token(corpus, T):
    inputs, asked = transitions(Windows(corpus, T))
    assert asked == within(texts())[1]
    stream = "".join(texts())
    inputs, asked = transitions(Windows(corpus, T, isolate=False))
    assert asked == within([stream])[1]
    assert inputs.total() == len(Windows(corpus, T)) * T, "without doc the padding at the end looks like tokens"


def test_windows_are_full_rows_in_a_row(corpus):
    data, T = Windows(corpus, 32, isolate=False), 32
    assert len(data) == -(-(len(corpus) - 1) // T)
    for i in range(len(data) - 1):
        ids, targets, weight = data[i]  # one document: no doc, no mask
        assert torch.equal(ids, corpus.tokens(i * T, i * T + T)) and weight.all()
        assert torch.equal(targets, corpus.tokens(i * T + 1, i * T + T + 1))


@pytest.mark.parametrize("kind", [Packed, Windows])
def test_the_last_token_of_a_document_predicts_nothing(corpus, kind):
    """Inside every document of a row, targets are the inputs one on; at its end the corpus decides."""
    for ids, targets, weight, doc in (kind(corpus, 48)[i] for i in range(len(kind(corpus, 48)))):
        same = doc[1:] == doc[:-1]
        inside = same & (doc[1:] >= 0)
        assert torch.equal(targets[:-1][inside], ids[1:][inside]) and weight[:-1][inside].all()
        border = ~same & (doc[1:] >= 0)
        if kind is Windows:
            assert not weight[:-1][border].any()


def test_a_cut_document_goes_on_where_it_was_cut(tmp_path):
    write_shard(tmp_path / "a", characters(LETTERS), ["abcdefgh", "xy"])
    rows = [tuple(x.tolist() for x in Packed(Corpus(tmp_path / "a"), 5)[i]) for i in range(2)]
    a = characters(LETTERS).encode
    assert rows[0] == (a("abcde"), a("bcdef"), [1] * 5, [0] * 5)
    assert rows[1] == (a("fghxy"), [*a("gh"), 0, *a("y"), 0], [1, 1, 0, 1, 0], [0, 0, 0, 1, 1])


def test_batches_come_from_the_loader(corpus):
    """Any rank's rows from any step: the order is the loader's, a function of (seed, step)."""
    data = Loader(Packed(corpus, 64), 4, seed=3)
    ids, targets, weight, doc = next(data.batches())
    assert ids.shape == (4, 64) and ids.dtype == targets.dtype == doc.dtype == torch.int64
    assert weight.dtype == torch.float32
    whole = [b[0] for b in islice(data.batches(0, 0, 1), 12)]
    for rank in range(2):
        for step, part in enumerate(islice(data.batches(5, rank, 2), 7), 5):
            assert torch.equal(part[0], whole[step][2 * rank : 2 * rank + 2])


def test_rows_that_make_no_sense_are_refused(corpus):
    with pytest.raises(ValueError, match="got T=1"):
        Packed(corpus, 1)
    with pytest.raises(ValueError, match="T >= 1"):
        Windows(corpus, 0)
    with pytest.raises(IndexError):
        Windows(corpus, 64)[10**6]
