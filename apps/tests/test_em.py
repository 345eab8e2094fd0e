"""`gen em`: every step printed and written, a page, and one sentence for what cannot be fitted."""

import json
from pathlib import Path

import numpy as np
import pytest

from gen_apps.__main__ import main
from gen_apps.em import tables


def rows(path: Path) -> list[dict]:
    return json.loads((path / "a.json").read_text())["rows"]


def em(path: Path, *words: str) -> list[dict]:
    main(["em", *words, "--json", str(path / "a.json"), "--out", str(path / "a.html")])
    return rows(path)


def test_a_mixture_of_iris_reaches_the_likelihood_that_scikit_learn_finds(tmp_path: Path, capsys):
    """GaussianMixture(3, tol=1e-9) gives -1.2012366 a sample."""
    found = em(tmp_path, "mixture")
    assert found[0]["log_likelihood"]["value"] == pytest.approx(150 * -1.2012366, abs=1e-3)
    assert found[0]["smallest_rise"]["value"] > 0
    steps = [row for row in found if "q" in row]
    assert len(steps) == found[0]["iterations"]
    assert all(row["rise"] >= row["q_new"] - row["q"] - 1e-7 for row in steps)
    printed = capsys.readouterr().out
    assert "log_likelihood" in printed and "smallest_rise" in printed
    page = (tmp_path / "a.html").read_text()
    assert page.count("<img") == 2 and "E-step" in page


def test_a_hidden_markov_model_finds_two_regimes_in_a_csv_with_a_gap(tmp_path: Path):
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(0, 1, 60), random.normal(8, 1, 60)])
    (tmp_path / "x.csv").write_text("\n".join(["value", *("" if i == 10 else str(v) for i, v in enumerate(x))]) + "\n")
    assert tables.read(str(tmp_path / "x.csv")).isnan().nonzero().tolist() == [[10, 0]]
    found = em(tmp_path, "hmm", str(tmp_path / "x.csv"), "--steps", "20", "--starts", "2")
    means = sorted(float(row["mean"]) for row in found if "stays" in row)
    assert means == pytest.approx([0, 8], abs=0.5)


def test_a_kalman_model_of_several_series_in_an_npy_file(tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(3, 20, 2)).cumsum(1)
    x[0, 4:8, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    for states in ("0", "2"):
        options = ["--steps", "5", "--starts", "2", "--states", states]
        assert em(tmp_path, "kalman", str(tmp_path / "x.npy"), *options)[0]["smallest_rise"]["value"] > 0


def test_the_bundled_series_ships_with_matplotlib():
    prices, returns = tables.read("prices"), tables.read("returns")
    assert prices.shape == (391, 1) and returns.shape == (390, 1) and prices.isfinite().all()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["mixture", "none.csv"], "there is no table none.csv"),
        (["mixture", "words.csv"], "no column of numbers"),
        (["mixture", "ragged.csv"], "rows of [1, 2] cells"),
        (["mixture", "two.csv"], "3 components need as many different points, and the data have 2"),
        (["mixture", "gap.csv"], "drop rows with NaN"),
        (["hmm", "two.csv", "--states", "3"], "3 components need as many different points"),
        (["kalman", "--steps", "0"], "--steps must be at least 1"),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence(tmp_path: Path, monkeypatch, capsys, words: list[str], sentence: str):
    monkeypatch.chdir(tmp_path)
    Path("words.csv").write_text("a\nb\n")
    Path("ragged.csv").write_text("1\n2,3\n")
    Path("two.csv").write_text("1,2\n3,4\n")
    Path("gap.csv").write_text("1,2\n3,\n5,6\n7,8\n")
    with pytest.raises(SystemExit) as stop:
        main(["em", *words])
    assert stop.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
