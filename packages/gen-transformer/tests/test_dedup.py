"""Near duplicates against closed forms, exact ones against brute force, and nothing cut inside a character."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen_transformer import dedup
from gen_transformer.dedup import (
    candidate_probability,
    character_starts,
    exact_substrings,
    kept,
    minhash,
    near_duplicates,
    no_overlap_with,
    shingles,
)
from gen_transformer.tokenizer import characters, train_bpe

P = 2**61 - 1
MIXED = train_bpe(["aé漢🙂 éé 漢漢a" * 3], 270)


def prose(n: int, seed: int = 0, words: int = 5000) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(words)}" for _ in range(n))


def test_shingles_are_the_set_of_runs_of_words():
    """Equal runs have equal hashes, other runs (the same words in another order, too) others; case does not count."""
    a = shingles("The cat, the CAT the cat", 2)
    assert len(a) == 5 and a[0] == a[2] == a[4] and a[1] == a[3] != a[0]
    assert len(shingles("a b c", 4)) == 0 and len(shingles("", 1)) == 0
    words = prose(3000, words=20).split()
    runs = set(zip(words, words[1:], words[2:], strict=False))
    assert len(np.unique(shingles(" ".join(words), 3))) == len(runs) < 2998


@settings(max_examples=200, deadline=None)
@given(
    a=st.integers(1, P - 1) | st.sampled_from([1, 2**31, P - 1]),
    b=st.integers(0, P - 1) | st.sampled_from([0, P - 1]),
    x=st.integers(0, 2**32 - 1) | st.sampled_from([0, 2**32 - 1]),
)
def test_the_hash_is_exact_modulo_the_prime(a, b, x):
    """Against Python's integers: in 64 bits the product alone would have wrapped round."""
    u = lambda *v: np.array(v, np.uint64)
    got = dedup._affine(u(a >> 31)[:, None], u(a & (2**31 - 1))[:, None], u(b)[:, None], u(x))
    assert int(got[0, 0]) == (a * x + b) % P


@pytest.mark.parametrize("jaccard", [0.5, 0.8, 0.9])
def test_signatures_estimate_jaccard_similarity_without_bias(jaccard):
    """The share of equal hashes has mean J and variance J (1 - J) / k over families."""
    rng = np.random.default_rng(0)
    shared, k, seeds = round(800 * jaccard / (1 + jaccard)), 112, 120
    pool = rng.integers(0, 2**63, 800 - shared).astype(np.uint64)
    a, b, true = pool[:400], pool[400 - shared :], shared / (800 - shared)
    estimates = [(minhash(a, k, s) == minhash(b, k, s)).mean() for s in range(seeds)]
    sd = (true * (1 - true) / k) ** 0.5
    assert np.mean(estimates) == pytest.approx(true, abs=3 * sd / seeds**0.5)
    assert np.std(estimates) == pytest.approx(sd, rel=3 / (2 * seeds) ** 0.5)


def test_a_signature_is_a_function_of_the_set():
    x = shingles(prose(300))
    assert (minhash(x) == minhash(np.concatenate([x[::-1], x[:50]]))).all()
    assert (minhash(x, 40) == minhash(x, 40)).all() and (minhash(x, 40, 1) != minhash(x, 40)).any()
    assert (minhash(np.zeros(0, np.uint64), 5) == P).all()


def test_candidates_follow_the_s_curve():
    """Over 600 pairs: found with probability 1 - (1 - J^rows)^bands; rows and bands exchanged, next to nothing."""
    rng, pairs = np.random.default_rng(0), 600
    pool = rng.integers(0, 2**63, (pairs, 110)).astype(np.uint64)
    signatures = np.stack([minhash(s) for row in pool for s in (row[:100], row[10:])])  # J = 90 / 110
    for bands, rows in ((14, 8), (8, 14), (4, 28)):
        found = len(near_duplicates(signatures, bands, rows)) / pairs
        p = candidate_probability(90 / 110, bands, rows)
        assert found == pytest.approx(p, abs=3.5 * (p * (1 - p) / pairs) ** 0.5)
    assert candidate_probability(0.8, 14, 8) == pytest.approx(1 - (1 - 0.8**8) ** 14)


def test_a_copy_of_a_copy_is_a_copy_and_the_first_stays():
    """a ~ b ~ c with a and c far apart: one component, one survivor, whatever the order of the hashes."""
    base = prose(600)
    words = base.split()
    b = " ".join(words[:520] + ["other"] * 80)
    c = " ".join(["else"] * 75 + words[75:520] + ["other"] * 80)
    texts = [prose(600, 1), base, "", prose(500, 2), b, c, ""]
    signatures = np.stack([minhash(shingles(t)) for t in texts])
    copies = near_duplicates(signatures, 28, 4)
    assert copies == [{1, 4, 5}]
    assert kept(len(texts), copies).tolist() == [True, True, True, True, False, False, True]


def test_short_documents_are_nobodys_copies():
    signatures = np.stack([minhash(shingles(t)) for t in ("", "one", "two words", "", prose(50), prose(50))])
    assert near_duplicates(signatures) == [{4, 5}]


def test_components_are_those_of_all_pairs():
    """Against every pair compared band by band and joined by hand."""
    rng = np.random.default_rng(0)
    signatures = rng.integers(0, 3, (60, 12)).astype(np.uint64)
    group = list(range(60))
    for i in range(60):
        for j in range(i):
            if any((signatures[i, b : b + 4] == signatures[j, b : b + 4]).all() for b in (0, 4, 8)):
                group = [group[j] if g == group[i] else g for g in group]
    want = [{i for i in range(60) if group[i] == g} for g in dict.fromkeys(group)]
    assert near_duplicates(signatures, 3, 4) == sorted((s for s in want if len(s) > 1), key=min)


