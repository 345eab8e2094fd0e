"""What the figures of a run mean: which direction is better, and which values are possible.

scale("val/recall")  # Scale(better="higher is better", low=0.0, high=1.0)
"""

from dataclasses import dataclass
from math import inf

__all__ = ["Scale", "scale"]


@dataclass(frozen=True)
class Scale:
    """How to read a figure.

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
