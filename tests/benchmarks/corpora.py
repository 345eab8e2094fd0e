"""Texts that the language benchmarks read: the King James Bible by chapters, the Debian handbook in two languages.

apt-get download debian-handbook bible-kjv bible-kjv-text
for f in *.deb; do dpkg -x "$f" corpora; done        # then pass the folder `corpora` to the benchmarks
"""

import random
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

BLOCKS = {"p", "div", "li", "h1", "h2", "h3", "h4", "h5", "dt", "dd", "tr", "td", "br", "ul", "ol", "table", "title"}


class _Text(HTMLParser):
    """Text of a page without navigation, banners, scripts and listings; a line for every block."""

    def __init__(self):
        super().__init__()
        self.out: list[str] = []
        self.hidden: list[str] = []  # open elements from the first one that is left out

    def handle_starttag(self, tag, attrs):
        kind, name = dict(attrs).get("class") or "", dict(attrs).get("id") or ""
        if tag in ("img", "meta", "link", "br", "hr", "input"):
            self.out.append("\n" if tag == "br" and not self.hidden else "")
        elif (
            self.hidden or tag in ("pre", "script", "style", "head") or "docnav" in kind or name in ("banner", "title")
        ):
            self.hidden.append(tag)
        elif tag in BLOCKS:
            self.out.append("\n")

    def handle_endtag(self, tag):
        if self.hidden:
            self.hidden.pop()
        elif tag in BLOCKS:
            self.out.append("\n")

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_data(self, data):
        if not self.hidden:
            self.out.append(re.sub(r"\s+", " ", data))


def extract(html: str) -> str:
    """The text of an HTML page, one line for every block."""
    parser = _Text()
    parser.feed(html)
    lines = (re.sub(r" +", " ", line).strip() for line in "".join(parser.out).split("\n"))
    return "\n".join(line for line in lines if line)


def handbook(root: str | Path) -> list[tuple[str, str]]:
    """(English, French) text of the pages that have more than 2,000 characters in both languages."""
    html = Path(root) / "usr/share/doc/debian-handbook/html"
    names = sorted(p.name for p in (html / "en-US").glob("*.html") if (html / "fr-FR" / p.name).is_file())
    pages = [tuple(extract((html / lang / name).read_text("utf-8")) for lang in ("en-US", "fr-FR")) for name in names]
    return [(en, fr) for en, fr in pages if min(len(en), len(fr)) > 2000]


def split(pages: list, test: int = 20, seed: int = 0) -> tuple[list, list]:
    """Training pages and `test` pages, at random."""
    order = random.Random(seed).sample(range(len(pages)), len(pages))
    return [pages[i] for i in order[:-test]], [pages[i] for i in order[-test:]]


def kjv(root: str | Path) -> list[str]:
    """The chapters of the King James Bible, a verse a line."""
    program, data = Path(root) / "usr/bin/bible", Path(root) / "usr/lib"
    out = subprocess.run([program, f"-p{data}", "-f", "gen1:1-rev22:21"], capture_output=True, text=True, check=True)
    chapters: dict[str, list[str]] = {}
    for line in out.stdout.splitlines():
        place, verse = line.split(" ", 1)
        chapters.setdefault(place.split(":")[0], []).append(verse)
    return ["\n".join(verses) for verses in chapters.values()]
