"""A run as one HTML page that needs nothing else: no server, no network, no script.

    build("runs/a")  # runs/a/report.html: samples, quality, curves, configuration, environment, whatever is there

The page is a function of the run's files: built twice, it has the same bytes.
"""

import base64
import html
import io
import json
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from gen_core.run import Run

__all__ = ["build"]

_MOST_SAMPLES = 24  # images in a page; more are thinned evenly
_LONG = 200  # values of a curve that is drawn with its running mean


def build(run: str | PathLike[str] | Run) -> Path:
    """Write report.html into a run directory and return its path.

    quality.json is `{"columns": ["frechet", ...], "rows": [{"name": "samples", "n": 899, "frechet": {"value": 0.41,
    "interval": [0.38, 0.45], "n": 899, "unit": "1"}}, ...], "notes": ["..."]}`; the first row is the model's.
    energy.json is any nesting of names and values.

    Raises:
        FileNotFoundError: if the directory is no run.
        ValueError: if one of its files is not JSON.
    """
    run = Run.open(run)
    entries, environment = run.metrics(), _load(run, "environment.json") or {}
    summary = run.path / "summary.txt"
    sections = {
        "Samples": _samples(run),
        "Pictures": _pictures(run),
        "Texts": _texts(run),
        "Quality": _quality(_load(run, "quality.json")),
        "Curves": _curves(entries),
        "Energy": _table(_load(run, "energy.json")),
        "Configuration": _table(_load(run, "config.json")),
        "Environment": _table(environment),
        "Model": f"<pre>{_text(summary.read_text(encoding='utf-8'))}</pre>" if summary.exists() else "",
    }
    title = _text(run.path.resolve().name)
    body = "\n".join(
        f'<section id="{name.lower().replace(" ", "-")}">\n<h2>{name}</h2>\n{content}\n</section>'
        for name, content in sections.items()
        if content
    )
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{_facts(entries, environment)}
</header>
<main>
{body}
</main>
</body>
</html>
"""
    return run.write("report.html", page)


def _load(run: Run, name: str) -> Any:
    try:
        return json.loads((run.path / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{run.path / name} is not JSON ({error}); write it again or delete it") from None


def _div(kind: str, content: Iterable[str]) -> str:
    return "\n".join([f'<div class="{kind}">', *content, "</div>\n"])


def _text(value: Any) -> str:
    return html.escape(str(value))


def _number(value: Any, digits: int = 4) -> str:
    """A few digits for the eye, the exact value in the markup."""
    x = float(value)
    short = f"{x:,.0f}" if (x.is_integer() or abs(x) >= 1e3) and abs(x) < 1e12 else f"{x:.{digits}g}"
    return f'<data value="{x!r}">{short.replace("-", "−")}</data>'


def _facts(entries: list[dict[str, Any]], environment: Mapping[str, Any]) -> str:
    """The line under the title."""
    commit = str(environment.get("git") or "")
    facts = {
        "steps": f"{max(entry['step'] for entry in entries):,}" if entries else "",
        "started": str(environment.get("started", "")).replace("T", " ").replace("+00:00", " UTC"),
        "device": ", ".join(map(str, environment.get("devices") or [])) or (environment and "CPU"),
        "commit": commit[:10] + ("-dirty" if commit.endswith("-dirty") else ""),
    }
    return "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{_text(v)}</dd></div>" for k, v in facts.items() if v) + "</dl>"


def _samples(run: Run) -> str:
    """The newest grid large, then all of them in order, small."""
    found = [(p, int(m[1])) for p in (run.path / "samples").glob("*.png") if (m := re.fullmatch(r"step-(\d+)", p.stem))]
    found.sort(key=lambda pair: pair[1])
    if not found:
        return ""
    shown = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, _MOST_SAMPLES).round().astype(int))]
    *earlier, newest = [_image(path, step) for path, step in shown]
    note = f"<p>{len(shown)} of {len(found)} grids.</p>" if len(shown) < len(found) else ""
    return _div("samples", [_div("newest", [newest]), _div("earlier", earlier) if earlier else ""]) + note


def _pictures(run: Run) -> str:
    """Whatever else was drawn, by name: a PNG's name is its caption."""
    found = sorted((run.path / "pictures").glob("*.png"))
    return _div("pictures", [_figure(path, path.stem, path.stem) for path in found]) if found else ""


def _texts(run: Run) -> str:
    """Whatever was written in words, by name."""
    found = sorted((run.path / "texts").glob("*.txt"))
    return "\n".join(f"<h3>{_text(p.stem)}</h3>\n<pre>{_text(p.read_text(encoding='utf-8'))}</pre>" for p in found)


def _image(path: Path, step: int) -> str:
    return _figure(path, f"Grid of samples at step {step:,}", f"step {step:,}")


