"""The flags of the `gen data` commands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gen_apps.command import Measures
from gen_apps.options import Count

Word = Annotated[str | None, tyro.conf.arg(metavar="STR", help_behavior_hint="")]
SetName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]


@dataclass(frozen=True)
class ListData(Measures):
    """List real data that packages of Debian and PyPI carry: what they hold, their licence, what gets them."""

    kind: Literal["all", "pictures", "text", "sound", "fields", "tables", "networks"] = "all"
    """Only sets of this kind."""


@dataclass(frozen=True)
class ShowData:
    """Draw a sheet of a set of data: pictures with their names, or the first lines of a text; print its facts."""

    name: SetName
    """A name of `gen data list`, or NAME:FOLDER to read its files from there."""
    n: Count = None
    """Pictures of each class (8), stamps in all (48), or documents of a text (4)."""
    language: Word = None
    """Of the captions of stamps, as fr or pt_BR (en)."""
    out: Path | None = None
    """PNG to write; by default NAME.png."""

    def __post_init__(self):
        if self.n is not None and self.n < 1:
            raise ValueError(f"--n must be at least 1, got {self.n}")
        if self.language is not None and self.name.partition(":")[0] != "stamps":
            raise ValueError(f"--language is of the captions of stamps, and {self.name} has none; leave it out")


@dataclass(frozen=True)
class GetData:
    """Install the packages of a set of data: by pip, or by apt-get where you are root; or print the commands."""

    name: SetName
    """A name of `gen data list`."""
    dry_run: bool = False
    """Print the commands, and run none."""
