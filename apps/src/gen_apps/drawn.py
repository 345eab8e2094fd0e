"""Samples of a trained run, asked for, drawn and written down alike by every `sample` command of latent models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from gen_core import Run, pictures

BLOCK = 64  # samples at a time: the rounding of a network's sums depends on how many rows it is given
RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]


def named(label: Tensor | None, device: Any = None) -> dict[str, Any]:
    """The conditions of a model, by name."""
    return {} if label is None else {"label": label.to(device)}


def asked(label: int | None, n: int, classes: int) -> Tensor | None:
    """The class of each sample; None for a model without."""
    if label is not None and not 0 <= label < classes:
        which = f"0..{classes - 1}" if classes else "which was trained without"
        raise ValueError(f"--label must be a class of the run, {which}, got {label}")
    turns = torch.arange(n) % max(1, classes)
    return None if not classes else turns if label is None else torch.full_like(turns, label)


def blocks(n: int, label: Tensor | None, make: Callable[[int, Tensor | None], Tensor]) -> Tensor:
    """`n` samples of whole blocks, the last one cut: sample i depends on its block and label alone, not on `n`.

    Args:
        label: of each sample, or None.
        make: the number of a block and the labels of its samples -> samples.
    """
    rows = torch.arange(-(-n // BLOCK) * BLOCK) % n
    return torch.cat([make(b, None if label is None else label[i]) for b, i in enumerate(rows.split(BLOCK))])[:n]


def write(run: Run, step: int, config: Any, x: Tensor, labels: Tensor | None, cost: Any) -> None:
    """Picture, arrays and energy of some samples.

    Args:
        config: with seed and out.
        cost: of `metered`.
    """
    out = config.out or run.path / f"sample-seed-{config.seed}"
    picture, arrays, energy = (out.with_name(out.name + end) for end in (".png", ".npz", ".energy.json"))
    labels = torch.zeros(len(x), dtype=torch.long) if labels is None else labels
    pictures.save(picture, x, columns=10 if len(labels.unique()) == 10 else None, labels=labels)
    np.savez(arrays, x=x.numpy(), label=labels.numpy())
    energy.write_text(json.dumps(cost.facts, indent=1) + "\n")
    run.log(step, cost.metrics)
    print(f"{picture} and .npz: {len(x)} samples of step {step}")
    print("; ".join(f"{name} {cost.facts[name]}" for name in ("energy", "carbon", "per sample")))
