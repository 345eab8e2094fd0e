"""`gen diffusion`: no flag is ignored, every sampler is the same in any batch, and each command leaves what it says."""

import json
import re
import shutil
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gen_apps import data
from gen_apps.__main__ import main
from gen_apps.diffusion import build, flags
from gen_apps.diffusion.flags import METHODS, NETWORKS, OBJECTIVES, SCHEDULES, Network, Objective, Sampler
from gen_apps.diffusion.learn2d import SAMPLERS
from gen_apps.diffusion.trained import TrainedDiffusion
from gen_core import Run, quality
from gen_diffusion import MLP, Preconditioned
from gen_diffusion.view import VIEWS

TINY = "--optim.steps 6 --optim.batch-size 8 --sampler.steps 3 --network.width 8 --machine.device cpu"


def words_of(page: Path) -> str:
    """Its text, without the pictures' bytes, in which any word may stand."""
    return re.sub(r"base64,[^\"]*|<style>.*?</style>", "", page.read_text(), flags=re.S)


def gen(*words: str) -> None:
    main([part for word in words for part in word.split()])


@pytest.fixture(scope="module", autouse=True)
def coarse_intervals():
    """Of sample quality: most of the time of a tiny run goes into them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "assess", partial(quality.assess, draws=1))
        yield


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> Path:
    """A run on points of two classes."""
    path = tmp_path_factory.mktemp("runs") / "points"
    gen(f"diffusion train points:moons --out {path} {TINY} --network.blocks 1 --optim.lr 0.05")
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A run of a transformer on the digits, flow matching with optimal transport."""
    path = tmp_path_factory.mktemp("runs") / "pictures"
    kind = "--network.kind dit --network.patch 4 --network.depth 1 --network.heads 2 --objective.view velocity"
    kind += " --objective.levels flow --objective.weight velocity --objective.pairing ot --objective.uncertainty"
    gen(f"diffusion train digits --out {path} {TINY} {kind} --sampler.schedule flow --sampler.sigma-max inf")
    return path


# ------------------------------------------------------------------ samplers


def test_flags_and_factories_have_the_same_choices():
    assert tuple(flags.VIEWS) == VIEWS
    assert [t.keys() for t in flags.SAMPLERS.values()] == [build.SAMPLER_PARTS[c].keys() for c in flags.SAMPLERS]
    made = {"levels": build.DRAWS, "weight": build.WEIGH, "pairing": build.PAIRINGS}
    assert all(OBJECTIVES[choice].keys() == factories.keys() for choice, factories in made.items())
    assert NETWORKS.keys() == build.NETS.keys()


def drawn(trained: TrainedDiffusion, sampler: Sampler, n: int = 4, batch: int = 4) -> torch.Tensor:
    labels = torch.tensor([0, 1, 1, 0])[:n]
    return trained.sample(n, labels, sampler=sampler.completed(), seed=3, batch=batch)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_sampler_draws_the_same_sample_in_any_batch(method, schedule, points):
    trained, sampler = (
        TrainedDiffusion.open(points, "cpu"),
        Sampler(method=method, schedule=schedule, steps=5, guidance=1.5),
    )
    many = drawn(trained, sampler)
    assert many.isfinite().all()
    torch.testing.assert_close(drawn(trained, sampler, 3, 2), many[:3], rtol=1e-4, atol=1e-4)


OTHER = {  # another value than the default of each option
    "steps": 7, "churn": 1.0, "eta": 0.5, "variance": "large", "snr": 0.3, "corrections": 2,
    "sigma_min": 0.1, "sigma_max": 20.0, "rho": 2.0, "shift": 3.0,
    "guidance": 2.5, "guidance_low": 1.4, "guidance_high": 1.9,
}  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "chosen", "option"),
    [(c, name, option) for c, t in flags.SAMPLERS.items() for name, own in t.items() for option in own],
)
def test_every_option_of_a_sampler_changes_the_samples(choice, chosen, option, points):
    trained, plain = TrainedDiffusion.open(points, "cpu"), Sampler(steps=9, guidance=1.3, **{choice: chosen})
    assert not torch.equal(drawn(trained, plain), drawn(trained, replace(plain, **{option: OTHER[option]})))


