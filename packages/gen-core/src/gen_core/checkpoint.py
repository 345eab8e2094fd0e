"""Checkpoints: tensors as safetensors, metadata as JSON, optimisers loadable with `weights_only=True`.

    run/checkpoints/step-000120/{task.safetensors, ema.safetensors, optim.pt, state.json}
    run/checkpoints/latest                   # the name of the newest one

A checkpoint is written to a temporary sibling, synced and renamed; then `latest` is replaced the same way. So
whatever is killed when, `latest` names a complete checkpoint, and nothing old is deleted before something new is whole.
state.json, written last, holds the fingerprint of every other file and a seal on itself: what the disk or a copy
changed is found, and the checkpoint before it is used.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from gen_core.files import fingerprint, sync, whole
from gen_core.runtime import _map

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_ALIASES = "aliases"  # header entry of a .safetensors file: tied names -> the name that was kept


def save(directory: Path, tensors: Mapping[str, Mapping[str, Tensor]], other: Any, meta: Mapping[str, Any]) -> Path:
    """Write `{name}.safetensors` for every item of `tensors`, `other` as optim.pt and `meta` as state.json.

    A checkpoint of that name is replaced: at every moment it or the new one is there, and `latest` names a whole one.
    """
    for left in directory.parent.glob(".step-*.part"):  # by a process that was killed here
        shutil.rmtree(left)
    part = directory.with_name(f".{directory.name}.part")
    part.mkdir(parents=True)
    for name, state in tensors.items():
        save_tensors(part / f"{name}.safetensors", state)
    torch.save(other, part / "optim.pt")
    _seal(part, meta)
    for file in part.iterdir():
        sync(file)
    sync(part)
    new = directory.with_name(f"{directory.name}.new")
    if directory.exists() and _named(directory.parent) != new:  # let `latest` name the new one while the old one goes
        _remove(new)
        os.replace(part, new)
        point(new)
        shutil.copytree(new, part, copy_function=_link)
        sync(part)
    _remove(directory)
    os.replace(part, directory)
    point(directory)
    _remove(new)
    return directory


def point(directory: Path) -> None:
    """Make `latest` name a complete checkpoint."""
    with whole(directory.with_name("latest")) as part:
        part.write_text(directory.name)
    sync(directory.parent)


def load(directory: Path, verified: bool = False) -> tuple[dict[str, dict[str, Tensor]], Any, dict[str, Any]]:
    """The three arguments of `save`, on the CPU. A checkpoint that was written before files had fingerprints loads too.

    Args:
        verified: whether `damage` found none already.

    Raises:
        FileNotFoundError: when it is no checkpoint.
        ValueError: when it is damaged.
    """
    state = _state(directory)
    if not verified and (found := damage(directory)):
        raise ValueError(f"{directory} is damaged: {'; '.join(found)}; restore its files or load another checkpoint")
    files = [directory / name for name in state.pop("files", {})] or sorted(directory.glob("*.safetensors"))
    tensors = {file.stem: load_tensors(file) for file in files if file.suffix == ".safetensors"}
    other = torch.load(directory / "optim.pt", map_location="cpu", weights_only=True)
    return tensors, other, state


def latest(run: str | Path) -> Path | None:
    """The newest checkpoint of a run directory, or None; complete, but `sound` finds out if it was damaged since."""
    return _named(Path(run) / "checkpoints")


def sound(run: str | Path, *names: str) -> Path | None:
    """The newest checkpoint of a run directory whose files are as they were written, or None if it has none.

    Damaged ones are passed over with a warning.

    Args:
        names: of the files that matter, such as "ema.safetensors"; all by default.

    Raises:
        ValueError: when every checkpoint is damaged.
    """
    if (newest := latest(run)) is None:
        return None
    damaged = []
    for directory in [newest, *_before(newest)]:
        if not (found := damage(directory, *names)):
            if damaged:
                warnings.warn(f"{'; '.join(damaged)}; {directory.name} is used instead", stacklevel=2)
            return directory
        damaged.append(f"{directory} is damaged ({', '.join(found)})")
    raise ValueError(f"{'; '.join(damaged)}; restore these files, or delete {newest.parent} to start again")


def check(run: str | Path) -> dict[str, list[str]]:
    """Findings of `damage` in each checkpoint of a run directory, by the name of its folder, the oldest first."""
    found = sorted((Path(run) / "checkpoints").glob("step-*"), key=step)
    return {directory.name: damage(directory) for directory in found}


def damage(directory: Path, *names: str) -> list[str]:
    """The files of a checkpoint (or the named ones) that are absent or changed, one phrase each; [] if all are whole.

    In a checkpoint that was written before files had fingerprints, only state.json is looked at.
    """
    try:
        files = _state(directory).get("files", {})
    except (OSError, ValueError) as error:
        return [str(error)]
    found = []
    for name in files.keys() & set(names) if names else files:
        try:
            if fingerprint(directory / name) != files[name]:
                found.append(f"{name} has changed since it was written")
        except FileNotFoundError:
            found.append(f"{name} is absent")
        except OSError as error:
            found.append(f"{name} cannot be read: {error.strerror}")
    return sorted(found)


def place(run: Path, step: int) -> Path:
    """The folder of a checkpoint."""
    return run / "checkpoints" / f"step-{step:06d}"


def step(directory: Path) -> int:
    """The number of steps that a checkpoint's name tells; -1 for any other name.

    >>> step(Path("runs/a/checkpoints/step-000120"))
    120
    """
    number = re.fullmatch(r"step-(\d+)(\.new)?", directory.name)
    return int(number[1]) if number else -1


def prune(run: Path, keep: set[str]) -> None:
    """Delete the checkpoints of `run` whose folder name is not in `keep`, never the one that `latest` names."""
    newest = latest(run)
    for directory in (run / "checkpoints").glob("step-*"):
        if directory.name not in keep and directory != newest:
            _remove(directory)


def _named(checkpoints: Path) -> Path | None:
    """The checkpoint that `latest` names, there or not."""
    pointer = checkpoints / "latest"
    if not pointer.is_file():
        return None
    return checkpoints / (pointer.read_text(errors="replace").strip().replace("/", "?") or "?")


def _before(newest: Path) -> list[Path]:
    """The other checkpoints of that run, of the same step or an earlier one, from the newest to the oldest."""
    last = step(newest) if step(newest) >= 0 else sys.maxsize
    others = [d for d in newest.parent.glob("step-*") if d != newest and step(d) <= last]
    return sorted(others, key=step, reverse=True)


def _seal(part: Path, meta: Mapping[str, Any]) -> None:
    """Write state.json: `meta`, the fingerprints of the files that are there, and the seal on all of this."""
    state = json.loads(json.dumps(meta))  # with the keys that JSON gives back
    state["files"] = {file.name: fingerprint(file) for file in sorted(part.iterdir())}
    (part / "state.json").write_text(json.dumps(state | {"seal": _digest(state)}, indent=1))


def _state(directory: Path) -> dict[str, Any]:
    """Content of state.json, without its seal, which is checked."""
    file = directory / "state.json"
    if not file.is_file():
        raise FileNotFoundError(f"{directory} is no checkpoint (no state.json in it); name a step-* folder")
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        if state.pop("seal", None) != (_digest(state) if "files" in state else None):
            raise ValueError
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"state.json of {directory} has changed since it was written; restore it") from None
    return state


def _digest(state: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(state, sort_keys=True).encode(), digest_size=16).hexdigest()


def _remove(directory: Path) -> None:
    """Delete a checkpoint if it is there; one that is half deleted no longer has its name."""
    if directory.exists():
        gone = directory.with_name(f".{directory.name}.old.part")
        os.replace(directory, gone)
        shutil.rmtree(gone)


def _link(source: str, target: str) -> None:
    """A second name for a file, or a copy where the file system has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


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
    with whole(path) as part:
        safetensors.torch.save_file(unique, part, metadata={_ALIASES: json.dumps(aliases)})


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """The state dict that `save_tensors` wrote, tied names included; any other .safetensors file as it is."""
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}
        aliases = json.loads((file.metadata() or {}).get(_ALIASES, "{}"))
    return state | {name: state[first] for name, first in aliases.items()}


