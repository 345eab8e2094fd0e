"""`gen llm tokenizer` and `gen llm data`: what text costs in tokens, and clean text as tokens."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import tyro
from rich.table import Table

from gen_apps.llm import corpus
from gen_transformer import Tokenizer, bytes_per_token, fertility
from gen_transformer.clean import Document, by_stop_words, clean, correcting, in_language, on_text
from gen_transformer.dedup import (
    character_starts,
    exact_substrings,
    kept,
    minhash,
    near_duplicates,
    no_overlap_with,
    shingles,
)
from gen_transformer.quality import gopher_quality, gopher_repetition, refinedweb_lines

Texts = Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="TEXT ...")]


@dataclass(frozen=True)
class LearnTokenizer:
    """Learn byte pairs from text; print what each TEXT costs with them."""

    data: Texts = (corpus.DESCRIPTIONS,)
    """Files or folders of text; the last tenth of each is only measured."""
    vocab: int = 4096
    """Tokens, the 256 bytes and the control tokens included; 0 makes every character a token."""
    encoding: str = "utf-8"
    out: Path = Path("runs/tokenizer")
    """Folder to write: tokenizer.json, which transformers reads too."""


def tokenizer(config: LearnTokenizer) -> None:
    named = zip(corpus.names(config.data), config.data, strict=True)
    sources = [corpus.split(name, corpus.documents(text, config.encoding), 0.1) for name, text in named]
    tok = corpus.learned(f"bpe:{config.vocab}" if config.vocab else "characters", *corpus.pooled(sources))
    tok.save(config.out)
    rich.print(cost(tok, {source.name: "\n\n".join(source.held_out) for source in sources}))
    print(f"{config.out / 'tokenizer.json'}: {len(tok):,} tokens")


def cost(tok: Tokenizer, texts: dict[str, str]) -> Table:
    """What held-out texts cost."""
    table = Table("held-out text", "words", "tokens", "tokens per word", "bytes per token")
    for name, text in texts.items():
        row = len(text.split()), len(tok.encode(text)), fertility(tok, text), bytes_per_token(tok, text)
        table.add_row(name, f"{row[0]:,}", f"{row[1]:,}", f"{row[2]:.3f}", f"{row[3]:.3f}")
    return table


@dataclass(frozen=True)
class WriteData:
    """Filter and deduplicate text by documents, count what was left out and why, and write it as tokens."""

    data: Texts
    """Files or folders of text. Each becomes a folder of tokens, to be mixed by gen llm pretrain."""
    tokenizer: str = "bpe:4096"
    """characters, bpe:SIZE, or a folder with a tokenizer.json."""
    encoding: str = "utf-8"
    language: tuple[str, ...] = ()
    """Keep only these languages (en, fr, de, es, it, pt, nl), by their frequent words; by default all."""
    quality: bool = False
    """Apply Gopher's rules of quality and repetition, with the stop words of the document's language, and take out
    navigation lines as RefinedWeb does."""
    dedup: bool = False
    """Leave out near copies but the first: MinHash in 14 bands of 8, which finds a pair of Jaccard similarity 0.8 with
    a probability of 92 %."""
    cut: int = 0
    """Take out runs of so many tokens that stood before in the same TEXT, such as notices; 50 is usual, 0 none."""
    against: tuple[str, ...] = ()
    """Texts of an evaluation: a document with 13 words in a row of theirs is left out."""
    held_out: float = 0.1
    """Share at the end of each TEXT that is not trained on."""
    out: Path = Path("runs/data")
    """Folder to write, with one folder for each TEXT."""

    def __post_init__(self):
        if not self.data:
            raise ValueError("give at least one TEXT")
        if self.cut < 0:
            raise ValueError(f"--cut is a number of tokens, 0 for none, got {self.cut}")


def data(config: WriteData) -> None:
    sources, names = [], corpus.names(config.data)
    if there := [config.out / name for name in names if (config.out / name).exists()]:
        raise FileExistsError(f"{there[0]} is there already; remove it, or choose another --out")
    for name, text in zip(names, config.data, strict=True):
        found, counts = kept_of(corpus.documents(text, config.encoding), config)
        if not found:
            raise ValueError(f"nothing of {text} is left: {dict(counts)}; loosen the filters")
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())
        print(f"{name}: {sum(counts.values()):,} documents: {reasons}")
        sources.append(corpus.split(name, found, config.held_out))
    tok = corpus.learned(config.tokenizer, *corpus.pooled(sources))
    if config.cut:
        sources = [without_repeats(source, tok, config.cut) for source in sources]
    for source in sources:
        corpus.write(config.out / source.name, tok, source)
    rich.print(cost(tok, {source.name: "\n\n".join(source.held_out) for source in sources}))
    print(f"train on it: gen llm pretrain {' '.join(str(config.out / source.name) for source in sources)}")


def kept_of(texts: Sequence[str], config: Any) -> tuple[list[str], Counter]:
    """The documents that the filters keep, and how many went for which reason."""
    filters: list[Any] = []
    if config.language:
        filters.append(in_language(by_stop_words, dict.fromkeys(config.language, 0.0)))
    if config.quality:
        filters += [named, correcting(refinedweb_lines), on_text(gopher_quality), on_text(gopher_repetition)]
    if config.against:
        other = [text for each in config.against for text in corpus.documents(each, config.encoding)]
        filters.append(on_text(no_overlap_with(other)))
    counts: Counter = Counter()
    found = [document.text for document in clean(map(Document, texts), filters, counts)]
    if config.dedup and len(found) > 1:
        signatures = np.stack([minhash(shingles(text)) for text in found])
        mask = kept(len(found), near_duplicates(signatures))
        counts["near copy"] += int((~mask).sum())
        counts["kept"] -= int((~mask).sum())
        found = [text for text, keep in zip(found, mask, strict=True) if keep]
    return found, counts


def without_repeats(source: corpus.Source, tok: Tokenizer, length: int) -> corpus.Source:
    """The documents without runs of `length` tokens that stood before in them, held-out ones coming after the rest."""
    texts = [*source.training, *source.held_out]
    ids = tok.encode_batch(texts)
    tokens, offsets = np.fromiter(chain.from_iterable(ids), np.int64), np.cumsum([0, *map(len, ids)])
    keep = np.ones(len(tokens), bool)
    for span in exact_substrings(tokens, length, offsets=offsets, starts=character_starts(tok)):
        keep[span] = False
    print(f"{source.name}: {int((~keep).sum()):,} of {len(tokens):,} tokens stood there before and are taken out")
    rows = zip(texts, pairwise(offsets.tolist()), strict=True)
    left = [text if keep[a:b].all() else tok.decode(tokens[a:b][keep[a:b]].tolist()) for text, (a, b) in rows]
    n = len(source.training)
    return corpus.Source(source.name, *([text for text in part if text] for part in (left[:n], left[n:])))


def named(document: Document) -> None:
    """Give a document the language that its words say, by whose rules it is judged."""
    document.language = by_stop_words(document.text)[0]