@pytest.mark.parametrize(
    ("config", "choice", "table"),
    [(Sampler(), name, table) for name, table in flags.SAMPLERS.items()]
    + [(Objective(), name, table) for name, table in OBJECTIVES.items()],
)
def test_an_option_that_would_be_ignored_is_refused_by_name(config, choice, table):
    for chosen, own in table.items():
        for option in {o for options in table.values() for o in options} - own.keys():
            dashed = option.replace("_", "-")
            with pytest.raises(ValueError, match=rf"--\w+\.{dashed} is an option of .*, not of {re.escape(chosen)}$"):
                replace(config, **{choice: chosen, option: OTHER.get(option, 1.0)}).completed()


def test_a_network_refuses_options_of_another_kind():
    for kind, own in NETWORKS.items():
        for option in {f.name for f in fields(Network)} - own.keys() - {"kind"}:
            value = (1, 2) if option in ("multipliers", "attention") else 0.5 if option == "dropout" else 4
            with pytest.raises(ValueError, match=f"--network.{option} is an option of"):
                Network(kind=kind, **{option: value}).completed(points=kind == "mlp")


def test_what_is_given_goes_over_what_was_trained_with():
    trained = Sampler(method="ddim", eta=0.5, schedule="karras", rho=3.0, guidance=2.0, steps=7).completed()
    assert Sampler().over(trained).completed() == trained
    heun = Sampler(method="heun").over(trained).completed()
    assert (heun.method, heun.eta, heun.churn, heun.rho, heun.steps) == ("heun", None, 0.0, 3.0, 7)
    assert Sampler(method="churn").over(heun).completed().churn == 5.0, "0 is Heun's default, not churn's"
    assert Sampler(method="dpmpp-2m-sde").over(trained).completed().eta == 1.0
    flow = Sampler(schedule="flow").over(trained).completed()
    assert (flow.rho, flow.shift, flow.guidance, flow.eta) == (None, 1.0, 2.0, 0.5)


def test_a_budget_of_evaluations_is_spent_but_not_exceeded():
    heun = Sampler(method="heun").completed()
    assert build.within(heun, 40) == replace(heun, steps=20)  # 39 evaluations
    assert build.within(replace(heun, guidance=2.0), 40) == replace(heun, guidance=2.0, steps=10)  # 38, both branches
    assert build.within(heun, 2) is None


# ------------------------------------------------------------------ objectives


def test_every_option_of_an_objective_changes_the_loss():
    torch.manual_seed(0)
    x0, z, noise = torch.randn(64, 2), torch.randn(64), torch.randn(64, 2)

    def loss(objective: Objective) -> float:
        view = {v: v for v in VIEWS}[objective.completed().view or ""]
        denoiser = Preconditioned(MLP(2, 8, 1), 0.7, view)  # its output is 0
        task = build.task(objective.completed(), denoiser, 0)
        return task.loss(x0, task.levels(z), noise).item()

    base = loss(Objective())
    assert loss(replace(Objective(), level_mean=-1.2, level_std=1.2, weight="edm", view="F")) == base
    changes = [{name: key} for name in ("levels", "weight") for key in OBJECTIVES[name]]
    changes += [{"view": view} for view in ("x0", "eps", "v", "velocity")] + [{"level_mean": 0.0}, {"level_std": 2.0}]
    values = [
        loss(replace(Objective(), **change))
        for change in changes
        if change not in ({"levels": "log-normal"}, {"weight": "edm"})
    ]
    assert base not in values and len({round(v, 6) for v in values[:3]}) == 3
    assert loss(Objective(weight="min-snr")) != loss(Objective(weight="min-snr", gamma=1.0))
    task = build.task(Objective(uncertainty=True, pairing="ot").completed(), Preconditioned(MLP(2, 8, 1)), 0)
    assert task.uncertainty is not None and task.pairing is not None


def test_log_normal_levels_are_in_proportion_to_the_data():
    levels = [
        build.task(Objective(level_mean=-2.0).completed(), Preconditioned(MLP(2, 8, 1), size), 0).levels(torch.zeros(1))
        for size in (0.5, 5.0)
    ]
    torch.testing.assert_close(levels[1], 10 * levels[0])
    assert levels[0].log().item() == pytest.approx(-2.0)


# ------------------------------------------------------------------ commands


