"""Packages whose public names are imported when they are first used, as `__init__.pyi` lists them.

    __getattr__, __dir__, __all__ = attach(__name__, __file__)  # the whole __init__.py

Importing torch takes seconds; so a command that reads its flags or a file imports none of it (SPEC 1 of Scientific
Python, by lazy_loader).
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import lazy_loader

__all__ = ["attach"]


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of the package, from the `__init__.pyi` beside `file`."""
    sys.modules[package].__class__ = _Package
    return lazy_loader.attach_stub(package, file)


class _Package(ModuleType):
    """A package in which a public name hides the module that is called alike: `sample` is `sample.sample`."""

    def __setattr__(self, name: str, value: Any) -> None:
        public = name in self.__dict__.get("__all__", ()) and isinstance(value, ModuleType)
        super().__setattr__(name, getattr(value, name, value) if public else value)
