"""Text to ids and back: byte-level BPE or characters, stored as Hugging Face's `tokenizer.json`.

    tok = train_bpe(texts, vocab=8000, specials=["<|end|>"])
    ids = tok.encode("Où est-ce ?")  # never a control token, whatever the text says
    tok.decode(ids + [tok.special("<|end|>")])
    tok.save("runs/tok"); tok = Tokenizer.load("runs/tok")

Ids of `train_bpe`: 0..255 are the bytes themselves, then the merges in the order they were learned, then the control
tokens. The most frequent pair is merged first; of equally frequent ones, the pair whose parts were known earlier.

[Sennrich16] Neural machine translation of rare words with subword units, arXiv:1508.07909.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
import torch
from jaxtyping import Int64
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from gen_core.files import whole
from gen_transformer.cutting import PIECE, cut, cuttable

GPT4 = (  # words with the character before them, numbers of up to three digits, punctuation, blanks
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how tokenizers with a byte fallback write a byte


def _byte_names() -> dict[str, int]:
    """The character that byte-level vocabularies write for each byte: itself if visible, else one from U+0100 on."""
    visible = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    hidden = [b for b in range(256) if b not in visible]
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}


class Tokenizer:
    """A `tokenizers.Tokenizer` that treats text as text.

    Args:
        inner: model, pre-tokeniser and decoder; its added tokens that are marked as special are the control tokens.
    """

    def __init__(self, inner: tokenizers.Tokenizer):
        self.inner = inner
        self.inner.encode_special_tokens = True  # in text, they are text
        self.inner.no_truncation()
        self.inner.no_padding()
        self._added = sorted(inner.get_added_tokens_decoder().items())
        self.specials = {token.content: i for i, token in self._added if token.special}
        characters = isinstance(inner.model, models.WordLevel)
        self._ids = inner.get_vocab(with_added_tokens=False) if characters else None

    def __len__(self) -> int:
        return self.inner.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """The ids of a text; decoding them gives it back.

        Raises:
            ValueError: for characters that a character tokenizer does not have, and for surrogates, which are none.
        """
        return [i for piece in self._pieces(text) for i in self._encode([piece])[0]]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        found: list[list[int]] = [[] for _ in texts]
        for number, ids in self.encode_pieces(texts):
            found[number] += ids
        return found

    def encode_pieces(self, texts: Iterable[str], together: int = 2**19) -> Iterator[tuple[int, list[int]]]:
        """The ids of all texts in their order, in pieces: (number of the text, ids).

        Memory grows neither with the number of texts nor, where they can be cut (`cutting`), with their length: about
        `together` characters are tokenised at a time, on all cores.
        """
        batch, size = [], 0
        for number, text in enumerate(texts):
            for piece in self._pieces(text):
                batch.append((number, piece))
                size += len(piece)
                if size >= together:
                    yield from self._numbered(batch)
                    batch, size = [], 0
        yield from self._numbered(batch)

    def _numbered(self, batch: list[tuple[int, str]]) -> Iterator[tuple[int, list[int]]]:
        numbers, pieces = [number for number, _ in batch], [piece for _, piece in batch]
        return zip(numbers, self._encode(pieces), strict=True)

    def _pieces(self, text: str) -> Iterable[str]:
        return cut(text) if len(text) > PIECE and self._cuttable else [text]

    @cached_property
    def _cuttable(self) -> bool:
        return self._ids is not None or cuttable(json.loads(self.inner.to_str()))

    def _encode(self, pieces: list[str]) -> list[list[int]]:
        if self._ids is not None:
            return [_by_character(self._ids, piece) for piece in pieces]
        try:
            if len(pieces) == 1:
                return [self.inner.encode(pieces[0], add_special_tokens=False).ids]
            return [e.ids for e in self.inner.encode_batch_fast(pieces, add_special_tokens=False)]
        except TypeError:
            half = next(c for piece in pieces for c in piece if "\ud800" <= c <= "\udfff")
            raise ValueError(f"the text has {half!r}, half of a surrogate pair, which is no character") from None

    def decode(self, ids: Sequence[int] | Int64[Tensor, "t"]) -> str:
        """The text of ids; control tokens by their names, bytes that are no UTF-8 as U+FFFD."""
        ids = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        if ids and not (0 <= min(ids) and max(ids) < len(self)):
            wrong = next(i for i in ids if not 0 <= i < len(self))
            raise ValueError(f"id {wrong} lies outside the vocabulary 0..{len(self) - 1}; is it another tokenizer's?")
        return self.inner.decode(ids, skip_special_tokens=False)

    def continuation(self, before: Sequence[int], after: Sequence[int]) -> str:
        """The text that the ids `after` add to that of `before`, which `decode(after)` may lack a blank of.

        Control tokens in `before` count as no text.
        """
        return continuation(self.decode, [i for i in before if i not in self.specials.values()], after)

    def special(self, name: str) -> int:
        """The id of a control token.

        Raises:
            ValueError: when there is none of that name.
        """
        if name not in self.specials:
            there = ", ".join(self.specials) or "none; pass specials= when training"
            raise ValueError(f"no control token {name!r}; there are: {there}")
        return self.specials[name]

    @cached_property
    def bos(self) -> int | None:
        """The control token that the file puts before every text, as Llama's does; `encode` leaves that to you."""
        text = next(iter(self._ids)) if self._ids else "a"
        ids = self.inner.encode(text, add_special_tokens=True).ids
        return ids[0] if ids and ids[0] in self.specials.values() else None

    @cached_property
    def pieces(self) -> list[bytes]:
        """What each id stands for, as bytes; nothing for control tokens.

        Raises:
            ValueError: for kinds of tokenizers in which an id does not stand for fixed bytes (WordPiece).
        """
        spec, names = json.loads(self.inner.to_str()), _byte_names()
        if spec["model"]["type"] == "WordPiece" or not spec["decoder"]:
            raise ValueError(
                f"the ids of a {spec['model']['type']} tokenizer without a byte decoder have no fixed bytes"
            )
        byte_level = "ByteLevel" in json.dumps(spec["decoder"])
        pieces = [b""] * len(self)
        for token, i in self.inner.get_vocab(with_added_tokens=False).items():
            if byte_level:
                pieces[i] = bytes(names.get(c, 0) for c in token)
            elif byte := _BYTE.fullmatch(token):
                pieces[i] = bytes([int(byte[1], 16)])
            else:
                pieces[i] = (token if self._ids else token.replace("▁", " ")).encode()
        for i, token in self._added:
            pieces[i] = b"" if token.special else token.content.encode()
        return pieces

    @cached_property
    def bytes(self) -> Int64[Tensor, "vocab"]:
        """UTF-8 bytes of each id, 0 for control tokens: summed over the ids of a text, the length of the text.

        A tokenizer that puts a blank before the text (Llama's) counts that one too.
        """
        return torch.tensor([len(piece) for piece in self.pieces])

    @property
    def fingerprint(self) -> str:
        """Changes when any text may get other ids."""
        return hashlib.blake2b(self.inner.to_str().encode(), digest_size=8).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and the few lines that let transformers' `AutoTokenizer` open the folder."""
        folder = Path(folder)
        with whole(folder / "tokenizer.json") as part:
            self.inner.save(str(part))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        with whole(folder / "tokenizer_config.json") as part:
            part.write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """From a tokenizer.json, or a folder that holds one.

        Raises:
            FileNotFoundError, ValueError: when there is none, or it cannot be read.
        """
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"{file} is no file; give a tokenizer.json or a folder that holds one")
        try:
            return cls(tokenizers.Tokenizer.from_file(str(file)))
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"{file} is no tokenizer.json that can be read: {error}") from None


