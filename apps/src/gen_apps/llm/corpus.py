"""From what a user calls TEXT to shards of tokens: training and held-out parts of every source, one tokenizer."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gen_apps.catalogue.entries import SKLEARN, suggestion
from gen_apps.catalogue.entries import of as named
from gen_apps.llm.config import DESCRIPTIONS
from gen_core import Run
from gen_transformer import Corpus, Tokenizer, characters, read, train_bpe, write_shard
from gen_transformer.chat import CHATML
from gen_transformer.texts import handbook, kjv, shakespeare

END = "<|end|>"
CONTROLS = (END, *CHATML.controls)
USUAL = {"tokenizer": "characters", "held_out": 0.1, "encoding": "utf-8"}


@dataclass(frozen=True)
class Source:
    """Documents of one TEXT, the held-out ones apart."""

    name: str
    training: list[str]
    held_out: list[str]


def is_written(text: str) -> bool:
    """True for what `gen llm data` wrote."""
    return (Path(text) / "training" / "header.json").is_file()


def documents(text: str, encoding: str) -> list[str]:
    """The documents of a text of the catalogue, or of a file or folder, which comes first where it is called alike."""
    if Path(text).exists():
        return list(read(text, encoding=encoding))
    if found := named(text, "TEXT"):
        entry, folder = found
        return LOADERS[entry.name](folder)
    there = "a file or folder with text in it, or a text of gen data list"
    raise FileNotFoundError(f"{text} is neither a file nor a folder; give {there}{suggestion(text)}")


def descriptions(folder: str | None = None) -> list[str]:
    """scikit-learn's descriptions of data sets."""
    root = SKLEARN.find("digits.rst", folder).parent
    return [file.read_text(encoding="utf-8") for file in sorted(root.glob("*.rst"))]


LOADERS: dict[str, Callable[[str | None], list[str]]] = {
    DESCRIPTIONS: descriptions,
    "shakespeare": shakespeare,
    "handbook-en": partial(handbook, "en"),
    "handbook-fr": partial(handbook, "fr"),
    "kjv": kjv,
}


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
    """A short name for each, its file's, with the folder's where two are alike.

    Raises:
        ValueError: for two that are alike even then.
    """
    short = [text.partition(":")[0] if text.partition(":")[0] in LOADERS else Path(text).stem or text for text in texts]
    found = [
        f"{Path(text).resolve().parent.name}-{name}" if short.count(name) > 1 else name
        for text, name in zip(texts, short, strict=True)
    ]
    if twice := [name for name in found if found.count(name) > 1]:
        raise ValueError(f"{twice.count(twice[0])} TEXTs would have the name {twice[0]!r}; rename or move one of them")
    return found


def learned(kind: str, texts: Sequence[str], everything: Sequence[str]) -> Tokenizer:
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
    given: Sequence[str], folder: Path, *, tokenizer: str, held_out: float, encoding: str
) -> tuple[Tokenizer, dict[str, tuple[Corpus, Corpus]]]:
    """The tokenizer, and the training and held-out tokens of every TEXT by its name.

    What `gen llm data` wrote is used where it lies; anything else is tokenised into `folder` once, by the first of
    several processes while the others wait.
    """
    named = dict(zip(names(given), given, strict=True))
    settings = {"tokenizer": tokenizer, "held_out": held_out, "encoding": encoding}
    if all(is_written(text) for text in given):
        if settings != USUAL:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in USUAL if settings[name] != USUAL[name])
            raise ValueError(f"what gen llm data wrote has its tokens and its held-out part already; drop {flags}")
        tok = Tokenizer.load(given[0])
        return tok, {name: parts(Path(text), tok) for name, text in named.items()}
    if any(is_written(text) for text in given):
        raise ValueError("some TEXTs are tokens and some are text; write tokens of all of them by gen llm data")
    done = folder / "prepared.json"
    if int(os.environ.get("RANK", 0)) == 0:
        tokenise(named, folder, **settings)
    while not done.is_file():
        time.sleep(0.1)
    tok = Tokenizer.load(folder)
    return tok, {name: parts(folder / name, tok) for name in named}


def tokenise(named: Mapping[str, str], folder: Path, *, tokenizer: str, held_out: float, encoding: str) -> None:
    """Shards of every TEXT under its name, and their tokenizer; an interrupted call goes on where it was.

    Raises:
        ValueError: where the folder holds something else.
    """
    asked = {"data": list(named.values()), "tokenizer": tokenizer, "held_out": held_out, "encoding": encoding}
    if not (folder / "asked.json").is_file():
        Run(folder).write("asked.json", asked)
    if (there := json.loads((folder / "asked.json").read_text())) != asked:
        raise ValueError(f"{folder} was made for {there}, not {asked}; remove it, or choose another --out")
    if (folder / "prepared.json").is_file():
        return
    sources = [split(name, documents(text, encoding), held_out) for name, text in named.items()]
    tok = learned(tokenizer, *pooled(sources))
    for source in sources:
        write(folder / source.name, tok, source)
    tok.save(folder)
    Run(folder).write("prepared.json", {"sources": list(named)})


def pooled(sources: Sequence[Source]) -> tuple[list[str], list[str]]:
    """The training documents of all sources, and all of their documents."""
    training = [text for source in sources for text in source.training]
    return training, training + [text for source in sources for text in source.held_out]
