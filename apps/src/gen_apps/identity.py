"""What a run is, everything that decides its result and nothing about where it ran, and the directory that this names.

`gen vae train digits` goes to runs/vae-digits; flags that differ from the defaults add a hash of them all.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar, cast

from gen_apps.energy import Place
from gen_core import Run
from gen_core.config import differences, from_dict, to_dict

Config = TypeVar("Config")


@dataclass(frozen=True)
class Machine:
    """Where it runs: no part of the run's identity, which may be resumed elsewhere."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: str = "auto"
    """auto, bf16 or fp32."""
    micro_batch: int | None = None
    """Samples per forward pass and process, to fit memory."""


def identity(config: Config) -> Config:
    """What a run's config.json holds, of a configuration with out, resume, machine and place."""
    return cast(Any, replace)(config, out=None, resume=None, machine=Machine(), place=Place())


def placed(
    config: Config, command: str, complete: Callable[[Config], Config] = lambda config: config
) -> tuple[Config, Path]:
    """The configuration of the run, and its directory.

    Args:
        config: with data, out, resume, machine and place.
        command: such as "vae train".
        complete: gives a configuration the defaults of what it leaves to a choice.

    Raises:
        ValueError: for --resume beside --out or beside flags that are the run's own.
    """
    asked, kind = cast(Any, config), cast(Any, type(config))
    whole = lambda one: to_dict(identity(complete(one)))
    if asked.resume is None:
        data = asked.data if isinstance(asked.data, str) else "-".join(Path(text).stem for text in asked.data)
        name = f"{command.split()[0]}-{slug(data)}"
        return complete(config), asked.out or directory(name, whole(config), whole(kind(data=asked.data)))
    if asked.out is not None:
        raise ValueError(f"--resume goes on in {asked.resume}; drop --out {asked.out}")
    stored = complete(read(Run.open(asked.resume), kind, command))
    if other := differences(whole(config), whole(kind())):
        raise ValueError(f"--resume takes the run's own configuration, so drop the other flags ({'; '.join(other)})")
    return cast(Any, replace)(stored, machine=asked.machine, place=asked.place), asked.resume


def slug(data: str) -> str:
    """The name of data as a part of a directory's name.

    >>> slug("points:moons"), slug("./my faces/")
    ('points-moons', 'my-faces')
    """
    return re.sub(r"[^A-Za-z0-9]+", "-", data).strip("-")


def directory(name: str, wanted: Any, usual: Any) -> Path:
    """runs/NAME for what is usual; with a hash of what is wanted otherwise.

    >>> directory("vae-digits", {"seed": 0}, {"seed": 0}).name, directory("vae-digits", {"seed": 1}, {"seed": 0}).name
    ('vae-digits', 'vae-digits-e1e4')
    """
    if wanted != usual:
        name += f"-{blake2b(json.dumps(wanted).encode(), digest_size=2).hexdigest()}"
    return Path("runs") / name


def read(run: Run, kind: type[Config], command: str) -> Config:
    """The configuration of a run.

    Raises:
        ValueError: for a run of another command.
    """
    try:
        return from_dict(kind, run.config())
    except ValueError as error:
        raise ValueError(f"{run.path} is no run of gen {command}: {error}") from None
