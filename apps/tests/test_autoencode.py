"""`gen autoencode ...` as a user types it: every use of it has its bars beside it."""

import json
import math
from pathlib import Path

import pytest

from gen_apps.__main__ import main
from gen_core.testing import load

trained = load(Path(__file__).with_name("small.py")).trained
TINY = "--optim.steps 6 --optim.batch-size 8 --width 16 --machine.device cpu --size 8"


def gen(*words: str) -> None:
    main([part for word in words for part in word.split()])


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("autoencode")
    flags = {
        "noisy": "--noise 0.5 --latents 3",
        "hidden": "--hide right --latents 3",
        "odd": "--leave-out 1 --latents 3",
        "coded": "--halvings 1 --latents 2 --codes 8",
    }
    for name, how in flags.items():
        gen(f"autoencode train {tiny} --out {root / name} {TINY} {how}")
    return {name: root / name for name in flags}


def test_training_leaves_what_a_reader_needs_and_goes_on_where_it_stood(runs):
    run = runs["noisy"]
    assert {p.name for p in run.iterdir()} >= {
        "config.json",
        "model.json",
        "energy.json",
        "report.html",
        "scale.safetensors",
    }
    page = (run / "report.html").read_text()
    assert "codes by PCA" in page and "given back over training" in page
    assert "val/loss" in trained(run)
    before = (run / "metrics.jsonl").read_bytes()
    gen(f"autoencode train --resume {run} --machine.device cpu")
    assert before == (run / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("name", "run", "bars"),
    [
        ("denoise", "noisy", ["auto-encoder", "posterior mean of 20 Gaussians", "Wiener filter", "noisy"]),
        (
            "inpaint",
            "hidden",
            ["auto-encoder", "kernel regression", "Gaussian given what is seen", "nearest neighbour", "mean"],
        ),
        ("anomaly", "odd", ["reconstruction", "PCA of 20 directions", "5th neighbour in the data"]),
        ("compress", "coded", ["auto-encoder", "PCA of 32 numbers"]),
        ("compress", "noisy", ["auto-encoder", "PCA of 3 numbers"]),
    ],
)
def test_each_use_has_a_figure_beside_its_bars(name, run, bars, runs, capsys):
    gen(f"autoencode {name} {runs[run]} --device cpu")
    found = {row["name"]: row for row in json.loads((runs[run] / f"{name}.json").read_text())["rows"]}
    assert set(bars) <= found.keys() and all(b in capsys.readouterr().out for b in bars[:1])
    assert (runs[run] / f"{name}.png").is_file()
    if name == "compress" and run == "coded":
        assert found["auto-encoder"]["bits"] == 16 * 3
    if name == "compress":
        for row in found.values():  # peak to peak is 2, and a smaller error is a larger ratio
            error, ratio = row["squared error"], row["PSNR"]
            assert ratio["value"] == pytest.approx(10 * math.log10(4 / error["value"]))
            assert ratio["interval"] == pytest.approx([10 * math.log10(4 / e) for e in error["interval"][::-1]])
    if name == "denoise":
        error = {name: row["squared error"]["value"] for name, row in found.items()}
        assert error["noisy"] == pytest.approx(0.25, rel=0.1)
        assert error["Wiener filter"] < error["noisy"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("autoencode train --out NEW --latents 0", "--latents must be at least 1, got 0"),
        ("autoencode train --out NEW --noise nan", "--noise must be at least 0, got nan"),
        ("autoencode train --out NEW --halvings 2 --size 9", "pictures of 9 pixels cannot be halved 2 times"),
        ("autoencode train --out NEW --codes 8", "--codes 8 are of a map"),
        ("autoencode train --out NEW --leave-out 12", "--leave-out must be a class of digits, 0..9, got 12"),
        ("autoencode train points:moons --out NEW --hide right", "are of pictures, not of points"),
        ("autoencode denoise HIDDEN", "was not trained on noise alone"),
        ("autoencode inpaint NOISY", "was trained with all in sight"),
        ("autoencode anomaly NOISY", "has seen every class"),
        ("autoencode compress OTHER", "is no run of gen autoencode train"),
    ],
)
def test_a_wrong_input_is_one_sentence_and_exit_code_2(words, sentence, runs, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"$": "TrainVAE", "data": "digits"}')
    places = {"NEW": tmp_path / "new", "HIDDEN": runs["hidden"], "NOISY": runs["noisy"], "OTHER": tmp_path / "other"}
    for word, place in places.items():
        words = words.replace(word, str(place))
    with pytest.raises(SystemExit) as stop:
        gen(words)
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stop.value.code == 2
    assert sentence in said and "Traceback" not in said and not (tmp_path / "new").exists()
