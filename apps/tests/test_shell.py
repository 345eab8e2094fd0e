"""What all commands share: names of runs, failed starts, longer training, a start from another run, --config."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

import gen_apps
from gen_apps.__main__ import COMMANDS, GREEN, find
from gen_apps.command import Optim, TrainCommand
from gen_apps.completion import flag_names
from gen_apps.identity import directory, train_in
from gen_apps.vae.config import TrainVAE
from gen_core import Run
from gen_core.checkpoint import load_tensors
from gen_core.testing import load

small = load(Path(__file__).with_name("small.py"))
gen = small.gen


def test_a_directory_is_named_by_what_differs_from_the_defaults():
    usual, wide = TrainVAE(), TrainVAE(latents=3)
    assert directory(usual) == Path("runs/vae-digits")
    assert directory(TrainVAE(data="points:moons")) == Path("runs/vae-points-moons")
    assert directory(wide).name.startswith("vae-digits-") and directory(wide) != directory(TrainVAE(latents=4))
    assert directory(replace(wide, place=replace(wide.place, pue=1.5))) == directory(wide), "the place is no identity"


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError])
def test_a_failed_start_leaves_no_directory(error, tmp_path):
    @dataclass(frozen=True)
    class Toy(TrainCommand):
        command: ClassVar[str] = "toy train"
        optim: Optim = field(default_factory=Optim)

    def train(config: Toy, run: Path) -> None:
        (run / "data").mkdir(parents=True)
        if logged:
            Run(run).log(1, {"loss": 1.0})
        raise error("no")

    for logged in (False, True):
        with pytest.raises(error):
            train_in(train, Toy(out=tmp_path / "a"))
        assert (tmp_path / "a").exists() == logged, "what was logged is kept"


def test_a_run_is_trained_longer_and_ends_as_a_longer_run(vae_run, tiny, tmp_path, capsys):
    """The same steps are made; only the schedule of the learning rate differs, which is said."""
    path = tmp_path / "a"
    gen(f"{small.VAE.format(tiny)} --out {path}")
    gen(f"vae train --resume {path} --optim.steps 9 --machine.device cpu")
    assert "training on from step 6 to 9: the learning rate changes from 0 to " in capsys.readouterr().out
    assert Run(path).config()["optim"]["steps"] == 9 and Run(path).metrics()[-1]["step"] == 9
    (line,) = json.loads((path / "environment.json").read_text())["lengthened"]
    assert line.startswith("from 6 to 9 steps: ") and "from 6 to 9 steps" in (path / "report.html").read_text()
    with pytest.raises(SystemExit):
        gen(f"vae train --resume {path} --optim.steps 7 --machine.device cpu")
    assert "--optim.steps can only be larger, got 7" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gen(f"vae train --resume {path} --optim.lr 1 --machine.device cpu")
    assert "so drop the other flags (optim.lr" in capsys.readouterr().err


def test_a_run_starts_from_another_one(vae_run, tiny, tmp_path):
    start = f"{small.VAE.format(tiny)} --start-from {vae_run} --optim.lr 1e-30"
    gen(f"{start} --out {tmp_path / 'a'}")
    begun, given = (load_tensors(r / "checkpoints/step-000006/ema.safetensors") for r in (tmp_path / "a", vae_run))
    for name, value in given.items():
        torch.testing.assert_close(begun[name], value, msg=name)
    gen(f"{start} --start-optimizer --out {tmp_path / 'b'}")
    own = load_tensors(vae_run / "checkpoints/step-000006/task.safetensors")
    for name, value in load_tensors(tmp_path / "b/checkpoints/step-000006/task.safetensors").items():
        torch.testing.assert_close(value, own[name], msg=name)


def test_a_start_from_another_network_is_one_sentence(vae_run, tiny, tmp_path, capsys):
    with pytest.raises(SystemExit):
        gen(f"{small.VAE.format(tiny)} --latents 4 --start-from {vae_run} --out {tmp_path / 'a'}")
    assert "do not fit" in capsys.readouterr().err and not (tmp_path / "a").exists()


def test_a_configuration_file_gives_the_defaults(vae_run, tiny, tmp_path, capsys):
    gen(f"vae train --config {vae_run / 'config.json'} --optim.steps 3 --out {tmp_path / 'a'} --machine.device cpu")
    wanted = Run(vae_run).config()
    wanted["optim"]["steps"] = 3
    assert Run(tmp_path / "a").config() == wanted
    with pytest.raises(SystemExit):
        gen(f"gan train --config {vae_run / 'config.json'}")
    assert "does not hold these flags" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_docstring_for_each_flag(name):
    """tyro's help shows it."""
    flags, function = COMMANDS[name]
    assert find(flags).__doc__ and callable(find(function))
    assert len(list(flag_names(find(flags)))) == len(set(flag_names(find(flags))))


