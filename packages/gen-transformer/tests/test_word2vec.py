"""word2vec: the loss's own gradients, the optimum that is known, windows counted one by one, and gensim's figures."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gen_core.testing import load
from gen_transformer.vectors import WordVectors, load_vectors, save_vectors
from gen_transformer.word2vec import Word2Vec, count_words, gradients, kept

bigrams = load(Path(__file__).with_name("word2vec_golden.py"))


def tables(seed: int = 0, n: int = 2, i: int = 3, j: int = 5, k: int = 4, d: int = 6):
    g = torch.Generator().manual_seed(seed)
    x, y, z = (torch.randn(*s, d, generator=g, dtype=torch.float64) for s in ((n, i), (n, j), (k,)))
    return x, y, z, (torch.rand(n, i, j, generator=g) < 0.5).double()


def test_the_closed_form_is_the_gradient_of_the_loss():
    """[Mikolov13b] eq. 4, summed over pairs, `negative` noise words each; by automatic differentiation."""
    x, y, z, pairs = tables()
    for t in (x, y, z):
        t.requires_grad_()
    positive = F.logsigmoid(torch.einsum("nid,njd->nij", x, y))
    noise = F.logsigmoid(-torch.einsum("nid,kd->nik", x, z)).mean(-1, keepdim=True)
    want = torch.autograd.grad(-(pairs * (positive + 5 * noise)).sum(), (x, y, z))
    for a, b in zip(gradients(x, y, z, pairs, 5), want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["skipgram", "cbow"])
def test_one_update_is_the_step_by_hand(kind: str):
    """Pair by pair: each word of a window in skip-gram, the mean of the window in CBOW."""
    model = Word2Vec({"a": 3, "b": 2, "c": 2, "d": 1}, 5, window=2, kind=kind, negative=2, noise=3, subsample=0)
    model.y = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    model.x, drawn = torch.randn_like(model.x), torch.tensor([1, 0, 0])
    model._draw = lambda n: drawn
    ids = torch.tensor([[0, 1, 2, 2, 3, 0]])  # centres are places 2 and 3
    pairs = torch.zeros(1, 2, 6, dtype=torch.bool)
    pairs[0, 0, [0, 1, 3]] = pairs[0, 1, [2, 4]] = True
    x, y = model.x.clone().requires_grad_(), model.y.clone().requires_grad_()
    loss = torch.zeros(())
    for centre, near in ((2, [0, 1, 3]), (3, [2, 4])):
        if kind == "skipgram":
            seen = [(x[ids[0, centre]], y[ids[0, o]]) for o in near]
        else:
            seen = [(x[ids[0, near]].mean(0), y[ids[0, centre]])]
        for h, o in seen:
            loss = loss - F.logsigmoid(h @ o) - 2 / 3 * F.logsigmoid(-(y[drawn] @ h)).sum()
    dx, dy = torch.autograd.grad(loss, (x, y))
    model.update(ids, pairs, 0.1)
    torch.testing.assert_close(model.x, (x - 0.1 * dx).detach())
    torch.testing.assert_close(model.y, (y - 0.1 * dy).detach())


def test_windows_hold_the_neighbours_of_every_word_and_nothing_else():
    """Across stretches and batches, not across sentences; the reach is uniform on 1 .. window."""
    model = Word2Vec({"a": 1}, 4, window=3)
    text, sentence = torch.arange(300), torch.arange(300) // 50
    seen: dict[int, list[int]] = {i: [] for i in range(300)}
    for ids, pairs in model._windows(text, sentence, 64):
        for n, i, j in pairs.nonzero().tolist():
            seen[int(ids[n, i + 3])].append(int(ids[n, j]))
    reaches = []
    for i, near in seen.items():
        reach = max(abs(i - j) for j in near)
        assert near == [j for j in range(300) if 0 < abs(i - j) <= reach and i // 50 == j // 50]
        reaches.append(reach)
    assert all(abs(reaches.count(r) - 100) < 4 * (300 * 2 / 9) ** 0.5 for r in (1, 2, 3))


def test_noise_follows_the_counts_to_the_power_of_three_quarters():
    counts = {"a": 1000, "b": 100, "c": 10, "d": 1}
    model = Word2Vec(counts, 4)
    drawn = model._draw(100_000).bincount(minlength=4) / 100_000
    p = torch.tensor(list(counts.values())) ** 0.75
    assert ((drawn - p / p.sum()).abs() < 4 * (p / p.sum() / 100_000).sqrt()).all()


def test_subsampling_keeps_words_at_the_rate_of_the_original_program():
    """(sqrt(f / t) + 1) t / f, in the words of its source; 0 keeps everything."""
    counts = torch.tensor([9000.0, 900.0, 100.0], dtype=torch.float64)
    f = counts / 10_000
    want = ((f / 0.1).sqrt() + 1) * 0.1 / f
    torch.testing.assert_close(kept(counts, 0.1), want.clamp(max=1))
    assert kept(counts, 0).tolist() == [1, 1, 1]


def test_words_are_left_out_before_the_windows_are_laid():
    """Rare and subsampled words make no gaps: their neighbours become neighbours."""
    model = Word2Vec(count_words([["a", "b"] * 4 + ["x"]], least=2), 4, window=1)
    text, sentence = model._encode([["a", "x", "b"], ["x"], ["b", "a"]])
    assert text.tolist() == [0, 1, 1, 0] and sentence.tolist() == [0, 0, 2, 2]
    (_, pairs), *_ = model._windows(text, sentence, 64)
    assert pairs.sum() == 4


@pytest.mark.parametrize(
    ("negative", "exponent"),
    [(1, 1.0), (5, 0.75), *(pytest.param(*setting, marks=pytest.mark.slow) for setting in ((1, 0.75), (5, 1.0)))],
)
def test_skipgram_ends_at_the_shifted_pmi_nearer_than_gensim(negative: int, exponent: float):
    """x_w . y_c = log p(c | w) - log k p_noise(c) ([Levy14]), with half of the error of gensim 4.4.0 or less."""
    sentences = bigrams.sentences()
    model = Word2Vec(count_words(sentences, 1), 12, window=1, negative=negative, exponent=exponent, subsample=0)
    model.train(sentences, epochs=3, lr=0.02)
    order = [model.words.index(f"w{i}") for i in range(bigrams.WORDS)]
    rmse, corr = bigrams.distance(model.x[order] @ model.y[order].T, negative, exponent)
    assert rmse < bigrams.GENSIM[negative, exponent][0] / 2 and corr > 0.9966


def test_words_that_stand_in_the_same_places_become_neighbours():
    g = torch.Generator().manual_seed(0)
    slots = [["cat", "dog"], ["eats", "sees"], ["red", "big"], ["fish", "bird"]]
    draws = torch.randint(2, (1000, 4), generator=g).tolist()
    sentences = [[slot[i] for slot, i in zip(slots, row, strict=True)] for row in draws]
    for kind, lr in (("skipgram", 0.025), ("cbow", 0.075)):
        model = Word2Vec(count_words(sentences), 8, window=2, kind=kind, subsample=0)
        model.train(sentences, epochs=3, lr=lr)
        for a, b in slots:
            assert model.vectors.neighbours(a, 1)[0][0] == b


# ---------------------------------------------------------------------- vectors


def some(n: int = 9, dim: int = 4) -> WordVectors:
    matrix = torch.randn(n, dim, generator=torch.Generator().manual_seed(0))
    return WordVectors(tuple("été naïve 中 a b c d e f".split())[:n], matrix)


def test_analogies_add_and_subtract_unit_vectors():
    """man is to king as woman is to queen, when the two differences are the same."""
    matrix = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1], [0, -1, 0]])
    vectors = WordVectors(("man", "king", "woman", "queen", "apple"), matrix)
    assert vectors.analogy("man", "king", "woman", 1)[0][0] == "queen"
    (first, cosine), *_ = vectors.neighbours("man", 4)
    assert first in ("king", "woman") and cosine == pytest.approx(0.5**0.5)
    assert "man" not in dict(vectors.neighbours("man", 10))


@pytest.mark.parametrize("name", ["words.txt", "words.bin"])
def test_files_give_the_same_bits_back(name: str, tmp_path: Path):
    vectors = some()
    save_vectors(tmp_path / name, vectors)
    again = load_vectors(tmp_path / name)
    assert again.words == vectors.words and torch.equal(again.matrix, vectors.matrix)


def test_broken_files_are_named(tmp_path: Path):
    path = tmp_path / "words.bin"
    save_vectors(path, some())
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="promises 9 words of 4 numbers and ends in word 9"):
        load_vectors(path)
    with pytest.raises(ValueError, match="promises 9 words"):
        load_vectors(path, binary=False)
    path.write_text("hello\n")
    with pytest.raises(ValueError, match="does not begin with the numbers"):
        load_vectors(path)
    with pytest.raises(ValueError, match="'New York' cannot be written"):
        save_vectors(path, WordVectors(("New York",), torch.zeros(1, 2)))
    with pytest.raises(ValueError, match="'g' is not among the 9 words"):
        some().neighbours("g")


# ---------------------------------------------------------------------- gensim


def test_neighbours_and_analogies_are_gensims():
    """Golden order of gensim 4.4.0 on the same matrix."""
    vectors = bigrams.matrix()
    got = [word for word, _ in vectors.neighbours("w3", 8)], [word for word, _ in vectors.analogy("w1", "w2", "w7", 8)]
    assert got == bigrams.NEAREST


@pytest.mark.peers
def test_gensim_finds_the_same_neighbours_and_reads_the_same_files(tmp_path: Path):
    from gensim.models import KeyedVectors  # pyright: ignore[reportMissingImports]

    assert bigrams.nearest() == bigrams.NEAREST
    vectors = some()
    for binary in (False, True):
        ours, theirs = tmp_path / f"ours{binary}", tmp_path / f"theirs{binary}"
        save_vectors(ours, vectors, binary=binary)
        read = KeyedVectors.load_word2vec_format(str(ours), binary=binary)
        assert tuple(read.index_to_key) == vectors.words and torch.equal(torch.tensor(read.vectors), vectors.matrix)
        read.save_word2vec_format(str(theirs), binary=binary)
        again = load_vectors(theirs, binary=binary)
        assert again.words == vectors.words and torch.equal(again.matrix, vectors.matrix)
