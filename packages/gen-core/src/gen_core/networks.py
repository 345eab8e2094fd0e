"""Networks in directories: their descriptions in model.json, their weights in safetensors.

    save(net, "net")  # of a class that is decorated by `describable`
    net = load("net", [Net])  # or the directory of a run, or one checkpoint of it; builds only classes given here

The model.json of a run is `{"module": "denoiser", "network": DESCRIPTION, ...}`: the name of the network in its task,
and what `describe` gives. `"fitted": FILE` may name tensors of the network that were computed after the last step.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen_core.checkpoint import latest, load_tensors, save_tensors, sound
from gen_core.description import Classes, describable, describe, rebuild
from gen_core.run import Run
from gen_core.runtime import select_device

__all__ = ["describable", "describe", "load", "rebuild", "save"]


def save(network: nn.Module, path: str | Path) -> None:
    """Write `path`/{model.json, model.safetensors}, which `load` opens. Training writes its own: see above.

    Raises:
        TypeError: for a network without a description.
        ValueError: if `path` is the directory of a run.
    """
    description, folder = describe(network), Run(path)
    if (folder.path / "config.json").exists():
        raise ValueError(f"{path} is the directory of a run, which has a model.json of its own; choose another one")
    folder.path.mkdir(parents=True, exist_ok=True)
    save_tensors(folder.path / "model.safetensors", network.state_dict())
    folder.write("model.json", {"network": description})


def load(path: str | Path, classes: Classes, device: str = "auto") -> nn.Module:
    """The trained network in a directory, in evaluation mode; averaged weights where the run has them.

    Args:
        path: directory of a run, for its newest checkpoint; or one `.../checkpoints/step-000100`; or what `save` wrote.
        classes: those that may be built, see `rebuild`.
        device: see `gen_core.select_device`.

    Raises:
        FileNotFoundError: for a directory that holds no network, or a run without a checkpoint.
        ValueError: for a network of other classes, or weights that are not of this network.
    """
    folder, checkpoint = Path(path), None
    if folder.parent.name == "checkpoints":
        folder, checkpoint = folder.parent.parent, folder
    facts, where = _read(folder), select_device(device)
    weights, source = _weights(folder, checkpoint, facts)
    try:
        with torch.random.fork_rng(devices=[]):  # first weights are drawn, and replaced
            network = rebuild(facts["network"], classes)
    except ValueError as error:
        raise ValueError(f"{folder / 'model.json'}: {error}") from None
    _fill(network, weights, source)
    return network.to(where).eval()


def _read(folder: Path) -> dict[str, Any]:
    """The content of model.json."""
    file = folder / "model.json"
    if not file.is_file():
        Run.open(folder)  # an error of its own if this is no run at all
        raise FileNotFoundError(f"{folder} has no model.json; its training wrote none, so train it again")
    facts = json.loads(file.read_text(encoding="utf-8"))
    if "network" not in facts:
        raise ValueError(f"{file} does not describe a network; it is of an older version, so train it again")
    return facts


def _weights(folder: Path, checkpoint: Path | None, facts: Mapping[str, Any]) -> tuple[dict[str, Tensor], Path]:
    """The state dict of the network, and where it is."""
    if "module" not in facts:
        return load_tensors(folder / "model.safetensors"), folder
    newest = latest(folder)
    checkpoint = checkpoint or sound(folder)
    if checkpoint is None or not (checkpoint / "task.safetensors").is_file():
        raise FileNotFoundError(f"{checkpoint or folder} has no checkpoint; train the run until it has written one")
    if (checkpoint / "ema.safetensors").is_file():
        weights = load_tensors(checkpoint / "ema.safetensors")
    else:
        prefix = f"{facts['module']}." if facts["module"] else ""
        task = load_tensors(checkpoint / "task.safetensors")
        weights = {k.removeprefix(prefix): v for k, v in task.items() if k.startswith(prefix)}
    if "fitted" in facts and checkpoint == newest:
        if not (folder / facts["fitted"]).is_file():
            raise FileNotFoundError(f"{folder} has no {facts['fitted']}; its training did not end: resume it")
        weights |= load_tensors(folder / facts["fitted"])
    return weights, checkpoint


def _fill(network: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Give the network these weights, in the types that they have."""
    own = network.state_dict(keep_vars=True)
    wanted, found = ({k: tuple(v.shape) for k, v in state.items()} for state in (own, weights))
    if names := [k for k in dict.fromkeys([*own, *sorted(weights)]) if wanted.get(k) != found.get(k)]:
        differ = "; ".join(f"{k} is {found.get(k, 'absent')} instead of {wanted.get(k, 'absent')}" for k in names[:3])
        raise ValueError(
            f"the weights in {source} do not fit the {type(network).__name__} of model.json: {differ} "
            f"({len(names)} tensors differ); restore those files"
        )
    for name, tensor in own.items():
        tensor.data = tensor.data.to(weights[name].dtype)
    network.load_state_dict(dict(weights))
