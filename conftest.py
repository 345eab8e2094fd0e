"""All cores for the tests, where pytest-xdist is installed: a process for each core, with one thread.

The tests are small: processes are faster than threads. A file stays in one process, which builds its fixtures once.
"""

import os
import re
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)  # before that of xdist, which reads what is set here
def pytest_cmdline_main(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("xdist") and (n := processes(config)) > 1:
        config.option.numprocesses = n
        config.option.dist = "loadfile" if config.option.dist == "no" else config.option.dist
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def processes(config: pytest.Config) -> int:
    """One for each core and at most one for each file; 0 where the user has chosen, debugs or needs the one GPU."""
    option = config.option
    chosen = option.numprocesses is not None or option.tx or hasattr(config, "workerinput")
    gpu = re.search(r"(?<!not )\bgpu\b", option.markexpr)
    if chosen or gpu or option.usepdb or option.trace:
        return 0
    places = {Path(arg.partition("::")[0]) for arg in config.args}
    return min(cores(), len(places)) if all(place.is_file() for place in places) else cores()


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
