"""The modules of the package form a hierarchy."""

import ast
import graphlib
from pathlib import Path

import gen_green

SOURCE = Path(gen_green.__file__).parent


def siblings(path: Path) -> set[str]:
    """Modules that a file imports anywhere: in functions and for type checkers too."""
    found = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    whole = {alias.name for node in found if node.module == "gen_green" for alias in node.names}
    return whole | {node.module.partition(".")[2] for node in found if (node.module or "").startswith("gen_green.")}


def test_no_module_imports_itself_through_others():
    """A topological order exists; `graphlib` raises CycleError with the circle where there is none."""
    graph = {path.stem: siblings(path) for path in SOURCE.glob("*.py") if path.stem != "__init__"}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("quantity") < order.index("counter") < order.index("counters") < order.index("cli")
