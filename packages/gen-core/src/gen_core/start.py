"""Weights of another run to start from, with any other setting.

trainer = Trainer(task, run="runs/b", seed=1, schedule=...)
trainer.start_from("runs/a")                       # its averaged weights, where it has them
trainer.start_from("runs/a", optimizers=True)      # its weights as trained, and the optimisers' moments
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gen_core.checkpoint import FREE, damage, load_tensors, put_state, shard_like, sound, state_of

_WEIGHTS, _AVERAGE, _REST = "task.safetensors", "ema.safetensors", "optim.pt"


def newest(path: Path) -> Path:
    """The checkpoint at `path`, or the newest whole one of the run at `path`.

    Raises:
        FileNotFoundError: for a directory without checkpoints.
        ValueError: when the checkpoint is damaged, or every one of the run.
    """
    if not (path / "state.json").is_file():
        if (found := sound(path)) is None:
            raise FileNotFoundError(f"{path} has no checkpoint; give the directory of a trained run or of a checkpoint")
        return found
    if found := damage(path):
        raise ValueError(f"{path} is damaged: {'; '.join(found)}; restore its files or name another checkpoint")
    return path


def start(task: nn.Module, optimizers: Mapping[str, Optimizer] | None, checkpoint: Path) -> None:
    """Give `task` the weights of a checkpoint, and `optimizers` their states, sharded as they are now.

    Without `optimizers`, averaged weights replace those of the module that the run's model.json calls "module".
    """
    weights: dict[str, Any] = load_tensors(checkpoint / _WEIGHTS)
    if optimizers is None:
        weights |= _averaged(checkpoint)
    rest = torch.load(checkpoint / _REST, map_location="cpu", weights_only=True, mmap=optimizers is None)
    _check_fit({k: v for k, v in state_of(task).items() if isinstance(v, Tensor)}, weights, checkpoint, task)
    if optimizers is not None:
        _check_optimizers(optimizers, rest["optimizers"], checkpoint)
    put_state(task, weights | rest["extra"])
    for name, optimizer in (optimizers or {}).items():
        _put_moments(optimizer, rest["optimizers"][name]["state"])


def _averaged(checkpoint: Path) -> dict[str, Tensor]:
    """The averaged weights by their names in the task; {} where the run does not say of which module they are."""
    about, average = checkpoint.parent.parent / "model.json", checkpoint / _AVERAGE
    module = json.loads(about.read_text(encoding="utf-8")).get("module") if about.is_file() else None
    if module is None or not average.is_file():
        return {}
    return {f"{module}.{name}" if module else name: value for name, value in load_tensors(average).items()}


def _check_fit(own: Mapping[str, Tensor], found: Mapping[str, Tensor], checkpoint: Path, task: nn.Module) -> None:
    wanted, given = ({name: tuple(value.shape) for name, value in state.items()} for state in (own, found))
    if wrong := [name for name in {**wanted, **given} if wanted.get(name) != given.get(name)]:
        first, number = wrong[0], f"{len(wrong)} tensor{' differs' if len(wrong) == 1 else 's differ'}"
        shapes = f"{given.get(first, 'absent')} instead of {wanted.get(first, 'absent')}"
        raise ValueError(
            f"the weights in {checkpoint} do not fit this {type(task).__name__}: {first} is {shapes} ({number}); "
            "build the networks as that run did, or start from another run"
        )


def _check_optimizers(own: Mapping[str, Optimizer], found: Mapping[str, Any], checkpoint: Path) -> None:
    if own.keys() != found.keys():
        raise ValueError(f"{checkpoint} has optimisers {sorted(found)}, the task {sorted(own)}; use optimizers=False")
    for name, optimizer in own.items():
        if _layout(optimizer.param_groups) != _layout(found[name]["param_groups"]):
            raise ValueError(
                f"optimiser {name!r} in {checkpoint} is of another kind or has other groups of parameters than this "
                f"{type(optimizer).__name__}; use optimizers=False"
            )


def _layout(groups: list[dict[str, Any]]) -> list[tuple[int, list[str]]]:
    """Number of parameters and names of settings of each group: what states of one kind of optimiser share."""
    return [(len(group["params"]), sorted(group.keys() - FREE - {"initial_lr"})) for group in groups]


def _put_moments(optimizer: Optimizer, state: Mapping[int, dict[str, Any]]) -> None:
    """Load the states of parameters, and nothing of the groups: rates and decays are this run's."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {i: {k: shard_like(v, parameters[i]) for k, v in entry.items()} for i, entry in state.items()}
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
