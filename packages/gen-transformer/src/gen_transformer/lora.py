"""Low-rank adapters: W x + (alpha / rank) B A x with W frozen ([Hu21]), and their base model without a second copy.

    add_lora(model, rank=8, alpha=16)       # only the adapters learn
    with adapters_off(model):               # the model as it was, to be a reference
        ...
    merge_lora(model)                       # ordinary weights again

[Hu21] LoRA, arXiv:2106.09685.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gen_core.task import evaluating


class LoRA(nn.Module):
    """A linear map with an adapter beside it: A is random, B is 0, so that nothing changes at first.

    Args:
        base: `nn.Linear`, or transformers' `Conv1D`, whose weight is transposed.
    """

    def __init__(self, base: Any, rank: int, alpha: int | float):
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        weight = base.weight
        into, out = weight.shape[::-1] if isinstance(base, nn.Linear) else weight.shape
        self.base, self.scale, self.on = base, alpha / rank, True
        self.a = nn.Parameter(torch.empty(rank, into, device=weight.device, dtype=weight.dtype))
        self.b = nn.Parameter(torch.zeros(out, rank, device=weight.device, dtype=weight.dtype))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        y = self.base(x)
        return y + self.scale * (x @ self.a.T) @ self.b.T if self.on else y

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The base with the adapter in its weight."""
        delta = self.scale * self.b @ self.a
        self.base.weight += delta if isinstance(self.base, nn.Linear) else delta.T
        return self.base


def add_lora(
    model: nn.Module, rank: int = 8, alpha: int | float = 16, targets: Sequence[str] = ("q", "v")
) -> list[nn.Parameter]:
    """Give an adapter to every linear map whose name ends in one of `targets`, freeze the rest; the adapters' weights.

    Args:
        targets: last parts of names: q, k, v, o, gate, up, down of a Transformer; c_attn, q_proj ... of Hugging Face's.

    Raises:
        ValueError: when no map has such a name, or one has an adapter already.
    """
    if adapters(model):
        raise ValueError("the model has adapters already; merge them first by merge_lora(model)")
    places = [(parent, name) for parent in model.modules() for name, _ in parent.named_children() if name in targets]
    places = [(parent, name) for parent, name in places if getattr(getattr(parent, name), "weight", None) is not None]
    if not places:
        raise ValueError(f"no linear map is called {', '.join(targets)}; see model.named_modules() for its names")
    model.requires_grad_(False)
    for parent, name in places:
        setattr(parent, name, LoRA(getattr(parent, name), rank, alpha))
    return [p for adapter in adapters(model) for p in (adapter.a, adapter.b)]


def adapters(model: nn.Module) -> list[LoRA]:
    """The adapters of a model."""
    return [m for m in model.modules() if isinstance(m, LoRA)]


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[nn.Module]:
    """Inside, the model is what it was before `add_lora`, in evaluation mode."""
    found = adapters(model)
    if not found:
        raise ValueError("the model has no adapters to turn off; call add_lora first, or give a reference model")
    before = [adapter.on for adapter in found]
    try:
        for adapter in found:
            adapter.on = False
        with evaluating(model):
            yield model
    finally:
        for adapter, on in zip(found, before, strict=True):
            adapter.on = on


def merge_lora(model: nn.Module) -> nn.Module:
    """Put every adapter into the weight beside it, and remove it; all weights learn again."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoRA):
                setattr(parent, name, child.merged())
    return model.requires_grad_(True)
