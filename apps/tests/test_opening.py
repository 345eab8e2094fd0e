"""`gen_apps.load` opens a run of every kind, with the methods that its model has."""

import shlex

import numpy as np
import pytest
import torch

from gen_apps import load
from gen_apps.__main__ import main
from gen_apps.opening import KINDS
from gen_core import Run
from gen_core.checkpoint import latest, load_tensors


def gen(*words: str) -> None:
    main([part for word in words for part in shlex.split(word)])


def test_there_is_a_run_of_every_kind(runs):
    assert runs.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_has_the_averaged_weights_and_is_in_evaluation_mode(kind, runs):
    model, newest = load(runs[kind], device="cpu"), latest(runs[kind])
    assert newest is not None and model.step == int(newest.name.removeprefix("step-"))
    assert not any(module.training for module in model.network.modules())
    if (newest / "ema.safetensors").is_file():
        state = model.network.state_dict()
        fitted = {"mean", "std"} if kind == "TrainAutoEncoder" else set()
        for name, value in load_tensors(newest / "ema.safetensors").items():
            assert name in fitted or torch.equal(state[name], value), name


@pytest.mark.parametrize("kind", ["TrainDiffusion", "TrainVAE", "TrainGAN", "TrainLatentDiffusion"])
def test_samples_depend_on_the_seed_and_the_labels_alone(kind, runs):
    model = load(runs[kind], device="cpu")
    labels = torch.tensor([0, 1, 1])
    x = model.sample(3, labels, seed=1)
    assert x.shape == (3, *load(runs["TrainDiffusion"], device="cpu").shape) and x.device.type == "cpu"
    torch.testing.assert_close(model.sample(2, labels[:2], seed=1), x[:2], rtol=1e-3, atol=1e-3)
    assert not torch.equal(model.sample(3, labels, seed=2), x)


def test_a_sample_of_the_command_is_the_sample_of_the_method(runs, tmp_path):
    gen(f"vae sample {runs['TrainVAE']} --n 5 --seed 3 --label 1 --device cpu --out {tmp_path / 's'}")
    x = load(runs["TrainVAE"], device="cpu").sample(5, torch.ones(5, dtype=torch.long), seed=3)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npz")["x"], 2 * x - 1)  # binary data, drawn in [-1, 1]


@pytest.mark.parametrize("kind", ["TrainVAE", "TrainAutoEncoder", "TrainLatentDiffusion"])
def test_codes_are_encoded_and_decoded(kind, runs):
    model = load(runs[kind], device="cpu")
    x, *_, y = model.data()[1][:6]
    given = [y] if kind == "TrainVAE" else []
    z = model.encode(x, *given)
    assert len(z) == 6 and model.decode(z, *given).shape == x.shape


def test_a_language_model_continues_a_prompt(runs):
    for kind in ("Pretrain", "Tune"):
        model = load(runs[kind], device="cpu")
        text = model.generate("The cat", 12, seed=0)
        assert text.startswith("The cat") and len(text) >= len("The cat") + 12, "characters, or names of control tokens"
        assert model.generate("The cat", 12, seed=0) == text != model.generate("The cat", 12, seed=1)


def test_trajectories_are_generated_by_prompt(runs):
    x = load(runs["TrainTrajectory"], device="cpu").generate(["push in", "truck left"], seed=0)
    assert x.shape == (2, 60, 9) and x.isfinite().all()


@pytest.mark.parametrize("directory", ["nowhere", "empty", "other", "untrained"])
def test_a_wrong_directory_is_one_sentence(directory, runs, tmp_path):
    (tmp_path / "empty").mkdir()
    Run.create(tmp_path / "other", {"$": "Tokens"})
    config = Run(runs["TrainVAE"]).config()
    Run.create(tmp_path / "untrained", config)
    sentence = {
        "nowhere": "is no run",
        "empty": "is no run",
        "other": "is no run of a gen train command",
        "untrained": "has no checkpoint yet; train it first: gen vae train --resume",
    }[directory]
    with pytest.raises((FileNotFoundError, ValueError), match=sentence):
        load(tmp_path / directory)
