"""A reading and its footprint in words: for a terminal, a run's page, a paper, a model card, an existing dashboard.

    f = footprint(meter.reading, "FR", pue=1.2)
    print(text(meter.reading, f))
    print(statement(meter.reading, f))                # markdown; style="latex" for a paper
    print(hugging_face(f, geographical_location="France", training_type="pre-training"))

Numbers have three significant digits and an SI prefix; the impact statement can be recomputed from those it prints.
"""

import csv
import io
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from gen_green.footprint import KWH, Footprint
from gen_green.meter import Reading
from gen_green.quantity import Quantity, si

__all__ = ["CODECARBON", "FLAGS", "codecarbon_csv", "compare", "facts", "hugging_face", "statement", "text", "to_json"]

FLAGS = {
    "gap": "a sensor failed for a while, and its next good read holds what it missed",
    "reset": "a counter jumped back (a driver was loaded again), and what it had not told by then is lost",
    "ambiguous": "a counter may have wrapped once more than was seen; read more often with Meter(every=60)",
    "quantised": "the window is short against the 0.1 s steps of the GPU's counter; measure at least 2 s",
    "gauge": "the GPU tells its power only, read at the window's edges; read more often with Meter(every=1)",
    "clock": "the clock stepped back within the window, which counts as 0 s",
}
CODECARBON = """
timestamp project_name run_id experiment_id duration emissions emissions_rate cpu_power gpu_power ram_power cpu_energy
gpu_energy ram_energy energy_consumed water_consumed country_name country_iso_code region cloud_provider cloud_region
os python_version codecarbon_version cpu_count cpu_model gpu_count gpu_model longitude latitude ram_total_size
tracking_mode cpu_utilization_percent gpu_utilization_percent ram_utilization_percent ram_used_gb on_cloud pue wue
""".split()  # of codecarbon 3.3.2


def text(reading: Reading, footprint: Footprint | None = None) -> str:
    """A few lines: the total with its range, each part with its source, carbon with its grid, what to know."""
    lines = [_line("energy", _ranged(reading))]
    for name, part in reading.joules.items():
        lines.append(f"  {name:<10}{si(part.joules, 'J'):>9}  {part.kind}, {_within(part.spread)}: {part.source}")
    if footprint is not None:
        place = footprint.intensity
        lines.append(_line("carbon", f"{_quantity(footprint.carbon)}{_factors(footprint)}"))
        year = f", {place.year}" if place.year else ""
        lines.append(f"  {'grid':<10}{place.value:>5.3g} g/kWh  {place.kind}, {place.basis}: {place.source}{year}")
        lines += [_line("", f"({place.note})")] if place.note else []
        if footprint.water.value:
            lines.append(_line("water", _quantity(footprint.water)))
    lines.append(_line("time", si(reading.seconds, "s")))
    for unit, count in (("sample", reading.samples), ("token", reading.tokens)):
        if count:
            carbon = f", {si(footprint.carbon.value / footprint.psf / count, 'gCO2e')}" if footprint else ""
            lines.append(_line(f"per {unit}", si(reading.total / count, "J") + carbon))
    lines += [f"note: {FLAGS.get(flag, flag)}" for flag in reading.flags]
    return "\n".join(lines)


def facts(reading: Reading, footprint: Footprint | None = None) -> dict[str, Any]:
    """Facts of a run's page, as names and values."""
    found: dict[str, Any] = {"energy": _ranged(reading)}
    if footprint is not None:
        grid = footprint.intensity
        found["carbon"] = f"{_quantity(footprint.carbon)}{_factors(footprint)}"
        said = "; ".join(filter(None, (grid.source, grid.note)))
        found["grid"] = f"{grid.value:.4g} g/kWh ({grid.kind}, {grid.basis}; {said})"
    if reading.samples:
        found["per sample"] = si(reading.per_sample, "J") + (
            f", {si(footprint.carbon.value / footprint.psf / reading.samples, 'gCO2e')}" if footprint else ""
        )
    if reading.tokens:
        found["per token"] = si(reading.per_token, "J")
    found["spread"] = f"a factor {reading.spread:.3g} either way, 8 times in 10"
    found["source"] = {name: f"{part.kind}: {part.source}" for name, part in reading.joules.items()}
    if reading.flags:
        found["notes"] = "; ".join(FLAGS.get(flag, flag) for flag in reading.flags)
    return found


