"""Read counters of joules at the edges of a window; the difference is a `Reading`.

    with Meter() as m:
        for epoch in range(3):
            train_one_epoch()
            m.lap(samples=50_000, label=f"epoch {epoch}")
    print(m.reading.quantity, m.laps[-1].per_sample)

    @Meter()                         # as a decorator, the last call's reading is `fit.meter.reading`
    def fit(): ...                   # or async def, or a generator: from its first item to its end

Two reads per window and nothing in between: no thread, process, socket, lock or signal handler. (`every=` asks for a
thread that reads now and then: where a RAPL counter could wrap twice in a window, or a sensor shows power only.)
Predictions and published figures are `Reading`s too, so that to compare is to subtract.
"""

import functools
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from gen_green.decorator import wrapped
from gen_green.reading import Part, Reading, Scope, reduce

__all__ = ["Meter", "Part", "Reading", "reduce"]

QUANTISED = 2.0  # seconds below which the steps of a GPU's counter show
P = ParamSpec("P")
R = TypeVar("R")


class Meter:
    """A window over counters: a context manager, a decorator, laps.

    Args:
        counters: as `gen_green.counters.detect` gives; None detects when the window opens.
        clock: seconds; the monotonic one never steps back, and a clock that does gives a lap of 0 s, flagged "clock".
        scope: for detection: "machine" or "tree".
        sync: at the edges of laps wait for the GPU's queue, whose energy would fall into the next lap: True does so
            where torch has started CUDA, False never, a function is called instead.
        every: seconds after which a thread reads, where a window may outlast a RAPL counter's wrap; None: no thread.
    """

    def __init__(
        self,
        counters: Sequence[Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        scope: Scope = "machine",
        sync: bool | Callable[[], object] = True,
        every: float | None = None,
    ):
        if every is not None and not every > 0:
            raise ValueError(f"every needs seconds above 0, got {every}; leave it out for no thread")
        self.counters, self.clock, self.sync, self.every = counters, clock, sync, every
        self.scope: Scope = scope
        self.laps: list[Reading] = []
        self._depth = 0
        self._first: _Edge | None = None
        self._last: _Edge | None = None

    def __enter__(self) -> Self:
        self._depth += 1
        if self._depth > 1:  # a recursive function, coroutines at the same time: one window around them
            return self
        if self.counters is None:
            from gen_green.counters import detect

            self.counters = detect(self.scope, clock=self.clock)
        names = [counter.name for counter in self.counters]
        if len(set(names)) < len(names):
            raise ValueError(f"two counters have one name in {names}; each part of a machine is counted once")
        self.laps, self._stand = [], [_Stand(counter) for counter in self.counters]
        self._watch = _watch(self.every, self._stand) if self.every else None
        self._first = self._last = self._edge()
        return self

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._end = self._edge()
            if self._watch:
                self._watch.stop()

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        measured = wrapped(fn, self)
        measured.meter = self  # type: ignore[attr-defined]
        return measured

    def lap(self, samples: float = 0, tokens: float = 0, label: str = "") -> Reading:
        """The reading since the last lap, which is also appended to `laps`.

        Raises:
            RuntimeError: outside of the window.
        """
        if self._depth == 0 or self._last is None:
            raise RuntimeError("a lap lies within a window: with Meter() as m: ... m.lap(samples=64)")
        now = self._edge()
        self.laps.append(self._between(self._last, now, samples, tokens, label))
        self._last = now
        return self.laps[-1]

    @property
    def reading(self) -> Reading:
        """From the window's start to its end, or to now; samples and tokens are those of all laps."""
        if self._first is None:
            raise RuntimeError("nothing was measured yet; open a window: with Meter() as m: ...")
        samples, tokens = sum(lap.samples for lap in self.laps), sum(lap.tokens for lap in self.laps)
        return self._between(self._first, self._edge() if self._depth else self._end, samples, tokens, "")

    def _edge(self) -> "_Edge":
        if self.sync is True:
            _synchronize()
        elif self.sync:
            self.sync()
        with self._watch.lock if self._watch else nullcontext():
            return _Edge(self.clock(), [(s.read(), len(s.notes)) for s in self._stand])

    def _between(self, a: "_Edge", b: "_Edge", samples: float, tokens: float, label: str) -> Reading:
        seconds, parts = b.seconds - a.seconds, {}
        for stand, (before, first), (after, last) in zip(self._stand, a.joules, b.joules, strict=True):
            counter, flags = stand.counter, dict.fromkeys(stand.notes[first:last])
            if seconds < 0:
                flags["clock"] = None
            if getattr(counter, "step", 0) and seconds < QUANTISED:
                flags["quantised"] = None
            parts[counter.name] = Part(
                after - before,
                counter.kind,
                counter.source,
                counter.spread,
                getattr(counter, "scope", "machine"),
                getattr(counter, "resolution", 0.0),
                tuple(flags),
            )
        return Reading(max(seconds, 0.0), parts, samples, tokens, label, _node())


@dataclass(frozen=True)
class _Edge:
    seconds: float
    joules: list[tuple[float, int]]  # of each counter: where it stands, how many notes it had


class _Stand:
    """Value of a counter from 0 up: kept when it fails, never back when it jumps."""

    def __init__(self, counter: Any):
        self.counter, self.joules = counter, 0.0
        self.raw: float | None = None
        self.notes: list[str] = getattr(counter, "notes", [])

    def read(self) -> float:
        try:
            raw = float(self.counter.read())
        except Exception:  # whatever a sensor raises, the run goes on
            self.notes.append("gap")
            return self.joules
        if self.raw is not None and raw < self.raw:
            self.notes.append("reset")
        elif self.raw is not None:
            self.joules += raw - self.raw
        self.raw = raw
        return self.joules


class _watch:
    """A thread that reads all counters every so many seconds."""

    def __init__(self, every: float, stands: Sequence[_Stand]):
        import threading

        self.lock, self._stop = threading.Lock(), threading.Event()

        def loop() -> None:
            while not self._stop.wait(every):
                with self.lock:
                    for stand in stands:
                        stand.read()

        self._thread = threading.Thread(target=loop, name="gen-green", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def _synchronize() -> None:
    """Wait for the GPU where torch has started CUDA; torch is not imported for that."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@functools.cache
def _node() -> str:
    """An anonymous name: the running system, then the container within it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        boot = "unknown"
    import platform

    return f"{boot}/{zlib.crc32(platform.node().encode()):08x}"
