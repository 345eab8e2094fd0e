"""`gen latent-diffusion ...`: codes with unit scale, diffused, and decoded to the scale of the data."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gen_apps.__main__ import main
from gen_apps.autoencode.trained import TrainedAutoEncoder
from gen_core.testing import load

trained = load(Path(__file__).with_name("small.py")).trained
TINY = "--optim.steps 6 --optim.batch-size 8 --machine.device cpu"


def gen(*words: str) -> None:
    main([part for word in words for part in word.split()])


@pytest.fixture(scope="module")
def stages(tiny, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stages")
    for name, how in {"maps": "--halvings 1 --latents 2", "vectors": "--latents 3", "noisy": "--noise 0.5"}.items():
        gen(f"autoencode train {tiny} --size 8 --width 16 --out {root / name} {TINY} {how}")
    return {name: root / name for name in ("maps", "vectors", "noisy")}


@pytest.fixture(scope="module")
def run(stages, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("latent") / "a"
    small = "--network.width 8 --network.blocks 1 --network.dropout 0 --sampler.steps 3"
    gen(f"latent-diffusion train {stages['maps']} --out {path} {TINY} {small}")
    return path


def test_codes_have_unit_scale_and_come_back_in_that_of_the_data(stages):
    stage = TrainedAutoEncoder.open(stages["maps"], "cpu")
    x = stage.data()[0][:][0]
    with torch.no_grad():
        z = stage.network.encode(x)
        assert z.mean((0, 2, 3)).abs().max() < 1e-4 and (z.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-4
        assert torch.allclose(stage.network.decode(z), stage.network(x), atol=1e-5)


def test_training_leaves_what_a_reader_needs_and_goes_on_where_it_stood(run):
    names = {p.name for p in run.iterdir()}
    assert names >= {"config.json", "model.json", "quality.json", "report.html", "samples.npz", "first_stage.json"}
    assert json.loads((run / "model.json").read_text())["shape"] == [2, 4, 4]
    assert np.load(run / "samples.npz")["x"].shape[1:] == (1, 8, 8)
    assert "val/loss" in trained(run)
    before = (run / "samples.npz").read_bytes()
    gen(f"latent-diffusion train --resume {run} --machine.device cpu")
    assert before == (run / "samples.npz").read_bytes()


def test_samples_are_of_the_class_the_seed_and_the_guidance_asked_for(run, tmp_path):
    def drawn(name: str, flags: str):
        gen(f"latent-diffusion sample {run} --device cpu --out {tmp_path / name} {flags}")
        return np.load(tmp_path / f"{name}.npz")

    turns, ones = drawn("a", "--n 4"), drawn("b", "--n 4 --label 1")
    assert turns["x"].shape == (4, 1, 8, 8) and turns["label"].tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(turns["x"][1], ones["x"][1], atol=1e-4)
    assert (drawn("c", "--n 4 --guidance 3")["x"] != turns["x"]).any()


def test_vectors_are_diffused_by_an_mlp(stages, tmp_path):
    gen(f"latent-diffusion train {stages['vectors']} --out {tmp_path / 'v'} {TINY} --network.width 8 --sampler.steps 3")
    assert json.loads((tmp_path / "v" / "model.json").read_text())["shape"] == [3]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("latent-diffusion train --out NEW", "RUN is missing: train a first stage"),
        ("latent-diffusion train nowhere --out NEW", "nowhere is no run"),
        ("latent-diffusion train RUN --out NEW", "is no run of gen autoencode train"),
        ("latent-diffusion train NOISY --out NEW", "was trained to mend data"),
        ("latent-diffusion train MAPS --out NEW --network.kind mlp", "is not for pictures"),
        ("latent-diffusion sample MAPS", "is no run of gen latent-diffusion train"),
        ("latent-diffusion sample RUN --label 2", "--label must be a class of the run, 0..1, got 2"),
    ],
)
def test_a_wrong_input_is_one_sentence_and_exit_code_2(words, sentence, run, stages, tmp_path, capsys):
    for word, place in {"NEW": tmp_path / "new", "NOISY": stages["noisy"], "MAPS": stages["maps"]}.items():
        words = words.replace(word, str(place))
    with pytest.raises(SystemExit) as stop:
        gen(words.replace("RUN", str(run)))
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stop.value.code == 2
    assert sentence in said and "Traceback" not in said and not (tmp_path / "new").exists()
