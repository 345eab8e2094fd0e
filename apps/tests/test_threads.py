"""The cores that a command takes, and how its threads wait."""

import subprocess
import sys

import pytest

from gen_apps import threads


@pytest.fixture
def loadavg(tmp_path):
    """A machine on which `n` threads run, this one included."""

    def of(n):
        (tmp_path / "loadavg").write_text(f"0.50 0.40 0.30 {n}/512 4711\n")
        return tmp_path / "loadavg"

    return of


@pytest.mark.parametrize(("running", "want"), [(1, 4), (2, 3), (4, 1), (9, 1)])
def test_a_command_takes_the_cores_that_are_free(running, want, loadavg, monkeypatch):
    """All of 4 cores alone, one fewer for each thread that runs beside it, and 1 at least."""
    monkeypatch.setattr(threads, "cores", lambda: 4)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    environ = {}
    threads.share(environ, loadavg(running))
    assert environ.pop(threads.OURS) == str(want)
    assert environ == {"OMP_NUM_THREADS": str(want), "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(threads.SPINS)}


def test_threads_that_may_run_elsewhere_take_no_core_away(loadavg, monkeypatch):
    """In 2 of 64 cores, the 40 threads of the whole machine say nothing of these two."""
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    environ = {}
    threads.share(environ, loadavg(40))
    assert environ["OMP_NUM_THREADS"] == "2"


def test_without_proc_nobody_else_is_seen(tmp_path):
    assert threads.others(tmp_path / "nothing") == 0


@pytest.mark.parametrize("name", [*threads.THREADS, *threads.WAITING])
def test_what_the_user_chose_stays(name, loadavg):
    environ = {name: "1"}
    threads.share(environ, loadavg(1))
    assert environ[name] == "1"
    assert ("OMP_NUM_THREADS" in environ) == (name not in threads.THREADS or name == "OMP_NUM_THREADS")
    assert ("GOMP_SPINCOUNT" in environ) == (name not in threads.WAITING or name == "GOMP_SPINCOUNT")


@pytest.mark.parametrize(("command", "want"), [("summary", "1000"), ("green doctor", "None")])
def test_it_is_set_before_torch_is_imported_and_never_for_gen_green(command, want):
    """A command that `gen green run` starts sees the user's environment."""
    code = "import os, sys; from gen_apps.__main__ import main\n"
    code += "class Look:\n def find_spec(self, name, *_):\n  name == 'torch' and sys.exit(say())\n"
    code += "def say(): print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n"
    code += f"sys.meta_path.insert(0, Look())\ntry: main({[*command.split(), '--help']})\nfinally: sys.exit(say())"
    env = {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"{want} False"


@pytest.mark.parametrize("environ", [{threads.OURS: "2"}, {}])
def test_a_run_is_resumed_with_the_threads_that_it_began_with(environ, tmp_path, monkeypatch):
    """Unless the user chose a number."""
    given = []
    monkeypatch.setattr("torch.set_num_threads", given.append)
    (tmp_path / "environment.json").write_text('{"threads": 1}')
    threads.resume(tmp_path, environ)
    threads.resume(tmp_path / "new", environ)
    assert given == ([1] if environ else [])
