"""`gen trajectory` as a user types it: a run, samples of it, and one sentence for a prompt that cannot be read."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gen_apps.__main__ import main
from gen_core import Run
from gen_core.testing import load
from gen_diffusion.trajectory import to_features

trained = load(Path(__file__).with_name("small.py")).trained
TINY = "--trajectories 16 --frames 60 --samples 8 --optim.steps 4 --optim.batch-size 8 --sampler.steps 2"
TINY += " --sampler.guidance 3 --network.width 8 --network.depth 1 --network.heads 2 --machine.device cpu"


def gen(words: str, *more: str) -> None:
    main([*words.split(), *more])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "a"
    gen(f"trajectory train --out {path} {TINY}")
    return path


def test_a_run_leaves_what_a_reader_needs_and_goes_on_as_the_same(run):
    names = {p.name for p in run.iterdir()}
    assert names >= {"config.json", "model.json", "metrics.jsonl", "quality.json", "energy.json", "report.html"}
    assert (run / "samples" / "step-000004.png").read_bytes()[:4] == b"\x89PNG"
    assert "val/loss" in trained(run)
    rows = {r["name"]: r["f1"] for r in json.loads((run / "quality.json").read_text())["rows"]}
    assert set(rows) == {"samples", "drawn", "another caption"}
    assert rows["drawn"]["value"] == 1 and 0 <= rows["samples"]["interval"][0] <= rows["samples"]["value"] < 0.9
    assert "another caption" in (run / "report.html").read_text()
    before = (run / "metrics.jsonl").read_bytes()
    gen(f"trajectory train --out {run} {TINY}")
    assert (run / "metrics.jsonl").read_bytes() == before


def test_samples_of_a_prompt(run, tmp_path, capsys):
    def drawn(name, n, *more):
        gen(f"trajectory sample {run} --n {n} --steps 3 --device cpu --out {tmp_path / name}", *more)
        return np.load(tmp_path / f"{name}.npz")

    few, many = (drawn(name, n, "--prompt", "Push in, then boom up.") for name, n in (("few", 2), ("many", 5)))
    assert "'the camera pushes in, then booms top'" in capsys.readouterr().out
    np.testing.assert_allclose(few["features"], many["features"][:2], atol=1e-4)
    assert few["poses"].shape == (2, 60, 4, 4) and (tmp_path / "few.png").is_file()
    assert to_features(torch.from_numpy(few["poses"])).shape == (2, 60, 9)
    other = drawn("other", 2, "--prompt", "truck left", "--guidance", "1")
    assert np.abs(other["features"] - few["features"]).max() > 1e-6
    assert json.loads((tmp_path / "few.energy.json").read_text())["energy"]


def test_samples_are_drawn_as_the_run_was_but_for_what_is_given(run, tmp_path):
    def drawn(name, flags=""):
        gen(f"trajectory sample {run} --n 1 --device cpu --out {tmp_path / name} {flags}")
        return np.load(tmp_path / f"{name}.npz")["features"]

    as_run = drawn("run")
    np.testing.assert_array_equal(as_run, drawn("same", "--steps 2 --guidance 3"))
    for flags in ("--steps 4", "--guidance 0"):
        assert np.abs(as_run - drawn("other", flags)).max() > 1e-6


@pytest.mark.parametrize(
    ("words", "more", "sentence"),
    [
        ("trajectory sample RUN", ["--prompt", "the camera zooms in"], "cannot read the word 'zooms'"),
        ("trajectory sample RUN", ["--prompt", "pushes left"], "cannot read the motion 'pushes left'"),
        ("trajectory sample RUN", ["--prompt", "stays static and pushes in"], "'stays static' does nothing beside it"),
        ("trajectory sample RUN --n 0", [], "--n must be at least 1"),
        ("trajectory sample RUN --steps 1", [], "--steps must be at least 2, got 1"),
        ("trajectory sample RUN --guidance nan", [], "--guidance must be finite, got nan"),
        ("trajectory sample WIDER", [], "do not fit the Preconditioned of model.json"),
        ("trajectory sample OTHER", [], "is no run of gen trajectory train"),
        ("trajectory train --out NEW --sampler.steps 1", [], "--sampler.steps must be at least 2, got 1"),
        ("trajectory train --out NEW --sampler.guidance nan", [], "--sampler.guidance must be finite, got nan"),
        ("trajectory sample nowhere", [], "nowhere is no run"),
        ("trajectory train --out NEW --frames 62", [], "multiple of the patch, got 62"),
        ("trajectory train --out NEW --trajectories 3", [], "must fill a batch of 64, got 3"),
        ("trajectory train --out NEW --network.conditioning film", [], "film"),
        ("trajectory train --out NEW --network.width 30", [], "multiple of 4 and of heads=4"),
    ],
)
def test_a_wrong_input_is_one_sentence_and_nothing_written(words, more, sentence, run, tmp_path, capsys):
    if "WIDER" in words:
        network = (shutil.copytree(run, tmp_path / "WIDER") / "model.json").read_text()
        (tmp_path / "WIDER" / "model.json").write_text(network.replace('"width": 8', '"width": 16'))
    Run.create(tmp_path / "OTHER", {"$": "Tokens", "vocabulary": 12})
    for name, path in (("RUN", run), *((name, tmp_path / name) for name in ("NEW", "WIDER", "OTHER"))):
        words = words.replace(f" {name}", f" {path}")
    with pytest.raises(SystemExit) as stop:
        gen(words, *more)
    said = " ".join(capsys.readouterr().err.split()).replace("│ ", "")
    assert stop.value.code == 2 and sentence in said
    assert "Traceback" not in said and not (tmp_path / "NEW").exists()
