"""Options that belong to a choice: `--sampler.eta` to `--sampler.method ddim`, and to no other method.

A table gives each choice its own options with their defaults, and a second one, beside the code that needs torch, the
factory that they are arguments of:

    METHODS = {"heun": {}, "ddim": {"eta": 0.0}}
    STEPS = {"heun": lambda: heun, "ddim": ddim}

In a configuration such an option is None until the user gives it, so that an option which the choice would ignore can
be refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, TypeVar

import tyro

Config = TypeVar("Config")
Table = Mapping[str, Mapping[str, Any]]
Factories = Mapping[str, Callable[..., Any]]


def hint(default: str) -> str:
    """The default that --help shows: none of an option that may be absent, whose docstring names it.

    >>> hint("None"), hint("16")
    ('', '(default: 16)')
    """
    return "" if default == "None" else f"(default: {default})"


Count = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint=hint)]
Number = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint=hint)]


def choice(table: Table) -> Any:
    """The annotation with which --help shows the names in a table."""
    return tyro.conf.arg(metavar="{" + ",".join(table) + "}", help_behavior_hint=hint)


def given(config: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {f.name: value for f in fields(config) if (value := getattr(config, f.name)) is not None}


def flag(group: str, name: str) -> str:
    """The name of a flag, as it is typed.

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
    own = table[chosen]
    for name in {name for options in table.values() for name in options} - own.keys():
        if getattr(config, name) is not None:
            takers = ", ".join(key for key, options in table.items() if name in options)
            raise ValueError(f"{flag(group, name)} is an option of {flag(group, choice)} {takers}, not of {chosen}")
    return replace(config, **{name: default for name, default in own.items() if getattr(config, name) is None})  # type: ignore[type-var]


def build(config: Any, choice: str, table: Table, factories: Factories, *parts: Any) -> Any:
    """Call the factory that a completed configuration selects, with `parts` and the options of its choice."""
    chosen = getattr(config, choice)
    return factories[chosen](*parts, **{name: getattr(config, name) for name in table[chosen]})
