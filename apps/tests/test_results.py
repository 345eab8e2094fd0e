"""Results as data: `--json FILE` of every command that measures, and `gen embed` on every kind of run."""

import json
import shutil
from pathlib import Path

import pytest

from gen_apps.__main__ import COMMANDS, find
from gen_apps.command import Measures
from gen_apps.opening import KINDS
from gen_core.testing import load

small = load(Path(__file__).with_name("small.py"))
gen = small.gen
AE = "autoencode train {tiny} --size 8 --width 16 --latents 3 " + small.STEPS
LM = f"--network.layers 1 --network.dim 16 --network.heads 2 {small.STEPS}"
MEASURES = {  # command: what follows it, and entries of its first row
    "diffusion likelihood": ("{TrainDiffusion} --n 4 --levels 4 --probes 1 --device cpu", {"nats", "bits/dim"}),
    "diffusion compare": ("{TrainDiffusion} --n 12 --budgets 4 --methods euler --draws 1 --device cpu", {"frechet"}),
    "diffusion calibrate": (
        "--methods mcgdiff --dim 2 --observed 1 --problems 2 --levels 3 --particles 4 --out {tmp}",
        {"sw", "floor", "mode_tv", "ks", "coverage", "log_z_error", "calls"},
    ),
    "diffusion restore": ("{TrainDiffusion} --n 2 --draws 2 --steps 3 --device cpu", {"PSNR, mean", "SSIM, mean"}),
    "diffusion learn2d": (
        "grid --steps 2 --batch-size 8 --width 8 --blocks 1 --n 20 --views eps --device cpu --out {tmp}/p.html",
        {"evaluations", "gap"},
    ),
    "diffusion train": (small.DIFFUSION.partition("train ")[2].format("{tiny}") + " --out {tmp}/r", {"frechet"}),
    "vae train": (small.VAE.partition("train ")[2].format("{tiny}") + " --out {tmp}/r", {"frechet"}),
    "vae nll": ("{TrainVAE} --k 5 --n 8 --device cpu", {"nll", "minus elbo"}),
    "vae interpolate": ("{TrainVAE} --n 2 --steps 4 --device cpu --out {tmp}/a.png", {"largest jump"}),
    "gan train": (small.GAN.partition("train ")[2].format("{tiny}") + " --out {tmp}/r", {"frechet"}),
    "autoencode train": (AE.partition("train ")[2] + " --out {tmp}/r", {"squared error"}),
    "autoencode denoise": ("{noisy} --device cpu", {"squared error"}),
    "autoencode inpaint": ("{hidden} --device cpu", {"squared error of hidden values"}),
    "autoencode anomaly": ("{odd} --device cpu", {"area under the ROC curve"}),
    "autoencode compress": ("{TrainAutoEncoder} --device cpu", {"squared error", "PSNR", "numbers"}),
    "latent-diffusion train": (
        "{TrainAutoEncoder} --network.width 8 --network.blocks 1 --sampler.steps 3 --out {tmp}/r " + small.STEPS,
        {"frechet"},
    ),
    "trajectory train": (
        "--trajectories 16 --frames 60 --samples 8 --sampler.steps 2 --network.width 8 --network.depth 1 "
        "--network.heads 2 --out {tmp}/r " + small.STEPS,
        {"f1"},
    ),
    "llm tokenizer": ("{text} --vocab 0 --out {tmp}/tok", {"tokens per word"}),
    "llm pretrain": ("{text} --out {tmp}/r " + LM, {"bits per byte"}),
    "llm tune": ("{Pretrain} {chats} --out {tmp}/r " + small.STEPS, {"nats per token"}),
    "llm eval": ("{Pretrain} {documents} --choices {questions} --device cpu", {"bits per byte", "tokens"}),
    "align sort": (
        "--longest 3 --sft-steps 2 --steps 1 --out {tmp}/p.html",
        {"sampled_accuracy", "greedy_accuracy"},
    ),
    "align bandit": ("--steps 2 --samples 16 --out {tmp}/p.html", {"J", "J in closed form", "apart", "KL"}),
    "align two-token": ("--steps 2 --samples 16 --out {tmp}/p.html", {"J", "J in closed form", "below the optimum"}),
    "llm scaling": ("{law} --bootstrap 20 --out {tmp}/s.png", {"value"}),
    "compare": (
        "{tiny} --size 8 --steps 2 --batch-size 8 --families vae gan --machine.device cpu --out {tmp}/r",
        {"frechet", "c2st"},
    ),
    "runs": ("{root}", {"command", "steps"}),
    "runs compare": ("{TrainVAE} {TrainGAN} --out {tmp}/p.html", {"frechet"}),
}