def _figure(path: Path, alt: str, caption: str) -> str:
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])  # of the PNG header
    kind = ' class="pixels"' if width < 400 else ""
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure><img{kind} src="{source}" width="{width}" height="{height}" alt="{_text(alt)}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _quality(quality: Any) -> str:
    """Every figure with its interval, every row with its n."""
    if not quality:
        return ""

    def cell(figure: Mapping[str, Any] | None) -> str:
        if figure is None or figure.get("value") is None:
            return "<td>–</td>"
        ends = figure.get("interval")
        interval = f"<small>{_number(ends[0], 3)} to {_number(ends[1], 3)}</small>" if ends else ""
        return f"<td>{_number(figure['value'])}{interval}</td>"

    sets = quality["rows"]
    head = "<td></td>" + "".join(
        f'<th scope="col">{_text(row["name"])}<small>{"n = " + _number(row["n"]) if row.get("n") else ""}</small></th>'
        for row in sets
    )
    rows = [
        f'<tr><th scope="row">{_text(name)}</th>{"".join(cell(row.get(name)) for row in sets)}</tr>'
        for name in quality["columns"]
    ]
    table = ['<table class="figures">', f"<thead><tr>{head}</tr></thead>", "<tbody>", *rows, "</tbody>", "</table>"]
    return _div("wide", table) + "\n".join(f"<p>{_text(note)}</p>" for note in quality.get("notes", []))


def _curves(entries: list[dict[str, Any]]) -> str:
    """One chart for each metric, its `val/` namesake in it; loss first."""
    names = {name for entry in entries for name in entry} - {"step"}
    series = {name: np.array([(e["step"], e[name]) for e in entries if name in e], dtype=float).T for name in names}
    figures = []
    for chart in sorted({name.removeprefix("val/") for name in names}, key=lambda name: (name != "loss", name)):
        drawn = {name: series[name] for name in (chart, f"val/{chart}") if name in names}
        figures.append(f"<figure><figcaption>{_caption(drawn)}</figcaption>{_chart(chart, drawn)}</figure>")
    long = any(steps.size >= _LONG for steps, _ in series.values())
    note = "<p>Faint: every value. Bold: their mean over a fiftieth of the run.</p>" if long else ""
    return _div("charts", figures) + note if figures else ""


def _caption(series: Mapping[str, np.ndarray]) -> str:
    """Name, last value, extent and the first step that went wrong."""
    lines = []
    for name, (steps, values) in series.items():
        finite = np.isfinite(values)
        extent = f"{_number(values[finite].min())} to {_number(values[finite].max())}" if finite.any() else ""
        broken = "" if finite.all() else f" <em>not finite at step {int(steps[~finite][0]):,}</em>"
        kind = "val" if name.startswith("val/") else "train"
        small = f"<small>{extent}{broken}</small>"
        lines.append(f'<span class="{kind}"><b>{_text(name)}</b> {_number(values[-1])} {small}</span>')
    return "\n".join(lines + ["<small>log scale</small>"] * _spans_decades(series))


def _spans_decades(series: Mapping[str, np.ndarray]) -> bool:
    finite = np.concatenate([values[np.isfinite(values)] for _, values in series.values()])
    return bool(finite.size and finite.min() > 0 and finite.max() >= 100 * finite.min())


def _chart(title: str, series: Mapping[str, np.ndarray]) -> str:
    """An SVG whose colours are the page's, so that it follows its light and dark."""
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator

    if not any(np.isfinite(values).any() for _, values in series.values()):
        return ""
    # Stand-ins, replaced at the end by variables of the style sheet.
    colours = {"#010101": "var(--muted)", "#020202": "var(--line)", "#030303": "var(--train)", "#040404": "var(--val)"}
    text, rule, train, val = colours
    log = _spans_decades(series)
    settings = {"svg.hashsalt": title, "svg.fonttype": "none", "text.parse_math": False, "font.size": 8.5}
    with style.context(["default", settings]):
        figure = Figure(figsize=(4.6, 2.4), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        for name, (steps, values) in series.items():
            colour = val if name.startswith("val/") else train
            few, mean = len(values) <= 20, _running_mean(values)
            axes.plot(steps, values, "o-" if few else "-", ms=3, lw=1.3, color=colour, alpha=1 if mean is None else 0.3)
            if mean is not None:
                axes.plot(steps, mean, lw=1.6, color=colour)
        axes.set_yscale("log" if log else "linear")
        axes.yaxis.set_major_locator(LogLocator(numticks=6) if log else MaxNLocator(5))
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}".replace("-", "−"))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.minorticks_off()
        axes.tick_params(length=0, labelcolor=text)
        axes.grid(axis="y", color=rule, lw=0.8)
        axes.spines[:].set_visible(False)
        axes.spines["bottom"].set(visible=True, color=rule)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"]))
    root, content = (
        re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.S).split("<svg", 1)[1].split(">", 1)
    )
    content = re.sub(r'(<g|<text) id="[^"]*"', r"\1", content).replace("xlink:href", "href")  # ids once in a page
    content = re.sub("|".join(colours), lambda match: colours[match[0]], content)
    label = _text(f"{' and '.join(series)} over steps{', log scale' if log else ''}")
    box = root.split('viewBox="')[1].split('"')[0]
    return f'<svg viewBox="{box}" role="img" aria-label="{label}">{content}'