def test_a_transformer_is_trained_by_flow_matching_and_sampled_from_infinity(pictures, tmp_path):
    config = Run(pictures).config()
    assert config["network"]["kind"] == "dit" and config["objective"]["pairing"] == "ot"
    assert config["network"]["multipliers"] is None and config["sampler"]["sigma_max"] == "inf"
    gen(f"diffusion sample {pictures} --n 3 --method flow-heun --steps 2 --device cpu --out {tmp_path / 's'}")
    x = np.load(tmp_path / "s.npz")["x"]
    assert x.shape == (3, 1, 8, 8) and np.isfinite(x).all()


def test_likelihood_says_nats_and_bits_with_errors(pictures, points, capsys):
    gen(f"diffusion likelihood {pictures} --n 4 --probes 2 --levels 4 --elbo --elbo-steps 2 --batch 3 --device cpu")
    said, found = capsys.readouterr().out, json.loads((pictures / "likelihood.json").read_text())
    assert "bits/dim" in said and "17 grey levels" in said and "noise level 0.0625" in said and "energy" in said
    for figure in found["rows"]:
        bits = -figure["nats"]["value"] / (64 * np.log(2)) + 3  # the bins have a width of 1/8
        assert figure["bits/dim"]["value"] == pytest.approx(bits, rel=1e-5)
        widths = [np.ptp(figure[name]["interval"]) for name in ("bits/dim", "nats")]
        assert widths[0] == pytest.approx(widths[1] / (64 * np.log(2)), rel=1e-5) and figure["nats"]["n"] == 4
    given = []
    for how in ("", "--unconditional", "--batch 2"):
        gen(f"diffusion likelihood {points} --n 5 --probes 0 --levels 4 --device cpu {how}")
        said, found = capsys.readouterr().out, json.loads((points / "likelihood.json").read_text())
        assert (
            "bits/dim" not in said
            and "exact" in said
            and [r["name"] for r in found["rows"]] == ["probability-flow ODE"]
        )
        given.append(found["rows"][0]["nats"]["value"])
    assert given[0] == pytest.approx(given[2], rel=1e-4) and abs(given[0] - given[1]) > 1e-3
    assert Run(points).metrics()[-1]["likelihood/nats"] == pytest.approx(given[2])


def test_compare_measures_every_sampler_within_its_budget(points, capsys):
    gen(f"diffusion compare {points} --n 30 --budgets 4 8 --draws 1 --guidance 1.5 --eta 0.3 --device cpu")
    *rows, floor = json.loads((points / "compare.json").read_text())["rows"]
    assert {row["name"] for row in rows} == METHODS.keys() - {"ddim"} and floor["name"] == "training data"
    assert all(0 < row["evaluations"] <= row["budget"] and row["J/sample"]["value"] > 0 for row in rows)
    assert ("heun", 8) in {(row["name"], row["budget"]) for row in rows}
    assert {"frechet", "kid", "two-sample", "memorisation", "label"} <= rows[0].keys()
    assert all(len(row[name]["interval"]) == 2 for row in rows for name in ("recall", "memorisation"))
    page = words_of(points / "compare.html")
    assert page.count("data:image/png;") == 4 and "http" not in page and "training data" in capsys.readouterr().out


def test_learn2d_writes_one_page_that_needs_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    gen("diffusion learn2d --steps 3 --n 20 --width 8 --blocks 1 --budget 6 --batch-size 16 --views eps --device cpu")
    page = words_of(Path("learn2d-grid.html"))
    assert page.count("data:image/png;") == 6 and "http" not in page and "<script" not in page
    assert all(name in page for name in SAMPLERS) and "gap, nats" in page and "excess" in page
    gen("diffusion learn2d rings --steps 3 --n 20 --width 8 --blocks 1 --budget 6 --batch-size 16 --device cpu")
    assert "gap" not in words_of(Path("learn2d-rings.html")) and "page learn2d-rings.html" in capsys.readouterr().out


