"""The command `gen` as a user types it: files that appear, samples that repeat, and one sentence when it cannot be."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gen_apps.__main__ import COMMANDS, main
from gen_core import Run
from gen_core.testing import load

small = load(Path(__file__).with_name("small.py"))
gen = small.gen


def test_training_leaves_everything_a_reader_needs(diffusion_run):
    names = {p.name for p in diffusion_run.iterdir()}
    assert names >= {"config.json", "environment.json", "metrics.jsonl", "model.json", "quality.json", "report.html"}
    assert names >= {"samples", "samples.npz", "summary.txt", "checkpoints"}
    assert [e["step"] for e in Run(diffusion_run).metrics()][:8] == list(range(1, 9))
    assert "val/loss" in Run(diffusion_run).metrics()[7]
    assert (diffusion_run / "samples" / "step-000008.png").is_file()
    quality = json.loads((diffusion_run / "quality.json").read_text())
    assert [r["name"] for r in quality["rows"]] == ["samples", "training data", "Gaussian per pixel"]
    assert "frechet" in (diffusion_run / "report.html").read_text()


def test_the_same_command_again_continues_the_same_run(diffusion_run, tiny, capsys):
    before = (diffusion_run / "samples.npz").read_bytes(), (diffusion_run / "metrics.jsonl").read_bytes()
    gen(f"{small.DIFFUSION.format(tiny)} --out {diffusion_run}")
    assert before == ((diffusion_run / "samples.npz").read_bytes(), (diffusion_run / "metrics.jsonl").read_bytes())
    gen(f"diffusion train --resume {diffusion_run} --machine.device cpu")
    assert before[0] == (diffusion_run / "samples.npz").read_bytes()


def test_a_sample_depends_on_its_number_and_the_seed_alone(diffusion_run, tmp_path):
    def drawn(name, flags):
        gen(f"diffusion sample {diffusion_run} --device cpu --out {tmp_path / name} {flags}")
        assert (tmp_path / f"{name}.png").is_file()
        return np.load(tmp_path / f"{name}.npz")

    many = drawn("many", "--n 10 --guidance 1.5 --method heun --churn 2")
    few = drawn("few", "--n 3 --batch 2 --guidance 1.5 --method heun --churn 2")
    np.testing.assert_allclose(many["x"][:3], few["x"], atol=1e-3)
    assert many["x"].shape == (10, 1, 8, 8) and many["label"].tolist() == [0, 1] * 5
    other = drawn("other", "--n 3 --guidance 1.5 --method heun --churn 2 --seed 1")
    assert np.abs(other["x"] - few["x"]).max() > 1e-2
    assert drawn("ones", "--n 4 --label 1 --steps 3")["label"].tolist() == [1] * 4
    plain, guided = drawn("plain", "--n 2 --guidance 1"), drawn("guided", "--n 2 --guidance 3")
    assert np.abs(plain["x"] - guided["x"]).max() > 1e-4, "guidance is accepted and ignored"


def test_report_summary_and_embed(diffusion_run, tiny, tmp_path, capsys):
    page = diffusion_run / "report.html"
    gen(f"report {diffusion_run}")
    first = page.read_bytes()
    page.unlink()
    gen(f"report {diffusion_run}")
    assert page.read_bytes() == first
    gen(f"summary {diffusion_run}")
    assert "parameters" in capsys.readouterr().out
    gen(f"embed {diffusion_run}")
    gen(f"embed {tiny} --method pca --size 8 --n 20 --out {tmp_path / 'map.png'}")
    assert (diffusion_run / "embed-pca.png").is_file() and (tmp_path / "map.png").is_file()
    assert "trustworthiness" in capsys.readouterr().out


def test_points_are_learned_and_drawn(tmp_path):
    gen(f"{small.DIFFUSION.format('points:moons')} --out {tmp_path / 'p'}".replace("--network.dropout 0", ""))
    assert np.load(tmp_path / "p" / "samples.npz")["x"].shape == (1000, 2)
    assert (tmp_path / "p" / "samples" / "step-000008.png").is_file()
    gen(f"diffusion sample {tmp_path / 'p'} --n 5 --label 1 --device cpu")


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--standalone", "--nproc-per-node=2"],
        ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=29541"],
    ],
)
def test_launchers_start_two_processes(launcher, diffusion_run, tiny, tmp_path):
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    words = f"{small.DIFFUSION.format(tiny)} --out {tmp_path / 'l'}".split()
    done = subprocess.run([sys.executable, "-m", *launcher, "-m", "gen_apps", *words], env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    one, two = (np.load(p / "samples.npz")["x"] for p in (diffusion_run, tmp_path / "l"))
    assert np.abs(one - two).mean() < 2e-3  # of values up to 7: AdamW enlarges the rounding of float32


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_end(diffusion_run, tiny, tmp_path):
    """A real process: exit code 130 after a checkpoint; the resumed run ends with the samples of an unbroken one."""
    words = f"{small.DIFFUSION.format(tiny)} --out {tmp_path / 'c'}"
    slow = "import time; from gen_core import Jsonl; log = Jsonl.on_step_end\n"
    slow += "def wait(*a): log(*a); time.sleep(0.5)\nJsonl.on_step_end = wait\n"
    code = f"{slow}from gen_apps.__main__ import main; main({words.split()!r})"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        metrics = tmp_path / "c" / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") >= 2) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        error = process.stderr.read().decode()
    assert process.returncode == 130, error
    steps = sorted(p.name for p in (tmp_path / "c" / "checkpoints").glob("step-*"))
    assert steps and steps[-1] != "step-000008" and not (tmp_path / "c" / "samples.npz").exists()
    assert f"--resume {tmp_path / 'c'}" in error
    gen(f"diffusion train --resume {tmp_path / 'c'} --machine.device cpu")
    whole, resumed = (np.load(p / "samples.npz")["x"] for p in (diffusion_run, tmp_path / "c"))
    np.testing.assert_array_equal(whole, resumed)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("difusion train", "did you mean 'gen diffusion"),
        ("diffusion trian", "did you mean 'gen diffusion train'?"),
        ("diffusion train nowhere --out RUN", "nowhere is no folder; give digits, a name of gen data list"),
        ("diffusion train fashion-mist --out RUN", "or a folder of pictures; did you mean fashion-mnist?"),
        ("diffusion train kjv --out RUN", "kjv is text, and it is for gen llm commands; see gen data list"),
        ("diffusion train winds --out RUN", "winds is fields, and no command takes it yet"),
        (
            "diffusion train fashion-mnist:EMPTY --out RUN",
            "install it by: apt-get install dataset-fashion-mnist; or name",
        ),
        ("diffusion train --out RUN --classes 3 10", "--classes 10 is none of 0, 1, 2"),
        ("vae train brains --held-out 0.1 --out RUN", "--held-out is not for brains, whose neighbouring slices"),
        (
            "llm pretrain shakespear --out RUN",
            "give a file or folder with text in it, or a text of gen data list; did you",
        ),
        ("llm pretrain emoji --out RUN", "emoji is pictures, and it is for commands that take DATA"),
        ("data show mnist", "mnist is not in the catalogue; did you mean mnist-5k?"),
        ("data get nothing-alike", "nothing-alike is not in the catalogue; see gen data list"),
        ("data show kjv:EMPTY", "bible.data is not in"),
        ("data show digits --language fr", "--language is of the captions of stamps, and digits has none"),
        ("data show digits --n 0", "--n must be at least 1, got 0"),
        ("diffusion train EMPTY --out RUN", "there is no picture in it"),
        ("diffusion train BROKEN --out RUN", "none of its 1 pictures can be read: bad.png"),
        ("diffusion train points:moon --out RUN", "points:moon is not known; there are points:moons"),
        ("diffusion train --out RUN --optim.steps 0", "--optim.steps must be at least 1, got 0"),
        ("diffusion train --out RUN --optim.step 5", "--optim.steps"),
        ("diffusion train --out RUN --sampler.sigma-max 0.001", "sigma_min < sigma_max"),
        ("diffusion train --out RUN --held-out 1", "--held-out is a share between 0 and 1, got 1.0"),
        ("diffusion train --out RUN --held-out 0.001", "makes 1787 samples to train on and 10 held-out ones"),
        ("diffusion train --out RUN --channels 3", "--channels is of pictures in files, not of digits"),
        ("diffusion train points:moons --out RUN --flip", "--flip are of pictures, not of points:moons"),
        ("diffusion train --out RUN --size 8x", "--size is a number of pixels, WIDTHxHEIGHT"),
        ("diffusion train --out RUN --machine.precision fp16", "fp16"),
        ("diffusion train --out RUN --size 9", "cannot be halved"),
        ("diffusion train --resume nowhere", "nowhere is no run (no config.json)"),
        ("diffusion train --resume TRAINED --optim.lr 1", "drop the other flags (optim.lr: 1.0 is not"),
        ("diffusion train points:grid --out TRAINED", "holds a run with another configuration (data: "),
        ("diffusion sample nowhere", "nowhere is no run"),
        ("diffusion sample TRAINED --label 7", "--label must be a class of the run, 0..1, got 7"),
        ("diffusion sample TRAINED --n 0", "--n must be at least 1"),
        ("diffusion train --out RUN --size -3", "--size is a number of pixels"),
        ("diffusion train --out RUN --network.width 0", "--network.width must be a multiple of 4"),
        ("diffusion train --out RUN --optim.p-drop 7", "--optim.p-drop is a share"),
        ("diffusion train --out RUN --optim.clip -1", "--optim.clip must be positive, got -1.0"),
        ("diffusion train --out RUN --sampler.method heun --sampler.churn -1", "s_churn is an amount of noise"),
        ("diffusion train --resume TRAINED --out RUN", "drop --out"),
        ("report nowhere", "nowhere is no run"),
        ("embed nowhere", "nowhere is no folder"),
        ("diffusion train --out RUN --place.grid Frnace", "France"),
        ("diffusion train --out RUN --place.pue 0.5", "PUE"),
        ("green run --pue 0.5 -- true", "PUE"),
        ("green frobnicate", "is no command"),
    ],
)
def test_a_wrong_input_is_one_sentence_exit_code_2_and_nothing_written(
    words, sentence, diffusion_run, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bad.png").write_bytes(b"no picture")
    places = {"RUN": "new", "EMPTY": "empty", "BROKEN": "broken"}
    for word, place in places.items():
        words = words.replace(word, str(tmp_path / place))
    words = words.replace("TRAINED", str(diffusion_run))
    with pytest.raises(SystemExit) as stop:
        gen(words)
    said = " ".join(capsys.readouterr().err.split()).replace("│ ", "")
    assert stop.value.code == 2
    assert sentence in said
    assert "Traceback" not in said and not (tmp_path / "new").exists()


def test_every_run_and_sampling_says_what_it_cost(diffusion_run, tmp_path, capsys):
    """Joules and grams in metrics.jsonl and on the page, with kind, source and spread; a place changes the grams."""
    last = small.trained(diffusion_run)
    assert last["energy/joules"] > 0 and last["energy/joules_per_sample"] > 0 and last["energy/carbon_g"] > 0
    training = json.loads((diffusion_run / "energy.json").read_text())["training"]
    assert {"energy", "carbon", "grid", "per sample", "spread", "source"} <= training.keys()
    assert "per sample" in (diffusion_run / "report.html").read_text()
    grams = {}
    for place in ("FR", "Poland"):
        gen(f"diffusion sample {diffusion_run} --n 2 --device cpu --place.grid {place} --out {tmp_path / place}")
        grams[place] = json.loads((tmp_path / f"{place}.energy.json").read_text())["grid"]
    assert Run(diffusion_run).metrics()[-1]["sampling/joules_per_sample"] > 0
    assert "France" in grams["FR"] and "Poland" in grams["Poland"]
    assert "carbon" in capsys.readouterr().out


def test_gen_green_passes_the_command_through(capfd):
    with pytest.raises(SystemExit) as stop:
        main(["green", "run", "--grid", "FR", "--", sys.executable, "-c", "print('out'); raise SystemExit(3)"])
    said = capfd.readouterr()
    assert stop.value.code == 3 and said.out == "out\n"
    assert ("energy" in said.err and "assumed" in said.err) or "measured" in said.err


def test_gen_green_imports_no_torch():
    code = "import sys; from gen_apps.__main__ import main\ntry: main(['green', 'doctor'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'gen_core'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_help_imports_no_torch():
    code = "import sys; from gen_apps.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"gen {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0 and "usage: gen" in capsys.readouterr().out
