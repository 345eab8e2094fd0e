"""Documents that are nearly the same, passages that are exactly the same, and training text that holds an evaluation's.

    signatures = np.stack([minhash(shingles(text), 112) for text in texts])
    copies = near_duplicates(signatures, bands=14, rows=8)     # sets of indices; keep the least of each
    spans = exact_substrings(ids, 50, offsets=offsets, starts=character_starts(tok))
    keep = no_overlap_with(evaluation_texts)                   # a rule for gen_transformer.clean

Two documents with Jaccard similarity J of their shingles become candidates with probability 1 - (1 - J^rows)^bands.
Candidates are joined to components, since a copy of a copy is a copy; a document without shingles is nobody's copy.

[Broder97] On the resemblance and containment of documents.   [Carter79] Universal classes of hash functions.
[Lee22] Deduplicating training data makes language models better, arXiv:2107.06499 (bands of 20 rows, 450 of them).
[Karp72] Rapid identification of repeated patterns in strings, trees and arrays.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Bool, Int, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gen_core.runtime import numpy_seed
from gen_transformer.tokenizer import Tokenizer

P = np.uint64(2**61 - 1)  # the field that signatures are computed in
_WORDS: dict[str, int] = {}


# ---------------------------------------------------------------------- shingles


def _ids(words: list[str]) -> UInt64[np.ndarray, "words"]:
    """A 64-bit hash of every word, the same in every process; most words of a text have been hashed before."""
    if len(_WORDS) > 2**20:
        _WORDS.clear()
    for word in set(words).difference(_WORDS):
        _WORDS[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return np.fromiter(map(_WORDS.__getitem__, words), np.uint64, len(words))


def _mix(x: UInt64[np.ndarray, "n"]) -> UInt64[np.ndarray, "n"]:
    """A bijection of 64 bits that spreads every bit over all (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def shingles(text: str, n: int = 5) -> UInt64[np.ndarray, "shingles"]:
    """Hashes of the runs of `n` words, case and punctuation aside; none when the text has fewer words."""
    if n < 1:
        raise ValueError(f"a shingle has at least 1 word, got n={n}")
    words = _ids(re.findall(r"\w+", text.lower()))
    h = np.zeros(max(len(words) - n + 1, 0), np.uint64)
    for i in range(n if len(h) else 0):
        h = _mix(h + words[i : i + len(h)])
    return h


# ---------------------------------------------------------------------- MinHash


def minhash(shingles: UInt64[np.ndarray, "shingles"], k: int = 112, seed: int = 0) -> UInt64[np.ndarray, "k"]:
    """The least of k hashes over a set ([Broder97]): two sets agree in each with probability their Jaccard similarity.

    The hashes are (a x + b) mod 2^61 - 1 with x of 32 bits, 0 < a and b below the modulus: a universal family
    ([Carter79]), computed without overflow. An empty set has the signature 2^61 - 1, which no other set has.
    """
    if k < 1:
        raise ValueError(f"a signature has at least 1 hash, got k={k}")
    a_high, a_low, b = _family(k, seed)
    least = np.full(k, P)
    x = shingles >> np.uint64(32)
    for i in range(0, len(x), 512):  # a block stays in the cache
        least = np.minimum(least, _affine(a_high, a_low, b, x[i : i + 512]).min(1))
    return least


def _family(
    k: int, seed: int
) -> tuple[UInt64[np.ndarray, "k 1"], UInt64[np.ndarray, "k 1"], UInt64[np.ndarray, "k 1"]]:
    rng = np.random.default_rng(numpy_seed(seed))
    a, b = rng.integers(1, int(P), (k, 1), np.uint64), rng.integers(0, int(P), (k, 1), np.uint64)
    return a >> np.uint64(31), a & np.uint64(2**31 - 1), b


def _affine(
    a_high: UInt64[np.ndarray, "k 1"],
    a_low: UInt64[np.ndarray, "k 1"],
    b: UInt64[np.ndarray, "k 1"],
    x: UInt64[np.ndarray, "n"],
) -> UInt64[np.ndarray, "k n"]:
    """(a x + b) mod P for x < 2^32, a = a_high 2^31 + a_low, by 2^61 = 1: every sum stays below 2^64."""
    high, total = a_high * x, a_low * x  # < 2^62 and < 2^63
    total += high >> np.uint64(30)  # high 2^31 = (high >> 30) 2^61 + (high mod 2^30) 2^31
    high &= np.uint64(2**30 - 1)
    high <<= np.uint64(31)
    total += high
    total += b
    np.right_shift(total, np.uint64(61), out=high)
    total &= P
    total += high
    np.subtract(total, P, out=high)  # below P it wraps round and is the greater one
    return np.minimum(total, high, out=total)


def candidate_probability(jaccard: float | int, bands: int, rows: int) -> float:
    """The chance that LSH brings two documents together: 1 - (1 - J^rows)^bands."""
    return 1 - (1 - jaccard**rows) ** bands


def near_duplicates(signatures: UInt64[np.ndarray, "docs k"], bands: int = 14, rows: int = 8) -> list[set[int]]:
    """Documents that agree in all `rows` hashes of any of `bands` bands, joined to components of two or more.

    Raises:
        ValueError: when signatures are shorter than bands x rows.
    """
    docs, k = signatures.shape
    if not 1 <= bands * rows <= k:
        raise ValueError(f"{bands} bands of {rows} rows take {bands * rows} hashes, the signatures have {k}")
    some = np.flatnonzero(signatures[:, 0] != P)
    edges = [np.zeros((2, 0), np.int64)]
    for band in range(bands):
        part = np.ascontiguousarray(signatures[some, band * rows : (band + 1) * rows])
        _, first, group = np.unique(part.view(f"V{8 * rows}").ravel(), return_index=True, return_inverse=True)
        edges.append(np.stack([some, some[first[group]]]))
    a, b = np.concatenate(edges, axis=1)
    _, label = connected_components(coo_array((np.ones(len(a), bool), (a, b)), shape=(docs, docs)), directed=False)
    components = defaultdict(set)
    for i in some.tolist():
        components[label[i]].add(i)
    return sorted((c for c in components.values() if len(c) > 1), key=min)


def kept(docs: int, copies: Iterable[set[int]]) -> Bool[np.ndarray, "docs"]:
    """Which of `docs` documents remain when of every set the first does."""
    mask = np.ones(docs, bool)
    for group in copies:
        mask[sorted(group)[1:]] = False
    return mask


# ---------------------------------------------------------------------- exact substrings


def exact_substrings(
    tokens: Int[np.ndarray, "n"],
    length: int = 50,
    *,
    offsets: Int[np.ndarray, "documents_and_one"] | None = None,
    starts: Bool[np.ndarray, "vocab"] | None = None,
) -> list[slice]:
    """What to cut: every token of a run of `length` tokens that stood before; where it first stood, it stays.

    Runs are compared exactly, by naming runs of 1, 2, 4, ... tokens ([Karp72]); n log n time, as a suffix array.

    Args:
        offsets: where documents begin, and the end: no run crosses a border.
        starts: whether an id begins a character (`character_starts`): spans then begin and end between characters.
    """
    n = len(tokens)
    if length < 1:
        raise ValueError(f"a repeated run has at least 1 token, got length={length}")
    if n < length:
        return []
    names = _names(tokens, length)
    whole = np.ones(len(names), bool)
    for border in [] if offsets is None else np.asarray(offsets)[1:-1].tolist():
        whole[max(border - length + 1, 0) : border] = False
    places = np.flatnonzero(whole)
    _, first = np.unique(names[places], return_index=True)
    again = np.ones(len(places), bool)
    again[first] = False
    depth = np.zeros(n + 1, np.int64)
    depth[places[again]] += 1
    np.subtract.at(depth, places[again] + length, 1)
    covered = np.concatenate([[False], np.cumsum(depth[:-1]) > 0, [False]])
    edges = np.flatnonzero(covered[1:] != covered[:-1]).reshape(-1, 2).tolist()
    spans = edges if starts is None else [_between(tokens, a, b, starts) for a, b in edges]
    return [slice(a, b) for a, b in spans if a < b]


def _names(tokens: Int[np.ndarray, "n"], length: int) -> Int[np.ndarray, "windows"]:
    """A number for the run of `length` tokens from every place, equal where the runs are: those of two shorter runs."""
    names, size = np.unique(tokens, return_inverse=True)[1].astype(np.int64), 1
    while size < length:
        step = min(size, length - size)  # the second half may overlap the first
        left, right = names[:-step], names[step:]
        names, size = np.unique(left * (names.max() + 1) + right, return_inverse=True)[1], size + step
    return names


def _between(tokens: Int[np.ndarray, "n"], a: int, b: int, starts: Bool[np.ndarray, "vocab"]) -> tuple[int, int]:
    """The largest span within a..b with a character's beginning at `a` and at `b`."""
    while a < b and not starts[tokens[a]]:
        a += 1
    while a < b < len(tokens) and not starts[tokens[b]]:
        b -= 1
    return a, b


def character_starts(tok: Tokenizer) -> Bool[np.ndarray, "vocab"]:
    """Whether each id begins a UTF-8 character, or is a control token: not those that go on with one (0b10......)."""
    return np.array([not piece or piece[0] >> 6 != 0b10 for piece in tok.pieces])


# ---------------------------------------------------------------------- evaluation text in training text


def no_overlap_with(evaluations: Iterable[str], n: int = 13) -> Callable[..., str | None]:
    """A rule that drops training texts that share `n` words in a row with any evaluation text: "contaminated".

    Case and punctuation aside. Evaluation texts of fewer than `n` words cannot be found; 13 is GPT-3's choice.

    Raises:
        ValueError: when none has that many words.
    """
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *(shingles(text, n) for text in evaluations)]))
    if not len(known):
        raise ValueError(
            f"no evaluation text has {n} words, so nothing could be found; give longer texts or a smaller n"
        )
    return lambda text, language="en": "contaminated" if np.isin(shingles(text, n), known).any() else None
