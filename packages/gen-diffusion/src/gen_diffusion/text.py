"""Captions as conditions: strings -> ids -> the context that a network's cross-attention reads.

A tokeniser is a callable `str -> list[int]` with ids from 1; 0 is padding, and a row of nothing else is unconditional,
which is how classifier-free guidance drops a caption. The encoder is trained with the network:

    words = Words.fit(captions)
    net = Texted(UNet(channels=3, context_dim=64), TextEncoder(words.size, width=64))
    x0 = Preconditioned(net)(x, sigma, text=tokenise(captions, words))

A frozen encoder, any callable that embeds a string, needs no `Texted`: its answers are ordinary conditions.

    context, context_mask = embed_captions(captions, clip)

The tokenisers are frozen dataclasses of strings, so that `gen_core.config.to_dict` makes JSON of them.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gen_core.description import describable

Tokeniser = Callable[[str], list[int]]
Context = tuple[Float[Tensor, "b l e"], Bool[Tensor, "b l"]]  # tokens, and which of them are real


@dataclass(frozen=True)
class Words:
    """Words and punctuation marks, without regard to case; for captions of few words, all of them known.

    >>> words = Words.fit(["a red square", "a blue circle"])
    >>> words("A blue square"), words.size
    ([1, 2, 5], 6)
    """

    words: tuple[str, ...]

    @classmethod
    def fit(cls, texts: Iterable[str]) -> "Words":
        return cls(tuple(sorted({word for text in texts for word in _split(text)})))

    @property
    def size(self) -> int:
        """Number of ids, padding counted."""
        return len(self.words) + 1

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, 1)}

    def __call__(self, text: str) -> list[int]:
        """Ids of the words of `text`; ValueError for a word that was not among the texts of `fit`."""
        for word in (split := _split(text)):
            if word not in self._ids:
                near = difflib.get_close_matches(word, self.words, 1, 0) or ["(none)"]
                raise ValueError(
                    f"the word {word!r} is not in the vocabulary of {len(self.words)}; nearest: {near[0]!r}"
                )
        return [self._ids[word] for word in split]


@dataclass(frozen=True)
class Characters:
    """Single characters, as they are: a small vocabulary that spells any word, in longer rows."""

    characters: str

    @classmethod
    def fit(cls, texts: Iterable[str]) -> "Characters":
        return cls("".join(sorted(set().union(*texts))))

    @property
    def size(self) -> int:
        """Number of ids, padding counted."""
        return len(self.characters) + 1

    def __call__(self, text: str) -> list[int]:
        """Ids of the characters of `text`; ValueError for one that was not among the texts of `fit`."""
        if unknown := set(text) - set(self.characters):
            raise ValueError(
                f"the character {min(unknown)!r} is not one of the known {self.characters!r}; leave it out"
            )
        return [self.characters.index(c) + 1 for c in text]


@dataclass(frozen=True)
class BytePairs:
    """Byte-pair encoding by the `tokenizers` library (the extra `text`); no string is unknown to it."""

    json: str
    """The library's own form of a trained tokeniser."""

    @classmethod
    def fit(cls, texts: Iterable[str], size: int = 1024) -> "BytePairs":
        """At most `size` ids, of which 256 are bytes and one is padding."""
        if size < 257:
            raise ValueError(f"byte pairs need a size of at least 257 (256 bytes and padding), got {size}")
        _needs_tokenizers()
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        tokenizer: Any = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # pyright: ignore
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(vocab_size=size - 1, initial_alphabet=alphabet, show_progress=False)  # pyright: ignore
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer.to_str())

    @property
    def size(self) -> int:
        """Number of ids, padding counted."""
        return self._tokenizer.get_vocab_size() + 1

    @cached_property
    def _tokenizer(self) -> Any:
        _needs_tokenizers()
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self.json)

    def __call__(self, text: str) -> list[int]:
        return [i + 1 for i in self._tokenizer.encode(text).ids] if text else []