# ---------------------------------------------------------------------- of a run of training


FREE = {"params", "lr", "foreach", "fused", "capturable", "differentiable"}  # may differ on resume


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
    put_state(task, tensors["task"] | other["extra"])
    if other["optimizers"].keys() != optimizers.keys():
        raise ValueError(f"the checkpoint has optimisers {sorted(other['optimizers'])}, the task {sorted(optimizers)}")
    for name, optimizer in optimizers.items():
        saved = other["optimizers"][name]
        for old, new in zip(saved["param_groups"], optimizer.param_groups, strict=True):
            for key in (old.keys() & new.keys()) - FREE:
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


def check_same(path: Path, found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise ValueError for the first setting of a checkpoint without which a resumed run would be another."""
    for name, value in own.items():
        if found.get(name) != value:
            raise ValueError(
                f"{path} was trained with {name}={found.get(name)}, this run has {value}; "
                f"use the same {name} or another run directory"
            )


def state_of(module: nn.Module) -> dict[str, Any]:
    """`module.state_dict()` by the names it has without `torch.compile`: either kind of run continues the other."""
    return {uncompiled(name): value for name, value in module.state_dict().items()}


def put_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a whole state by the names of `state_of`, sharded and compiled as the module is."""
    own, compiled = state_of(module), {uncompiled(name): name for name in module.state_dict()}
    module.load_state_dict({compiled.get(k, k): shard_like(v, own.get(k)) for k, v in state.items()})


def uncompiled(name: str) -> str:
    """A parameter's name without the `_orig_mod.` that `torch.compile(network)` inserts."""
    return name.replace("_orig_mod.", "")


def full(tree: Any) -> Any:
    """The tree with every sharded tensor gathered whole on every process, and numpy's numbers as python's.

    JSON does not take numpy's numbers, and `torch.load(weights_only=True)` refuses them.
    """
    plain = lambda leaf: leaf.item() if isinstance(leaf, np.generic) else leaf
    return _map(lambda x: x.full_tensor() if _sharded(x) else x, tree, plain)


def shard_like(value: Any, reference: Any) -> Any:
    """`value` cut up as `reference` is, when `reference` is a sharded tensor of its shape; else unchanged."""
    if not _sharded(reference) or not isinstance(value, Tensor) or value.shape != reference.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(reference.device), reference.device_mesh, reference.placements)


def _sharded(x: Any) -> TypeGuard["DTensor"]:
    """True for a DTensor; none exists before its module, which takes seconds to import, was imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)
