"""From text files to rows of tokens: reading, memory-mapped shards, best-fit packing, windows.

    write_shard("shards/a", tok, read("books/"))
    corpus = Corpus("shards/a", tokenizer=tok)
    data = gen_core.Loader(Packed(corpus, 1024), batch_size=32)   # or Windows(corpus, 1024)
    ids, targets, weight, doc = next(data.batches())

A row is four tensors `(t,)`: ids; the token after each of them in the same document; 1 where there is such a token,
else 0; the number of the document within the row, -1 for padding. So its documents cannot see or predict each other.

A shard is a folder: tokens.bin (uint16 or uint32), offsets.bin (int64, where documents begin, and the end) and
header.json. It is written token by token and appears under its name when it is whole.

[Johnson74] Worst-case performance bounds for simple one-dimensional packing algorithms, SIAM J. Computing 3(4).
"""

import codecs
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import Dataset

from gen_transformer.tokenizer import Tokenizer

Row = tuple[Int64[Tensor, "t"], Int64[Tensor, "t"], Float32[Tensor, "t"], Int64[Tensor, "t"]]
Stream = tuple[Int64[Tensor, "t"], Int64[Tensor, "t"], Float32[Tensor, "t"]]
TEXT = (".txt", ".md", ".jsonl")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # escaped, which a whole pair may be
_SURROGATES = re.compile("[\ud800-\udfff]")  # that are no pair


# ---------------------------------------------------------------------- text


def read(path: str | Path, *, encoding: str = "utf-8", field: str = "text") -> Iterator[str]:
    """The documents of a file or of all .txt, .md and .jsonl files under a folder, in the order of their names.

    A .jsonl file has a document a line, under the key `field`; any other file is one document. Line ends become "\\n".
    In a folder, files in another encoding are left out, named and counted in one warning.

    Raises:
        FileNotFoundError: when there is no such path.
        ValueError: when a single file is in another encoding, a line of JSON is broken, or there is no text at all.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"{root} is neither a file nor a folder; give one with text in it")
    files = sorted(f for f in root.rglob("*") if f.is_file() and f.suffix in TEXT) if root.is_dir() else [root]
    empty, broken = True, []
    for file in files:
        try:
            for text in _documents(file, encoding, field):
                empty = empty and not text.strip()
                yield text
        except UnicodeDecodeError as error:
            broken.append(f"{file} (byte {error.object[error.start]:#04x})")
    if broken:
        names = ", ".join(broken[:3]) + (" ..." if len(broken) > 3 else "")
        left_out = (
            f"{len(broken)} of {len(files)} files are not {encoding}: {names}; convert them or name their encoding"
        )
        if empty:
            raise ValueError(f"{root} holds no text that can be read: {left_out}")
        warnings.warn(f"left out what follows: {left_out}", stacklevel=2)
    if empty:
        raise ValueError(f"{root} holds no text ({len(files)} files of {', '.join(TEXT)})")


def _documents(file: Path, encoding: str, field: str) -> Iterator[str]:
    if file.suffix != ".jsonl":
        yield file.read_text(_unmarked(encoding))
        return
    for number, value in json_lines(file, encoding):
        text = value.get(field) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise ValueError(f"{file} line {number} is no JSON object with a text under the key {field!r}")
        yield text


def json_lines(file: Path, encoding: str = "utf-8") -> Iterator[tuple[int, Any]]:
    """The values of a .jsonl file, each with the number of its line; blank lines hold none.

    A line ends where Python's files end it, at "\\n", "\\r\\n" and "\\r": other separators, such as U+2028, are text.

    Raises:
        ValueError: for a line that is no JSON, or that has half of a surrogate pair, which is no character.
    """
    with file.open(encoding=_unmarked(encoding)) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{file} line {number} is no JSON: {error}") from None
            if _SURROGATE.search(line) and (half := _SURROGATES.search(json.dumps(value, ensure_ascii=False))):
                raise ValueError(f"{file} line {number} has {half[0]!r}, half of a surrogate pair; take it out")
            yield number, value


def _unmarked(encoding: str) -> str:
    """The encoding without the byte order mark at the start of a file."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


# ---------------------------------------------------------------------- tokens on disk


