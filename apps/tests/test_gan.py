"""`gen gan ...` as a user types it."""

from pathlib import Path

import numpy as np
import pytest

from gen_core.testing import load

small = load(Path(__file__).with_name("small.py"))
gen = small.gen


def test_training_leaves_what_a_reader_needs_and_goes_on_where_it_stood(gan_run):
    names = {p.name for p in gan_run.iterdir()}
    assert names >= {"config.json", "model.json", "quality.json", "energy.json", "report.html", "samples.npz"}
    assert "ways between two draws of the noise" in (gan_run / "report.html").read_text()
    last = small.trained(gan_run)
    assert last["step"] == 6 and {"d", "g", "augment/p", "energy/joules"} <= last.keys()
    before = (gan_run / "samples.npz").read_bytes(), (gan_run / "metrics.jsonl").read_bytes()
    gen(f"gan train --resume {gan_run} --machine.device cpu")
    assert before == ((gan_run / "samples.npz").read_bytes(), (gan_run / "metrics.jsonl").read_bytes())


def test_an_interrupted_run_ends_like_a_whole_one(gan_run, tiny, tmp_path, monkeypatch):
    from gen_core import Interrupted, Jsonl

    log, path = Jsonl.on_step_end, tmp_path / "c"
    with monkeypatch.context() as m, pytest.raises(Interrupted):
        m.setattr(Jsonl, "on_step_end", lambda self, t, metrics: (log(self, t, metrics), t.step == 3 and t._note(2)))
        small.gen(f"{small.GAN.format(tiny)} --out {path}")
    assert not (path / "samples.npz").exists()
    gen(f"gan train --resume {path} --machine.device cpu")
    np.testing.assert_array_equal(*(np.load(p / "samples.npz")["x"] for p in (gan_run, path)))


def test_samples_are_of_the_class_and_the_seed_asked_for(gan_run, tmp_path):
    def drawn(name: str, flags: str):
        gen(f"gan sample {gan_run} --device cpu --out {tmp_path / name} {flags}")
        assert (tmp_path / f"{name}.png").is_file()
        return np.load(tmp_path / f"{name}.npz")

    turns, ones = drawn("a", "--n 5"), drawn("b", "--n 5 --label 1")
    assert turns["x"].shape == (5, 1, 8, 8) and turns["label"].tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_array_equal(turns["x"][1::2], ones["x"][1::2])
    np.testing.assert_array_equal(drawn("d", "--n 70")["x"][:5], turns["x"], "sample i depends on how many are drawn")
    assert (turns["x"][0] != ones["x"][0]).any() and (drawn("c", "--n 5 --seed 1")["x"] != turns["x"]).any()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("gan train --out NEW --latents 0", "--latents must be at least 1, got 0"),
        ("gan train --out NEW --network residual --size 13", "pictures of 13 pixels cannot be halved down to 4"),
        ("gan train points:moons --out NEW --network dcgan", "are not for points"),
        ("gan train FLAT --size 8 --out NEW --conditional", "--conditional needs labels of 2 classes at least, and"),
        ("gan train --out NEW --augment blur", "invalid choice 'blur'"),
        ("gan train --out NEW --gamma 1 --gamma-end 5", "--gamma falls to --gamma-end"),
        ("gan train --out NEW --gamma-end 5", "--gamma-end 5.0 is where --gamma falls to; give both"),
        ("gan train --out NEW --loss bce", "--loss"),
        ("gan train --resume RUN --latents 3", "drop the other flags (latents: 3 is not 64)"),
        ("gan sample RUN --label 7", "--label must be a class of the run, 0..1, got 7"),
        ("gan sample OTHER", "is no run of gen gan train"),
    ],
)
def test_a_wrong_input_is_one_sentence_and_exit_code_2(words, sentence, gan_run, tiny, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"$": "TrainVAE", "data": "digits"}')
    places = {"NEW": tmp_path / "new", "RUN": gan_run, "OTHER": tmp_path / "other", "FLAT": tiny / "lying"}
    for word, place in places.items():
        words = words.replace(word, str(place))
    with pytest.raises(SystemExit) as stop:
        gen(words)
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stop.value.code == 2
    assert sentence in said and "Traceback" not in said and not (tmp_path / "new").exists()