def _by_character(vocab: dict[str, int], text: str) -> list[int]:
    try:
        return [vocab[c] for c in text]
    except KeyError:
        unknown = "".join(sorted(set(text) - vocab.keys()))
        raise ValueError(
            f"{unknown!r} is not among the {len(vocab)} characters of this tokenizer; "
            "make it from a text that has all of them, or train byte-level BPE"
        ) from None


def train_bpe(texts: Iterable[str], vocab: int, specials: Sequence[str] = (), pattern: str = GPT4) -> Tokenizer:
    """Byte-level byte-pair encoding ([Sennrich16] algorithm 1, over bytes), the same on every machine.

    Args:
        vocab: number of ids, bytes and control tokens included; fewer when the text has no more pairs to merge.
        specials: names of control tokens; they get the last ids.
        pattern: what merges may not cross: every match of this regular expression is a word.

    Raises:
        ValueError: when there is no text, or `vocab` has no room for the bytes and control tokens.
    """
    if vocab < 256 + len(specials):
        raise ValueError(f"vocab must be at least {256 + len(specials)} (256 bytes and {len(specials)} control tokens)")
    names = sorted(names_of_bytes := _byte_names(), key=names_of_bytes.__getitem__)
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = split  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(vocab_size=vocab - len(specials), initial_alphabet=names, show_progress=False)  # pyright: ignore[reportCallIssue]
    seen = 0

    def counted() -> Iterable[str]:
        nonlocal seen
        for text in texts:
            seen += len(text)
            yield text

    cuts = cuttable(json.loads(learner.to_str()))
    words = (piece for text in counted() for piece in (cut(text) if cuts else [text]))
    learner.train_from_iterator(words, trainer)
    if not seen:
        raise ValueError("a tokenizer cannot be trained on empty text; give at least one document with characters")
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    order = dict.fromkeys(names + [a + b for a, b in merges])
    inner = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(order)}, merges))
    inner.pre_tokenizer = split  # pyright: ignore[reportAttributeAccessIssue]
    inner.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    return _with_specials(inner, specials)


def characters(text: str, specials: Sequence[str] = ()) -> Tokenizer:
    """One id a character, in the order of their code points, then the control tokens."""
    if not text:
        raise ValueError("characters needs a text to take them from, got an empty one")
    vocab = {c: i for i, c in enumerate(sorted(set(text)))}
    inner = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token=""))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")  # pyright: ignore[reportAttributeAccessIssue]
    inner.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    return _with_specials(inner, specials)


def _with_specials(inner: tokenizers.Tokenizer, specials: Sequence[str]) -> Tokenizer:
    if len(set(specials)) < len(specials) or any(inner.token_to_id(name) is not None for name in specials):
        raise ValueError(f"control tokens need names that differ and are no tokens of text, got {list(specials)}")
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    return Tokenizer(inner)


def continuation(decode: Callable[[list[int]], str], before: Sequence[int], after: Sequence[int]) -> str:
    """The text that the ids `after` add to that of `before`: decoders drop the blank before the first word of all."""
    last = list(before[-1:])
    whole, start = decode([*last, *after]), decode(last)
    return whole.removeprefix(start if whole.startswith(start) else start.rstrip("\ufffd"))  # half a character


def fertility(tok: Tokenizer, text: str) -> float:
    """Tokens per word, a word being what stands between blanks: what a language costs with this tokenizer."""
    words = len(text.split())
    if not words:
        raise ValueError("fertility is tokens per word, and this text has no words")
    return len(tok.encode(text)) / words


def bytes_per_token(tok: Tokenizer, text: str) -> float:
    """UTF-8 bytes of the text that one token stands for: how far the tokenizer compresses."""
    if not text:
        raise ValueError("bytes per token of an empty text are 0 / 0; give some text")
    return len(text.encode()) / len(tok.encode(text))