def to_json(reading: Reading, footprint: Footprint | None = None) -> dict[str, Any]:
    """The facts as numbers with units in their names, and the reading under "reading"."""
    found: dict[str, Any] = {
        "energy_joules": reading.total,
        "low_joules": reading.low,
        "high_joules": reading.high,
        "seconds": reading.seconds,
        "kind": reading.kind,
        "spread": reading.spread,
        "flags": list(reading.flags),
    }
    if footprint is not None:
        place = footprint.intensity
        found |= {
            "energy_kwh": footprint.energy.value,
            "carbon_g": footprint.carbon.value,
            "carbon_spread": footprint.carbon.spread,
            "embodied_g": footprint.embodied.value if footprint.embodied else None,
            "water_l": footprint.water.value,
            "pue": footprint.pue,
            "psf": footprint.psf,
            "intensity_g_per_kwh": place.value,
            "intensity": {name: getattr(place, name) for name in ("kind", "basis", "source", "year", "note")},
        }
    return found | {"reading": reading.to_json()}


def statement(
    reading: Reading, footprint: Footprint, style: Literal["markdown", "latex"] = "markdown", what: str = "This work"
) -> str:
    """A paragraph for a paper; its carbon is the product of the very numbers that it prints.

    Args:
        what: the sentence's subject, "Training the model" say.
    """
    if style not in ("markdown", "latex"):
        raise ValueError(f"a statement is in 'markdown' or 'latex', got {style!r}")
    round4 = lambda x: float(f"{x:.4g}")
    kwh, pue, psf, grid = map(round4, (footprint.it.value, footprint.pue, footprint.psf, footprint.intensity.value))
    made = round4(footprint.embodied.value) if footprint.embodied else 0.0
    grams = kwh * pue * psf * grid + made
    parts = ", ".join(f"{name}: {si(part.joules, 'J')} ({part.kind})" for name, part in reading.joules.items())
    place = footprint.intensity
    year = f", {place.year}" if place.year else ""
    times, co2, space = ("×", "CO2e", " ") if style == "markdown" else (r"$\times$", r"CO\textsubscript{2}e", "~")
    unit = f"g{space}{co2}"
    runs = f", over {_plain(psf)} runs in all (PSF)" if psf != 1 else ""
    embodied = f" + {_plain(made)}{space}g embodied" if made else ""
    said = (
        f"{what} drew {_plain(kwh)}{space}kWh in {si(reading.seconds, 's')} ({parts}). "
        f"With a PUE of {_plain(pue)}{runs} and {_plain(grid)}{space}g/kWh "
        f"({place.source}{year}; {place.basis}, {place.kind}) this is "
        f"{_plain(kwh)} {times} {_plain(pue)} {times} {_plain(psf)} {times} {_plain(grid)}{embodied} = "
        f"{_plain(grams)}{space}{unit}, within a factor {footprint.carbon.spread:.2g} (8 times in 10)"
        f"{'' if made else '; what making the hardware emitted is not counted'}."
    )
    if footprint.water.value:
        said += f" Water: {si(footprint.water.value, 'L')}."
    return said.replace("%", r"\%").replace("_", r"\_") if style == "latex" else said


def hugging_face(footprint: Footprint, **fields: str) -> str:
    """The `co2_eq_emissions` block of a model card's metadata, in grams.

    Args:
        fields: `training_type`, `geographical_location`, `hardware_used`, as the hub documents them.

    Raises:
        ValueError: for another field.
    """
    known = ("training_type", "geographical_location", "hardware_used")
    if wrong := [name for name in fields if name not in known]:
        raise ValueError(f"co2_eq_emissions has no field {wrong[0]!r}; it has {', '.join(known)}")
    lines = [
        "co2_eq_emissions:",
        f"  emissions: {_plain(footprint.carbon.value, 6)}",
        f"  source: {_yaml(f'gen-green ({footprint.it.kind}: {footprint.it.source}; {footprint.intensity.source})')}",
    ]
    return "\n".join(lines + [f"  {name}: {_yaml(fields[name])}" for name in known if name in fields]) + "\n"


