"""`gen report` and `gen summary`."""

from gen_apps.runs.config import Report, Summary
from gen_core import report as page
from gen_core.run import Run


def report(config: Report) -> None:
    print(page.build(Run.open(config.run)))


def summary(config: Summary) -> None:
    file = Run.open(config.run).path / "summary.txt"
    if not file.is_file():
        raise FileNotFoundError(
            f"{config.run} has no summary.txt, which a train command writes as it begins; give such a run"
        )
    print(file.read_text(), end="")
