"""`gen vae ...` as a user types it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gen_apps.vae.trained import TrainedVAE
from gen_core import Run
from gen_core.testing import load

TINY = "--optim.steps 6 --optim.batch-size 16 --network.width 16 --network.depth 1 --latents 3 --components 2"
CPU = "--machine.device cpu"


small = load(Path(__file__).with_name("small.py"))
gen = small.gen


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vae") / "a"
    gen(f"vae train {tiny} --size 8 --out {path} {TINY} {CPU}")
    return path


def test_training_leaves_what_a_reader_needs_and_goes_on_where_it_stood(run, vae_run):
    names = {p.name for p in vae_run.iterdir()}
    assert names >= {"config.json", "model.json", "quality.json", "energy.json", "report.html", "samples.npz"}
    assert "reconstructions over training, the data on top.png" in {p.name for p in (vae_run / "pictures").iterdir()}
    page = (vae_run / "report.html").read_text()
    assert "latents by PCA" in page and "traversals of the widest latents" in page and "frechet" in page
    assert {e["step"] for e in Run(run).metrics()} == set(range(1, 7)) and "val/kl" in small.trained(run)
    assert small.trained(run)["energy/joules"] > 0
    before = (run / "samples.npz").read_bytes(), (run / "metrics.jsonl").read_bytes()
    gen(f"vae train --resume {run} {CPU}")
    assert before == ((run / "samples.npz").read_bytes(), (run / "metrics.jsonl").read_bytes())


def test_an_interrupted_run_ends_like_a_whole_one(run, tiny, tmp_path, monkeypatch):
    from gen_core import Interrupted, Jsonl

    log = Jsonl.on_step_end
    with monkeypatch.context() as m, pytest.raises(Interrupted):
        m.setattr(Jsonl, "on_step_end", lambda self, t, metrics: (log(self, t, metrics), t.step == 3 and t._note(2)))
        gen(f"vae train {tiny} --size 8 --out {tmp_path / 'c'} {TINY} {CPU}")
    assert not (tmp_path / "c" / "samples.npz").exists()
    gen(f"vae train --resume {tmp_path / 'c'} {CPU}")
    whole, resumed = (np.load(p / "samples.npz")["x"] for p in (run, tmp_path / "c"))
    np.testing.assert_array_equal(whole, resumed)


def test_samples_are_of_the_class_the_seed_and_the_prior_asked_for(vae_run, run, tmp_path):
    def drawn(name: str, flags: str, of: Path = vae_run):
        gen(f"vae sample {of} --device cpu --out {tmp_path / name} {flags}")
        assert (tmp_path / f"{name}.png").is_file()
        return np.load(tmp_path / f"{name}.npz")

    turns = drawn("a", "--n 12")
    assert turns["x"].shape == (12, 1, 8, 8) and turns["label"].tolist() == [0, 1] * 6
    assert set(np.unique(turns["x"])) == {-1.0, 1.0}
    assert drawn("b", "--n 3 --label 1")["label"].tolist() == [1] * 3
    np.testing.assert_array_equal(drawn("c", "--n 70")["x"][:12], turns["x"], "sample i depends on how many are drawn")
    assert (drawn("d", "--n 12 --seed 1")["x"] != turns["x"]).any()
    assert np.abs(drawn("e", "--n 12 --prior own", run)["x"] - drawn("f", "--n 12", run)["x"]).max() > 1e-3


def test_a_picture_in_the_directory_of_a_run_is_on_its_page_at_once(vae_run, tmp_path):
    run = shutil.copytree(vae_run, tmp_path / "run")
    gen(f"vae sample {run} --n 2 --seed 5 --device cpu")
    assert "<figcaption>sample-seed-5</figcaption>" in (run / "report.html").read_text()
    before = (run / "report.html").read_bytes()
    gen(f"vae sample {run} --n 2 --device cpu --out {tmp_path / 'elsewhere'}")
    assert (run / "report.html").read_bytes() == before


@pytest.mark.parametrize("kind", ["slerp", "lerp"])
def test_a_path_between_codes_is_smooth(kind, vae_run, capsys):
    """Its labels and its order are those of one path each: one that goes on in another would jump."""
    gen(f"vae interpolate {vae_run} --n 4 --steps 12 --kind {kind} --device cpu")
    assert (vae_run / "interpolation.png").is_file()
    (jump,) = re.findall(r"the largest jump is (\S+) times its path's median step", capsys.readouterr().out)
    assert 1 <= float(jump) < 3


def test_the_likelihood_is_bounded(vae_run):
    gen(f"vae nll {vae_run} --k 20 --n 16 --device cpu")
    (row,) = json.loads((vae_run / "nll.json").read_text())["rows"]
    found = {name: row[name]["value"] for name in ("minus elbo", "nll", "bits/dim")}
    assert found["minus elbo"] >= found["nll"] > 0 and found["bits/dim"] < 5
    assert row["nll"]["n"] == 16 and row["nll"]["interval"][0] < found["nll"] < row["nll"]["interval"][1]


def test_the_checkpoint_is_of_averaged_weights(run):
    trained = TrainedVAE.open(run, "cpu")
    own = torch.load(run / "checkpoints" / "step-000006" / "optim.pt", weights_only=True)
    assert trained.step == 6 and "net" in own["optimizers"] and not trained.network.training


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("vae train --out NEW --likelihood bernoulli", "add --binarise to make the data so, or choose"),
        ("vae train --out NEW --latents 0", "--latents must be at least 1, got 0"),
        ("vae train --out NEW --k 0", "--k must be at least 1, got 0"),
        ("vae train --out NEW --beta -1", "--beta must be at least 0 and finite, got -1"),
        ("vae train FLAT --size 8 --out NEW --conditional", "--conditional needs labels of 2 classes at least, and"),
        ("vae train --out NEW --objective iwae --beta 2", "beta weighs a KL, which iwae does not have"),
        ("vae train --out NEW --network.kind conv --size 9", "pictures of 9 pixels cannot be halved down to 4"),
        ("vae train points:moons --out NEW --likelihood categorical", "which points:moons has not; use gaussian"),
        ("vae train points:moons --out RUN", "holds a run with another configuration"),
        ("vae train --out NEW --optim.steps 0", "--optim.steps must be at least 1"),
        ("vae sample RUN --label 1", "--label must be a class of the run, which was trained without, got 1"),
        ("vae sample LABELLED --label 2", "--label must be a class of the run, 0..1, got 2"),
        ("vae nll RUN --k 0", "--k must be at least 1 draw and --n 2 samples, got 0 and"),
        ("vae sample OTHER", "is no run of gen vae train"),
        ("vae sample WIDER", "do not fit the VAE of model.json"),
        ("vae sample nowhere", "nowhere is no run"),
        ("vae interpolate RUN --n 5000", "paths take 10000 held-out samples"),
    ],
)
def test_a_wrong_input_is_one_sentence_and_exit_code_2(words, sentence, run, vae_run, tiny, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"$": "Train", "data": "digits"}')
    shutil.copytree(run, tmp_path / "wider")
    network = (run / "model.json").read_text()
    assert "16" in network
    (tmp_path / "wider" / "model.json").write_text(re.sub(r"\b16\b", "24", network))
    places = {"NEW": tmp_path / "new", "RUN": run, "LABELLED": vae_run, "FLAT": tiny / "lying"}
    for word, place in (places | {"OTHER": tmp_path / "other", "WIDER": tmp_path / "wider"}).items():
        words = words.replace(word, str(place))
    with pytest.raises(SystemExit) as stop:
        gen(words)
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stop.value.code == 2
    assert sentence in said and "Traceback" not in said and not (tmp_path / "new").exists()
