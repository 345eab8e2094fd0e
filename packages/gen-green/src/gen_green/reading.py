"""A `Reading`: joules by part, with what is known about them.

total = first + second          # laps, resumes
extra = b - a                   # a comparison; predictions and published figures are readings too
each = total.per(total.tokens)  # joules per token
whole = reduce(of_each_rank)    # several processes on one node or more
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from gen_green.quantity import NOTHING_KNOWN, Kind, Quantity, sum_spread, weakest

__all__ = ["Part", "Reading", "Scope", "reduce"]

Scope = Literal["machine", "tree"]
VERSION = 1  # of a reading's JSON


@dataclass(frozen=True)
class Part:
    """Joules of one counter.

    Args:
        joules: over the window.
        kind, source, spread: as of a `Quantity`.
        scope: whose energy: the machine's (once per node, however many processes report it) or this process tree's.
        resolution: joules by which the counter's steps can be off, whatever the window.
        flags: what a reader must know ("gap", "quantised", "ambiguous", "reset", ...).
    """

    joules: float
    kind: Kind
    source: str
    spread: float = 1.0
    scope: Scope = "machine"
    resolution: float = 0.0
    flags: tuple[str, ...] = ()

    def __mul__(self, k: float) -> "Part":
        return replace(self, joules=self.joules * k, resolution=abs(self.resolution * k))

    def joined(self, other: "Part", sign: int = 1) -> "Part":
        """Both together (or apart, sign -1). One source errs alike in both; two sources err independently."""
        values, spreads = (self.joules, sign * other.joules), (self.spread, other.spread)
        alike = self.source == other.source and self.spread == other.spread and sign > 0
        sources = dict.fromkeys([*self.source.split("; "), *other.source.split("; ")])
        return Part(
            sum(values),
            weakest((self.kind, other.kind)),
            "; ".join(sources),
            self.spread if alike else sum_spread(values, spreads),
            self.scope,
            self.resolution + other.resolution,
            tuple(dict.fromkeys(self.flags + other.flags)),
        )


@dataclass(frozen=True)
class Reading:
    """Energy of one computation, measured, predicted or published.

    Args:
        seconds: wall time, without system suspend on Linux (the monotonic clock stops there).
        joules: parts by name ("cpu", "cpu idle", "memory", "gpu GPU-3f2a...").
        samples, tokens: what was computed, as the caller counts.
        node: an anonymous name of the machine and container, so that `reduce` counts its parts once.
    """

    seconds: float
    joules: Mapping[str, Part] = field(default_factory=dict)
    samples: float = 0
    tokens: float = 0
    label: str = ""
    node: str = ""

    @property
    def total(self) -> float:
        """Joules of all parts."""
        return sum(part.joules for part in self.joules.values())

    @property
    def idle(self) -> float:
        """Joules of the parts that a machine draws doing nothing; `total - idle` is the dynamic energy."""
        return sum(part.joules for name, part in self.joules.items() if name.endswith("idle"))

    @property
    def spread(self) -> float:
        """Geometric: the truth lies within total / spread and total * spread, 8 times in 10.

        Parts whose names begin alike ("cpu", "cpu idle") err together, and so do those that one source models (a
        regression); others, as sensors of one make, independently.
        """
        logs: dict[str, float] = {}
        groups: dict[str, str] = {}
        for name, part in self.joules.items():
            group = name.partition(" ")[0]
            if part.kind != "measured":
                group = groups.setdefault(part.source, group)
            logs[group] = logs.get(group, 0.0) + part.joules * math.log(part.spread)
        if not self.total:
            return max((part.spread for part in self.joules.values()), default=1.0)
        return math.exp(min(math.hypot(*logs.values()) / abs(self.total), NOTHING_KNOWN))

    @property
    def low(self) -> float:
        """Joules at the lower end: the spread, then the counters' steps."""
        return max(self.total / self.spread - sum(part.resolution for part in self.joules.values()), 0.0)

    @property
    def high(self) -> float:
        return self.total * self.spread + sum(part.resolution for part in self.joules.values())

    @property
    def kind(self) -> Kind:
        return weakest(part.kind for part in self.joules.values())

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(flag for part in self.joules.values() for flag in part.flags))

    @property
    def quantity(self) -> Quantity:
        """The total with its provenance."""
        source = "; ".join(dict.fromkeys(part.source for part in self.joules.values()))
        return Quantity(self.total, "J", self.kind, source or "nothing was read", spread=self.spread)

    @property
    def per_sample(self) -> float:
        """Joules per sample; nan where none were counted."""
        return self.total / self.samples if self.samples else float("nan")

    @property
    def per_token(self) -> float:
        return self.total / self.tokens if self.tokens else float("nan")

    def per(self, n: float) -> "Reading":
        """The n-th part: `reading.per(reading.tokens).total` is joules per token.

        Raises:
            ValueError: for n of 0 or below.
        """
        if not n > 0:
            raise ValueError(f"energy per n needs n > 0, got {n}; count samples or tokens with lap(samples=...)")
        return self * (1 / n)

    def __mul__(self, k: float) -> "Reading":
        parts = {name: part * k for name, part in self.joules.items()}
        return replace(self, seconds=self.seconds * k, joules=parts, samples=self.samples * k, tokens=self.tokens * k)

    __rmul__ = __mul__

    def __add__(self, other: "Reading") -> "Reading":
        """One after the other: seconds, samples and tokens add up too."""
        return self._joined(other, 1)

    def __sub__(self, other: "Reading") -> "Reading":
        """The difference of two readings; a part that only `other` has counts below zero."""
        return self._joined(other, -1)

    def _joined(self, other: "Reading", sign: int) -> "Reading":
        parts = dict(self.joules)
        for name, part in other.joules.items():
            parts[name] = parts[name].joined(part, sign) if name in parts else part * sign
        return Reading(
            self.seconds + sign * other.seconds,
            parts,
            self.samples + sign * other.samples,
            self.tokens + sign * other.tokens,
            self.label if self.label == other.label else "",
            self.node if self.node == other.node else "",
        )

    def to_json(self) -> dict[str, Any]:
        """JSON types, for `from_json`; `json.dumps` keeps every digit."""
        return {"gen_green": VERSION, **asdict(self), "joules": {k: asdict(v) for k, v in self.joules.items()}}

    @classmethod
    def from_json(cls, data: Any, name: str = "this JSON") -> "Reading":
        """A reading from its JSON, or from anything that holds one under "reading" (a run's energy.json).

        Raises:
            ValueError: for a JSON that holds no reading, or one of another version.
        """
        if isinstance(data, Mapping) and "reading" in data:
            data = data["reading"]
        version = data.get("gen_green") if isinstance(data, Mapping) else None
        if version is None:
            raise ValueError(f"{name} holds no reading of gen-green; give a file that `gen green run --json` wrote")
        if version != VERSION:
            raise ValueError(
                f"{name} holds a reading of version {version}, and this gen-green reads version {VERSION}; "
                "write it again with this version, or read it with the other"
            )
        try:
            fields = {k: v for k, v in data.items() if k not in ("gen_green", "joules")}
            parts = {k: Part(**{**v, "flags": tuple(v["flags"])}) for k, v in data["joules"].items()}
            return cls(**fields, joules=parts)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{name} holds a damaged reading ({error}); write it again") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Reading":
        """The reading of a file.

        Raises:
            FileNotFoundError, ValueError: in one sentence, when there is none.
        """
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")), str(path))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path} does not exist; `gen green run --json {path} -- COMMAND` writes it"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise ValueError(f"{path} is not JSON; give a file that `gen green run --json` wrote") from None