# ------------------------------------------------------------------ one sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train --out NEW --network.kind mlp", "--network.kind mlp is not for pictures"),
        ("train points:moons --out NEW --network.kind dit", "--network.kind dit is not for points"),
        ("train --out NEW --network.patch 2", "--network.patch is an option of --network.kind dit, not of unet"),
        ("train --out NEW --network.kind dit --network.patch 3", "patches of 3 x 3 do not cover"),
        ("train --out NEW --network.kind dit --network.heads 5", "heads"),
        ("train --out NEW --objective.view x", "--objective.view must be one of"),
        ("train --out NEW --objective.weight edn", "--objective.weight must be one of edm,"),
        ("train --out NEW --objective.level-std 0", "--objective.level-std must be positive"),
        ("train --out NEW --objective.levels flow --objective.level-mean 1", "--objective.level-mean is an option of"),
        ("train --out NEW --objective.levels flow --objective.weight variational", "log-normal"),
        ("train --out NEW --sampler.method heum", "--sampler.method must be one of heun"),
        ("train --out NEW --sampler.sigma-min 3 --sampler.sigma-max 2", "--sampler.sigma-min, --sampler.sigma-max: "),
        ("train --out NEW --sampler.rho 0", "--sampler.rho must be positive"),
        ("sample POINTS --steps 1", "--steps: karras needs at least 2 steps"),
        ("sample POINTS --sigma-min 90", "--sigma-min: karras needs 0 < sigma_min < sigma_max"),
        ("sample POINTS --method heun --eta 0.5", "--eta is an option of --method"),
        ("sample POINTS --method ddim --eta 2", "--eta: eta is the share of fresh noise"),
        ("sample POINTS --guidance nan", "--guidance: a guidance weight must be finite"),
        ("sample POINTS --guidance-schedule interval --guidance-low 5 --guidance-high 1", "--guidance-low"),
        ("sample POINTS --label 2", "--label must be a class of the run, 0..1, got 2"),
        ("sample POINTS --batch 0", "--batch must be at least 1"),
        ("sample POINTS --guidance 1e38", "samples are not finite"),
        ("sample WIDER", "do not fit"),
        ("sample OTHER", "is no run of gen diffusion train"),
        ("likelihood OTHER", "is no run of gen diffusion train"),
        ("likelihood WIDER", "do not fit"),
        ("likelihood POINTS --n 100000", "--n must be at most 1000"),
        ("likelihood POINTS --probes -1", "--probes must be at least 0"),
        ("likelihood POINTS --sigma-min 90", "0 < --sigma-min < --sigma-max"),
        ("likelihood CLASSES", "its data now have shape (2,) in 3; restore the data"),
        ("compare CLASSES", "was trained on samples of shape (2,) in 2 classes, but its data"),
        ("compare POINTS --methods heum", "heum"),
        ("compare POINTS --budgets 1", "budgets 2 or more"),
        ("compare POINTS --steps 4", "--steps is what is compared"),
        ("learn2d moon", "grid"),
        ("learn2d --views z", "views"),
        ("learn2d --lr 0", "--lr must be positive"),
    ],
)
def test_a_wrong_input_is_one_sentence_and_exit_code_2(words, sentence, points, tmp_path, capsys):
    for name in ("WIDER", "CLASSES"):
        shutil.copytree(points, tmp_path / name)
    network = (tmp_path / "WIDER" / "model.json").read_text()
    (tmp_path / "WIDER" / "model.json").write_text(network.replace('"width": 8', '"width": 16'))
    config = (tmp_path / "CLASSES" / "config.json").read_text()
    (tmp_path / "CLASSES" / "config.json").write_text(config.replace("points:moons", "points:rings"))
    Run.create(tmp_path / "OTHER", {"$": "Tokens", "vocabulary": 12})
    words = words.replace("POINTS", str(points)).replace("NEW", str(tmp_path / "new"))
    words = re.sub("WIDER|CLASSES|OTHER", lambda m: str(tmp_path / m[0]), words)
    with pytest.raises(SystemExit) as stop:
        gen(f"diffusion {words}")
    said = " ".join(capsys.readouterr().err.split()).replace("│ ", "")
    assert stop.value.code == 2 and sentence in said, said
    assert "Traceback" not in said and not (tmp_path / "new").exists()


def test_data_that_are_not_finite_are_refused_before_training(monkeypatch):
    broken = lambda n, generator: (torch.full((n, 2), torch.nan), torch.zeros(n, dtype=torch.long))
    monkeypatch.setitem(data.POINTS, "moons", broken)
    with pytest.raises(ValueError, match="4000 of 4000 samples of points:moons hold NaN or infinity"):
        data.load("points:moons", 0)


def test_guidance_needs_classes():
    with pytest.raises(ValueError, match="--guidance is for data with classes"):
        Sampler(guidance=2.0).completed().check(0, group="")