def tokenise(texts: Sequence[str], tokeniser: Tokeniser, length: int | None = None) -> Int[Tensor, "b l"]:
    """Ids of each text in a row, padded with 0 to `length`, or to the longest; a row for "" is all 0: unconditional.

    Raises:
        ValueError: for a text of more than `length` tokens; nothing is cut off in silence.

    >>> tokenise(["a red square", ""], Words(("a", "red", "square")), length=4).tolist()
    [[1, 2, 3, 0], [0, 0, 0, 0]]
    """
    rows = [tokeniser(text) for text in texts]
    longest = max(map(len, rows), default=0)
    width = max(1, longest) if length is None else length
    if longest > width:
        text = next(text for text, row in zip(texts, rows, strict=True) if len(row) > width)
        raise ValueError(f"{text!r} has more than {width} tokens; shorten it, or allow length={longest}")
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.long).reshape(len(rows), width)


@describable
class TextEncoder(nn.Module):
    """Token ids -> context: a transformer that reads in both directions, normalised before each of its layers.

    Padding changes nothing: no token attends to it, and its own rows of the context are 0.

    Args:
        vocabulary: number of ids, padding counted: the tokeniser's `size`.
        width: features of a token, a multiple of `heads`; the network's `context_dim`.
        length: tokens of the longest caption.
    """

    def __init__(self, vocabulary: int, width: int = 64, depth: int = 2, heads: int = 4, length: int = 64):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(torch.randn(length, width))  # as large as a token: order is half the text
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Int[Tensor, "b l"]) -> tuple[Float[Tensor, "b l e"], Bool[Tensor, "b l"]]:
        """The context, and which of its tokens are real; ValueError for rows longer than `length`."""
        if ids.shape[1] > len(self.place):
            raise ValueError(f"captions of {ids.shape[1]} ids, but the encoder was built for length={len(self.place)}")
        mask = ids > 0
        ignored = ~mask & mask.any(
            1, keepdim=True
        )  # a row without tokens looks at its padding: a softmax needs one key
        h = self.token(ids) + self.place[: ids.shape[1]]
        for layer in self.layers:
            h = layer(h, src_key_padding_mask=ignored)
        return self.norm(h) * mask[..., None], mask


@describable
class Texted(nn.Module):
    """`net(x, c_noise, context=..., context_mask=...)` told what it needs by `text`, the ids of a caption.

    Args:
        net: any network of this package that was built with `context_dim` = the encoder's width.
        encoder: `ids -> (context, context_mask)`, trained with it.
    """

    def __init__(self, net: nn.Module, encoder: nn.Module):
        super().__init__()
        self.net, self.encoder = net, encoder

    def forward(
        self,
        x: Float[Tensor, "b *shape"],
        c_noise: Float[Tensor, "b"],
        *,
        text: Int[Tensor, "b l"] | None = None,
        **cond: Any,
    ) -> Float[Tensor, "b *shape"]:
        if text is not None:
            context, context_mask = self.encoder(text)
            cond = cond | {"context": context, "context_mask": context_mask}
        return self.net(x, c_noise, **cond)


@torch.no_grad()
def embed_captions(captions: Sequence[str], embed: Callable[[str], Tensor]) -> Context:
    """The conditions `(context, context_mask)` of captions, each embedded once by a frozen encoder.

    Args:
        embed: string -> tokens `(l, e)`, or one vector `(e,)` for the whole string. Captions "" are not shown to it:
            their rows hold no token, which makes them unconditional.

    >>> context, context_mask = embed_captions(["ab", "c", ""], lambda text: torch.ones(len(text), 5))
    >>> context.shape, context_mask.tolist()
    (torch.Size([3, 2, 5]), [[True, True], [True, False], [False, False]])
    """
    rows = [embed(text) if text else None for text in captions]
    if not (known := [row for row in rows if row is not None]):
        raise ValueError(f"none of the {len(rows)} captions has any text; leave the condition out instead")
    tokens = [known[0].new_zeros(0, known[0].shape[-1]) if r is None else r.reshape(-1, r.shape[-1]) for r in rows]
    lengths = torch.tensor([len(row) for row in tokens], device=known[0].device)
    context = pad_sequence(tokens, batch_first=True)
    return context, torch.arange(context.shape[1], device=lengths.device) < lengths[:, None]


def _needs_tokenizers() -> None:
    if find_spec("tokenizers") is None:
        raise ImportError("byte pairs need tokenizers: pip install 'gen-diffusion[text]'")


def _split(text: str) -> list[str]:
    """Lower-case words, and punctuation marks one by one."""
    return re.findall(r"\w+|[^\w\s]", text.lower())
