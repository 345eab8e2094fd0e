"""The README's commands exist and run as written; its python runs."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import tyro

from gen_apps.__main__ import COMMANDS, find

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md")), ROOT / "apps" / "README.md"]
ELSEWHERE = {
    "pytest",
    "torchrun",
    "accelerate",
    "python",
    "pip",
    "apt-get",
    "gen-green",
}  # .ci/run, apps/tests and benchmarks run these


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.S | re.M)


def commands(*languages: str) -> list[str]:
    """The commands in blocks of `bash`, which run as they are, or also of `sh`, which need files of the reader's."""
    found = [block for path in READMES for language in languages or ("bash",) for block in blocks(path, language)]
    lines = [line.split("#")[0].strip() for block in found for line in block.replace("\\\n", " ").splitlines()]
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
    for command in commands("bash", "sh"):
        program, *rest = words(command)
        if program != "gen":
            assert program in ELSEWHERE, f"no test runs {command}"
        elif rest[0] != "green" and not rest[0].startswith("-"):
            name = next((name for n in (2, 1) if (name := " ".join(rest[:n])) in COMMANDS), None)
            assert name is not None, f"{command} is no command"
            rest = re.sub(r"--config \S+", "", " ".join(rest)).split() if "--config" in rest else rest
            tyro.cli(find(COMMANDS[name][0]), args=rest[len(name.split()) :], config=(tyro.conf.CascadeSubcommandArgs,))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_gen_command_of_the_readme_runs_as_written(tmp_path):
    """In an empty directory, in their order, through uv; the first one draws digits as good as the README says."""
    env = os.environ | {"UV_PROJECT": str(ROOT), "UV_NO_SYNC": "1"}
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    for command in commands():
        if words(command)[0] == "gen":
            done = subprocess.run(
                shlex.split(command), cwd=tmp_path, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
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