def reduce(readings: Iterable[Reading]) -> Reading:
    """One reading of what several processes, on one node or more, measured at the same time.

    Parts of a machine count once per node, however many ranks report them (the longest window's), measured ones once
    per running system even from several containers; parts of process trees, samples and tokens add up; seconds are
    the longest.

    Raises:
        ValueError: for no reading.
    """
    readings = list(readings)
    if not readings:
        raise ValueError("there is no reading to reduce; give one per rank")
    machines: dict[tuple[str, str], Part] = {}
    trees: list[tuple[str, Part]] = []
    for reading in readings:
        for name, part in reading.joules.items():
            if part.scope == "tree":
                trees.append((name, part))
                continue
            key = reading.node.partition("/")[0] if part.kind == "measured" else reading.node, name
            if key not in machines or part.joules > machines[key].joules:
                machines[key] = part
    parts: dict[str, Part] = {}
    for name, part in [*((name, part) for (_, name), part in machines.items()), *trees]:
        parts[name] = parts[name].joined(part) if name in parts else part
    nodes = dict.fromkeys(reading.node for reading in readings)
    return Reading(
        max(reading.seconds for reading in readings),
        parts,
        sum(reading.samples for reading in readings),
        sum(reading.tokens for reading in readings),
        readings[0].label,
        next(iter(nodes)) if len(nodes) == 1 else "",
    )
