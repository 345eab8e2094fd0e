"""A configuration is a frozen dataclass: here are its JSON form and its command line.

    text = json.dumps(to_dict(Config(optim=LBFGS(history=5))))  # {"$": "Config", "optim": {"$": "LBFGS", "history": 5}}
    config = from_dict(Config, json.loads(text))  # strict; builds only classes that Config's annotations name
    cli(main, prog="gen train")  # def main(config: Config) -> None

Fields are str, int, float, bool, None, Path, Literal, dataclasses; tuples, lists, dicts (keys: str), unions of these.
A union may hold one of float, str and Path, not two: JSON has all three as strings (inf and nan are "inf" and "nan").
"""

import difflib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["cli", "differences", "from_dict", "to_dict", "to_json"]

T = TypeVar("T")
R = TypeVar("R")


def to_json(value: Any, where: str = "value") -> Any:
    """`value` in JSON's own types, the class name of every dataclass in it under `"$"`; `where` is for the error."""
    if value is None or type(value) in (str, bool):
        return value
    if isinstance(value, Integral):  # with numpy's
        return int(value)
    if isinstance(value, Real):
        return float(value) if isfinite(value) else str(float(value))
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        content = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        return {"$": type(value).__name__} | to_json(content, where)
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {key: to_json(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{where} is {value!r}, which has no JSON form; use numbers, str, Path, tuples, dicts, dataclasses")


def to_dict(cfg: Any) -> dict[str, Any]:
    """The JSON form of a configuration; `from_dict(type(cfg), to_dict(cfg)) == cfg`.

    Raises:
        TypeError: for a value outside the types listed above.
    """
    if not is_dataclass(cfg) or isinstance(cfg, type):
        raise TypeError(f"a configuration is an instance of a dataclass, got {cfg!r}")
    return to_json(cfg, type(cfg).__name__)


def from_dict(cls: type[T], d: Any) -> T:
    """The configuration that `to_dict` wrote as `d`. A field that `d` lacks takes its default.

    Raises:
        ValueError: naming the dotted field, for an unknown or missing key or a value of the wrong type.
        TypeError: for an annotation outside the types listed above.
    """
    return _build([cls], d, "")


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The dotted fields in which two JSON forms differ, as 'train.lr: 0.01 is not 0.001'.

    >>> differences({"lr": 0.1, "net": {"width": 8}}, {"lr": 0.1, "net": {"width": 16, "depth": 2}})
    ['net.width: 8 is not 16', 'net.depth: (absent) is not 2']
    """

    def walk(a: Any, b: Any, where: str) -> list[str]:
        if isinstance(a, Mapping) and isinstance(b, Mapping) and a.get("$") == b.get("$"):
            keys = list(a) + [key for key in b if key not in a]
            pairs = ((a.get(key, MISSING), b.get(key, MISSING), _dotted(where, key)) for key in keys)
            return [line for pair in pairs for line in walk(*pair)]
        return [] if a == b else [f"{where or 'config'}: {_brief(a)} is not {_brief(b)}"]

    return walk(a, b, "")


def cli(
    main: Callable[[T], R],
    args: Sequence[str] | None = None,
    *,
    prog: str,
    flags: type[T] | None = None,
    default: T | None = None,
) -> R:
    """Call `main` with its configuration, read from the command line: one flag per field, helped by its docstring.

    `--config FILE` takes the values of a config.json, such as a run's, in place of the defaults.

    An error that the library raises on purpose is printed as one sentence, and the exit code is 2 as for a bad flag;
    with GEN_TRACEBACK=1 in the environment it is raised as it is.

    Args:
        main: function of one frozen dataclass, which its annotation names.
        args: the command line, without the program; by default that of the process.
        prog: the words typed so far, as "gen diffusion train".
        flags: the dataclass, for a function without annotations.
        default: a configuration whose values are the defaults, unless `--config` gives others.
    """
    import tyro  # 0.2 s

    config_type: Any = flags or next(iter(get_type_hints(main).values()))
    try:
        words, stored = _config_file(config_type, sys.argv[1:] if args is None else args)
        words = ["--help"] if {"-h", "--help"} & {*words} else words  # of all flags, whatever was given already
        usual = default if stored is None else stored
        how: Any = {} if usual is None else {"default": usual}
        return main(tyro.cli(config_type, prog=prog, args=words, config=(tyro.conf.CascadeSubcommandArgs,), **how))
    except (ValueError, TypeError, ImportError, OSError) as error:
        if os.environ.get("GEN_TRACEBACK"):
            raise
        message = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.filename:  # the system's own, with '[Errno 2]' and the like in front
            message = f"{error.filename}: {error.strerror}"
        print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)
        raise SystemExit(2) from None


def _config_file(cls: type[T], args: Sequence[str]) -> tuple[list[str], T | None]:
    """The command line without `--config FILE`, and the configuration in that file."""
    words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("--config=") else [arg])]
    if "--config" not in words:
        return words, None
    at = words.index("--config")
    if at + 1 == len(words):
        raise ValueError("--config needs a file, such as runs/NAME/config.json")
    file = Path(words[at + 1])
    try:
        return words[:at] + words[at + 2 :], from_dict(cls, json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"--config {file} does not hold these flags: {error}") from None


def _build(classes: Sequence[Any], d: Any, where: str) -> Any:
    """The dataclass among `classes` that the tag names, from `d`."""
    by_name = {cls.__name__: cls for cls in classes}
    if not isinstance(d, dict):
        raise ValueError(f"{where or 'config'} must be {' | '.join(by_name)}, got {_brief(d)}")
    tag = d.get("$", *by_name) if len(by_name) == 1 else d.get("$")
    if tag not in list(by_name):
        raise ValueError(f"{_dotted(where, '$')} must be {' or '.join(by_name)}, got {tag!r}")
    cls = by_name[tag]
    hints, known = get_type_hints(cls), {f.name: f for f in fields(cls) if f.init}
    for key in d.keys() - known.keys() - {"$"}:
        nearest = difflib.get_close_matches(key, known, n=1)
        remedy = f"did you mean {nearest[0]}?" if nearest else f"its fields are {', '.join(known) or 'none'}"
        raise ValueError(f"{_dotted(where, key)} is no field of {cls.__name__}; {remedy}")
    for name, field in known.items():
        if name not in d and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{_dotted(where, name)} is missing and has no default; add it")
    return cls(**{key: _read(hints[key], d[key], _dotted(where, key)) for key in known if key in d})


def _read(hint: Any, value: Any, where: str) -> Any:
    """`value` of a JSON form as the annotation `hint` has it."""
    origin, args, kind = get_origin(hint), get_args(hint), type(value)
    if origin in (Union, UnionType):
        return _read_union(args, value, where)
    if is_dataclass(hint):
        return _build([hint], value, where)
    if hint in (str, int, bool, NoneType) and kind is hint:
        return value
    if hint is float and (kind in (int, float) or value in ("inf", "-inf", "nan")):
        return float(value)
    if hint is Path and kind is str:
        return Path(value)
    if origin is Literal and any(kind is type(arg) and value == arg for arg in args):
        return value
    if origin is dict and args[0] is str and kind is dict:
        return {key: _read(args[1], item, _dotted(where, key)) for key, item in value.items()}
    if origin in (tuple, list) and kind is list:
        each = args if args[-1] is not ... and origin is tuple else args[:1] * len(value)
        if len(each) == len(value):
            return origin(_read(h, item, f"{where}[{i}]") for i, (h, item) in enumerate(zip(each, value, strict=True)))
    if hint not in (str, int, bool, NoneType, float, Path) and origin not in (Literal, dict, tuple, list):
        raise TypeError(f"{where} is annotated {_show(hint)}, which a configuration cannot hold")
    raise ValueError(f"{where} must be {_show(hint)}, got {_brief(value)}")


def _read_union(options: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and NoneType in options:
        return None
    classes = [option for option in options if is_dataclass(option)]
    plain = [option for option in options if option not in (NoneType, *classes)]
    if classes and ((isinstance(value, dict) and "$" in value) or not plain):
        return _build(classes, value, where)
    if len(plain) == 1 and not classes:
        return _read(plain[0], value, where)
    for option in sorted(plain, key=lambda option: option is not type(value)):  # 1 is an int before it is a float
        try:
            return _read(option, value, where)
        except ValueError:
            continue
    raise ValueError(f"{where} must be {' | '.join(map(_show, options))}, got {_brief(value)}")


def _dotted(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _show(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return "None" if hint is NoneType else hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _brief(value: Any) -> str:
    """A value for a sentence: a dataclass by its name."""
    if value is MISSING:
        return "(absent)"
    return str(value["$"]) if isinstance(value, Mapping) and "$" in value else repr(value)