def _running_mean(values: np.ndarray) -> np.ndarray | None:
    """The mean over a fiftieth of a long series around each point; None for a short one."""
    if len(values) < _LONG:
        return None
    window, finite = np.ones(len(values) // 50), np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0), window, mode="same")
    count = np.convolve(finite, window, mode="same")
    return np.divide(total, count, out=np.full(len(values), math.nan), where=count > 0)


def _table(content: Any) -> str:
    """Any nesting of names and values, one row each, indented by depth."""

    def rows(name: str, value: Any, depth: int) -> Iterator[str]:
        nested = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict | list) for v in value))
        if nested:
            items = value.items() if isinstance(value, dict) else ((f"{name}[{i}]", v) for i, v in enumerate(value))
            shown = value.get("$", "") if isinstance(value, dict) else ""
        else:
            items, shown = (), ", ".join(map(str, value)) if isinstance(value, list) else value
        if depth >= 0:
            kind = ' class="nested"' if nested else ""
            yield f'<tr{kind}><th scope="row" style="--depth: {depth}">{_text(name)}</th><td>{_text(shown)}</td></tr>'
        for key, item in items:
            if key != "$":
                yield from rows(key, item, depth + 1)

    found = list(rows("", content, -1)) if content else []
    return _div("wide", ['<table class="names">', "<tbody>", *found, "</tbody>", "</table>"]) if found else ""


_STYLE = """
:root { color-scheme: light dark; --page: #fcfcfb; --card: #fff; --ink: #1c1d20; --muted: #63666d; --line: #e4e4e1;
  --train: #1f5fbf; --val: #c4560c; --warn: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #131416; --card: #1b1d20; --ink: #e7e7e4; --muted: #9c9fa6;
  --line: #303338; --train: #82b1ff; --val: #ffab70; --warn: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 76rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
h1 { margin: 0 0 .4rem; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.6rem 0 .9rem; padding-bottom: .35rem; border-bottom: 1px solid var(--line); font-size: 1.15rem; }
header dl { display: flex; flex-wrap: wrap; gap: .2rem 1.8rem; margin: 0; }
header dl div { display: flex; gap: .5rem; } dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0; } figcaption, small, section > p { color: var(--muted); font-size: .84rem; }
section > p { margin: .5rem 0 0; max-width: 48rem; }
img { display: block; width: 100%; height: auto; border-radius: 4px; }
.pixels { image-rendering: pixelated; }
.samples { display: flex; flex-wrap: wrap; gap: 1.5rem; } .newest { flex: 1 1 20rem; max-width: 30rem; }
.earlier { flex: 1 1 20rem; display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: .8rem; }
.earlier { align-content: start; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
.charts figure { padding: .8rem; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); break-inside: avoid; display: flex; flex-direction: column; justify-content: space-between; }
.charts svg { display: block; width: 100%; height: auto; } svg text { font-family: inherit !important; }
.charts figcaption { display: flex; flex-wrap: wrap; gap: 0 1.4rem; margin-bottom: .5rem; color: var(--ink); }
.charts figcaption { font-size: .92rem; } .charts span small { margin-left: .3rem; }
.train b { color: var(--train); } .val b { color: var(--val); } em { color: var(--warn); }
@media (min-width: 60rem) { main { display: grid; grid-template-columns: 1fr 1fr; column-gap: 3rem; }
  section { grid-column: 1 / -1; min-width: 0; } #configuration { grid-column: 1; } #environment { grid-column: 2; } }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .3rem 1.3rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
.names th { padding-left: calc(var(--depth) * 1.2rem); font-weight: 400; color: var(--muted); white-space: nowrap; }
.names td { overflow-wrap: anywhere; } .nested th, .nested td { color: var(--ink); font-weight: 600; }
.figures td, .figures th:not(:first-child) { text-align: right; } .figures td { white-space: nowrap; }
.figures small { display: block; font-weight: 400; } .figures tbody td:nth-child(2) { font-weight: 650; }
.figures th { font-weight: inherit; } thead th { color: var(--muted); }
pre { overflow-x: auto; margin: 0; padding: 1rem; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); font: .8rem/1.45 ui-monospace, monospace; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } h2 { break-after: avoid; }
  pre { white-space: pre-wrap; } .wide { overflow: visible; } }
"""