def test_help_and_the_list_of_runs_need_no_torch(vae_run):
    code = f"""
import sys
from gen_apps.__main__ import main
for words in (["--help"], *([*n.split(), "--help"] for n in {[*COMMANDS]!r}), ["runs", {str(vae_run.parent)!r}]):
    try:
        main(words)
    except SystemExit:
        pass
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_knows_every_command_and_flag(shell, capsys):
    gen(f"completion {shell}")
    script = capsys.readouterr().out
    assert all(word in script for name in [*COMMANDS, *GREEN] for word in name.split())
    assert ("-l optim.steps" if shell == "fish" else "--optim.steps") in script


def test_bash_completes(tmp_path):
    script = subprocess.run([sys.executable, "-m", "gen_apps", "completion", "bash"], capture_output=True, text=True)
    (tmp_path / "gen.sh").write_text(script.stdout)

    def completed(*words: str) -> list[str]:
        line = " ".join(f"'{w}'" for w in words)
        call = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _gen; echo ${{COMPREPLY[*]}}"
        done = subprocess.run(["bash", "-c", f". {tmp_path / 'gen.sh'}; {call}"], capture_output=True, text=True)
        return done.stdout.split()

    assert completed("gen", "va") == ["vae"]
    assert completed("gen", "vae", "i") == ["interpolate"]
    assert completed("gen", "vae", "train", "--optim.st") == ["--optim.steps"]
    assert completed("gen", "embed", "--meth") == ["--method"]
    assert completed("gen", "data", "show", "sha") == ["shakespeare"]
    assert completed("gen", "vae", "train", "fash") == ["fashion-mnist"]
    assert completed("gen", "llm", "pretrain", "handbook") == ["handbook-en", "handbook-fr"]


def test_the_version_is_printed(capsys):
    gen("--version")
    assert capsys.readouterr().out.startswith("gen 0.")


def test_runs_are_listed_newest_first_and_compared(vae_run, gan_run, tmp_path, capsys):

    for path in (vae_run, gan_run):
        shutil.copytree(path, tmp_path / path.parent.name / path.name)
    gen(f"runs {tmp_path} --json {tmp_path / 'runs.json'}")
    rows = json.loads((tmp_path / "runs.json").read_text())["rows"]
    assert {row["command"] for row in rows} == {"vae train", "gan train"}
    assert [(row["steps"], row["requested"]) for row in rows] == [(6, 6)] * 2
    assert all(row["frechet"]["value"] > 0 for row in rows) and "frechet" in capsys.readouterr().out
    one, two = (row["name"] for row in rows)
    gen(f"runs compare {one} {two} --out {tmp_path / 'page.html'} --json {tmp_path / 'c.json'}")
    page = (tmp_path / "page.html").read_text()
    assert "optim.batch_size" in page and "Figures" in page
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["command"] == "runs compare" and content["versions"]["torch"] and len(content["rows"]) == 2
    assert np.isfinite(content["rows"][0]["frechet"]["value"]) and len(content["rows"][0]["frechet"]["interval"]) == 2


def test_a_field_of_a_train_command_is_a_flag_of_its_own():
    assert {f.name for f in fields(TrainCommand)} <= {f.name for f in fields(TrainVAE)}


def test_the_command_that_the_readme_adds_works(tmp_path, monkeypatch, capsys):
    readme = Path(__file__).parents[1] / "README.md"
    _, config, train, line, _ = re.findall(r"^```py\n(.*?)^```", readme.read_text(), re.S | re.M)
    (tmp_path / "line").mkdir()
    for name, code in {"__init__": "", "config": config, "train": train}.items():
        (tmp_path / "line" / f"{name}.py").write_text(code)
    monkeypatch.setattr(gen_apps, "__path__", [*gen_apps.__path__, str(tmp_path)])
    ((name, entry),) = eval("{" + line.split("\n", 1)[1] + "}").items()
    monkeypatch.setitem(COMMANDS, name, tuple(entry.split()))
    monkeypatch.chdir(tmp_path)
    gen("line train --slope 3 --optim.steps 200 --optim.lr 0.5 --machine.device cpu")
    assert "slope 3.0" in capsys.readouterr().out
    (run,) = Path("runs").glob("line-*")
    assert (run / "report.html").is_file()
    gen(f"line train --resume {run} --machine.device cpu")
    assert "slope 3.0" in capsys.readouterr().out


def test_the_command_without_training_that_the_readme_adds_works(tmp_path, monkeypatch, capsys):
    *_, code = re.findall(r"^```py\n(.*?)^```", (Path(__file__).parents[1] / "README.md").read_text(), re.S | re.M)
    (tmp_path / "pi.py").write_text(code)
    monkeypatch.setattr(gen_apps, "__path__", [*gen_apps.__path__, str(tmp_path)])
    monkeypatch.setitem(COMMANDS, "pi", ("pi:Pi", "pi:pi"))
    gen(f"pi --n 100000 --json {tmp_path / 'pi.json'}")
    (row,) = json.loads((tmp_path / "pi.json").read_text())["rows"]
    assert abs(row["inside"]["value"] - np.pi / 4) < 0.01 and "inside" in capsys.readouterr().out


def test_metrics_go_to_tensorboard_which_is_no_part_of_the_run(tiny, tmp_path):
    gen(f"{small.VAE.format(tiny)} --out {tmp_path / 'a'} --log tensorboard")
    assert list((tmp_path / "a" / "tensorboard").glob("events*"))
    assert Run(tmp_path / "a").config()["log"] == "none"
    last = Run(tmp_path / "a").metrics()[-1]
    assert last["lr"] >= 0 and last["grad_norm"] > 0 and last["samples_per_s"] > 0
