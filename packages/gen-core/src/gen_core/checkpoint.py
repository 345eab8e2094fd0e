"""Checkpoints: tensors as safetensors, metadata as JSON, optimisers loadable with `weights_only=True`.

    run/checkpoints/step-000120/{task.safetensors, ema.safetensors, optim.pt, state.json}
    run/checkpoints/latest                   # the name of the newest one

A checkpoint is written to a temporary sibling, synced and renamed; then `latest` is replaced the same way. So
whatever is killed when, `latest` names a complete checkpoint, and nothing old is deleted before something new is whole.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from gen_core.runtime import _map

_ALIASES = "aliases"  # header entry of a .safetensors file: tied names -> the name that was kept


def save(directory: Path, tensors: Mapping[str, Mapping[str, Tensor]], other: Any, meta: Mapping[str, Any]) -> Path:
    """Write `{name}.safetensors` for every item of `tensors`, `other` as optim.pt and `meta` as state.json."""
    for left in directory.parent.glob(".step-*.part"):  # by a process that was killed here
        shutil.rmtree(left)
    temporary = directory.with_name(f".{directory.name}.part")
    temporary.mkdir(parents=True)
    for name, state in tensors.items():
        save_tensors(temporary / f"{name}.safetensors", state)
    torch.save(other, temporary / "optim.pt")
    (temporary / "state.json").write_text(json.dumps(meta, indent=1))
    for file in temporary.iterdir():
        _sync(file)
    _sync(temporary)
    os.replace(temporary, directory)
    point(directory)
    return directory


def point(directory: Path) -> None:
    """Make `latest` name a complete checkpoint."""
    part = directory.with_name(".latest.part")
    part.write_text(directory.name)
    _sync(part)
    os.replace(part, directory.with_name("latest"))
    _sync(directory.parent)


def load(directory: Path) -> tuple[dict[str, dict[str, Tensor]], Any, dict[str, Any]]:
    """The three arguments of `save`, on the CPU."""
    if not (directory / "state.json").is_file():
        raise FileNotFoundError(f"{directory} is no checkpoint (no state.json in it); name a step-* folder")
    tensors = {file.stem: load_tensors(file) for file in sorted(directory.glob("*.safetensors"))}
    other = torch.load(directory / "optim.pt", map_location="cpu", weights_only=True)
    return tensors, other, json.loads((directory / "state.json").read_text())


def latest(run: str | Path) -> Path | None:
    """The newest complete checkpoint of a run directory, or None."""
    pointer = Path(run) / "checkpoints" / "latest"
    return pointer.with_name(pointer.read_text().strip()) if pointer.is_file() else None


def prune(run: Path, keep: set[str]) -> None:
    """Delete the checkpoints of `run` whose folder name is not in `keep`, never the one that `latest` names."""
    newest = latest(run)
    for directory in (run / "checkpoints").glob("step-*"):
        if directory.name not in keep and directory != newest:
            shutil.rmtree(directory)


def save_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict; tied tensors are stored once, with their other names in the header."""
    kept: dict[tuple, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in state.items():
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
        first = kept.setdefault(place, name) if tensor.numel() else name
        if first != name:
            aliases[name] = first
    # clone: safetensors refuses memory that is shared (two views of one buffer) or strided
    unique = {name: tensor.clone().contiguous() for name, tensor in state.items() if name not in aliases}
    safetensors.torch.save_file(unique, path, metadata={_ALIASES: json.dumps(aliases)})


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """The state dict that `save_tensors` wrote, tied names included; any other .safetensors file as it is."""
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}
        aliases = json.loads((file.metadata() or {}).get(_ALIASES, "{}"))
    return state | {name: state[first] for name, first in aliases.items()}


# ---------------------------------------------------------------------- of a run of training


_FREE = {"params", "lr", "foreach", "fused", "capturable", "differentiable"}  # may differ on resume


def capture(task: nn.Module, optimizers: Mapping[str, Optimizer], callbacks: Sequence[Any]) -> tuple[dict, dict, dict]:
    """Whole (unsharded) states: tensors by file name, what torch.save takes, JSON values of the callbacks.

    Every process has to call it.
    """
    state = full(state_of(task))
    tensors = {"task": {k: v for k, v in state.items() if isinstance(v, Tensor)}}
    plain: dict[str, dict] = {}
    for callback in callbacks:
        if parts := full(callback.state_dict()):
            if callback.name in plain or callback.name == "task":
                raise ValueError(
                    f"a callback's state cannot be called {callback.name!r}, which is taken; name it apart"
                )
            plain[callback.name] = {k: v for k, v in parts.items() if not isinstance(v, Tensor)}
            if mine := {k: v for k, v in parts.items() if isinstance(v, Tensor)}:
                tensors[callback.name] = mine
    other = {
        "optimizers": {name: full(optimizer.state_dict()) for name, optimizer in optimizers.items()},
        "extra": {k: v for k, v in state.items() if not isinstance(v, Tensor)},  # modules' get_extra_state
    }
    return tensors, other, plain


def restore(
    task: nn.Module,
    optimizers: Mapping[str, Optimizer],
    callbacks: Sequence[Any],
    tensors: dict,
    other: dict,
    plain: dict,
) -> None:
    """Put back what `capture` took, sharded as the task and its optimisers are now."""
    own, compiled = state_of(task), {uncompiled(name): name for name in task.state_dict()}
    state = {k: shard_like(v, own[k]) if k in own else v for k, v in tensors["task"].items()} | other["extra"]
    task.load_state_dict({compiled.get(k, k): v for k, v in state.items()})
    if other["optimizers"].keys() != optimizers.keys():
        raise ValueError(f"the checkpoint has optimisers {sorted(other['optimizers'])}, the task {sorted(optimizers)}")
    for name, optimizer in optimizers.items():
        saved = other["optimizers"][name]
        for old, new in zip(saved["param_groups"], optimizer.param_groups, strict=True):
            for key in (old.keys() & new.keys()) - _FREE:
                if old[key] != new[key]:
                    raise ValueError(
                        f"the checkpoint was trained with {name}.{key}={old[key]}, the task now has {new[key]}; "
                        f"use the same {key} or another run directory"
                    )
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for index, entry in saved["state"].items():
            saved["state"][index] = {k: shard_like(v, parameters[index]) for k, v in entry.items()}
        optimizer.load_state_dict(saved)
    for callback in callbacks:
        callback.load_state_dict(plain.get(callback.name, {}) | tensors.get(callback.name, {}))


def state_of(module: nn.Module) -> dict[str, Any]:
    """`module.state_dict()` by the names it has without `torch.compile`: either kind of run continues the other."""
    return {uncompiled(name): value for name, value in module.state_dict().items()}


def uncompiled(name: str) -> str:
    """A parameter's name without the `_orig_mod.` that `torch.compile(network)` inserts."""
    return name.replace("_orig_mod.", "")


def full(tree: Any) -> Any:
    """The tree with every sharded tensor gathered whole on every process, and numpy's numbers as python's.

    JSON does not take numpy's numbers, and `torch.load(weights_only=True)` refuses them.
    """
    plain = lambda leaf: leaf.item() if isinstance(leaf, np.generic) else leaf
    return _map(lambda x: x.full_tensor() if isinstance(x, DTensor) else x, tree, plain)


def shard_like(value: Any, reference: Tensor) -> Any:
    """`value` cut up as `reference` is, when `reference` is a sharded tensor of its shape; else unchanged."""
    if not isinstance(reference, DTensor) or not isinstance(value, Tensor) or value.shape != reference.shape:
        return value
    return distribute_tensor(value.to(reference.device), reference.device_mesh, reference.placements)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
