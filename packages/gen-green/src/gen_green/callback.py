"""Energy of a training run: a plain object with the trainer's four hooks; nothing of gen-core is imported.

    Trainer(task, run="runs/a", callbacks=[Energy(samples=256, grid="FR", pue=1.2), Jsonl()])

Laps are epochs, or every `every` steps; a step between them costs a comparison. A lap adds to its step's metrics the
run so far: `energy/joules`, `energy/joules_per_sample` and `energy/carbon_g`. At the end,
energy.json holds what the report page shows, and reading.json what `gen green compare` takes.

Where the grid varies in time, each lap's energy counts at the intensity of its own time, also those before a resume.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from gen_green.intensity import CarbonIntensity, blend
from gen_green.meter import Meter
from gen_green.quantity import Quantity
from gen_green.reading import Reading, Scope, reduce

__all__ = ["Energy"]


class Energy:
    """Meter a run over all of its processes, nodes and resumes.

    Args:
        samples: per step, of all processes together (the global batch); 0 leaves joules per sample out.
        tokens: per step, likewise.
        every: steps of a lap; None is an epoch.
        grid: an intensity, a country's code or name; None is the world's mean, assumed.
        pue, psf, embodied: as of `gen_green.footprint`.
        scope: "tree" is the run's processes, with the idle power of the CPUs that they may use; "machine" is all that
            runs there.
        counters: instead of those that are detected.
        clock: seconds since 1970, to look the grid up.

    Raises:
        ValueError: in one sentence, for an unknown country, a PUE below 1, a PSF of 0.
    """

    order = 5  # after what evaluates and averages, before what logs
    name = "energy"

    def __init__(
        self,
        samples: float = 0,
        tokens: float = 0,
        every: int | None = None,
        grid: Any = None,
        pue: float = 1.0,
        psf: float = 1.0,
        embodied: Quantity | None = None,
        scope: Scope = "tree",
        counters: Sequence[Any] | None = None,
        clock: Callable[[], float] = time.time,
    ):
        from gen_green.footprint import footprint
        from gen_green.grid import country

        if every is not None and every < 1:
            raise ValueError(f"every counts the steps of a lap, so it is at least 1, got {every}")
        self.samples, self.tokens, self.every, self.counters, self.clock = samples, tokens, every, counters, clock
        self.scope: Scope = scope
        self.grid = country(grid or "WORLD") if grid is None or isinstance(grid, str) else grid
        self.place = {"pue": pue, "psf": psf, "embodied": embodied}
        footprint(0.0, country("WORLD"), **self.place)
        self._t: Any = None
        self.load_state_dict({})

    def on_train_begin(self, t: Any) -> None:
        from gen_green.counters import detect

        if t.step == 0:
            self.load_state_dict({})
        self._before = self.reading
        self._lapped = self.reading.total
        counters = self.counters if self.counters is not None else detect(self.scope, warn=t.rank == 0)
        self.meter, self._t, self._at, self._start = Meter(counters), t, t.step, self.clock()
        self.meter.__enter__()

    def on_step_end(self, t: Any, metrics: dict[str, Any]) -> None:
        if self.every and t.step % self.every == 0:
            self._report(metrics)

    def on_epoch_end(self, t: Any, metrics: dict[str, Any]) -> None:
        if not self.every:
            self._report(metrics)

    def on_train_end(self, t: Any) -> None:
        from gen_green import report

        self._collect()
        self._laps.append(self._lap())
        self.meter.__exit__()
        self._t = None
        if t.rank == 0 and t.run is not None:
            facts = report.facts(self.reading, footprint := self._footprint())
            if footprint is None:
                facts["carbon"] = "unknown: the grid's service did not answer"
            t.run.write("energy.json", facts)
            t.run.write("reading.json", self.reading.to_json())

    def state_dict(self) -> dict[str, Any]:
        """The total so far, of all processes: called on each of them, as a checkpoint is."""
        laps = self._laps
        if self._t is not None:
            self._collect()
            laps = [*laps, self._lap()]
        mean = asdict(self._mean) if self._mean else None
        return {"reading": self.reading.to_json(), "laps": laps, "priced": self._priced, "intensity": mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reading = Reading.from_json(state, "the checkpoint's energy") if state else Reading(0.0)
        self._before = self.reading  # before this training began
        self._lapped = self.reading.total  # joules of all laps, up to the last report or resume
        self._laps: list[Sequence[float]] = list(
            state.get("laps", [])
        )  # (start, end, joules), without an intensity yet
        self._priced: float = state.get("priced", 0.0)  # joules of the others, and their mean intensity
        mean = state.get("intensity")
        self._mean = CarbonIntensity(**mean) if mean else None

    def _report(self, metrics: dict[str, Any]) -> None:
        self._collect()
        self._laps.append(lap := self._lap())
        self._start, self._lapped = lap[1], self.reading.total
        self._t.due = True  # logs hold this step
        metrics["energy/joules"] = self.reading.total
        if self.reading.samples:
            metrics["energy/joules_per_sample"] = self.reading.per_sample
        if footprint := self._footprint():
            metrics["energy/carbon_g"] = footprint.carbon.value

    def _collect(self) -> None:
        """One window from the beginning to now: laps that are added up would add up the counters' steps."""
        t = self._t
        steps, self._at = t.step - self._at, t.step
        self.meter.lap(samples=steps * self.samples / t.world, tokens=steps * self.tokens / t.world)
        self.reading = self._before + reduce(_everyone(t, self.meter.reading))

    def _lap(self) -> tuple[float, float, float]:
        """(start, end, joules) of what was collected since the last report."""
        return self._start, self.clock(), max(self.reading.total - self._lapped, 0.0)

    def _footprint(self) -> Any:
        """None where a live service of intensities does not answer: training goes on, and its laps are asked again."""
        from gen_green.footprint import footprint

        try:
            while self._laps:
                self._price(*self._laps[0])
                self._laps.pop(0)
        except (RuntimeError, OSError):
            return None
        return footprint(self.reading, self._mean, **self.place)

    def _price(self, start: float, end: float, joules: float) -> None:
        """Add a lap to the mean intensity, weighted by energy."""
        found = self.grid(start, end)
        if self._mean and self._mean.basis != found.basis:
            note = f"; the energy before a resume counts at this mean, for its own intensity was {self._mean.basis}"
            found, self._mean = replace(found, note=found.note + note), None
        self._mean = blend([(self._priced, self._mean), (joules, found)]) if self._mean else found
        self._priced += joules


def _everyone(t: Any, reading: Reading) -> list[Reading]:
    """The readings of all processes, on all of them."""
    if t.world == 1:
        return [reading]
    torch: Any = sys.modules["torch"]  # the trainer's
    text, device = json.dumps(reading.to_json()).encode(), getattr(t, "device", "cpu")
    sizes = t.gather(torch.tensor([len(text)], device=device)).tolist()
    row = torch.zeros(1, max(sizes), dtype=torch.uint8)
    row[0, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    rows = t.gather(row.to(device)).cpu()
    return [Reading.from_json(json.loads(bytes(row[:n].tolist()))) for row, n in zip(rows, sizes, strict=True)]
