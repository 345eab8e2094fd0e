"""Confidence intervals: a metric of two sets of samples with its confidence interval.

    bootstrap(frechet, a, b, bounds=(0, math.inf))      # any metric, from half samples
    proportion(0.98, 898)                               # a share of independent trials

[McCarthy69] Pseudo-replication: half samples, Rev. Int. Statist. Inst. 37:239.
[Efron81] Efron and Stein, The jackknife estimate of variance, Ann. Statist. 9:586.
[Wilson27] Probable inference, the law of succession, and statistical inference, J. Am. Statist. Assoc. 22:209.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

import torch
from jaxtyping import Float
from torch import Tensor

Metric = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Estimate:
    """A metric, its confidence interval, and the smaller sample size, which says how large the bias can be."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] at n={self.n}"

    @classmethod
    def of(
        cls,
        value: float,
        differences: Sequence[float],
        n: int,
        *,
        level: float = 0.95,
        bounds: tuple[int | float, int | float] = (-math.inf, math.inf),
    ) -> "Estimate":
        """The interval that half the differences between complementary half samples give, cut at `bounds`."""
        error = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(fmean(d**2 for d in differences))
        return cls(value, float(max(value - error, bounds[0])), float(min(value + error, bounds[1])), n)

    def figure(self, unit: str = "1") -> dict[str, float | int | str | list[float]]:
        """The entry of a row of results; unit 1 is a pure number."""
        return {"value": self.value, "interval": [self.low, self.high], "n": self.n, "unit": unit}


def bootstrap(
    metric: Metric,
    a: Float[Tensor, "n ..."],
    b: Float[Tensor, "m ..."],
    *,
    draws: int = 200,
    level: float = 0.95,
    bounds: tuple[int | float, int | float] = (-math.inf, math.inf),
    generator: torch.Generator | None = None,
) -> Estimate:
    """Interval for the expectation of `metric` at these sample sizes, from complementary half samples ([McCarthy69]).

    Var(metric) = E[((metric(half) - metric(other half)) / 2)^2], the halves of both sets drawn without replacement.
    Resampling with replacement fails here: repeated points raise every distance and are one another's neighbours.
    Halves hold no point twice, and the bias common to both cancels. The variance is exact for means and errs to the
    wide side for other smooth metrics ([Efron81]). Measured at n = 100, an interval of 95 % covers 99 % for `kid` and
    `frechet` of one distribution and 93 to 95 % of two, but about 90 % for the neighbour counts of `prdc`.

    Args:
        metric: called 2 `draws` times on half of each set; `lambda a, b: prdc(a, b).recall` for a part of a record.
        bounds: the least and largest value that the metric can have, (0, 1) for a share; the interval ends there.
    """
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"need draws >= 1 and 0 < level < 1, got draws={draws} and level={level}")

    def halves(x: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.randperm(len(x), device=generator.device if generator else None, generator=generator).to(x.device)
        return x[order[: len(x) // 2]], x[order[len(x) // 2 :][: len(x) // 2]]

    def half_difference() -> float:
        (a1, a2), (b1, b2) = halves(a), halves(b)
        return (metric(a1, b1) - metric(a2, b2)) / 2

    differences = [half_difference() for _ in range(draws)]
    return Estimate.of(metric(a, b), differences, min(len(a), len(b)), level=level, bounds=bounds)


def mean(x: Float[Tensor, "n"], level: float = 0.95) -> Estimate:
    """The mean of `n` independent values with its normal interval."""
    value, error = x.double().mean().item(), NormalDist().inv_cdf((1 + level) / 2) * x.double().std().item()
    return Estimate(value, value - error / math.sqrt(len(x)), value + error / math.sqrt(len(x)), len(x))


def proportion(share: float, n: int, level: float = 0.95) -> Estimate:
    """A share of `n` independent trials with its score interval ([Wilson27] eq. 8), which stays within 0 and 1.

    >>> print(proportion(0.0, 10))
    0 [0, 0.2775] at n=10
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((x / (1 + z**2 / n)) for x in (centre - half, centre + half))
    return Estimate(share, max(0.0, min(low, share)), min(1.0, max(high, share)), n)  # 0 and 1 but for rounding
