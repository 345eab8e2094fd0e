"""Pages in one HTML file that need nothing else: no server, no network; without script they show the same.

    page.write("compare.html", Path("templates/compare.html"), title="Two samplers", curves=figure)

A template extends page.html (blocks `lead` and `main`) and imports the macros of parts.html, which draw tables,
figures with intervals, and pictures: paths of PNG files or matplotlib figures. What a template is given is escaped.
"""

import base64
import io
import struct
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from gen_core.run import Run
from gen_core.scales import scale

__all__ = ["TEMPLATES", "render", "write"]

TEMPLATES = Path(__file__).with_name("templates")


def write(path: str | PathLike[str], template: Path, **content: Any) -> Path:
    """Write the page that a template makes of `content`, and return its path."""
    path = Path(path)
    return Run(path.parent).write(path.name, render(template, **content))


def render(template: Path, **content: Any) -> str:
    """The page that a template makes of `content`.

    Raises:
        jinja2.UndefinedError: if `content` lacks a name that the template uses.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"picture": picture, "number": number, "scale": scale}
    return environment.get_template(template.name).render(content)


@dataclass(frozen=True)
class Picture:
    """A PNG file as a page holds it."""

    source: str
    """Its data URI."""
    width: int
    height: int
    """In pixels."""


def picture(drawn: Any) -> Picture:
    """The picture of a PNG file's path or of a matplotlib figure."""
    if isinstance(drawn, Path):
        data = drawn.read_bytes()
    else:
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png", dpi=110, facecolor="#fcfcfb", metadata={"Software": None})
        data = buffer.getvalue()
    width, height = struct.unpack(">II", data[16:24])  # of the PNG header
    return Picture(f"data:image/png;base64,{base64.b64encode(data).decode()}", width, height)


def number(value: int | float, digits: int = 4) -> str:
    """A few digits for the eye.

    >>> number(-0.41234), number(1797), number(12345.6)
    ('−0.4123', '1,797', '12,346')
    """
    x = float(value)
    short = f"{x:,.0f}" if (x.is_integer() or abs(x) >= 1e3) and abs(x) < 1e12 else f"{x:.{digits}g}"
    return short.replace("-", "−")
