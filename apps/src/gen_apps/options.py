"""Options that belong to a choice: `--sampler.eta` to `--sampler.method ddim`, and to no other method.

A table gives each choice what makes it and its own options with their defaults:

    METHODS = {"heun": (heun, {}), "ddim": (ddim, {"eta": 0.0})}

In a configuration such an option is None until the user gives it, so that one which the choice would ignore is told
from one that nobody gave.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, TypeVar

import tyro

Config = TypeVar("Config")
Table = Mapping[str, tuple[Callable[..., Any], Mapping[str, Any]]]

# An option that may be absent, without a word of that in --help: its docstring names the default.
Count = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Number = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]


def choice(table: Table) -> Any:
    """How --help shows the names in a table."""
    return tyro.conf.arg(metavar="{" + ",".join(table) + "}", help_behavior_hint="")


def given(config: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {f.name: value for f in fields(config) if (value := getattr(config, f.name)) is not None}


def flag(group: str, name: str) -> str:
    """As it is typed.

    >>> flag("sampler", "sigma_max"), flag("", "steps")
    ('--sampler.sigma-max', '--steps')
    """
    return "--" + (f"{group}.{name}" if group else name).replace("_", "-")


def completed(config: Config, group: str, choice: str, table: Table) -> Config:
    """`config` with the defaults of its choice in place of None.

    Args:
        group: of flags, as "sampler".
        choice: the field that chooses, as "method".

    Raises:
        ValueError: for a choice that is not in the table, or an option of another one.
    """
    chosen = getattr(config, choice)
    if chosen not in table:
        raise ValueError(f"{flag(group, choice)} must be one of {', '.join(table)}, got {chosen}")
    own = table[chosen][1]
    for name in {name for _, options in table.values() for name in options} - own.keys():
        if getattr(config, name) is not None:
            takers = ", ".join(key for key, (_, options) in table.items() if name in options)
            raise ValueError(f"{flag(group, name)} is an option of {flag(group, choice)} {takers}, not of {chosen}")
    return replace(config, **{name: default for name, default in own.items() if getattr(config, name) is None})  # type: ignore[type-var]


def made(config: Any, choice: str, table: Table, *parts: Any) -> Any:
    """What the table makes, of `parts`, by a completed configuration's choice and its options."""
    make, options = table[getattr(config, choice)]
    return make(*parts, **{name: getattr(config, name) for name in options})
