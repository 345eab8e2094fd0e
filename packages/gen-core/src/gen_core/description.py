"""A network's description: the class and the arguments that it was constructed with, in JSON's types.

    @describable
    class Net(nn.Module): ...

    form = describe(Net(width=8))  # {"$": "Net", "width": 8, "depth": 2}
    net = rebuild(form, [Net])  # its like, with weights drawn anew; strict: builds only classes given here

Arguments are JSON's values, tuples, dicts, dataclasses, describable networks, layers of torch.nn, tensors of which only
the shape matters, and describable classes, functions and partials of them. The tags in JSON: `{"$": CLASS, ...}` is an
object to construct, `{"$name": ...}` a class or function itself, `{"$partial": ..., ...}` one with arguments,
`{"$tensor": SHAPE}` a tensor, `{"$same": PLACE}` a network that stands elsewhere in the description too.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from functools import partial, wraps
from math import isfinite
from types import FunctionType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import activation

from gen_core.config import from_dict, to_json

__all__ = ["describable", "describe", "rebuild"]

T = TypeVar("T")
Classes = Mapping[str, Any] | Iterable[Any]

_LAYERS = "Identity Flatten Dropout Linear Conv1d Conv2d ConvTranspose2d LayerNorm GroupNorm Embedding Sequential"
_ACTIVATIONS = [name for name in activation.__all__ if name != "MultiheadAttention"]
TORCH = {f"torch.nn.{name}": getattr(nn, name) for name in [*_LAYERS.split(), *_ACTIVATIONS]}


def describable(thing: T) -> T:
    """Let descriptions name this class or function; a network class then records the arguments of its constructor.

    Nothing else changes. A subclass is decorated itself, since it may be constructed in another way.
    """
    setattr(thing, "_describable", thing)  # noqa: B010
    cls: Any = thing
    if isinstance(cls, type) and issubclass(cls, nn.Module):
        _record_arguments(cls)
    return thing


def _record_arguments(cls: type[nn.Module]) -> None:
    init, signature = cls.__init__, inspect.signature(cls)

    @wraps(init)
    def recording(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self) is cls:  # not in a subclass, whose own arguments count
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in bound.arguments.items()}
            self.__dict__["_constructed"] = cls, arguments

    cls.__init__ = recording


# ---------------------------------------------------------------------- network -> description


def describe(network: nn.Module) -> dict[str, Any]:
    """The description of a network in JSON's types; `rebuild` constructs its like, without the weights.

    A network that it holds under an argument's name is described as it is now: after `vae.prior = Mixture(...)`, that.

    Raises:
        TypeError: naming the argument, for one that has no description.
    """
    return _describe_module(network, "", {})


def _describe_module(module: nn.Module, where: str, seen: dict[int, str]) -> dict[str, Any]:
    if id(module) in seen:
        return {"$same": seen[id(module)]}
    name, arguments = _construction(module, where)
    form = {"$": name} | {k: _describe(v, _dotted(where, k), seen) for k, v in arguments.items()}
    seen[id(module)] = where
    return form


def _construction(module: nn.Module, where: str) -> tuple[str, dict[str, Any]]:
    """The name of the class, and the arguments by which its constructor gives such a module."""
    if constructed := module.__dict__.get("_constructed"):
        cls, arguments = constructed
        now = {k: module._modules[k] for k, v in arguments.items() if _replaced(v, module._modules.get(k))}
        return cls.__name__, arguments | now
    name = f"torch.nn.{type(module).__name__}"
    if TORCH.get(name) is not type(module):
        raise TypeError(
            f"{where or 'the network'} is a {type(module).__name__}, which has no description; "
            f"decorate that class by gen_core.networks.describable"
        )
    if isinstance(module, nn.Sequential) and list(module._modules) == [str(i) for i in range(len(module))]:
        return name, {"args": tuple(module)}
    takes = [k for k in inspect.signature(type(module)).parameters if k in module.__dict__ or k == "bias"]
    values = {k: getattr(module, k) for k in takes}  # torch's layers hold their arguments as attributes
    return name, values | ({"bias": values["bias"] is not None} if "bias" in values else {})


def _replaced(argument: Any, held: nn.Module | None) -> bool:
    return held is not None and held is not argument and (argument is None or isinstance(argument, nn.Module))


def _describe(value: Any, where: str, seen: dict[int, str]) -> Any:
    if isinstance(value, nn.Module):
        return _describe_module(value, where, seen)
    if isinstance(value, Tensor):
        return {"$tensor": list(value.shape)}
    if isinstance(value, partial):
        bound = inspect.signature(value.func).bind_partial(*value.args, **value.keywords).arguments
        return {"$partial": _name(value.func, where)} | _describe(bound, where, seen)
    if isinstance(value, type | FunctionType):
        return {"$name": _name(value, where)}
    if isinstance(value, Mapping) and not any(str(key).startswith("$") for key in value):
        return {key: _describe(item, _dotted(where, key), seen) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_describe(item, f"{where}[{i}]", seen) for i, item in enumerate(value)]
    if isinstance(value, float) and not isfinite(value):
        raise TypeError(f"{where} is {value}, which has no JSON form; use a finite number, or None")
    return to_json(value, where)


def _name(thing: Any, where: str) -> str:
    name = f"torch.nn.{thing.__name__}"
    if TORCH.get(name) is thing:
        return name
    if getattr(thing, "_describable", None) is not thing:
        raise TypeError(
            f"{where} is {thing.__qualname__}, which has no description; "
            f"decorate it by gen_core.networks.describable, at the top level of a module"
        )
    return thing.__name__


# ---------------------------------------------------------------------- description -> network


def rebuild(description: Mapping[str, Any], classes: Classes) -> nn.Module:
    """The network of a description, its weights drawn anew.

    Args:
        classes: classes and functions that the description may name, or a mapping of names to them; torch.nn's
            activations and usual layers may be named too. Nothing is imported by a name.

    Raises:
        ValueError: for an unknown name, an unknown or missing argument, or a value that the constructor refuses.
    """
    known = dict(classes) if isinstance(classes, Mapping) else {thing.__name__: thing for thing in classes}
    network = _build(description, "", known | TORCH, {})
    if not isinstance(network, nn.Module):
        raise ValueError(f'a network is described as {{"$": CLASS, ...}}, got {description!r}')
    return network


def _build(form: Any, where: str, known: Mapping[str, Any], built: dict[str, nn.Module]) -> Any:
    if isinstance(form, list):
        return tuple(_build(item, f"{where}[{i}]", known, built) for i, item in enumerate(form))
    if not isinstance(form, Mapping):
        return form
    tag = next((key for key in form if key.startswith("$")), None)
    values = {k: _build(v, _dotted(where, k), known, built) for k, v in form.items() if k != tag}
    if tag is None:
        return values
    if tag == "$tensor":
        return torch.ones(form[tag])
    content = str(form[tag])
    if tag == "$same" and content in built:
        return built[content]
    if tag not in ("$", "$name", "$partial") or content not in known:
        raise ValueError(
            f"{where or 'the network'} is {tag} {content!r}, which is none of {_listed(known)}; "
            f"open it by the package that it was trained with"
        )
    thing = known[content]
    if tag != "$":
        return partial(thing, **values) if tag == "$partial" else thing
    if is_dataclass(thing):
        return from_dict(cast(type, thing), dict(form))
    built[where] = _construct(thing, values, where)
    return built[where]


def _construct(cls: Any, values: dict[str, Any], where: str) -> nn.Module:
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f"{_dotted(where, '$')} names {cls.__name__}, which is no class of networks")
    signature = inspect.signature(cls)
    bound = signature.bind_partial()
    required = [k for k, p in signature.parameters.items() if p.default is p.empty and p.kind not in (2, 4)]
    for name in [*(values.keys() - signature.parameters.keys()), *(k for k in required if k not in values)]:
        problem = "has no argument" if name in values else "needs the argument"
        raise ValueError(
            f"{where or 'the network'}: {cls.__name__} {problem} {name!r}; the description is of another version of it"
        )
    bound.arguments.update(values)
    return cls(*bound.args, **bound.kwargs)


def _dotted(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _listed(known: Mapping[str, Any]) -> str:
    return ", ".join(name for name in known if name not in TORCH) + " and layers of torch.nn"
