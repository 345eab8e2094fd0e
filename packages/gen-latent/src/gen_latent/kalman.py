"""Gaussian filtering and smoothing: Kalman, extended and unscented, over batches of ragged sequences with gaps.

A belief is a Gaussian of the state. A rule turns a belief and the time into an `Affine`: y | x ~ N(W x + b, C).
The Kalman filter is exact for affine rules; the extended and the unscented one differ only in how they make a function
affine around the belief, so there is one filter and one smoother:

    filtered = kalman_filter(data, start, affine(F, Q), affine(H, R))
    filtered = kalman_filter(data, start, taylor(f, Q), unscented(h, R))
    smoothed = rts_smoother(filtered)

[Kalman60] A new approach to linear filtering and prediction problems.
[Rauch65] Maximum likelihood estimates of linear dynamic systems.
[Julier04] Unscented filtering and nonlinear estimation, Proceedings of the IEEE 92(3).
[Sarkka13] Bayesian filtering and smoothing, Cambridge University Press.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gen_latent.distributions import LOG_2PI
from gen_latent.regression import cholesky, right_divide, symmetric
from gen_latent.sequences import Sequences, pad_sequences


class Belief(NamedTuple):
    """N(mean, cov) of a state."""

    mean: Tensor
    """(..., n)"""
    cov: Tensor
    """(..., n, n)"""


class Affine(NamedTuple):
    """y | x ~ N(weight x + offset, cov)."""

    weight: Tensor
    """(..., p, n)"""
    offset: Tensor
    """(..., p)"""
    cov: Tensor
    """(..., p, p)"""

    def __call__(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... p"]:
        return (self.weight @ x[..., None])[..., 0] + self.offset


Rule = Callable[[Belief, int], Affine]
"""(belief of the input, time of the input) -> the affine map to use."""


class Filtered(NamedTuple):
    """What `kalman_filter` returns; beyond a sequence's end its last belief.

    Frames of NaN at the end of a sequence give forecasts.
    """

    mean: Tensor
    """(b, t, n): E[x_t | y_1..y_t]."""
    cov: Tensor
    """(b, t, n, n)"""
    predicted: Belief
    """(b, t, n) and (b, t, n, n): x_t given y_1..y_(t-1)."""
    transitions: Affine
    """From each time to the next, (b, t - 1, ...)."""
    log_prob: Tensor
    """(b, t): ln p(y_t | y_1..y_(t-1)), 0 where nothing was observed."""
    inside: Tensor
    """(b, t): whether a frame belongs to its sequence."""

    @property
    def log_likelihood(self) -> Float[Tensor, "b"]:
        """ln p(y_1..y_t) of each sequence, in nats."""
        return self.log_prob.sum(1)


class Smoothed(NamedTuple):
    """What `rts_smoother` returns."""

    mean: Tensor
    """(b, t, n): E[x_t | all y]."""
    cov: Tensor
    """(b, t, n, n)"""
    cross_cov: Tensor
    """(b, t - 1, n, n): Cov(x_(t+1), x_t | all y); the moment E[x_(t+1) x_t'] has the means' product added."""


def predict(s: Belief, step: Affine) -> Belief:
    """Push a belief through an affine map ([Sarkka13] eq. 4.20)."""
    return Belief(step(s.mean), symmetric(step.weight @ s.cov @ step.weight.mT + step.cov))


def update(
    s: Belief, y: Float[Tensor, "... p"], sensor: Affine, seen: Bool[Tensor, "... p"] | None = None
) -> tuple[Belief, Float[Tensor, "..."]]:
    """Condition a belief on what is seen of `y`, and ln p(y) ([Sarkka13] eq. 4.21, covariance in Joseph's form).

    Args:
        seen: which values of `y` were observed; all if None.
    """
    h, r, v = sensor.weight, sensor.cov, y - sensor(s.mean)
    if seen is not None:  # an unseen value is one of no weight, of variance 1, that meets its prediction
        both = seen[..., :, None] & seen[..., None, :]
        h, v = h * seen[..., None], v.where(seen, 0.0)
        r = r.where(both, torch.eye(r.shape[-1]).to(r))
    root = cholesky(symmetric(h @ s.cov @ h.mT + r), "the covariance of a predicted observation")
    k = torch.cholesky_solve(h @ s.cov, root).mT
    left = torch.eye(s.cov.shape[-1]).to(s.cov) - k @ h
    cov = symmetric(left @ s.cov @ left.mT + k @ r @ k.mT)
    z = torch.linalg.solve_triangular(root, v[..., None], upper=False)[..., 0]
    count = seen.sum(-1).to(z) if seen is not None else y.shape[-1]
    log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return Belief(s.mean + (k @ v[..., None])[..., 0], cov), -0.5 * (z.square().sum(-1) + log_det + count * LOG_2PI)


def kalman_filter(data: Any, start: Belief, transition: Rule, sensor: Rule) -> Filtered:
    """Filter a batch of sequences ([Kalman60]); `start` is the belief of the first state before its observation.

    Args:
        data: as `pad_sequences` takes; NaN is a missing value, in any frame and dimension.

    Raises:
        ValueError: if the covariance of a predicted observation is singular.
    """
    batch = pad_sequences(data)
    gaps, going = _gaps(batch), _going(batch)
    y = batch.x.nan_to_num()
    before, after, steps, log_probs = [], [], [], []
    for t in range(y.shape[1]):
        if t:
            steps.append(transition(after[-1], t - 1))
        before.append(_hold(predict(after[-1], steps[-1]), after[-1], going[t]) if t else start)
        belief, log_prob = update(before[-1], y[:, t], sensor(before[-1], t), gaps[t])
        after.append(belief)
        log_probs.append(log_prob)
    b = len(y)
    mean, cov = (_stack(each, b) for each in zip(*after, strict=True))
    predicted = Belief(*(_stack(each, b) for each in zip(*before, strict=True)))
    n = mean.shape[-1]
    empty = Affine(mean.new_zeros(n, n), mean.new_zeros(n), mean.new_zeros(n, n))
    parts = zip(*(steps or [empty]), strict=True)
    ranks = (3, 2, 3)
    transitions = Affine(*(_stack(each, b, rank)[:, : len(steps)] for each, rank in zip(parts, ranks, strict=True)))
    return Filtered(mean, cov, predicted, transitions, torch.stack(log_probs, 1), batch.inside)


def _gaps(batch: Sequences) -> list[Tensor | None]:
    """Per frame: None if all is seen, else a mask; of one row if all sequences have the same gaps.

    With one row the covariances, which depend on the gaps but not on the values, are computed once for all sequences.
    """
    seen = batch.seen
    if (seen == seen[:1]).all():
        seen = seen[:1]
    whole = seen.flatten(2).all(2).all(0).tolist()
    return [None if complete else seen[:, t] for t, complete in enumerate(whole)]


def _going(batch: Sequences) -> list[Tensor | None]:
    """Per frame: which sequences have one, None if all have."""
    inside = batch.inside
    return [None if whole else inside[:, t] for t, whole in enumerate(inside.all(0).tolist())]


def _hold(new: Belief, old: Belief, going: Tensor | None) -> Belief:
    """Let only the sequences that go on move: an unstable model would overflow in the others."""
    if going is None:
        return new
    return Belief(new.mean.where(going[:, None], old.mean), new.cov.where(going[:, None, None], old.cov))


def _stack(each: Any, b: int, rank: int | None = None) -> Tensor:
    """(b, t, ...) of what each time gave, with or without the dimension of the batch."""
    rank = rank or max(x.ndim for x in each)
    full = [x.expand(b, *x.shape[x.ndim - rank + 1 :]) for x in each]
    return torch.stack(full, 1)


def rts_smoother(filtered: Filtered) -> Smoothed:
    """Condition each state on the whole sequence ([Rauch65]; [Sarkka13] eq. 8.6, covariance in Joseph's form)."""
    gain, given = backward_rules(filtered)
    ends = ~filtered.inside[:, 1:]
    mean, cov = filtered.mean[:, -1], filtered.cov[:, -1]
    means, covs = [mean], [cov]
    for t in reversed(range(gain.shape[1])):
        m = given.mean[:, t] + (gain[:, t] @ mean[..., None])[..., 0]
        c = given.cov[:, t] + gain[:, t] @ cov @ gain[:, t].mT
        last = ends[:, t]  # the next frame is none of this sequence
        mean = torch.where(last[:, None], filtered.mean[:, t], m)
        cov = torch.where(last[:, None, None], filtered.cov[:, t], symmetric(c))
        means.append(mean)
        covs.append(cov)
    mean, cov = torch.stack(means[::-1], 1), torch.stack(covs[::-1], 1)
    return Smoothed(mean, cov, cov[:, 1:] @ gain.mT)


def backward_rules(filtered: Filtered) -> tuple[Float[Tensor, "b t n n"], Belief]:
    """x_t | x_(t+1), y_1..y_t ~ N(gain x_(t+1) + mean, cov), for all t but the last at once."""
    p, step = filtered.cov[:, :-1], filtered.transitions
    gain = right_divide(p @ step.weight.mT, filtered.predicted.cov[:, 1:])
    left = torch.eye(p.shape[-1]).to(p) - gain @ step.weight
    mean = filtered.mean[:, :-1] - (gain @ filtered.predicted.mean[:, 1:, :, None])[..., 0]
    return gain, Belief(mean, symmetric(left @ p @ left.mT + gain @ step.cov @ gain.mT))


def affine(weight: Float[Tensor, "p n"], cov: Float[Tensor, "p p"], offset: Tensor | None = None) -> Rule:
    """The exact rule of a linear model; an offset (t, p) changes with time."""
    b = weight.new_zeros(weight.shape[0]) if offset is None else offset
    return lambda s, t: Affine(weight, b[t] if b.ndim == 2 else b, cov)


def taylor(f: Callable[[Tensor], Tensor], cov: Float[Tensor, "p p"]) -> Rule:
    """Linearise `f: (b, n) -> (b, p)` at the mean: the extended Kalman filter ([Sarkka13] eq. 5.26)."""
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: f(x[None])[0]))

    def rule(s: Belief, t: int) -> Affine:
        x = torch.atleast_2d(s.mean)
        weight = jacobian(x)
        return Affine(weight, f(x) - (weight @ x[..., None])[..., 0], cov)

    return rule


def unscented(
    f: Callable[[Tensor], Tensor],
    cov: Float[Tensor, "p p"],
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    kappa: float | None = None,
) -> Rule:
    """Linearise `f: (b, n) -> (b, p)` by regression on sigma points: the unscented Kalman filter ([Julier04]).

    Args:
        alpha, beta: spread of the points, and weight of the centre in the covariance.
        kappa: 3 - n if None.
    """

    def rule(s: Belief, t: int) -> Affine:
        x = torch.atleast_2d(s.mean)
        n = x.shape[-1]
        c = alpha**2 * (n + (3.0 - n if kappa is None else kappa))  # [Julier04] writes n + lambda
        root = cholesky(s.cov, "the covariance of a state").expand(len(x), n, n)
        reach = c**0.5 * root.mT  # one row per axis
        points = torch.cat([x[:, None], x[:, None] + reach, x[:, None] - reach], 1)
        y = f(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        w = torch.full((2 * n + 1,), 0.5 / c, dtype=x.dtype, device=x.device)
        w[0] = 1 - n / c
        mean = w @ y
        w[0] += 1 - alpha**2 + beta
        spread = (y - mean[:, None]).mT @ (w[:, None] * (y - mean[:, None]))
        slope = ((y[:, 1 : n + 1] - y[:, n + 1 :]) / (2 * c**0.5)).mT  # per unit along each axis
        weight = torch.linalg.solve_triangular(root, slope, upper=False, left=False)
        return Affine(weight, mean - (weight @ x[..., None])[..., 0], symmetric(spread - slope @ slope.mT) + cov)

    return rule


def stack(*sensors: Affine) -> Affine:
    """Several sensors with independent noise as one, whose observations are put one after the other."""
    return Affine(
        torch.cat([s.weight for s in sensors], -2),
        torch.cat([s.offset for s in sensors], -1),
        torch.block_diag(*[s.cov for s in sensors]),
    )


def product(*beliefs: Belief) -> Belief:
    """Normalised product of Gaussians: precisions add, and means are weighted by them."""
    eye = torch.eye(beliefs[0].cov.shape[-1]).to(beliefs[0].cov)
    precisions = [torch.cholesky_solve(eye, cholesky(s.cov, "the covariance of a factor")) for s in beliefs]
    cov = torch.linalg.inv(symmetric(torch.stack(precisions).sum(0)))
    weighted = sum(p @ s.mean[..., None] for p, s in zip(precisions, beliefs, strict=True))
    return Belief((cov @ weighted)[..., 0], symmetric(cov))
