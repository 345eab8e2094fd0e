"""Words as vectors: neighbours, analogies, and word2vec's two file formats.

    vectors = load_vectors("words.bin")
    vectors.neighbours("Paris", 5)                         # [("Lyon", 0.71), ...]
    vectors.analogy("man", "king", "woman")                # man is to king as woman is to ...
    save_vectors("words.txt", vectors)

[Mikolov13] Linguistic regularities in continuous space word representations, NAACL 2013.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gen_core.files import whole


@dataclass(frozen=True)
class WordVectors:
    """A row of `matrix` for each of `words`."""

    words: tuple[str, ...]
    matrix: Float[Tensor, "words dim"]

    def __post_init__(self):
        if len(self.words) != len(self.matrix):
            raise ValueError(f"{len(self.words)} words need as many vectors, got {len(self.matrix)}")
        if len(self.index) != len(self.words):
            raise ValueError("words must differ, and some of these are the same")

    @cached_property
    def index(self) -> dict[str, int]:
        """The row of each word."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def unit(self) -> Float[Tensor, "words dim"]:
        """The vectors divided by their length."""
        return self.matrix / self.matrix.norm(dim=1, keepdim=True).clamp(min=torch.finfo(self.matrix.dtype).tiny)

    def __getitem__(self, word: str) -> Float[Tensor, "dim"]:
        return self.matrix[self._row(word)]

    def similarity(self, a: str, b: str) -> float:
        """The cosine of two words."""
        return float(self.unit[self._row(a)] @ self.unit[self._row(b)])

    def neighbours(self, word: str, n: int = 10) -> list[tuple[str, float]]:
        """The words of largest cosine with `word`, without itself."""
        return self.nearest(self[word], n, without=[word])

    def analogy(self, a: str, b: str, c: str, n: int = 10) -> list[tuple[str, float]]:
        """a is to b as c is to these: cosines with b - a + c, of unit vectors ([Mikolov13] section 4)."""
        a_, b_, c_ = (self.unit[self._row(word)] for word in (a, b, c))
        return self.nearest(b_ - a_ + c_, n, without=[a, b, c])

    def nearest(self, x: Float[Tensor, "dim"], n: int = 10, without: Iterable[str] = ()) -> list[tuple[str, float]]:
        """The words of largest cosine with any vector."""
        cosine = self.unit @ (x / x.norm())
        cosine[[self._row(word) for word in without]] = -torch.inf
        best = cosine.topk(min(n, len(self.words))).indices.tolist()
        return [(self.words[i], float(cosine[i])) for i in best if cosine[i] > -torch.inf]

    def _row(self, word: str) -> int:
        if word not in self.index:
            raise ValueError(f"{word!r} is not among the {len(self.words)} words; it was too rare, or never seen")
        return self.index[word]


def save_vectors(path: str | Path, vectors: WordVectors, *, binary: bool | None = None) -> None:
    """Write the format of the word2vec program, which gensim and fastText read.

    Args:
        binary: little-endian float32, or decimal numbers that give the same float32 back; None: by the suffix .bin.
    """
    path = Path(path)
    spaced = [word for word in vectors.words if not word or any(c.isspace() for c in word)]
    if spaced:
        raise ValueError(f"the format separates words by white space, so {spaced[0]!r} cannot be written")
    matrix = vectors.matrix.detach().cpu().numpy().astype("<f4")
    rows = zip(vectors.words, matrix, strict=True)
    with whole(path) as part, part.open("wb") as file:
        file.write(f"{len(matrix)} {matrix.shape[1]}\n".encode())
        if path.suffix == ".bin" if binary is None else binary:
            file.writelines(word.encode() + b" " + row.tobytes() + b"\n" for word, row in rows)
        else:
            file.writelines(f"{word} {' '.join(map(str, row))}\n".encode() for word, row in rows)


def load_vectors(path: str | Path, *, binary: bool | None = None) -> WordVectors:
    """Read what `save_vectors`, gensim or the word2vec program wrote.

    Raises:
        ValueError: when the file is not what its first line says.
    """
    path = Path(path)
    head, _, body = path.read_bytes().partition(b"\n")
    try:
        n, dim = map(int, head.split())
    except ValueError:
        raise ValueError(f"{path} does not begin with the numbers of words and of dimensions: {head[:40]!r}") from None
    read = _read_binary if (path.suffix == ".bin" if binary is None else binary) else _read_text
    words, matrix = read(body, n, dim, path)
    return WordVectors(tuple(words), torch.from_numpy(matrix))


def _read_text(body: bytes, n: int, dim: int, path: Path) -> tuple[Sequence[str], np.ndarray]:
    lines = [line.split(b" ") for line in body.rstrip().split(b"\n")] if n else []
    wrong = next((i for i, line in enumerate(lines) if len(line) != dim + 1), None)
    if wrong is not None or len(lines) != n:
        where = f"line {wrong + 2} has {len(lines[wrong]) - 1} numbers" if wrong is not None else f"it has {len(lines)}"
        raise ValueError(f"{path} promises {n} words of {dim} numbers, but {where}; is it binary, or cut short?")
    return [line[0].decode() for line in lines], np.array([line[1:] for line in lines], dtype="S").astype(np.float32)


def _read_binary(body: bytes, n: int, dim: int, path: Path) -> tuple[Sequence[str], np.ndarray]:
    words, matrix, at = [], np.empty((n, dim), dtype="<f4"), 0
    for row in matrix:
        space = body.find(b" ", at)
        end = space + 1 + 4 * dim
        if space < 0 or end > len(body):
            raise ValueError(f"{path} promises {n} words of {dim} numbers and ends in word {len(words) + 1}")
        words.append(body[at:space].lstrip(b"\n").decode())  # the word2vec program ends each vector with a new line
        row[:] = np.frombuffer(body, "<f4", dim, space + 1)
        at = end
    return words, matrix.astype(np.float32)
