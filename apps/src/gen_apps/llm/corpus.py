"""From what a user calls TEXT to shards of tokens: training and held-out parts of every source, one tokenizer."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from gen_transformer import Corpus, Tokenizer, characters, read, train_bpe, write_shard
from gen_transformer.chat import CHATML

DESCRIPTIONS = "descriptions"
END = "<|end|>"
CONTROLS = (END, *CHATML.controls)


@dataclass(frozen=True)
class Source:
    """Documents of one TEXT, the held-out ones apart."""

    name: str
    training: list[str]
    held_out: list[str]


def is_written(text: str) -> bool:
    """Whether `gen llm data` made it."""
    return (Path(text) / "training" / "header.json").is_file()


def documents(text: str, encoding: str) -> list[str]:
    """The documents of a file or folder, or of scikit-learn's descriptions of data sets."""
    if text == DESCRIPTIONS and not Path(text).exists():
        (package,) = cast(Any, find_spec("sklearn")).submodule_search_locations  # not imported, which takes a second
        files = sorted((Path(package) / "datasets" / "descr").glob("*.rst"))
        return [file.read_text(encoding="utf-8") for file in files]
    return list(read(text, encoding=encoding))


def split(name: str, texts: Sequence[str], held_out: float) -> Source:
    """The last share of the characters apart; the document that the border falls into is cut there.

    >>> split("x", ["abcdef", "ghij"], 0.5)
    Source(name='x', training=['abcde'], held_out=['f', 'ghij'])
    """
    left = round(sum(map(len, texts)) * (1 - held_out))
    training, rest = [], []
    for text in texts:
        training.append(text[:left])
        rest.append(text[left:])
        left = max(0, left - len(text))
    return Source(name, [t for t in training if t], [t for t in rest if t])


def names(texts: Sequence[str]) -> list[str]:
    """A short name for each, its file's, with the folder's where two are alike."""
    short = [Path(text).stem or text for text in texts]
    return [
        f"{Path(text).resolve().parent.name}-{name}" if short.count(name) > 1 else name
        for text, name in zip(texts, short, strict=True)
    ]


def tokenizer(kind: str, texts: Sequence[str], everything: Sequence[str]) -> Tokenizer:
    """Characters of everything, byte pairs learned on `texts`, or a stored one."""
    if kind == "characters":
        return characters("".join(sorted(set().union(*map(set, everything)))), CONTROLS)
    name, _, size = kind.partition(":")
    if name == "bpe":
        if not size.isdigit():
            raise ValueError(f"--tokenizer bpe:SIZE needs a number of tokens, such as bpe:4096, got {kind!r}")
        return train_bpe(texts, int(size), CONTROLS)
    return Tokenizer.load(kind)


def write(folder: Path, tok: Tokenizer, source: Source) -> None:
    """Shards `training` and `held-out` of a source, ready for `parts`; what is there already stays."""
    end = END if END in tok.specials else None
    for part, texts in (("training", source.training), ("held-out", source.held_out)):
        if not (folder / part).exists():
            write_shard(folder / part, tok, texts, end=end)
    tok.save(folder)


def parts(folder: Path, tok: Tokenizer) -> tuple[Corpus, Corpus]:
    """Training and held-out tokens."""
    return Corpus(folder / "training", tokenizer=tok), Corpus(folder / "held-out", tokenizer=tok)


def texts(corpus: Corpus, tok: Tokenizer) -> Iterator[str]:
    """The documents of a corpus as text, without the token at their end."""
    end = tok.specials.get(END)
    for start, stop in zip(corpus.offsets[:-1].tolist(), corpus.offsets[1:].tolist(), strict=True):
        ids = corpus.tokens(start, stop).tolist()
        yield tok.decode(ids[:-1] if ids[-1:] == [end] else ids)


def prepare(
    given: Sequence[str], kind: str, held_out: float, encoding: str, folder: Path
) -> tuple[Tokenizer, dict[str, tuple[Corpus, Corpus]]]:
    """The tokenizer, and the training and held-out tokens of every TEXT by its name.

    What `gen llm data` wrote is used where it lies; anything else is tokenised into `folder` once.
    """
    named = dict(zip(names(given), given, strict=True))
    if all(is_written(text) for text in given):
        tok = Tokenizer.load(given[0])
        return tok, {name: parts(Path(text), tok) for name, text in named.items()}
    if any(is_written(text) for text in given):
        raise ValueError("some TEXTs are tokens and some are text; write tokens of all of them by gen llm data")
    asked = {"data": list(given), "tokenizer": kind, "held_out": held_out, "encoding": encoding}
    if not (folder / "prepared.json").is_file():
        sources = [split(name, documents(text, encoding), held_out) for name, text in named.items()]
        tok = tokenizer(kind, *pooled(sources))
        for source in sources:
            write(folder / source.name, tok, source)
        tok.save(folder)
        (folder / "prepared.json").write_text(json.dumps(asked, indent=1))
    tok = Tokenizer.load(folder)
    return tok, {name: parts(folder / name, tok) for name in named}


def pooled(sources: Sequence[Source]) -> tuple[list[str], list[str]]:
    """The training documents of all sources, and all of their documents."""
    training = [text for source in sources for text in source.training]
    return training, training + [text for source in sources for text in source.held_out]
