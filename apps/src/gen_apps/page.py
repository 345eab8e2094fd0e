"""A page that needs nothing else: headings, sentences, tables and pictures in one HTML file."""

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STYLE = """
body { margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 68rem; background: #fcfcfb; color: #1c1d20;
  font: 1rem/1.55 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { margin: 2.6rem 0 .7rem; padding-bottom: .35rem; border-bottom: 1px solid #e4e4e1; font-size: 1.2rem; }
p { max-width: 50rem; margin: .5rem 0; } small, .quiet { color: #63666d; }
.equation { margin: .7rem 0 .7rem 1.5rem; font: italic 1.12rem/1.5 Cambria, "STIX Two Math", serif; }
img { display: block; max-width: 100%; height: auto; margin: .8rem 0; }
table { border-collapse: collapse; margin: .8rem 0; }
th, td { padding: .3rem 1.4rem .3rem 0; border-bottom: 1px solid #e4e4e1; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; } .wide th, .wide td { padding-right: .8rem; font-size: .84rem; }
.wide td { white-space: nowrap; } .wide small { display: block; font-size: .92em; }
th { color: #63666d; font-weight: 500; vertical-align: bottom; }
"""


def write(path: Path, title: str, *content: str) -> Path:
    """The page of pieces of HTML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", *content])
    page = f'<html lang="en">\n<head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>'
    path.write_text(f"<!DOCTYPE html>\n{page}\n", encoding="utf-8")
    return path


def section(heading: str, *content: str) -> str:
    return "\n".join([f"<section><h2>{html.escape(heading)}</h2>", *content, "</section>"])


def text(words: str) -> str:
    """A paragraph, of as many lines as it takes in the source."""
    return f"<p>{' '.join(words.split())}</p>"


def equation(words: str) -> str:
    return f'<div class="equation">{words}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = lambda kind, row: "<tr>" + "".join(f"<{kind}>{html.escape(str(c))}</{kind}>" for c in row) + "</tr>"
    return "\n".join(["<table>", cells("th", head), *(cells("td", row) for row in rows), "</table>"])


def figures(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A wide table whose cells `value (low–high)` have their interval on a second line."""
    small = re.sub(r"(?<=\d) (\([^()<]*–[^()<]*\))</td>", r"<small>\1</small></td>", table(head, rows))
    return f'<div class="wide">{small}</div>'


def image(figure: Any, words: str) -> str:
    """A matplotlib figure inside the page, and what it shows for those who cannot see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="#fcfcfb")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(words)}">'