def codecarbon_csv(reading: Reading, footprint: Footprint, header: bool = True, **fields: str) -> str:
    """A row in codecarbon's columns (kWh, kg, W), for dashboards that read its emissions.csv.

    Args:
        fields: for columns that a reading does not hold (`project_name`, `run_id`, ...).
    """
    if wrong := [name for name in fields if name not in CODECARBON]:
        raise ValueError(f"codecarbon has no column {wrong[0]!r}; it has {', '.join(CODECARBON)}")
    joules = {"cpu": 0.0, "gpu": 0.0, "ram": 0.0}
    for name, part in reading.joules.items():
        joules["gpu" if name.startswith("gpu") else "ram" if name.startswith(("memory", "dram")) else "cpu"] += (
            part.joules
        )
    seconds = reading.seconds or float("nan")
    kilograms = footprint.carbon.value / 1000
    row: dict[Any, Any] = dict.fromkeys(CODECARBON, "") | {
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "project_name": "gen-green",
        "duration": reading.seconds,
        "emissions": kilograms,
        "emissions_rate": kilograms / seconds,
        "energy_consumed": footprint.energy.value,
        "water_consumed": footprint.water.value,
        "country_iso_code": footprint.intensity.place,
        "os": sys.platform,
        "python_version": ".".join(map(str, sys.version_info[:3])),
        "codecarbon_version": "gen-green",
        "tracking_mode": "process" if any(p.scope == "tree" for p in reading.joules.values()) else "machine",
        "pue": footprint.pue,
    }
    row |= {f"{part}_power": x / seconds for part, x in joules.items()}
    row |= {f"{part}_energy": x * footprint.pue * footprint.psf / KWH for part, x in joules.items()}
    out = io.StringIO()
    writer = csv.writer(out)
    if header:
        writer.writerow(CODECARBON)
    writer.writerow([(row | fields)[name] for name in CODECARBON])
    return out.getvalue()


def _line(name: str, value: str) -> str:
    return f"{name:<12}{value}"


def _ranged(reading: Reading) -> str:
    return f"{si(reading.total, 'J')} ({si(reading.low, 'J')} to {si(reading.high, 'J')}; {reading.kind})"


def _quantity(quantity: Quantity) -> str:
    unit = "gCO2e" if quantity.unit == "g" else quantity.unit
    return f"{si(quantity.value, unit)} ({si(quantity.low, unit)} to {si(quantity.high, unit)}; {quantity.kind})"


def _factors(footprint: Footprint) -> str:
    """Factors of the carbon, where that is more than energy times intensity."""
    said = [f"PUE {footprint.pue:g}"] if footprint.pue != 1 else []
    said += [f"PSF {footprint.psf:g}"] if footprint.psf != 1 else []
    said += [f"{si(footprint.embodied.value, 'gCO2e')} of it embodied"] if footprint.embodied else []
    return ", " + ", ".join(said) if said else ""


def _within(spread: float) -> str:
    return f"within x{spread:.3g}" if spread > 1 else "exact"


def _plain(x: float, digits: int = 4) -> str:
    """Significant digits without an exponent that a reader would have to undo."""
    return f"{float(f'{x:.{digits}g}'):.15g}" if x == 0 or 1e-4 <= abs(x) < 1e15 else f"{x:.{digits - 1}e}"


def _yaml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def compare(a: Reading, b: Reading, names: tuple[str, str] = ("first", "second")) -> str:
    """Two readings side by side, and whether their difference is more than their spreads.

    A ratio within one machine and model is surer than either figure: the same scale errs in both.
    """
    rows: list[tuple[str, str, str, str]] = [("", *names, "second / first")]
    ratio = lambda x, y: f"{y / x:.3g}" if x else "-"
    for name in dict.fromkeys([*a.joules, *b.joules]):
        x, y = (r.joules[name].joules if name in r.joules else 0.0 for r in (a, b))
        rows.append((name, si(x, "J"), si(y, "J"), ratio(x, y)))
    rows.append(("total", si(a.total, "J"), si(b.total, "J"), ratio(a.total, b.total)))
    rows.append(("seconds", si(a.seconds, "s"), si(b.seconds, "s"), ratio(a.seconds, b.seconds)))
    for unit in ("sample", "token"):
        x, y = (getattr(r, f"per_{unit}") for r in (a, b))
        if x == x and y == y:
            rows.append((f"per {unit}", si(x, "J"), si(y, "J"), ratio(x, y)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    apart = a.high < b.low or b.high < a.low
    alike = {p.source for p in a.joules.values()} == {p.source for p in b.joules.values()}
    difference = b - a
    said = f"difference {si(difference.total, 'J')}: " + (
        "their ranges do not meet" if apart else "their ranges overlap" + (
            ", but one source is behind both, so the ratio stands" if alike else "; it may be the sources' error"
        )
    )  # fmt: skip
    return "\n".join([*lines, said])