def write_shard(folder: str | Path, tok: Tokenizer, texts: Iterable[str], *, end: str | None = None) -> None:
    """Tokenise documents into a shard; memory grows neither with their number nor with the tokens of one.

    Args:
        folder: a new one; it appears when everything is written.
        end: a control token to put after every document, so that a model learns to stop.

    Raises:
        FileExistsError: when the folder is there already.
        ValueError: when there are no tokens.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; remove it, or write to another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    tail = [] if end is None else [tok.special(end)]
    dtype = np.dtype("<u2" if len(tok) <= 2**16 else "<u4")
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with (part / "tokens.bin").open("wb") as tokens, (part / "offsets.bin").open("wb") as offsets:
            total = documents = 0
            offsets.write(np.int64(0).tobytes())
            for _, pieces in groupby(tok.encode_pieces(texts), lambda piece: piece[0]):
                written = [tokens.write(np.asarray(ids, dtype).tobytes()) for _, ids in pieces]
                if any(written):  # a document without tokens is none
                    tokens.write(np.asarray(tail, dtype).tobytes())
                    total, documents = total + sum(written) // dtype.itemsize + len(tail), documents + 1
                    offsets.write(np.asarray(total, "<i8").tobytes())
        if not total:
            raise ValueError(f"there is no text for {folder}: every document is empty")
        header = {"format": 1, "dtype": dtype.str, "tokens": total, "documents": documents}
        header |= {"vocab": len(tok), "tokenizer": tok.fingerprint}
        (part / "header.json").write_text(json.dumps(header, indent=2) + "\n")
        part.chmod(0o755)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


class Corpus:
    """Shards as one sequence of tokens, read from disk as they are needed.

    Args:
        folders: what `write_shard` wrote, all with the same tokenizer.
        tokenizer: checked against the one that the shards were written with.

    Attributes:
        offsets: where documents begin, and the end of the last, `(documents + 1,)`.
        vocab: number of ids of the tokenizer.

    Raises:
        FileNotFoundError, ValueError: when a shard is absent, cut off, or another tokenizer's.
    """

    def __init__(self, *folders: str | Path, tokenizer: Tokenizer | None = None):
        if not folders:
            raise ValueError("a corpus needs at least one shard; write one with write_shard")
        headers, self._parts, ends = [], [], [np.zeros(1, np.int64)]
        for folder in map(Path, folders):
            header, tokens, offsets = _open(folder)
            headers.append(header)
            self._parts.append(tokens)
            ends.append(offsets[1:] + ends[-1][-1])
        self.offsets = np.concatenate(ends)
        self.folders = tuple(Path(folder).resolve() for folder in folders)
        self._starts = np.cumsum([0, *map(len, self._parts)])
        self.vocab, self.fingerprint = headers[0]["vocab"], headers[0]["tokenizer"]
        wanted = tokenizer.fingerprint if tokenizer else self.fingerprint
        for folder, header in zip(folders, headers, strict=True):
            if header["tokenizer"] != wanted:
                raise ValueError(
                    f"{folder} has tokens of tokenizer {header['tokenizer']}, not {wanted}; write it again"
                )

    def __len__(self) -> int:
        """Number of tokens."""
        return int(self.offsets[-1])

    def __reduce__(self):
        return Corpus, self.folders  # to a worker process go names, not tokens

    def tokens(self, start: int, stop: int) -> Int64[Tensor, "n"]:
        """Tokens `start` to `stop` of the sequence."""
        first, last = np.searchsorted(self._starts, [start, max(stop - 1, start)], side="right") - 1
        spans = [
            self._parts[p][max(start - self._starts[p], 0) : stop - self._starts[p]]
            for p in range(first, min(last + 1, len(self._parts)))
        ]
        return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *spans]).astype(np.int64))


def _open(folder: Path) -> tuple[dict, np.memmap, np.ndarray]:
    if not (folder / "header.json").is_file():
        raise FileNotFoundError(f"{folder} is no shard of tokens (it has no header.json); write one with write_shard")
    header = json.loads((folder / "header.json").read_text())
    tokens = np.memmap(folder / "tokens.bin", header["dtype"], mode="r")
    offsets = np.fromfile(folder / "offsets.bin", "<i8")
    if len(tokens) != header["tokens"] or len(offsets) != header["documents"] + 1 or offsets[-1] != len(tokens):
        raise ValueError(f"{folder} is cut off: it holds {len(tokens)} of {header['tokens']} tokens; write it again")
    return header, tokens, offsets


# ---------------------------------------------------------------------- rows


def pack(
    lengths: Sequence[int] | np.ndarray,
    T: int,
    *,
    order: Literal["best_fit_decreasing", "next_fit"] = "best_fit_decreasing",
) -> list[list[int]]:
    """Which pieces share a row of `T` tokens; every piece is in one row.

    Best fit decreasing ([Johnson74]) takes the longest piece first and puts it where the least room remains, at most
    11/9 of the fewest rows possible; next fit keeps the order and opens a row when a piece does not fit the last.

    Raises:
        ValueError: when a length is not in 1..T.

    >>> pack([5, 3, 2, 6], 8)
    [[3, 2], [0, 1]]
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and not (1 <= lengths.min() and lengths.max() <= T):
        wrong = lengths[(lengths < 1) | (lengths > T)][0]
        raise ValueError(f"pieces have 1 to T={T} tokens, got one of {wrong}; cut longer ones first")
    if order == "next_fit":
        return _next_fit(lengths.tolist(), T)
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(T + 1)]  # rows by the tokens of room they have left
    rooms = 0  # bit r is set where with_room[r] holds a row: the least room that suffices is one shift away
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            rooms ^= (not with_room[room]) << room
        else:
            room, row = T, len(rows)
            rows.append([])
        rows[row].append(i)
        if left := room - length:
            with_room[left].append(row)
            rooms |= 1 << left
    return rows


