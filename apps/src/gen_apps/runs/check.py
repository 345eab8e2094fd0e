"""`gen runs check`."""

from gen_apps.runs.config import CheckRun
from gen_core import checkpoint
from gen_core.run import Run


def check_run(config: CheckRun) -> None:
    found = checkpoint.check(Run.open(config.run).path)
    if not found:
        raise FileNotFoundError(f"{config.run} has no checkpoint")
    for name, damage in found.items():
        print(f"{name}: {'; '.join(damage) or 'intact'}")
    if bad := [name for name, damage in found.items() if damage]:
        raise ValueError(f"{len(bad)} of {len(found)} checkpoints are damaged: {', '.join(bad)}; resume from another")
