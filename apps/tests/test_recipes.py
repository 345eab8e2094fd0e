"""Recipes: the defaults of a command for one data set, shown by --help, overridden by any flag."""

from dataclasses import replace
from pathlib import Path

import pytest

from gen_apps.__main__ import COMMANDS, find, main
from gen_apps.compare.config import Compare
from gen_apps.compare.families import configurations
from gen_apps.diffusion.config import TrainDiffusion
from gen_apps.gan.config import TrainGAN
from gen_apps.identity import directory
from gen_apps.recipes import RECIPES, defaults, named, recipe, words
from gen_apps.vae.config import TrainVAE
from gen_core.config import from_dict, to_dict

FLAGS = {find(place).__name__: find(place) for place, _ in COMMANDS.values()}
PAIRS = [(data, name) for data, kinds in RECIPES.items() for name in kinds]


@pytest.mark.parametrize(("data", "name"), PAIRS)
def test_a_recipe_is_values_of_flags_that_differ_from_the_commands_own(data, name):
    """`from_dict` refuses unknown fields and wrong types, and the class values out of range."""
    kind = FLAGS[name]
    made = defaults(kind, data=data)
    own = kind(data=data)
    assert made != own and made.data == data
    assert from_dict(kind, to_dict(made)) == made
    assert words(made).startswith(f"recipe: {data} (") and not words(own)
    for group, values in recipe(kind, data).items():
        for field, value in values.items() if isinstance(values, dict) else [(None, values)]:
            found = to_dict(made)[group] if field is None else to_dict(made)[group][field]
            assert found == value


def test_other_data_have_no_recipe_and_the_defaults_of_the_class():
    assert all(defaults(kind, data="digits") == kind() for kind in (TrainDiffusion, TrainVAE, TrainGAN, Compare))
    assert named(TrainVAE, ["digits"]) is None and named(TrainVAE, []) is None
    assert directory(TrainVAE()) == Path("runs/vae-digits")


@pytest.mark.parametrize(
    ("args", "data"),
    [
        ("fashion-mnist", "fashion-mnist"),
        ("--seed 3 fashion-mnist", "fashion-mnist"),
        ("--flip fashion-mnist:/data", "fashion-mnist:/data"),
        ("fashion-mnist --help", "fashion-mnist"),
        ("--out fashion-mnist fashion-mnist", "fashion-mnist"),
        ("pictures --out fashion-mnist", None),
        ("--out fashion-mnist", None),
        ("points:moons", None),
    ],
)
def test_the_recipe_is_that_of_the_data_wherever_they_are_named(args, data):
    found = named(TrainGAN, args.split())
    assert (found and found.data) == data
    if found:
        assert found == defaults(TrainGAN, data=data)


def test_another_kind_of_network_takes_nothing_from_the_recipe_of_this_one():
    """Widths and multipliers of a U-Net would be refused by a transformer."""
    for args in (["fashion-mnist", "--network.kind", "dit"], ["fashion-mnist", "--network.kind=dit"]):
        found = named(TrainDiffusion, args)
        assert found is not None and found.network == TrainDiffusion().network
        assert found.optim == defaults(TrainDiffusion, data="fashion-mnist").optim


@pytest.fixture
def caught(monkeypatch):
    """The configuration that a command's function would be called with."""
    found: list = []
    monkeypatch.setattr("gen_apps.identity.train_in", lambda function, config: found.append(config))
    return found


def test_a_recipe_is_said_applied_and_overridden_by_any_flag(caught, capsys):
    usual = defaults(TrainDiffusion, data="fashion-mnist")
    main("diffusion train fashion-mnist".split())
    assert caught == [usual]
    steps = f"optim.steps {usual.optim.steps}"
    said = capsys.readouterr().out
    assert said.startswith("recipe: fashion-mnist (network.width 16, ") and steps in said
    main("diffusion train --optim.steps 7 fashion-mnist --network.multipliers 1 2".split())
    assert caught[1] == replace(
        usual, optim=replace(usual.optim, steps=7), network=replace(usual.network, multipliers=(1, 2))
    )
    said = capsys.readouterr().out
    assert "network.width 16" in said and "optim.steps" not in said and "multipliers" not in said
    main("diffusion train digits".split())
    assert caught[2] == TrainDiffusion() and "recipe" not in capsys.readouterr().out


def test_a_configuration_from_a_file_is_taken_as_it_is(caught, tmp_path, capsys):
    import json

    file, plain = tmp_path / "config.json", TrainVAE(data="fashion-mnist")
    file.write_text(json.dumps(to_dict(plain)))
    main(f"vae train fashion-mnist --config {file}".split())
    assert caught == [plain] and "recipe" not in capsys.readouterr().out


def test_help_shows_the_values_of_the_recipe(capsys):
    def shown(*args: str) -> str:
        with pytest.raises(SystemExit):
            main([*args, "--help"])
        return " ".join(capsys.readouterr().out.replace("│", " ").split())

    width = "--network.width INT Features, of the U-Net at full resolution (32; 64 for dit)."
    assert f"{width} (default: 16)" in shown("diffusion", "train", "fashion-mnist")
    assert f"{width} --network.multipliers" in shown("diffusion", "train")
    assert "one more halves the size (1 2). (default: 1 2 4)" in shown("diffusion", "train", "fashion-mnist")


def test_the_directory_is_named_by_what_differs_from_the_recipe():
    usual = defaults(TrainGAN, data="fashion-mnist")
    assert directory(usual) == Path("runs/gan-fashion-mnist")
    assert directory(replace(usual, width=256)).name.startswith("gan-fashion-mnist-")
    assert directory(TrainGAN(data="fashion-mnist")) != directory(usual), "without the recipe it is another run"


def test_the_comparison_has_the_networks_of_the_recipes_and_its_own_budget():
    config = defaults(Compare, data="fashion-mnist")
    for its in configurations(config).values():
        recipes = defaults(type(its), data="fashion-mnist")
        assert its.network == recipes.network and its.optim.lr == recipes.optim.lr
        assert (its.optim.steps, its.optim.batch_size) == (config.steps, config.batch_size)
    assert not configurations(config)["vae"].conditional and not configurations(config)["gan"].conditional
