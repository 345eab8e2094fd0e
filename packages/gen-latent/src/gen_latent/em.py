"""Expectation maximisation, one visible step at a time.

    for step in em_steps(model, data):            # without end; stop when you like
        print(step.log_likelihood, step.q, step.q_new)
    fit = fit_em(model, data)                         # until the likelihood rises by less than a tolerance
    fit.model, fit.log_likelihoods, fit.smallest_rise

A step infers the hidden variables with the current parameters (E-step), which gives the expected complete-data
log-likelihood Q as a function of new parameters, and takes the parameters that maximise Q (M-step). The theorem:
ln p(data) rises by at least as much as Q, because ln p = Q + the entropy of the posterior, and the KL divergence
between the two posteriors is not negative. So a fall is an error of the model's code or of its arithmetic, and raises.

[Dempster77] Maximum likelihood from incomplete data via the EM algorithm, JRSS B 39(1).
[Neal98] A view of the EM algorithm that justifies incremental, sparse, and other variants.
"""

import math
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

RELATIVE_ROUNDING = 1e-9
"""A fall of less than this share of the log-likelihood is rounding."""


class Statistics(Protocol):
    """Posterior expectations that an M-step needs."""

    @property
    def log_likelihood(self) -> Tensor: ...  # ln p(data), one number


@runtime_checkable
class EMModel(Protocol):
    """A model with hidden variables whose E- and M-step are exact."""

    def expect(self, data: Any) -> Any: ...  # E-step: -> Statistics

    def expected_log_prob(self, statistics: Any) -> Tensor: ...  # Q of this model's parameters, one number

    def maximise(self, statistics: Any) -> "EMModel": ...  # M-step: the model whose Q is largest


class LikelihoodFell(ValueError):
    """A step of EM lowered what it must raise, or reached a value that is not finite."""


class Step(NamedTuple):
    """One iteration: the model before it, and what its two halves computed."""

    model: Any
    log_likelihood: float
    """ln p(data) under `model`, in nats."""
    q: float
    """Q(model; model): expected complete-data log-likelihood before the M-step."""
    q_new: float
    """Q(new model; model): after the M-step; at least `q`."""

    @property
    def entropy(self) -> float:
        """Entropy of the posterior of the hidden variables: ln p(data) - Q(model; model)."""
        return self.log_likelihood - self.q


class Fit(NamedTuple):
    """What `fit_em` returns."""

    model: Any
    """The model after the last step."""
    steps: tuple[Step, ...]
    log_likelihood: float
    """ln p(data) under `model`, in nats."""
    converged: bool
    """Whether the last step raised the log-likelihood by less than the tolerance."""

    @property
    def log_likelihoods(self) -> list[float]:
        """Before the first step, and after each."""
        return [step.log_likelihood for step in self.steps] + [self.log_likelihood]

    @property
    def smallest_rise(self) -> float:
        """The least that one step added to the log-likelihood, in nats; not negative but for rounding."""
        return min((b - a for a, b in pairwise(self.log_likelihoods)), default=0.0)


def em_steps(model: EMModel, data: Any) -> Iterator[Step]:
    """Iterate EM from `model`, without end.

    Raises:
        LikelihoodFell: if Q or the log-likelihood falls by more than rounding, or is not finite.
    """
    before = -math.inf
    while True:
        statistics = model.expect(data)
        log_likelihood = float(statistics.log_likelihood)
        _must_rise("the log-likelihood", before, log_likelihood)
        new = model.maximise(statistics)
        q, q_new = float(model.expected_log_prob(statistics)), float(new.expected_log_prob(statistics))
        _must_rise("Q, the expected complete-data log-likelihood,", q, q_new)
        yield Step(model, log_likelihood, q, q_new)
        model, before = new, log_likelihood


def fit_em(model: EMModel, data: Any, *, steps: int = 100, tolerance: float = 1e-6) -> Fit:
    """Fit `model` by at most `steps` iterations of EM ([Dempster77]).

    Args:
        tolerance: stop when a step raises the log-likelihood of all data by less, in nats; 0 takes all steps.

    Raises:
        LikelihoodFell: as `em_steps`.
    """
    if steps < 1 or tolerance < 0:
        raise ValueError(f"fit_em takes at least one step and a tolerance of at least 0, got {steps} and {tolerance}")
    done: list[Step] = []
    for step in islice(em_steps(model, data), steps + 1):
        if done and (len(done) == steps or step.log_likelihood - done[-1].log_likelihood < tolerance):
            return Fit(step.model, tuple(done), step.log_likelihood, _small(done[-1], step, tolerance))
        done.append(step)
    raise AssertionError("em_steps has no end")


def _small(last: Step, step: Step, tolerance: float) -> bool:
    return step.log_likelihood - last.log_likelihood < tolerance


def _must_rise(what: str, before: float, after: float) -> None:
    if not math.isfinite(after):
        raise LikelihoodFell(
            f"{what} is {after}: a variance went to 0 or a probability to nothing; give the model a larger floor"
        )
    if after < before - RELATIVE_ROUNDING * max(1.0, abs(before)):
        raise LikelihoodFell(
            f"{what} fell from {before:.12g} to {after:.12g}, which exact EM never does: "
            "the E-step or the M-step is wrong, or a covariance is too close to singular (raise its floor)"
        )
