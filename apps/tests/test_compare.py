"""`gen compare` on a folder of tiny pictures: the whole table, its controls, its words and its page."""

import json
from pathlib import Path

import pytest

from gen_apps.__main__ import main
from gen_apps.compare.words import paragraph


def gen(*words: str) -> None:
    main([part for word in words for part in word.split()])


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "a"
    gen(f"compare {tiny} --size 8 --out {path} --steps 3 --batch-size 8 --machine.device cpu")
    return path


def test_every_sampler_has_its_row_and_each_control_what_it_is_there_for(run, capsys):
    rows = {row["name"]: row for row in json.loads((run / "compare.json").read_text())["rows"]}
    assert list(rows) == ["real data", "VAE", "GAN", "diffusion", "GMM-3", "memoriser", "collapsed"]
    assert all({"frechet", "kid", "precision", "recall", "density", "coverage", "c2st"} <= row["values"].keys()
               for row in rows.values())  # fmt: skip
    vae, gan, diffusion = (rows[name]["values"]["evaluations"] for name in ("VAE", "GAN", "diffusion"))
    assert vae == gan == 1 < diffusion
    assert "bits" in rows["VAE"]["values"] and "bits" in rows["diffusion"]["values"]
    assert "bits" not in rows["GAN"]["values"] and rows["GAN"]["values"]["joules"] > 0
    assert rows["memoriser"]["values"]["novelty"] < 0.5
    assert rows["collapsed"]["values"]["coverage"] < rows["real data"]["values"]["coverage"]
    page = (run / "compare.html").read_text()
    assert "the memoriser" in page and page.count("data:image/png") == 2 and "http" not in page.split("</head>")[1]


def test_the_same_command_again_trains_nothing_and_finds_the_same(run, tiny, capsys):
    before = json.loads((run / "compare.json").read_text())["rows"]
    gen(f"compare {tiny} --size 8 --out {run} --steps 3 --batch-size 8 --machine.device cpu")
    assert "training vae" not in capsys.readouterr().out
    after = json.loads((run / "compare.json").read_text())["rows"]
    for a, b in zip(before, after, strict=True):
        a["values"].pop("joules", None), b["values"].pop("joules", None)
        assert a == b


def test_the_paragraph_says_who_wins_and_who_loses():
    def row(name: str, features: float, recall: float, novelty: float = 1.0, **more: float) -> dict:
        values = {"features": features, "recall": recall, "novelty": novelty, "precision": 0.9, "coverage": 0.5}
        return {"name": name, "values": values | more}

    rows = {
        "real data": row("real data", 0.2, 0.97),
        "VAE": row("VAE", 0.4, 0.9, joules=1e-4, evaluations=1),
        "GAN": row("GAN", 0.5, 0.6, joules=1e-4, evaluations=1),
        "diffusion": row("diffusion", 0.9, 0.5, 0.3, joules=1.0, evaluations=35),
        "GMM-30": row("GMM-30", 0.6, 0.7),
        "memoriser": row("memoriser", 0.2, 0.97, 0.1, c2st=0.93),
        "collapsed": row("collapsed", 5.0, 0.4, 0.0),
    }
    rows["GAN"]["values"]["features"] = {"value": 0.5, "low": 0.3, "high": 0.7}
    said = paragraph(rows, ["VAE", "GAN", "diffusion"])
    assert "may owe its place before the GAN to chance" in said
    assert "the VAE is nearest" in said and "the VAE wins on both" in said and "the GAN wins on one of the two" in said
    assert "the diffusion lost both" in said and "1e+04 times the energy" in said and "(0.93)" in said
    assert "samples of the diffusion lie nearer to training data" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("compare --out NEW --families vea", "--families must be of vae, gan, diffusion, got vea"),
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
