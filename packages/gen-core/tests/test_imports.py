"""Importing is quick: public names come when they are used; and the modules of the package form a hierarchy."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jaxtyping
import pytest

import gen_core

SOURCE = Path(gen_core.__file__).parent


def siblings(path: Path) -> set[str]:
    """Modules that a file imports anywhere: in functions and for type checkers too."""
    found = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    whole = {alias.name for node in found if node.module == "gen_core" for alias in node.names}
    return whole | {node.module.partition(".")[2] for node in found if (node.module or "").startswith("gen_core.")}


def test_no_module_imports_itself_through_others():
    """A topological order exists; `graphlib` raises CycleError with the circle where there is none."""
    graph = {path.stem: siblings(path) for path in SOURCE.glob("*.py") if path.stem != "__init__"}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("step") < order.index("task") < order.index("hooks") < order.index("trainer")


def modules(code: str) -> set[str]:
    """What a fresh interpreter has imported after `code`."""
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_what_reads_flags_and_files_needs_no_torch():
    code = "import gen_core, gen_core.report\nfrom gen_core.config import cli\nfrom gen_core.run import Run"
    found = modules(f"{code}\nfrom gen_core import Run as again\nassert again is Run")
    libraries = {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names)
    assert "gen_core" in libraries and not libraries & {"torch", "accelerate", "sklearn", "scipy", "matplotlib", "rich"}


def test_all_public_names_add_little_to_the_import_of_torch():
    """torch.distributed.tensor takes half as long as torch: only sharded weights need it."""
    names = "import torch, gen_core\nfor name in gen_core.__all__: getattr(gen_core, name)"
    added = modules(names) - modules("import torch")
    libraries = {name.partition(".")[0] for name in added} - set(sys.stdlib_module_names)
    quick = {"PIL", "gen_core", "jaxtyping", "lazy_loader", "numpy", "safetensors"}  # a thirtieth of torch together
    assert libraries <= quick and "torch.distributed.tensor" not in added


def test_every_public_name_is_there():
    assert all(getattr(gen_core, name).__name__ == name for name in gen_core.__all__ if name != "Metrics")
    assert set(gen_core.__all__) <= set(dir(gen_core))


def test_modules_that_are_imported_late_are_checked_like_the_others():
    """jaxtyping's import hook, under which the tests run, instruments what a lazy name imports."""
    with pytest.raises(jaxtyping.TypeCheckError):
        gen_core.unpack((), conditions=3)


def test_a_public_function_hides_the_module_of_its_name(tmp_path, monkeypatch):
    """Whichever is imported first: another name of that module, the function, or the module."""
    package = tmp_path / "toy_lazy"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from gen_core.lazy import attach\n__getattr__, __dir__, __all__ = attach(__name__, __file__)\n"
    )
    (package / "__init__.pyi").write_text(
        "from . import whole\nfrom .draw import draw, other\n__all__ = ['draw', 'other', 'whole']\n"
    )
    (package / "draw.py").write_text("def draw(): return 'drawn'\ndef other(): return 'other'\n")
    (package / "whole.py").write_text("def part(): return 'part'\n")
    monkeypatch.syspath_prepend(tmp_path)
    for first in ("from toy_lazy import other", "from toy_lazy import draw", "import toy_lazy.draw"):
        for name in [name for name in sys.modules if name.startswith("toy_lazy")]:
            monkeypatch.delitem(sys.modules, name)
        held = {}
        exec(f"{first}\nfrom toy_lazy import draw, other, whole", held)
        assert held["draw"]() == "drawn" and held["other"]() == "other", first
        assert isinstance(held["whole"], ModuleType) and held["whole"].part() == "part"
