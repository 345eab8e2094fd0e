"""The protocol of a counter of joules; sensors and models implement it, `counters.detect` finds them."""

from typing import Protocol

from gen_green.quantity import Kind

__all__ = ["Counter"]


class Counter(Protocol):
    """Cumulative joules; it may have a `scope` ("machine" or "tree"), `notes` (a list) and a `resolution` (joules)."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def source(self) -> str: ...
    @property
    def spread(self) -> float: ...
    def read(self) -> float: ...
