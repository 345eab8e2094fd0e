"""Curves over steps as inline SVG, in the colours of the page that holds them."""

import html
import io
import math
import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

__all__ = ["LONG", "spans_decades", "svg"]

Series = Mapping[str, Float[np.ndarray, "2 n"]]
"""Steps and values by the name of the metric; one that begins with val/ has the second colour."""

LONG = 200  # values of a curve that is drawn with its running mean
COLOURS = {  # stand-ins, replaced at the end by variables of the style sheet
    "#010101": "var(--muted)",
    "#020202": "var(--line)",
    "#030303": "var(--train)",
    "#040404": "var(--val)",
}


def svg(series: Series) -> str:
    """One chart of some curves; empty if no value is finite."""
    from matplotlib import style
    from matplotlib.figure import Figure

    if not any(np.isfinite(values).any() for _, values in series.values()):
        return ""
    settings = {"svg.hashsalt": " ".join(series), "svg.fonttype": "none", "text.parse_math": False, "font.size": 8.5}
    with style.context(["default", settings]):
        figure = Figure(figsize=(4.6, 2.4), layout="constrained", facecolor="none")
        _draw(figure.add_subplot(facecolor="none"), series)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"]))
    label = f"{' and '.join(series)} over steps{', log scale' if spans_decades(series) else ''}"
    return _inline(buffer.getvalue(), label)


def spans_decades(series: Series) -> bool:
    """True if the values are positive and the largest is 100 times the smallest: they are drawn on a log scale."""
    finite = np.concatenate([values[np.isfinite(values)] for _, values in series.values()])
    return bool(finite.size and finite.min() > 0 and finite.max() >= 100 * finite.min())


def _draw(axes, series: Series) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    text, rule, train, val = COLOURS
    log = spans_decades(series)
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


def _inline(drawn: str, label: str) -> str:
    """The <svg> element of matplotlib's document, without metadata and ids, in the page's colours."""
    root, content = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.S).split("<svg", 1)[1].split(">", 1)
    content = re.sub(r'(<g|<text) id="[^"]*"', r"\1", content).replace("xlink:href", "href")
    content = re.sub("|".join(COLOURS), lambda match: COLOURS[match[0]], content)
    box = root.split('viewBox="')[1].split('"')[0]
    return f'<svg viewBox="{box}" role="img" aria-label="{html.escape(label)}">{content}'


def _running_mean(values: np.ndarray) -> np.ndarray | None:
    """The mean over a fiftieth of a long series around each point; None for a short one."""
    if len(values) < LONG:
        return None
    window, finite = np.ones(len(values) // 50), np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0), window, mode="same")
    count = np.convolve(finite, window, mode="same")
    return np.divide(total, count, out=np.full(len(values), math.nan), where=count > 0)
