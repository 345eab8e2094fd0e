"""Learning-rate schedules: functions from the step to a factor of the optimiser's own rate.

A schedule has no state, so there is nothing to save, wrap or step twice:

    Trainer(task, schedule=warmup_cosine(warmup=100, total=10_000))
"""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant() -> Schedule:
    """1 at every step."""
    return lambda step: 1.0


def warmup_cosine(warmup: int, total: int, floor: float = 0.0) -> Schedule:
    """Linear from 1/warmup to 1, then half a cosine to `floor` at `total` ([Loshchilov17] eq. 5), constant after.

    [Loshchilov17] SGDR: stochastic gradient descent with warm restarts, arXiv:1608.03983.

    >>> f = warmup_cosine(2, 6)
    >>> [round(f(s), 3) for s in (0, 1, 2, 4, 6, 7)]
    [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    if not 0 <= warmup < total:
        raise ValueError(f"warmup_cosine needs 0 <= warmup < total, got {warmup} and {total}")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / (total - warmup))
        return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2

    return factor


def wsd(warmup: int, total: int, cooldown: int) -> Schedule:
    """Warm-up, stable, decay: linear to 1, constant, then linear to 0 over the last `cooldown` steps.

    [Hu24] MiniCPM, arXiv:2404.06395, section 4; the linear cool-down is [Hagele24], arXiv:2405.18392.

    >>> f = wsd(2, 10, 4)
    >>> [f(s) for s in (0, 1, 5, 6, 8, 10, 11)]
    [0.5, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    if min(warmup, cooldown) < 0 or warmup + cooldown > total:
        raise ValueError(f"wsd needs warmup + cooldown <= total, got {warmup} + {cooldown} and {total}")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, min(1.0, (total - step) / cooldown)) if cooldown else 1.0

    return factor


def linear(warmup: int, total: int) -> Schedule:
    """Linear to 1 over `warmup` steps, then linear to 0 at `total`."""
    return wsd(warmup, total, total - warmup)


def inverse_sqrt(warmup: int) -> Schedule:
    """Linear to 1, then sqrt(warmup / step) ([Vaswani17] section 5.3, normalised to a peak of 1).

    >>> f = inverse_sqrt(4)
    >>> [f(s) for s in (0, 3, 15)]
    [0.25, 1.0, 0.5]
    """
    if warmup < 1:
        raise ValueError(f"inverse_sqrt needs a warm-up of at least 1 step, got {warmup}")
    return lambda step: min((step + 1) / warmup, math.sqrt(warmup / (step + 1)))
