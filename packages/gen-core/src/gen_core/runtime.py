"""Devices, precisions and keyed randomness.

Everything random is a pure function of a key, never of history: `seed_all(0, "step", 17)` and
`generator(0, "noise", 17)` give the same stream in every process and on every day, so a run resumes
exactly because there is nothing to restore.

    device = select_device("auto")          # cuda > mps > cpu
    dtype = select_precision("auto", device)  # "bf16" where the hardware has it, else "no"
"""

import hashlib
import operator
import os
import random
from typing import Literal, SupportsIndex

import numpy as np
import torch
from torch import Tensor, nn

Precision = Literal["no", "bf16"]
Part = SupportsIndex | str  # of a key
_MPS = torch.backends.mps.is_available()


def key(*parts: Part) -> int:
    """A 63-bit integer from any ints and strings, the same in every process (BLAKE2, not `hash`).

    Ints of any size and sign; an integer of numpy or torch counts as the int that it equals.

    >>> key(0, "step", 1) == key(np.int64(0), "step", 1), key(0, "step", 1) == key(0, "step", "1")
    (True, False)
    """
    digest = hashlib.blake2b("\x1f".join(map(_plain, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _plain(part: Part) -> str:
    return repr(str(part) if isinstance(part, str) else int(operator.index(part)))


def numpy_seed(seed: SupportsIndex) -> int:
    """The seed for numpy and scikit-learn, which take 0 to 2^32 - 1: `seed` itself there, else 32 bits of its key.

    >>> numpy_seed(7), 0 <= numpy_seed(-1) < 2**32, numpy_seed(2**32) != numpy_seed(0)
    (7, True, True)
    """
    number = operator.index(seed)
    return number if 0 <= number < 2**32 else key(number) & 0xFFFFFFFF


def generator(*parts: Part, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator on `device` whose stream is a function of the key alone."""
    return torch.Generator(device).manual_seed(key(*parts))


def seed_all(*parts: Part) -> None:
    """Key the global streams of torch (every initialised device), numpy and python."""
    seed = key(*parts)
    seed_torch(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


def seed_torch(seed: int) -> None:
    """Key the global streams of torch alone: a microsecond, where `seed_all` takes ten."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed costs 80 us: it also queues seeds for absent devices
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    if _MPS:
        torch.mps.manual_seed(seed)


def select_device(name: str = "auto") -> torch.device:
    """`auto` takes cuda (which is also ROCm), then mps, then cpu; a named device must be there.

    Under a launcher each process of a node takes the device of its `LOCAL_RANK`.

    Raises:
        ValueError: when the device is absent; nothing falls back silently.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is not known; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index
        if index >= count:
            raise ValueError(f"device {name!r} is absent: torch sees {count} CUDA devices; use cpu or auto")
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is absent: torch sees no Apple GPU; use cpu or auto")
    return device


def widest(device: torch.device) -> torch.dtype:
    """The dtype of sums: float64, or float32 on MPS, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def select_precision(name: str, device: torch.device) -> Precision:
    """`auto` takes bf16 where the hardware computes in it (CUDA compute capability 8.0 on), else float32 ("no").

    Emulated bf16, which `torch.cuda.is_bf16_supported` also reports, is slower than float32 and not taken.

    Raises:
        ValueError: for fp16 (its loss scaling cannot take a closure, and bf16 needs none) and unknown names.
    """
    if name == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0) else "no"
    if name == "fp16":
        raise ValueError("precision 'fp16' needs loss scaling, which no closure-based optimiser can take; use bf16")
    if name == "bf16":
        return "bf16"
    if name in ("no", "fp32"):
        return "no"
    raise ValueError(f"precision {name!r} is not known; use auto, bf16 or fp32")


def float32_outputs(task: nn.Module, on: bool) -> None:
    """Hook every network of `task` (its topmost callable children) to return float32 under autocast, or unhook it.

    A difference of two bf16 outputs is rounded to bf16 before any loss sees it; cast first, then subtract.
    """
    for child in task.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            float32_outputs(child, on)
            continue
        if hook := child.__dict__.pop("_float32_hook", None):
            hook.remove()
        if on:
            child.__dict__["_float32_hook"] = child.register_forward_hook(
                lambda _module, _args, output: _map(_to_float32, output)
            )


def _to_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _map(fn, tree, other=lambda leaf: leaf):
    """Apply `fn` to every tensor of nested tuples, lists and dicts, `other` to other leaves."""
    if isinstance(tree, Tensor):
        return fn(tree)
    if isinstance(tree, dict):
        return {k: _map(fn, v, other) for k, v in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_map(fn, v, other) for v in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(_map(fn, v, other) for v in tree)
    return other(tree)


def to_device(tree, device: torch.device):
    """Every tensor of nested tuples, lists and dicts on `device`; other leaves pass through."""
    return _map(lambda x: x.to(device, non_blocking=True), tree)
