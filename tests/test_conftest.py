"""When `pytest` takes all cores: by itself, and never against a choice."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gen_core.testing import load

CONFTEST = Path(__file__).parents[1] / "conftest.py"
DEFAULTS = {"numprocesses": None, "tx": [], "markexpr": "not slow and not gpu", "usepdb": False, "trace": False}
WRITES = """
import os

def test_where():
    where = [os.environ.get(name) for name in ("PYTEST_XDIST_WORKER", "OMP_NUM_THREADS")]
    open(f"{__file__}.txt", "w").write(" ".join(where))
"""


@pytest.fixture
def three_files(tmp_path, monkeypatch):
    """Three tests on two cores, in the current directory."""
    for name in "abc":
        (tmp_path / f"test_{name}.py").write_text(WRITES)
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text() + "\n\ncores = lambda: 2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_cores_are_two_processes_of_one_thread(three_files):
    pytest.importorskip("xdist")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "OMP"))}
    done = subprocess.run([sys.executable, "-m", "pytest"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {file.read_text() for file in three_files.glob("*.txt")} == {"gw0 1", "gw1 1"}


@pytest.mark.parametrize(
    ("args", "options", "want"),
    [
        (["."], {}, 2),
        (["."], {"markexpr": "slow and not peers and not gpu"}, 2),
        (["test_a.py", "test_b.py", "test_c.py"], {}, 2),
        (["test_a.py::test_where", "test_b.py"], {}, 2),
        (["test_a.py"], {}, 1),  # nothing to divide
        (["test_a.py::test_where", "test_a.py::test_other"], {}, 1),
        (["."], {"markexpr": "gpu"}, 0),
        (["."], {"markexpr": "slow and gpu"}, 0),
        (["."], {"usepdb": True}, 0),
        (["."], {"trace": True}, 0),
        (["."], {"numprocesses": 0}, 0),
        (["."], {"numprocesses": 7}, 0),  # the user's, which xdist obeys
        (["."], {"tx": ["popen"]}, 0),
    ],
)
def test_a_choice_a_debugger_a_gpu_or_one_file_is_respected(args, options, want, three_files):
    config = SimpleNamespace(args=args, option=SimpleNamespace(**DEFAULTS | options))
    assert load(three_files / "conftest.py").processes(config) == want


def test_without_xdist_nothing_changes():
    """As with -p no:xdist: there are no options to set."""
    config = SimpleNamespace(pluginmanager=SimpleNamespace(hasplugin=lambda name: False))
    load(CONFTEST).pytest_cmdline_main(config)
