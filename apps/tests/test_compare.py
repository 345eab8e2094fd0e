"""`gen compare` on a folder of tiny pictures: the whole table, its controls, its words and its page."""

import json
from pathlib import Path

import pytest

from gen_apps.__main__ import main
from gen_apps.compare.words import gaps, paragraph


def gen(*words: str) -> None:
    main([part for word in words for part in word.split()])


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "a"
    gen(f"compare {tiny} --size 8 --out {path} --steps 3 --batch-size 8 --machine.device cpu")
    return path


def figures(run: Path) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads((run / "compare.json").read_text())["rows"]}


def test_every_sampler_has_its_row_and_each_control_what_it_is_there_for(run, capsys):
    rows = figures(run)
    assert list(rows) == ["training data", "VAE", "GAN", "diffusion", "GMM-3", "memoriser", "collapsed"]
    assert all({"frechet", "frechet-features", "kid", "precision", "two-sample", "c2st"} <= row.keys()
               for row in rows.values())  # fmt: skip
    vae, gan, diffusion = (rows[name]["evaluations"] for name in ("VAE", "GAN", "diffusion"))
    assert vae == gan == 1 < diffusion
    assert "bits/dim" in rows["VAE"] and "bits/dim" in rows["diffusion"]
    assert "bits/dim" not in rows["GAN"] and rows["GAN"]["J/sample"]["value"] > 0
    assert rows["memoriser"]["memorisation"]["value"] < 0.5
    assert rows["collapsed"]["coverage"]["value"] < rows["training data"]["coverage"]["value"]
    page = (run / "compare.html").read_text()
    assert "the memoriser" in page and page.count("data:image/png") == 2 and "http" not in page.split("</head>")[1]


def test_every_figure_and_every_difference_of_two_rows_has_its_interval(run):
    written = json.loads((run / "compare.json").read_text())
    assert len(written["differences"]) == 7 * 6 / 2
    for row in written["rows"] + written["differences"]:
        for name in row.keys() - {"name", "n", "evaluations", "a", "b"}:
            low, high = row[name]["interval"]
            assert low <= row[name]["value"] <= high, (row, name)


def test_the_training_data_have_the_figures_that_a_training_run_writes(run):
    """One scale: the same data have the same row in quality.json of a family and in the comparison."""
    written = json.loads((run / "diffusion" / "quality.json").read_text())["rows"][1]
    row = figures(run)["training data"]
    assert written["name"] == "training data" and written["n"] == row["n"]
    same = written.keys() & row.keys() - {"name", "n"}
    assert {"frechet", "frechet-features", "kid", "recall", "two-sample"} <= same
    assert all(written[name]["value"] == row[name]["value"] for name in same)


def test_the_same_command_again_trains_nothing_and_finds_the_same(run, tiny, capsys):
    before = json.loads((run / "compare.json").read_text())["rows"]
    gen(f"compare {tiny} --size 8 --out {run} --steps 3 --batch-size 8 --machine.device cpu")
    assert "training vae" not in capsys.readouterr().out
    after = json.loads((run / "compare.json").read_text())["rows"]
    for a, b in zip(before, after, strict=True):
        a.pop("J/sample", None), b.pop("J/sample", None)
        assert a == b


def test_the_paragraph_says_who_wins_who_loses_and_who_cannot_be_told():
    def figure(value: float, doubt: float = 0.05) -> dict:
        return {"value": value, "interval": [value - doubt, value + doubt], "n": 100, "unit": "1"}

    def row(name: str, distance: float, recall: float, memorisation: float = 1.0, **more) -> dict:
        rest = {"precision": figure(0.9), "coverage": figure(0.5), "two-sample": figure(0.9), **more}
        return {"name": name, "frechet-features": figure(distance), "recall": figure(recall),
                "memorisation": figure(memorisation)} | rest  # fmt: skip

    cheap, dear = ({"J/sample": figure(j), "evaluations": float(n)} for j, n in ((1e-4, 1), (1.0, 35)))
    rows = {
        "training data": row("training data", 0.2, 0.97),
        "VAE": row("VAE", 0.4, 0.9, **cheap),
        "GAN": row("GAN", 0.43, 0.6, **cheap),
        "diffusion": row("diffusion", 0.9, 0.5, 0.3, **dear),
        "GMM-30": row("GMM-30", 0.6, 0.7),
        "memoriser": row("memoriser", 0.2, 0.97, 0.1),
        "collapsed": row("collapsed", 5.0, 0.4, 0.0),
    }
    gap = lambda a, b, column: figure(rows[a][column]["value"] - rows[b][column]["value"])
    said = paragraph(rows, ["VAE", "GAN", "diffusion"], gap)
    assert "the VAE has the smallest Fréchet distance to the held-out data, 0.40 (0.35–0.45)" in said
    assert "it cannot be told from the GAN in distance, a difference of 0.03 (-0.02–0.08)" in said
    assert "it is nearer than the diffusion in distance, by 0.50 (0.45–0.55)" in said
    assert "the VAE is nearer than the GMM-30 in distance, by 0.20 (0.15–0.25) and covers more than" in said
    assert "the diffusion is farther than the GMM-30 in distance, by 0.30 (0.25–0.35) and covers less than" in said
    assert "35 network evaluations and 1 (0.95–1.05) J for the diffusion" in said
    assert "its memorisation is 0.10 (0.05–0.15)" in said and "a sign of copying for the diffusion." in said


def test_a_difference_is_read_in_both_directions():
    gap = gaps([{"a": "x", "b": "y", "recall": {"value": 1.0, "interval": [-1.0, 2.0]}}])
    assert gap("x", "y", "recall") == {"value": 1.0, "interval": [-1.0, 2.0]}
    assert gap("y", "x", "recall") == {"value": -1.0, "interval": [-2.0, 1.0]}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("compare --out NEW --families vea", "invalid choice 'vea'"),
        ("compare --out NEW --steps 0", "--steps must be at least 1"),
        ("compare --out NEW --size 9", "pictures of 9 pixels cannot be halved down to 4"),
        ("compare nowhere --out NEW", "nowhere is no folder"),
        ("compare TINY --size 8 --out RUN --steps 4", "holds a run with another configuration"),
    ],
)
def test_a_wrong_input_is_one_sentence_and_exit_code_2(words, sentence, run, tiny, tmp_path, capsys):
    for word, place in {"NEW": tmp_path / "new", "RUN": run, "TINY": tiny}.items():
        words = words.replace(word, str(place))
    with pytest.raises(SystemExit) as stop:
        gen(words)
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stop.value.code == 2 and sentence in said and not (tmp_path / "new").exists()
