"""Networks with several inputs, outputs and paths, by naming tensors: Keras's functional API as one `nn.Module`.

    g = Graph(
        {
            "image": (nn.LazyConv2d(8, 3), "picture"),
            "table": (nn.LazyLinear(8), "numbers"),
            "both": (Concat(), "flat", "table"),
            "flat": (Apply(lambda h: h.mean((2, 3))), "image"),
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
from torch.nn.parameter import is_lazy

from gen_core.description import describable
from gen_core.task import evaluating

Node = tuple[Any, ...]  # (module, name of its first argument, ...)


@describable
class Graph(nn.Module):
    """A directed acyclic graph of modules over named tensors.

    Args:
        nodes: name -> (module, names of its arguments).
        outputs: names that a call answers with; what they do not need is kept, for `sub`, and not computed.

    Raises:
        ValueError: naming the node, for a cycle, a module without arguments, a name that cannot be, or an output that
            nothing makes.
    """

    def __init__(self, nodes: Mapping[str, Node], outputs: Sequence[str]):
        super().__init__()
        if not outputs:
            raise ValueError("a graph answers with at least one output; name a node")
        self.arguments: dict[str, tuple[str, ...]] = {}
        self.outputs = tuple(outputs)
        self.order: tuple[str, ...] = ()
        self.inputs: tuple[str, ...] = ()
        for name, (module, *arguments) in nodes.items():
            if not isinstance(module, nn.Module) or not arguments:
                raise ValueError(f"node {name!r} must be (module, argument name, ...); a function is a node by Apply")
            if not name or "." in name or hasattr(self, name):
                raise ValueError(f"node {name!r} cannot be called so: it is empty, has a dot or is taken; rename it")
            self.add_module(name, module)
            self.arguments[name] = tuple(arguments)
        for name in self.outputs:
            if name not in self.arguments:
                raise ValueError(f"output {name!r} is no node; the nodes are {', '.join(self.arguments)}")
        self._order(self.arguments)  # a cycle anywhere is an error
        self.order = tuple(self._order(self.outputs))
        made = set(self.order)
        self.inputs = tuple(dict.fromkeys(a for n in self.order for a in self.arguments[n] if a not in made))

    def _order(self, wanted: Iterable[str], stop: Sequence[str] = ()) -> list[str]:
        """The nodes behind `wanted`, each after what it needs; nothing behind the names in `stop`."""
        order: list[str] = []
        path: list[str] = []

        def visit(name: str) -> None:
            if name in order or name not in self.arguments or name in stop:
                return
            if name in path:
                raise ValueError(f"node {name!r} needs itself: {' <- '.join([*path[path.index(name) :], name])}")
            path.append(name)
            for argument in self.arguments[name]:
                visit(argument)
            path.pop()
            order.append(name)

        for name in wanted:
            visit(name)
        return order

    def forward(self, **inputs: Any) -> dict[str, Any]:
        """Every output by its name.

        Raises:
            ValueError: for an input that is missing, naming the node that needs it, or that is not known.
        """
        tensors = self._run(inputs)
        return {name: tensors[name] for name in self.outputs}

    def _run(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """All tensors by name."""
        takes = f"this graph takes {', '.join(self.inputs)}"
        for name in self.inputs:
            if name not in tensors:
                node = next(n for n in self.order if name in self.arguments[n])
                raise ValueError(f"input {name!r}, which node {node!r} needs, is missing; {takes}")
        for name in tensors:
            if name not in self.inputs:
                raise ValueError(f"input {name!r} is not known; {takes}")
        for name in self.order:
            tensors[name] = getattr(self, name)(*[tensors[a] for a in self.arguments[name]])
        return tensors

    def sub(self, outputs: Sequence[str], inputs: Sequence[str] = ()) -> "Graph":
        """The part that leads to `outputs`, from `inputs` where those are named; it shares the modules.

        Raises:
            ValueError: for a name that is no tensor of this graph, or an input that no output needs.
        """
        names = self._order(outputs, inputs)
        needed = {a for n in names for a in self.arguments[n]}
        for name in (*outputs, *inputs):
            if name not in self.arguments and name not in self.inputs:
                raise ValueError(f"{name!r} is no tensor of this graph; there are {', '.join(self.arguments)}")
        for name in inputs:
            if name not in needed:
                raise ValueError(f"input {name!r} leads to none of the outputs {', '.join(outputs)}; leave it out")
        return Graph({n: (getattr(self, n), *self.arguments[n]) for n in names}, outputs)

    @torch.no_grad()
    def summary(self, **inputs: Any) -> str:
        """One line per node: its module, what it is made of, its parameters (counted where first used).

        With inputs also the shape of its output, from one call in evaluation mode.
        """
        tensors = {}
        if inputs:
            with evaluating(self):
                tensors = self._run(dict(inputs))
        rows, seen = [("node", "module", "from", "shape", "parameters")], set[int]()
        for name in self.order:
            module = getattr(self, name)
            own = [p for p in module.parameters() if id(p) not in seen]
            seen |= {id(p) for p in own}
            count = "at the first call" if any(map(is_lazy, own)) else f"{sum(p.numel() for p in own):,}"
            shape = str(tuple(getattr(tensors.get(name), "shape", ()))) if inputs else ""
            rows.append((name, type(module).__name__, ", ".join(self.arguments[name]), shape, count))
        kept = [i for i in range(5) if inputs or i != 3]
        widths = {i: max(len(row[i]) for row in rows) for i in kept}
        return "\n".join("  ".join(row[i].ljust(widths[i]) for i in kept).rstrip() for row in rows)


@describable
class Concat(nn.Module):
    """All arguments side by side along a dimension."""

    def __init__(self, dim: int = 1):
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, self.dim)


@describable
class Apply(nn.Module):
    """A function as a node, without parameters: `Apply(torch.add)`."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)
