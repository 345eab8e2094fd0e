"""Summary of a model: its layers, parameters and shapes, and the operations of one forward.

print(summary(model, x))                      # a table, as in Keras
summary(model, x).flops                       # multiplications and additions, 2 per multiply-add
with torch.device("meta"):                    # a model too large for this machine costs nothing
    print(summary(GPT(config)).params)
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]

# FlopCounterMode counts 0 for fused recurrent kernels. The arguments are shapes, of weights (rows, columns).
RECURRENT = {
    torch.ops.aten.mkldnn_rnn_layer: lambda x, w, u, *_, **__: 2 * prod(x[:-1]) * (prod(w) + prod(u)),
    torch.ops.aten._cudnn_rnn: lambda x, w, *_, **__: 2 * prod(x[:-1]) * sum(prod(s) for s in w if len(s) == 2),
}


@dataclass(frozen=True)
class Row:
    """One layer: a module without children, or with parameters of its own."""

    name: str
    type: str
    shapes: tuple[Shape, ...]  # of the tensors in the output of its first call; empty if it was not called
    params: int  # without those of its children, and without those counted in a row above
    trainable: int


@dataclass(frozen=True)
class Summary:
    """Rows in the order of definition, and totals in which a shared parameter counts once."""

    rows: tuple[Row, ...]
    params: int
    trainable: int
    bytes: int  # of parameters and buffers
    flops: int | None  # of one forward; None without inputs

    def __str__(self) -> str:
        """A table with one line per layer."""
        lines = [("Layer (type)", "Output shape", "Parameters")]
        for row in self.rows:
            name, shapes = row.name or "(model)", " ".join(str(shape) for shape in row.shapes)
            lines.append((f"{name} ({row.type})", shapes or "-", f"{row.params:,}"))
        w0, w1, w2 = (max(map(len, column)) for column in zip(*lines, strict=True))
        table = [f"{name:<{w0}}  {shapes:<{w1}}  {params:>{w2}}" for name, shapes, params in lines]
        rule = "-" * len(table[0])
        totals = f"{self.params:,} parameters ({self.trainable:,} trainable), {self.bytes / 1e6:,.2f} MB"
        if self.flops is not None:
            totals += f", {self.flops:,} FLOPs per forward"
        return "\n".join([table[0], rule, *table[1:], rule, totals])


def summary(module: nn.Module, *inputs: Any, **kwargs: Any) -> Summary:
    """Count the layers of `module`, and run `module(*inputs, **kwargs)` for shapes and FLOPs if there are inputs.

    The forward runs in eval mode, without gradients, on copies of the buffers and a fork of torch's random state; the
    module is left as it was, also when the forward raises. FLOPs are those of matrix products, convolutions, attention
    and recurrent layers, as `torch.utils.flop_counter` counts them: no additions of biases, norms or activations.

    >>> summary(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(2, 3, 10, 10)).flops
    86400
    """
    if any(is_lazy(x) for x in [*module.parameters(), *module.buffers()]):
        raise ValueError(f"{type(module).__name__} has lazy parameters of no shape yet; run one forward first")
    shapes, flops = _forward(module, inputs, kwargs) if inputs or kwargs else ({}, None)
    rows, seen = [], set()
    for name, layer in module.named_modules():
        own = {p: p.numel() for p in layer.parameters(recurse=False) if p not in seen}
        if own or not list(layer.children()):
            trainable = sum(n for p, n in own.items() if p.requires_grad)
            rows.append(Row(name, type(layer).__name__, shapes.get(layer, ()), sum(own.values()), trainable))
        seen.update(own)
    size = sum(x.numel() * x.element_size() for x in [*module.parameters(), *module.buffers()])
    return Summary(tuple(rows), sum(r.params for r in rows), sum(r.trainable for r in rows), size, flops)


def _forward(module: nn.Module, inputs: tuple, kwargs: dict) -> tuple[dict[nn.Module, tuple[Shape, ...]], int]:
    """Output shapes of every layer that is called, and FLOPs in all."""
    shapes: dict[nn.Module, tuple[Shape, ...]] = {}

    def record(layer: nn.Module, _: Any, output: Any) -> None:
        shapes.setdefault(layer, tuple(_shapes(output)))

    buffers = {name: x.clone() for name, x in module.named_buffers()}
    devices = {x.device for x in [*module.parameters(), *module.buffers()] if x.is_cuda}
    with _observed(module, record), torch.no_grad(), torch.random.fork_rng(list(devices)):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=RECURRENT) as counter:
            functional_call(module, buffers, inputs, kwargs)
    return shapes, counter.get_total_flops()


@contextmanager
def _observed(module: nn.Module, hook: Callable[[nn.Module, Any, Any], None]) -> Iterator[None]:
    """Eval mode, no gradients, `hook` on every layer; nn.MultiheadAttention without its fused kernel of 0 FLOPs."""
    training = {layer: layer.training for layer in module.modules()}
    wanted = {x: x.requires_grad for x in module.parameters()}
    handles = [layer.register_forward_hook(hook) for layer in training]
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for layer in training:
            layer.training = False
        module.requires_grad_(False)  # a layer that answers with a view of a parameter would claim a gradient
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for handle in handles:
            handle.remove()
        for layer, mode in training.items():
            layer.training = mode
        for x, mode in wanted.items():
            x.requires_grad_(mode)


def _shapes(output: Any) -> Iterator[Shape]:
    """Shapes of all tensors in a nest of sequences, mappings and records."""
    if isinstance(output, Tensor):
        yield tuple(output.shape)
    elif is_dataclass(output) and not isinstance(output, (type, Mapping)):
        yield from _shapes(vars(output))
    elif isinstance(output, (list, tuple, Mapping)):
        for x in output.values() if isinstance(output, Mapping) else output:
            yield from _shapes(x)
