"""The README's commands exist and run as written; its python runs."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from gen_apps.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md")), ROOT / "apps" / "README.md"]
ELSEWHERE = {"pytest", "torchrun", "accelerate", "python", "pip"}  # .ci/run, apps/tests and benchmarks run these


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.S | re.M)


def commands() -> list[str]:
    lines = [
        line.split("#")[0].strip() for path in READMES for block in blocks(path, "bash") for line in block.splitlines()
    ]
    return list(dict.fromkeys(part.strip() for line in lines for part in line.split("&&") if part.strip()))


def words(command: str) -> list[str]:
    """The command without `uv run` and its options."""
    parts = shlex.split(command)
    if parts[:2] == ["uv", "run"]:
        parts = parts[2:]
        while parts and parts[0].startswith("-"):
            parts = parts[2:]
    return parts


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.parent.name)
def test_python_in_a_readme_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "readme"}
    for block in blocks(path, "python"):
        exec(compile(block, str(path), "exec"), names)


def test_every_command_of_a_readme_is_known():
    """Of ours; launchers, pip, pytest and benchmarks are run elsewhere, not as written."""
    for command in commands():
        program, *rest = words(command)
        if program == "gen":
            flags = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
            known = any(" ".join(rest[:n]) in COMMANDS for n in (1, 2)) or rest[:flags] == [] or rest[0] == "green"
            assert known, f"{command} is no command"
        else:
            assert program in ELSEWHERE, f"no test runs {command}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_gen_command_of_the_readme_runs_as_written(tmp_path):
    """In an empty directory, in their order, through uv; the first one draws digits as good as the README says."""
    env = os.environ | {"UV_PROJECT": str(ROOT), "UV_NO_SYNC": "1"}
    for command in commands():
        if words(command)[0] == "gen":
            done = subprocess.run(shlex.split(command), cwd=tmp_path, env=env, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    run = tmp_path / "runs" / "diffusion-digits"
    assert (run / "report.html").is_file()
    quality = json.loads((run / "quality.json").read_text())
    samples, real = ({k: v["value"] for k, v in row.items() if isinstance(v, dict)} for row in quality["rows"][:2])
    assert real["frechet"] == pytest.approx(0.0643, abs=1e-3), "the protocol has moved"
    assert samples["frechet"] <= 0.125 and samples["two-sample"] <= 0.65  # the mean over seeds is below 0.10
    assert samples["label"] >= 0.97 and samples["memorisation"] >= 0.9


def test_links_of_the_readme_lead_somewhere():
    for path in READMES:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert "://" in target or (path.parent / target).exists(), f"{path}: {target}"