def _next_fit(lengths: list[int], T: int) -> list[list[int]]:
    rows, room = [], 0
    for i, length in enumerate(lengths):
        if length > room:
            rows.append([])
            room = T
        rows[-1].append(i)
        room -= length
    return rows


class Packed(Dataset):
    """Whole documents, several to a row; those of more than `T` tokens are cut into rows of their own and a rest.

    Every token of the corpus is an input exactly once, and every token but the first of a document is a target.
    """

    def __init__(
        self, corpus: Corpus, T: int, *, order: Literal["best_fit_decreasing", "next_fit"] = "best_fit_decreasing"
    ):
        if T < 2:
            raise ValueError(f"rows need at least 2 tokens to predict one from another, got T={T}")
        self.corpus, self.T = corpus, T
        self._starts, self._lengths, self._follows = _pieces(corpus.offsets, T)
        rows = pack(self._lengths, T, order=order)
        self._pieces = np.fromiter((i for row in rows for i in row), np.int64, len(self._lengths))
        self._ends = np.cumsum([len(row) for row in rows])
        self.tokens = len(corpus)

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def utilisation(self) -> float:
        """The share of the rows that is not padding."""
        return self.tokens / (len(self) * self.T)

    def __getitem__(self, index: int) -> Row:
        row = _empty(self.T)
        at = 0
        for number, i in enumerate(self._pieces[self._ends[index - 1] if index else 0 : self._ends[index]]):
            start, length = int(self._starts[i]), int(self._lengths[i])
            _place(row, at, number, self.corpus.tokens(start, start + length + int(self._follows[i])), length)
            at += length
        return row


def _pieces(offsets: np.ndarray, T: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents cut to at most `T` tokens: (start, length, whether the document goes on behind it) of every piece."""
    lengths = np.diff(offsets)
    counts = -(-lengths // T)
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, ... within its document
    starts = np.repeat(offsets[:-1], counts) + nth * T
    ends = np.repeat(offsets[1:], counts)
    return starts, np.minimum(ends - starts, T), ends - starts > T


class Windows(Dataset):
    """The corpus cut every `T` tokens: full rows, and every token but the first (of a document) is a target once.

    Args:
        isolate: keep documents that meet in a row apart, as everywhere else; False reads the corpus as one document,
            whose rows need no `doc` and have none.
    """

    def __init__(self, corpus: Corpus, T: int, *, isolate: bool = True):
        if len(corpus) < 2 or T < 1:
            raise ValueError(f"windows need at least 2 tokens and T >= 1, got {len(corpus)} tokens and T={T}")
        self.corpus, self.T, self.isolate = corpus, T, isolate
        self.offsets = corpus.offsets if isolate else corpus.offsets[[0, -1]]
        self.tokens = len(corpus)

    def __len__(self) -> int:
        return -(-(len(self.corpus) - 1) // self.T)

    def __getitem__(self, index: int) -> Row | Stream:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        row = _empty(self.T)
        start, stop = index * self.T, min((index + 1) * self.T, len(self.corpus))
        tokens = self.corpus.tokens(start, min(stop + 1, len(self.corpus)))
        first, last = np.searchsorted(self.offsets, [start, stop - 1], side="right") - 1
        for number, d in enumerate(range(first, last + 1)):
            a, b = max(int(self.offsets[d]), start), min(int(self.offsets[d + 1]), stop)
            follows = int(b < self.offsets[d + 1])
            _place(row, a - start, number, tokens[a - start : b - start + follows], b - a)
        return row if self.isolate else row[:3]


def _empty(T: int) -> Row:
    zeros = torch.zeros(T, dtype=torch.int64)
    return zeros, zeros.clone(), torch.zeros(T, dtype=torch.float32), torch.full_like(zeros, -1)


def _place(row: Row, at: int, number: int, tokens: Int64[Tensor, "n"], length: int) -> None:
    """Put `length` tokens, and the one that follows them if it is given too, into a row from position `at` on."""
    ids, targets, weight, doc = row
    predicted = len(tokens) - 1
    ids[at : at + length] = tokens[:length]
    targets[at : at + predicted] = tokens[1:]
    weight[at : at + predicted] = 1
    doc[at : at + length] = number
