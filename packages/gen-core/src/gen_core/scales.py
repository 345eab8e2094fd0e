"""Scales of figures: which direction is better, which values are possible, and how they are printed.

scale("val/recall")  # Scale(better="higher is better", low=0.0, high=1.0)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, inf, log10
from typing import Any

__all__ = ["Scale", "scale", "text"]


@dataclass(frozen=True)
class Scale:
    """Direction and range of a figure.

    Args:
        better: which values are better, in words; empty where that is not known.
        low, high: smallest and largest possible value.
    """

    better: str = ""
    low: float = -inf
    high: float = inf

    def clip(self, value: int | float) -> float:
        """The possible value nearest to an end of an interval.

        >>> SHARE.clip(-0.006), SHARE.clip(0.5)
        (0.0, 0.5)
        """
        return float(min(max(value, self.low), self.high))


LOWER, HIGHER = Scale("lower is better"), Scale("higher is better")  # of any sign
COST, RATE = Scale("lower is better", 0.0), Scale("higher is better", 0.0)
SHARE = Scale("higher is better", 0.0, 1.0)
TEST = Scale("0.5 is best", 0.0, 1.0)  # how well samples are told from data
COPYING = Scale("1 is best", 0.0)  # ratio of two distances
SCALES = {
    **dict.fromkeys(("loss", "kid", "nll", "bits/dim", "mse"), LOWER),  # densities make negative bits; KID is unbiased
    **dict.fromkeys(("frechet", "frechet-features", "evaluations", "perplexity"), COST),
    **dict.fromkeys(("bits per byte", "bits per character", "nats per token"), COST),
    **dict.fromkeys(("joules", "joules_per_sample", "J/sample", "carbon_g"), COST),
    **dict.fromkeys(("density", "tokens_per_second", "samples_per_second", "tflops"), RATE),
    **dict.fromkeys(("precision", "recall", "coverage", "label", "f1", "accuracy"), SHARE),
    **dict.fromkeys(("two-sample", "nearest-samples", "nearest-held-out", "c2st"), TEST),
    **dict.fromkeys(("memorisation",), COPYING),
}


def scale(name: str) -> Scale:
    """The scale of a metric by its name or the last part of it; an empty one for an unknown metric."""
    return SCALES.get(name) or SCALES.get(name.rsplit("/", 1)[-1], Scale())


def text(entry: Any, digits: int = 3) -> str:
    """An entry of a row of results for a reader; its interval decides the decimals: two digits of its width.

    >>> text({"value": 0.9866, "interval": [0.9768, 1.0]}), text({"value": 2.019, "interval": [2.004, 2.034]})
    ('0.987 (0.977–1)', '2.019 (2.004–2.034)')
    >>> text(12), text(0.12345), text(None)
    ('12', '0.123', '–')
    """
    if not isinstance(entry, Mapping):
        return "–" if entry is None else f"{entry:.{digits}g}" if isinstance(entry, float) else str(entry)
    if not (ends := entry.get("interval")) or not 0 < (width := float(ends[1]) - float(ends[0])) < inf:
        return text(entry["value"], digits) + (
            f" ({'–'.join(text(float(end), digits) for end in ends)})" if ends else ""
        )
    decimals = max(0, 1 - floor(log10(width * (1 + 1e-9))))  # of .1 as of .1 but for rounding
    shown = (
        str(int(x)) if x in (0, 1) else f"{x:.{decimals}f}" if decimals < 7 else f"{x:.2g}"
        for x in (entry["value"], *ends)
    )
    return "{} ({}–{})".format(*shown)
