"""`gen diffusion restore`: every task and method, pictures of one's own, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gen_apps.diffusion import tasks
from gen_apps.diffusion.config import Restore
from gen_core.testing import load

small = load(Path(__file__).with_name("small.py"))
gen = small.gen
QUICK = "--n 2 --draws 2 --steps 4 --device cpu"
GREY = ("inpaint", "super-resolution", "blur", "mri", "tomography", "seismic", "compressed")


@pytest.fixture(scope="module")
def colour_run(tmp_path_factory) -> Path:
    """Of 24 coloured pictures in one class."""
    root, rng = tmp_path_factory.mktemp("colour"), np.random.default_rng(0)
    (root / "data").mkdir()
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(root / "data" / f"{i}.png")
    gen(small.DIFFUSION.format(root / "data"), f"--out {root / 'run'}")
    return root / "run"


@pytest.mark.parametrize("task", GREY)
def test_every_task_writes_what_was_seen_and_the_draws(task, diffusion_run, tmp_path):
    """Arrays of the draws, whose mean and spread are theirs; a page; rows of both methods."""
    gen(f"diffusion restore {diffusion_run} {QUICK} --task {task} --out {tmp_path / 'a'} --json {tmp_path / 'a.json'}")
    with np.load(tmp_path / "a.npz") as a:
        assert a["draws"].shape == (2, 2, 1, 8, 8) and a["truth"].shape == (2, 1, 8, 8)
        np.testing.assert_allclose(a["draws"].mean(1), a["mean"], atol=1e-6)
    assert "What was seen" in (tmp_path / "a.html").read_text()
    ours, other = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert {"PSNR, mean", "SSIM, one draw", "truth among the draws", "s/draw", "J/draw"} <= ours.keys()
    assert ours["evaluations"] == 4 and ours["PSNR, mean"]["n"] == 2
    assert other["name"] == "least squares" and other["PSNR, mean"]["interval"]


@pytest.mark.parametrize("method", ["dps", "pigdm", "ddrm", "ddnm", "mgdm"])
def test_every_method_draws(method, diffusion_run, tmp_path):
    for task in ("inpaint", "tomography"):
        gen(f"diffusion restore {diffusion_run} {QUICK} --task {task} --method {method} --out {tmp_path / 'a'}")
        with np.load(tmp_path / "a.npz") as a:
            assert np.isfinite(a["draws"]).all()


def test_a_draw_is_a_function_of_the_seed_and_its_number(diffusion_run, tmp_path):
    """Not of how many draws go together, nor of the batch."""
    for name, words in (("a", "--batch 1"), ("b", "--batch 4"), ("c", "--seed 1")):
        gen(f"diffusion restore {diffusion_run} {QUICK} {words} --out {tmp_path / name}")
    a, b, c = (np.load(tmp_path / f"{name}.npz")["draws"] for name in "abc")
    np.testing.assert_allclose(a, b, atol=1e-4)
    assert np.abs(a - c).max() > 0.1


def test_a_picture_is_the_truth_or_what_was_seen(diffusion_run, tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "x.png")
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(tmp_path / "low.png")
    words = f"diffusion restore {diffusion_run} {QUICK} --task super-resolution --out {tmp_path / 'a'}"
    gen(f"{words} --image {tmp_path / 'x.png'}")
    with np.load(tmp_path / "a.npz") as a:
        np.testing.assert_allclose(a["truth"][0, 0], np.arange(64).reshape(8, 8) / 127.5 - 1, atol=1e-6)
    gen(f"{words} --image {tmp_path / 'low.png'} --observed")
    with np.load(tmp_path / "a.npz") as a:
        assert "truth" not in a
        np.testing.assert_allclose(a["y"][0, 0], np.arange(16).reshape(4, 4) / 127.5 - 1, atol=1e-6)
    assert "The truth is not known" in (tmp_path / "a.html").read_text()


def test_transparent_pixels_are_filled_in(colour_run, tmp_path):
    x = np.full((8, 8, 4), 255, np.uint8)
    x[2:4, 3:5, 3] = 0
    Image.fromarray(x).save(tmp_path / "hole.png")
    config = Restore(colour_run, image=tmp_path / "hole.png", observed=True)
    _, y = tasks.seen(config, (3, 8, 8))
    assert y.shape == (1, 3 * 60) and torch.equal(y, torch.ones(1, 180))
    gen(f"diffusion restore {colour_run} {QUICK} --image {tmp_path / 'hole.png'} --observed --out {tmp_path / 'a'}")
    assert np.load(tmp_path / "a.npz")["draws"].shape == (1, 2, 3, 8, 8)


def test_grey_is_coloured_by_a_run_on_colours(colour_run, tmp_path):
    gen(f"diffusion restore {colour_run} {QUICK} --task colour --out {tmp_path / 'a'}")
    with np.load(tmp_path / "a.npz") as a:
        assert a["y"].shape == (2, 1, 8, 8)
        assert a["draws"].shape == (2, 2, 3, 8, 8)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--task colour", "needs a run on pictures of 3 channels, this one has 1"),
        ("--n 1000", "--n must be at most"),
        ("--label 7", "--label must be a class of the run"),
        ("--image nothing.png", "there is no picture nothing.png"),
        ("--task super-resolution --factor 3", "no whole number of blocks of 3 pixels"),
        ("--observed", "--observed needs an --image"),
        ("--draws 1", "--draws must be at least 2"),
        ("--noise 0 --method mgdm", "for mgdm above 0"),
        ("--noise -1", "--noise is a standard deviation"),
    ],
)
def test_what_cannot_be_restored_is_one_sentence(words, error, diffusion_run, capsys):
    with pytest.raises(SystemExit) as exit:
        gen(f"diffusion restore {diffusion_run} --steps 4 --device cpu {words}")
    message = " ".join(capsys.readouterr().err.split())
    assert exit.value.code == 2 and error in message and "Traceback" not in message


def test_a_run_on_colours_is_not_measured_by_frequencies(colour_run, capsys):
    with pytest.raises(SystemExit):
        gen(f"diffusion restore {colour_run} --task mri --device cpu")
    assert "needs a run on grey pictures" in " ".join(capsys.readouterr().err.split())
