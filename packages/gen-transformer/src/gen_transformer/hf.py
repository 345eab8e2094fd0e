"""Hugging Face directories: `config.json` and safetensors of the classic families, read and written.

    model = load("path/to/gpt2")                    # a Transformer, Bert or EncoderDecoder
    save(model, "out", eos_token_id=50256)          # AutoModelForCausalLM.from_pretrained("out") reads it

GPT-2, Llama, Mistral, Ministral, Qwen3, Falcon, BERT and Marian (`families.py`). Which family a model is saved as
follows from its configuration: the first whose `config.json` reads back as that very model. Nothing is unpickled.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gen_transformer.bert import Bert
from gen_transformer.families import FAMILIES, Family
from gen_transformer.fields import Fields, explicit
from gen_transformer.model import Transformer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BUFFERS = re.compile(r"(^|\.)(attn\.(masked_)?bias|rotary_emb\.inv_freq|position_ids|embed_positions\.weight)$")


def load(path: str | Path, *, dtype: torch.dtype | None = None) -> nn.Module:
    """The model in a directory with `config.json` and safetensors, one file or several with an index.

    Dropout belongs to training, not to the weights, and is not read: the model has none.

    Args:
        dtype: of the weights; None: as they are stored.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: for a family or a switch that is not supported, for pickled or damaged files, and for tensors that
            are missing, foreign or of another shape than `config.json` says.
    """
    folder = Path(path)
    fields, family = _description(folder)
    stored = _tidy(_tensors(folder), family)
    with torch.device("meta"):
        model = family.read(fields, set(stored))
    ours = _grouped(model, family)
    _check(folder, stored, {name: _fuse(model, family, name, parts) for name, parts in ours.items()}, family)
    state = {}
    for name, parts in ours.items():
        state |= zip(parts, _split(model, family, name, parts, stored[name]), strict=True)
    model.load_state_dict({k: x.to(dtype or x.dtype) for k, x in state.items()}, assign=True)
    return model


def ends(path: str | Path) -> list[int]:
    """The ids at which transformers ends a text: of generation_config.json, or without that file of config.json."""
    file = Path(path) / "generation_config.json"
    found = _json(file if file.is_file() else Path(path) / "config.json").get("eos_token_id")
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def save(model: nn.Module, path: str | Path, shard: str | int = "5GB", **fields: Any) -> None:
    """Write `config.json` and safetensors as transformers does, tied weights once.

    Args:
        shard: most bytes of a file, such as "300KB"; a larger model is several files and an index.
        fields: more of `config.json`, such as `eos_token_id=2`, which is the tokeniser's to know.

    Raises:
        ValueError: when no family has such a model.
    """
    name, config = _family_of(model)
    family, folder = FAMILIES[name], Path(path)
    tensors = {theirs: _fuse(model, family, theirs, parts) for theirs, parts in _grouped(model, family).items()}
    head = {"model_type": name, "architectures": [family.model], "bos_token_id": None, "eos_token_id": None}
    head["dtype"] = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    folder.mkdir(parents=True, exist_ok=True)
    written = _write(folder, list(_shards(tensors, _bytes(shard))))
    _replace(folder / "config.json", json.dumps(head | config | fields, indent=2, sort_keys=True) + "\n")
    for old in {*folder.glob("model*.safetensors"), folder / INDEX} - written:
        old.unlink(missing_ok=True)  # of the model that lay here before


# ---------------------------------------------------------------------- names and layouts

Parts = dict[str, Tensor]


def _grouped(model: nn.Module, family: Family) -> dict[str, Parts]:
    """{their name: {our name: tensor}} of everything in a model."""
    table: dict[str, str] = family.names(model)
    groups: dict[str, Parts] = {}
    for name, x in model.state_dict().items():
        layer = next(iter(re.findall(r"\.(\d+)\.", name)), "")
        general = re.sub(r"\.\d+\.", ".*.", name)
        module, _, kind = general.rpartition(".")
        theirs = table[general] if general in table else f"{table[module]}.{kind}"
        groups.setdefault(theirs.replace("*", layer), {})[name] = x
    return groups


def _flips(family: Family, parts: Parts) -> bool:
    name, x = next(iter(parts.items()))
    return family.transposed and name.startswith("blocks.") and x.ndim == 2


def _fuse(model: nn.Module, family: Family, name: str, parts: Parts) -> Tensor:
    """Our tensors of one name of theirs, laid out as theirs."""
    x = next(iter(parts.values()))
    if len(parts) == 3:  # q, k, v
        groups = family.groups(model)
        x = torch.cat([part.unflatten(0, (groups, -1)) for part in parts.values()], dim=1).flatten(0, 1)
    x = x.T if _flips(family, parts) else x
    return x[None] if name == family.row else x


def _split(model: nn.Module, family: Family, name: str, parts: Parts, x: Tensor) -> list[Tensor]:
    """The inverse of `_fuse`, each tensor with memory of its own."""
    x = x[0] if name == family.row else x
    x = x.T if _flips(family, parts) else x
    if len(parts) < 3:
        return [x.contiguous()] * len(parts)
    groups = family.groups(model)
    pieces = x.unflatten(0, (groups, -1)).split([len(part) // groups for part in parts.values()], dim=1)
    return [piece.flatten(0, 1).clone(memory_format=torch.contiguous_format) for piece in pieces]


def _family_of(model: nn.Module) -> tuple[str, dict[str, Any]]:
    """The family of a model and its fields of `config.json`."""
    kinds = {Bert: ["bert"], Transformer: ["gpt2", "llama", "mistral", "ministral", "qwen3", "falcon"]}
    kind = kinds.get(type(model), ["marian"])
    for name in kind:
        family = FAMILIES[name]
        config = family.write(model)
        names = {"cls.seq_relationship.weight"} if getattr(model, "pooler", None) is not None else set()
        try:
            with torch.device("meta"):
                again = family.read(Fields(family.defaults | config | {"model_type": name}), names)
        except ValueError:  # it has no such switch
            continue
        if _signature(again) == _signature(model):
            return name, config
    raise ValueError(f"none of {', '.join(kind)} has a model of this configuration; save its state_dict instead")


def _signature(model: nn.Module) -> Any:
    """What two models share that compute the same from the same weights."""
    configs = [explicit(m.config) for m in model.modules() if isinstance(m, Transformer | Bert)]
    return configs, getattr(model, "scale", None), {name: p.shape for name, p in model.named_parameters()}


# ---------------------------------------------------------------------- reading


def _description(folder: Path) -> tuple[Fields, Family]:
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no config.json; give the directory of a Hugging Face model")
    raw = _json(file)
    kind = raw.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(f"{file} describes a model of type {kind!r}, supported are {', '.join(FAMILIES)}")
    fields = Fields(FAMILIES[kind].defaults | raw)
    fields.need(quantization_config=None)
    return fields, FAMILIES[kind]


def _json(file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}); download it again") from error
    return raw if isinstance(raw, dict) else {}


def _tensors(folder: Path) -> Parts:
    """Everything in the safetensors of a directory."""
    files = [folder / SINGLE]
    if not files[0].is_file() and (folder / INDEX).is_file():
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        files = [folder / Path(name).name for name in names]
    for file in files:
        if not file.is_file():
            pickles = [p.name for p in [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]]
            if pickles:
                raise ValueError(f"{pickles[0]} is a pickle, which can run code; convert {folder} to safetensors")
            raise FileNotFoundError(f"{file} is missing; download the whole model again")
    return {name: x for file in files for name, x in _load(file).items()}


def _load(file: Path) -> Parts:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or no safetensors ({error}); download it again") from error


def _tidy(stored: Parts, family: Family) -> Parts:
    """Names as transformers writes them now: with the prefix of the trunk, without buffers, gamma and beta."""
    bare = not any(name.startswith(family.prefix) for name in stored)
    tidy = {}
    for name, x in stored.items():
        if not BUFFERS.search(name):
            name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
            tidy[family.prefix + name if bare and name != "lm_head.weight" else name] = x
    return tidy


def _check(folder: Path, stored: Parts, wanted: Parts, family: Family) -> None:
    """Drop copies of tied weights; raise ValueError unless the rest is what `config.json` asks for."""
    for copy, original in family.tied.items():
        if copy in stored and copy not in wanted:
            x = stored.pop(copy)
            if original in stored and not torch.equal(x, stored[original]):
                raise ValueError(f"{copy} of {folder} differs from {original} though config.json ties the two")
    missing, foreign = sorted(wanted.keys() - stored.keys()), sorted(stored.keys() - wanted.keys())
    if missing or foreign:
        some = lambda names: f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        found = [f"lacks {some(missing)}"] * bool(missing) + [f"has {some(foreign)} too many"] * bool(foreign)
        raise ValueError(f"the tensors of {folder} are not those of its config.json: it {' and '.join(found)}")
    for name, x in wanted.items():
        if stored[name].shape != x.shape or not stored[name].is_floating_point():
            is_, ought = (f"{tuple(t.shape)}" for t in (stored[name], x))
            raise ValueError(f"{name} of {folder} is {stored[name].dtype} {is_}, config.json asks for floats {ought}")


# ---------------------------------------------------------------------- writing


def _bytes(size: str | int) -> int:
    found = re.fullmatch(r"(\d+)\s*([KMGT]?B)?", str(size))
    if found is None or int(found[1]) == 0:
        raise ValueError(f"shard is a number of bytes such as 300KB or 5GB, got {size!r}")
    return int(found[1]) * 1000 ** ["B", "KB", "MB", "GB", "TB"].index(found[2] or "B")


def _shards(tensors: Parts, most: int) -> Iterator[Parts]:
    """In their order, each of at most so many bytes unless one tensor is larger."""
    shard, size = {}, 0
    for name, x in tensors.items():
        if shard and size + x.nbytes > most:
            yield shard
            shard, size = {}, 0
        shard[name], size = x.contiguous(), size + x.nbytes
    yield shard


def _write(folder: Path, shards: list[Parts]) -> set[Path]:
    """The files, each replaced at once: a model whose weights are mapped from here keeps them."""
    n = len(shards)
    names = [SINGLE] if n == 1 else [f"model-{i:05d}-of-{n:05d}.safetensors" for i in range(1, n + 1)]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / f"{name}.part", metadata={"format": "pt"})
        os.replace(folder / f"{name}.part", folder / name)
    if n == 1:
        return {folder / SINGLE}
    places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    total = sum(x.nbytes for shard in shards for x in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    _replace(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")
    return {folder / name for name in names} | {folder / INDEX}


def _replace(file: Path, text: str) -> None:
    part = file.with_name(file.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)
