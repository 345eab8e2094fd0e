"""The examples in docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import gen_green

MODULES = [module.name for module in pkgutil.iter_modules(gen_green.__path__) if not module.name.startswith("_")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(f"gen_green.{name}")
    assert doctest.testmod(module).failed == 0