@pytest.fixture(scope="module")
def places(runs, tiny, tmp_path_factory) -> dict[str, Path]:
    """What the words in braces stand for."""
    root = tmp_path_factory.mktemp("measured")
    for name, how in {"noisy": "--noise 0.5", "hidden": "--hide right", "odd": "--leave-out 1"}.items():
        gen(f"{AE.format(tiny=tiny)} {how} --out {root / name}")
    (root / "questions.jsonl").write_text('{"context": "The", "choices": [" cat", " dog"], "answer": 0}\n' * 3)
    lines = (json.dumps({"text": "The cat sees the dog " + "and the house " * i}) for i in range(6))
    (root / "documents.jsonl").write_text("\n".join(lines) + "\n")
    law = [(n, d, 1.8 + 480 / n**0.35 + 2000 / d**0.37) for n in (1e7, 1e8, 1e9) for d in (1e9, 1e10, 1e11)]
    (root / "law.csv").write_text("N,D,loss\n" + "".join(f"{n},{d},{loss}\n" for n, d, loss in law))
    files = {name: next(root.glob(f"{name}.*")) for name in ("questions", "documents", "law")}
    beside = runs["Pretrain"].parent
    trained = {name: root / name for name in ("noisy", "hidden", "odd")}
    return {**runs, **files, **trained, "tiny": tiny, "root": beside,
            "text": beside / "en.txt", "chats": beside / "chats.jsonl"}  # fmt: skip


def test_every_command_that_measures_has_its_example():
    measuring = {name for name, (flags, *_) in COMMANDS.items() if issubclass(find(flags), Measures)}
    assert measuring == MEASURES.keys()


@pytest.mark.parametrize("command", MEASURES)
def test_a_command_writes_its_figures_as_data(command, places, tmp_path):
    words, entries = MEASURES[command]
    gen(f"{command} {words.format(tmp=tmp_path, **places)} --json {tmp_path / 'found.json'}")
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == ["command", "config", "seed", "versions", "rows"]
    assert found["command"] == command and found["versions"]["torch"] and found["rows"]
    assert entries <= found["rows"][0].keys()
    for row in found["rows"]:
        assert isinstance(row["name"], str)
        for name, entry in row.items():
            assert isinstance(entry, str | int | float | dict), (row["name"], name)
            if isinstance(entry, dict):
                assert "value" in entry and entry.keys() <= {"value", "interval", "n", "unit"}, (row["name"], name)
                low, high = entry.get("interval", [entry["value"]] * 2)
                slack = 1e-6 * abs(entry["value"])
                assert low - slack <= entry["value"] <= high + slack, (row["name"], name)


def test_the_file_of_figures_is_no_part_of_a_run(vae_run, tiny, tmp_path):
    """The same run with and without --json: the same configuration, and the second command continues the first."""
    shutil.copytree(vae_run, tmp_path / "a")
    before = (tmp_path / "a" / "config.json").read_bytes()
    gen(f"{small.VAE.format(tiny)} --out {tmp_path / 'a'} --json {tmp_path / 'f.json'}")
    assert (tmp_path / "a" / "config.json").read_bytes() == before
    quality = json.loads((tmp_path / "a" / "quality.json").read_text())
    assert json.loads((tmp_path / "f.json").read_text())["rows"] == quality["rows"]


@pytest.mark.parametrize("kind", KINDS)
def test_embed_report_and_summary_know_every_kind_of_run(kind, runs, tmp_path, capsys):
    run, out = runs[kind], tmp_path / "map.png"
    if kind in ("Pretrain", "Tune"):
        with pytest.raises(SystemExit):
            gen(f"embed {run} --out {out}")
        assert "is a language model" in " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert not out.exists()
    else:
        gen(f"embed {run} --n 8 --out {out}")
        assert "trustworthiness" in capsys.readouterr().out and out.read_bytes()[:4] == b"\x89PNG"
    gen(f"report {run}")
    gen(f"summary {run}")
    assert "report.html" in (said := capsys.readouterr().out) and "parameters" in said


def test_a_run_without_samples_is_said_how_to_end(runs, tmp_path, capsys):
    shutil.copytree(runs["TrainGAN"], tmp_path / "cut")
    (tmp_path / "cut" / "samples.npz").unlink()
    with pytest.raises(SystemExit):
        gen(f"embed {tmp_path / 'cut'}")
    assert "continue it with: gen gan train --resume" in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(("kind", "coloured"), [("TrainVAE", True), ("TrainTrajectory", False)])
def test_samples_without_classes_are_not_drawn_as_the_first_class(kind, coloured, runs, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("gen_core.embed.scatter", lambda z, labels, **how: drawn.append((labels, how["groups"])))
    gen(f"embed {runs[kind]} --n 8 --out {tmp_path / 'map.png'}")
    ((labels, groups),) = drawn
    assert (labels is not None) == coloured and len(set(groups)) == 2
