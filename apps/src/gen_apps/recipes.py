"""Recipes: the defaults of a command's flags for one data set, where the command's own are tuned for another.

    gen diffusion train fashion-mnist --help    # shows the recipe's values as defaults
    gen diffusion train fashion-mnist --optim.steps 100

A recipe is the part of a config.json that differs from the class's own defaults; it is read before the command line, as
`--config FILE` is. The defaults of the commands themselves are for digits of 8 x 8 pixels. Each recipe of a train
command takes less than half an hour of one CPU core.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, TypeVar

from gen_core.config import from_dict, to_dict

Command = TypeVar("Command")
Values = Mapping[str, Any]

RECIPES: Mapping[str, Mapping[str, Values]] = {  # data: class of the flags: values by field
    "fashion-mnist": {
        "TrainDiffusion": {
            "network": {"width": 16, "multipliers": [1, 2, 4], "blocks": 1, "attention": [2], "dropout": 0.0},
            "optim": {"steps": 2400},
        },
        "TrainVAE": {
            "latents": 32,
            "network": {"width": 160},
            "optim": {"steps": 2400},
        },
        "TrainGAN": {
            "conditional": True,
            "network": "dcgan",
            "width": 128,
            "gamma": 5.0,
            "gamma_end": 1.0,
            "optim": {"steps": 2400, "lr": 1e-3},
        },
    },
}


def recipe(kind: type, data: Any) -> Values:
    """The values of a class of flags that are others for this data; none without a recipe."""
    return RECIPES.get(str(data).partition(":")[0], {}).get(kind.__name__, {})


def defaults(kind: type[Command], **own: Any) -> Command:
    """The flags of a command that are given no value but `own`, the data among them."""
    return _made(kind, recipe(kind, own.get("data", "")), **own)


def _made(kind: type[Command], values: Values, **own: Any) -> Command:
    usual: Any = from_dict(kind, _over(to_dict(kind()), values))
    return replace(usual, **own)


def _over(own: Values, values: Values) -> dict[str, Any]:
    """`own` with `values` in place of its own, group by group."""
    return {**own, **{n: _over(own.get(n, {}), v) if isinstance(v, Mapping) else v for n, v in values.items()}}


def named(kind: type[Command], args: Sequence[str]) -> Command | None:
    """The defaults of the recipe of the data that a command line names; None where there is none.

    A word that names data may also be the value of another flag, as in `--out fashion-mnist`: then the command line,
    read with other data by default, does not end up with it. A group of options belongs to its kind: the recipe's own
    are no defaults beside `--network.kind`.
    """
    import tyro

    flags = {arg.partition("=")[0] for arg in args}
    for word in args:
        values = {n: v for n, v in recipe(kind, word).items() if f"--{n}.kind" not in flags}
        if not values:
            continue
        usual: Any = _made(kind, values, data=word)
        plain = [arg for arg in args if arg not in ("-h", "--help")]
        with suppress(SystemExit, ValueError):  # of a mistake in other flags, which the command reports
            found: Any = tyro.cli(kind, args=plain, default=replace(usual, data="digits"), console_outputs=False)
            if found.data != word:
                continue
        return usual
    return None


def words(config: Any) -> str:
    """What a configuration has of the recipe of its data, for a reader; empty without one.

    >>> from gen_apps.vae.config import TrainVAE
    >>> words(defaults(TrainVAE, data="fashion-mnist")), words(TrainVAE())
    ('recipe: fashion-mnist (latents 32, network.width 160, optim.steps 2400)', '')
    """
    if not any(f.name == "data" for f in fields(config)):
        return ""
    kept = [text for text, same in _values(recipe(type(config), config.data), to_dict(config)) if same]
    return f"recipe: {config.data} ({', '.join(kept)})" if kept else ""


def _values(values: Values, found: Values, group: str = "") -> Iterator[tuple[str, bool]]:
    """Each value of a recipe as text, and whether a configuration has it."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _values(value, found[name], f"{group}{name}.")
        else:
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{group}{name} {shown}".replace("_", "-"), found[name] == value
