"""The identity of a run: the part of its configuration that decides its result, and the directory that this names.

`gen vae train digits` goes to runs/vae-digits; flags that differ from the defaults add a hash of the differences.
"""

import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from shutil import rmtree
from typing import TypeVar

from gen_apps.command import Machine, TrainCommand
from gen_apps.energy import Place
from gen_apps.recipes import defaults
from gen_core.config import differences, from_dict, to_dict
from gen_core.run import Run

Command = TypeVar("Command", bound=TrainCommand)
WHERE = ("machine", "place", "log", "json")  # fields that say where a run is computed and recorded: no part of it


def identity(config: Command) -> Command:
    """The configuration that config.json holds: where a run and its figures are written, and where it is
    computed, are no part of it."""
    return replace(config, out=None, resume=None, json=None, log="none", machine=Machine(), place=Place())


def locate(config: Command) -> tuple[Command, Path]:
    """The completed configuration of a run, and its directory.

    Raises:
        ValueError: for --resume beside --out, --start-from or beside flags that are the run's own, but for the steps.
    """
    if config.resume is None:
        config = config.completed()
        return config, config.out or directory(config)
    if config.out is not None or config.start_from is not None:
        raise ValueError(f"--resume continues {config.resume}; drop --out and --start-from")
    stored, usual = read(Run.open(config.resume), type(config)), type(config)().completed()
    changed = differences(to_dict(identity(config.completed())), to_dict(usual))
    if other := [line for line in changed if not line.startswith("optim.steps:")]:
        raise ValueError(f"--resume takes the run's own configuration, so drop the other flags ({'; '.join(other)})")
    if changed:
        stored = replace(stored, optim=replace(stored.optim, steps=config.optim.steps))
    return replace(stored, **{name: getattr(config, name) for name in WHERE}), config.resume


def lengthen(run: Run, config: TrainCommand) -> int | None:
    """Write a larger number of steps into a run's configuration, and a line about it into environment.json.

    Returns:
        The former number of steps; None where it is the same.

    Raises:
        ValueError: for fewer steps than the run was to have.
    """
    if not (run.path / "config.json").is_file():
        return None
    former, steps = run.config()["optim"]["steps"], config.optim.steps
    if former == steps or differences(run.config(), to_dict(identity(config))) != [
        f"optim.steps: {former} is not {steps}"
    ]:
        return None
    if steps < former:
        raise ValueError(f"{run.path} is a run of {former} steps; --optim.steps can only be larger, got {steps}")
    run.write("config.json", to_dict(identity(config)))
    begun = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    line = f"from {former} to {steps} steps: {shlex.join(sys.argv)}"
    run.write("environment.json", begun | {"lengthened": [*begun.get("lengthened", []), line]})
    return former


def directory(config: TrainCommand) -> Path:
    """runs/KIND-DATA for the default flags; with a hash of the differences otherwise."""
    usual = defaults(type(config), **{name: getattr(config, name) for name in config.named_by}).completed()
    changed = differences(to_dict(identity(config)), to_dict(usual))
    parts = [config.command.split()[0], slug(config.data_name())]
    if changed:
        parts.append(blake2b("\n".join(sorted(changed)).encode(), digest_size=2).hexdigest())
    return Path("runs") / "-".join(part for part in parts if part)


def slug(data: str) -> str:
    """The name of data as a part of a directory's name.

    >>> slug("points:moons"), slug("./my faces/")
    ('points-moons', 'my-faces')
    """
    return re.sub(r"[^A-Za-z0-9]+", "-", data).strip("-")


def read(run: Run, kind: type[Command]) -> Command:
    """The completed configuration of a run.

    Raises:
        ValueError: for a run of another command.
    """
    try:
        return from_dict(kind, run.config()).completed()
    except ValueError as error:
        raise ValueError(f"{run.path} is no run of gen {kind.command}: {error}") from None


def train_in(train: Callable[[Command, Path], None], config: Command) -> Path:
    """Call a train command's function with its completed configuration and the directory of its run.

    A new directory in which an error left nothing logged is removed, so that the next attempt starts afresh.
    """
    config, run = locate(config)
    new = not run.exists()
    try:
        train(config, run)
    except Exception:
        if new and not (run / "metrics.jsonl").exists():
            rmtree(run, ignore_errors=True)
        raise
    return run
