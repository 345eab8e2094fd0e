"""Thin command-line apps over the packages, and `load`, which opens what they trained.

from gen_apps import load

model = load("runs/vae-digits")
x = model.sample(16, seed=0)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gen_apps.opening import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:  # so that `gen --help` does without torch
    if name == "load":
        from gen_apps.opening import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