# ---------------------------------------------------------------------- exact


def covered(tokens: list[int], length: int, offsets: list[int]) -> set[int]:
    """By definition: places in a run that stood before, in one document."""
    seen, out = set(), set()
    for a, b in pairwise(offsets):
        for i in range(a, b - length + 1):
            run = tuple(tokens[i : i + length])
            if run in seen:
                out.update(range(i, i + length))
            seen.add(run)
    return out


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 2), max_size=60),
    length=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 60), max_size=4),
)
def test_exact_substrings_are_those_of_brute_force(tokens, length, cuts):
    offsets = sorted({0, len(tokens), *(c for c in cuts if c < len(tokens))})
    for borders in (None, offsets if len(offsets) > 1 else [0, len(tokens)]):
        spans = exact_substrings(
            np.array(tokens, np.int64), length, offsets=None if borders is None else np.array(borders)
        )
        assert {i for s in spans for i in range(s.start, s.stop)} == covered(
            tokens, length, borders or [0, len(tokens)]
        )
        assert all(a.stop < b.start for a, b in pairwise(spans))


def test_a_planted_passage_is_found_to_the_token():
    tokens = np.random.default_rng(0).integers(0, 1000, 20_000)
    tokens[15_000:15_090] = tokens[3_000:3_090]
    assert exact_substrings(tokens, 50) == [slice(15_000, 15_090)]
    assert exact_substrings(tokens, 91) == [] == exact_substrings(tokens[:10], 50)


def test_cuts_leave_whole_characters():
    """Byte tokens: repeated runs begin and end inside characters; after the cut the rest is still UTF-8."""
    tok = train_bpe(["x"], 256)
    a, b = "ab éèêëéàâ漢字🙂 cd", "zz 2ê©ëéàâ漢字🙀 yy"
    ids = np.array(tok.encode(a + "|" + b))
    (loose,) = exact_substrings(ids, 12)
    (tight,) = exact_substrings(ids, 12, starts=character_starts(tok))
    rest = lambda s: bytes(np.delete(ids, np.arange(s.start, s.stop)).tolist())
    with pytest.raises(UnicodeDecodeError):
        rest(loose).decode()
    assert rest(tight).decode() == "ab éèêëéàâ漢字🙂 cd|zz 2ê©🙀 yy"
    assert loose.start <= tight.start < tight.stop <= loose.stop


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("aé漢🙂", max_size=8), min_size=1, max_size=12))
def test_whatever_is_cut_what_remains_is_text(parts):
    ids = np.array(MIXED.encode("".join(parts) * 2), np.int64)
    keep = np.ones(len(ids), bool)
    for span in exact_substrings(ids, 3, starts=character_starts(MIXED)):
        keep[span] = False
    assert "\ufffd" not in MIXED.decode(ids[keep].tolist())


def test_character_starts():
    tok = train_bpe(["é" * 20], 258, ["<s>"])
    starts = character_starts(tok)
    assert starts[ord("a")] and starts[0xC3] and not starts[0xA9] and starts[256] and starts[tok.special("<s>")]
    assert character_starts(characters("aé")).all()


# ---------------------------------------------------------------------- evaluations


def test_planted_evaluations_are_found_and_nothing_else():
    evaluations = [prose(40, seed) for seed in range(1000, 1020)]
    rule = no_overlap_with(evaluations)
    train = [prose(400, seed) for seed in range(200)]
    assert not any(map(rule, train))
    planted = f"{train[3]} {' '.join(evaluations[7].split()[10:23]).upper().replace(' ', ', ')} {train[4]}"
    assert rule(planted) == "contaminated"
    assert rule(f"{train[3]} {' '.join(evaluations[7].split()[10:22])} {train[4]}") is None
    with pytest.raises(ValueError, match="no evaluation text has 13 words"):
        no_overlap_with(["too short"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shingles("a", 0), "at least 1 word"),
        (lambda: minhash(shingles("a", 1), 0), "at least 1 hash"),
        (lambda: near_duplicates(np.zeros((2, 10), np.uint64), 3, 4), "take 12 hashes, the signatures have 10"),
        (lambda: exact_substrings(np.zeros(3, np.int64), 0), "got length=0"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.peers
def test_the_same_clusters_as_datasketch():
    """Near copies of 40 texts, three of each: the components are theirs, joined."""
    datasketch = pytest.importorskip("datasketch")
    texts = []
    for seed in range(40):
        words = prose(300, seed).split()
        texts += [" ".join(words), " ".join(words[5:]), " ".join(words[:-5])]
    ours = near_duplicates(np.stack([minhash(shingles(t)) for t in texts]))
    lsh, group = datasketch.MinHashLSH(num_perm=112, params=(14, 8)), list(range(120))
    for i, text in enumerate(texts):
        m = datasketch.MinHash(112)
        m.update_batch([x.to_bytes(8, "little") for x in shingles(text).tolist()])
        for j in lsh.query(m):
            group = [group[j] if g == group[i] else g for g in group]
        lsh.insert(i, m)
    assert ours == [{i for i in range(120) if group[i] == g} for g in dict.fromkeys(group)]


def test_signatures_take_any_seed():
    shingles = np.arange(5, dtype=np.uint64)
    assert len({tuple(dedup.minhash(shingles, 4, seed)) for seed in (-1, 0, 2**32)}) == 3
