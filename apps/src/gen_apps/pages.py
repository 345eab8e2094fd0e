"""The pages of the apps: templates in the look of a run's page, and that page after a picture was added."""

from pathlib import Path
from typing import Any

from gen_core import Run, page, report

TEMPLATES = Path(__file__).with_name("templates")


def write(path: Path, template: str, **content: Any) -> Path:
    """Write the page that templates/TEMPLATE.html makes of `content`, and return its path."""
    return page.write(path, TEMPLATES / f"{template}.html", **content)


def show(run: Run, picture: Path) -> None:
    """Build the page of a finished run again, if `picture` was written into its directory: the page shows it."""
    if picture.resolve().parent == run.path.resolve() and (run.path / "report.html").is_file():
        report.build(run)
