"""Networks with several inputs, outputs and paths, by naming tensors: Keras's functional API as one `nn.Module`.

    g = Graph(
        {
            "image": (nn.LazyConv2d(8, 3), "picture"),
            "table": (nn.LazyLinear(8), "numbers"),
            "both": (Concat(), "flat", "table"),
            "flat": (Mean(), "image"),
            "class": (nn.LazyLinear(10), "both"),
        },
        outputs=("class",),
    )
    g(picture=x, numbers=y)["class"]
    features = g.sub(outputs=("both",))            # shares the weights

A name that no node makes is an input. Node names are the prefixes of the parameters; one module under two names shares
its weights; nodes may stand in any order. Lazy layers take their sizes from the first call.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Node = tuple[Any, ...]  # (module, name of its first argument, ...)


class Graph(nn.Module):
    """A directed acyclic graph of modules over named tensors.

    Args:
        nodes: name -> (module, names of its arguments).
        outputs: names that a call answers with.

    Raises:
        ValueError: naming the node, for a cycle, a module without arguments or an output that nothing makes.
    """

    def __init__(self, nodes: Mapping[str, Node], outputs: Sequence[str]):
        super().__init__()
        if not outputs:
            raise ValueError("a graph answers with at least one output; name a node")
        for name, (module, *arguments) in nodes.items():
            if not isinstance(module, nn.Module) or not arguments or "." in name:
                raise ValueError(f"node {name!r} must be (module, argument names ...) under a name without dots")
            self.add_module(name, module)
        self.arguments = {name: tuple(arguments) for name, (_, *arguments) in nodes.items()}
        self.outputs = tuple(outputs)
        self.order = tuple(self._order(self.outputs))
        made = set(self.order)
        self.inputs = tuple(dict.fromkeys(a for n in self.order for a in self.arguments[n] if a not in made))
        for name in self.outputs:
            if name not in self.arguments:
                raise ValueError(f"output {name!r} is no node; the nodes are {', '.join(self.arguments)}")

    def _order(self, wanted: Iterable[str], stop: frozenset[str] = frozenset()) -> list[str]:
        """The nodes behind `wanted`, each after what it needs; nothing behind the names in `stop`."""
        order: list[str] = []
        open_: list[str] = []

        def visit(name: str) -> None:
            if name in order or name not in self.arguments or name in stop:
                return
            if name in open_:
                raise ValueError(f"node {name!r} needs itself: {' <- '.join([*open_[open_.index(name) :], name])}")
            open_.append(name)
            for argument in self.arguments[name]:
                visit(argument)
            open_.pop()
            order.append(name)

        for name in wanted:
            visit(name)
        return order

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Every output by its name.

        Raises:
            ValueError: naming it, for an input that is missing or not known.
        """
        if missing := [name for name in self.inputs if name not in inputs]:
            raise ValueError(f"input {missing[0]!r} is missing; this graph takes {', '.join(self.inputs)}")
        if extra := [name for name in inputs if name not in self.inputs]:
            raise ValueError(f"input {extra[0]!r} is not known; this graph takes {', '.join(self.inputs)}")
        tensors = dict(inputs)
        for name in self.order:
            tensors[name] = getattr(self, name)(*(tensors[a] for a in self.arguments[name]))
        return {name: tensors[name] for name in self.outputs}

    def sub(self, outputs: Sequence[str], inputs: Sequence[str] = ()) -> "Graph":
        """The part that leads to `outputs`, from `inputs` where those are named; it shares the modules."""
        stop = frozenset(inputs)
        if unknown := [n for n in (*outputs, *inputs) if n not in self.arguments and n not in self.inputs]:
            raise ValueError(f"{unknown[0]!r} is no tensor of this graph; there are {', '.join(self.arguments)}")
        names = self._order(outputs, stop)
        return Graph({n: (getattr(self, n), *self.arguments[n]) for n in names}, outputs)

    def summary(self) -> str:
        """One line per node: its name, its module, what it is made of, its parameters (counted where first used)."""
        rows, seen = [("node", "module", "from", "parameters")], set[int]()
        for name in self.order:
            module = getattr(self, name)
            own = [p for p in module.parameters() if id(p) not in seen]
            seen |= {id(p) for p in own}
            lazy = any(isinstance(p, nn.parameter.UninitializedParameter) for p in own)
            count = "at the first call" if lazy else f"{sum(p.numel() for p in own):,}"
            rows.append((name, type(module).__name__, ", ".join(self.arguments[name]), count))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


class Concat(nn.Module):
    """All arguments side by side along a dimension."""

    def __init__(self, dim: int = 1):
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, self.dim)


class Apply(nn.Module):
    """A function as a node, without parameters: `Apply(torch.add)`."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)
