"""`gen llm tokenizer` and `gen llm data`: what text costs in tokens, and clean text as tokens."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import rich

from gen_apps.llm import corpus
from gen_apps.llm.config import LearnTokenizer, WriteData
from gen_apps.results import Row, table, write_results
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


def tokenizer(config: LearnTokenizer) -> None:
    named = zip(corpus.names(config.data), config.data, strict=True)
    sources = [corpus.split(name, corpus.documents(text, config.encoding), 0.1) for name, text in named]
    tok = corpus.learned(f"bpe:{config.vocab}" if config.vocab else "characters", *corpus.pooled(sources))
    tok.save(config.out)
    rows = cost(tok, {source.name: "\n\n".join(source.held_out) for source in sources})
    rich.print(table("held-out text", rows, digits=4))
    write_results(config.json, "llm tokenizer", config, rows)
    print(f"{config.out / 'tokenizer.json'}: {len(tok):,} tokens")


def cost(tok: Tokenizer, texts: dict[str, str]) -> list[Row]:
    """Cost of held-out texts in tokens, a row for each: exact counts, and their ratios."""
    return [
        {
            "name": name,
            "words": len(text.split()),
            "tokens": len(tok.encode(text)),
            "tokens per word": fertility(tok, text),
            "bytes per token": bytes_per_token(tok, text),
        }
        for name, text in texts.items()
    ]


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
    rows = cost(tok, {source.name: "\n\n".join(source.held_out) for source in sources})
    rich.print(table("held-out text", rows, digits=4))
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
