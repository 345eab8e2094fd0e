"""Linear-Gaussian state-space model: exact inference and exact EM in float64, for ragged batches with missing values.

    x_1 ~ N(m, P),  x_(t+1) = F x_t + b + N(0, Q),  y_t = H x_t + d + N(0, R)

    model = LinearGaussianSSM(m, P, F, Q, H, R)
    model.filter(data).log_likelihood, model.smooth(data).mean
    fit = fit_em(model, data)                                  # learns all but what `fixed` names

[Shumway82] An approach to time series smoothing and forecasting using the EM algorithm.
[Ghahramani96] Parameter estimation for linear dynamical systems.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_latent.distributions import randn
from gen_latent.kalman import Belief, Filtered, Smoothed, affine, kalman_filter, rts_smoother
from gen_latent.regression import Sums, at_least, right_divide
from gen_latent.sequences import Sequences, pad_sequences

ZERO = torch.zeros(())
PARAMETERS = ("m", "P", "F", "b", "Q", "H", "d", "R")


class SSMStatistics(NamedTuple):
    """Expected products of three regressions: the first state on 1, the next state and the observation on [x, 1]."""

    initial: Sums
    transition: Sums
    observation: Sums
    log_likelihood: Tensor
    """ln p(data)."""


@dataclass(frozen=True)
class LinearGaussianSSM:
    """Parameters of the model, as float64 tensors.

    Args:
        m, P: mean (n,) and covariance (n, n) of the first state, before its observation.
        F, Q: transition (n, n) and covariance of its noise.
        H, R: observation matrix (p, n) and covariance of its noise (p, p).
        b, d: offsets, (n,) and (p,), or known inputs that change with time, (t - 1, n) and (t, p); 0 unless given.
        fixed: names of parameters that EM does not change.
        floor: the smallest variance in any direction that EM gives to P, Q and R.

    Raises:
        ValueError: if shapes do not fit, `fixed` names no parameter, or a covariance is not one.
    """

    m: Tensor
    P: Tensor
    F: Tensor
    Q: Tensor
    H: Tensor
    R: Tensor
    b: Tensor = ZERO
    d: Tensor = ZERO
    fixed: frozenset[str] = frozenset()
    floor: float = 0.0

    def __post_init__(self):
        for name in PARAMETERS:
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name)).double())
        n, p = len(self.m), len(self.H)
        for name, size in (("b", n), ("d", p)):
            if getattr(self, name).ndim == 0:
                object.__setattr__(self, name, getattr(self, name).expand(size))
        shapes = {"m": (n,), "P": (n, n), "F": (n, n), "b": (n,), "Q": (n, n), "H": (p, n), "d": (p,), "R": (p, p)}
        for name, shape in shapes.items():
            got = tuple(getattr(self, name).shape)
            if got[-len(shape) :] != shape or len(got) > len(shape) + (name in "bd"):
                raise ValueError(f"{name} has the shape {got}; {n} states and {p} observations need {shape}")
        for name in ("P", "Q", "R"):
            c = getattr(self, name)
            if not torch.allclose(c, c.mT) or torch.linalg.eigvalsh(c)[0] < -1e-9 * c.abs().max():
                raise ValueError(f"{name} must be a covariance: symmetric, with no negative eigenvalue")
        changing = {name for name in "bd" if getattr(self, name).ndim == 2}
        object.__setattr__(self, "fixed", frozenset(self.fixed) | changing)
        if unknown := self.fixed - set(PARAMETERS):
            raise ValueError(f"fixed names {sorted(unknown)}, which are none of {', '.join(PARAMETERS)}")

    def filter(self, data: Any) -> Filtered:
        """Condition every state on the observations up to its own time.

        Raises:
            ValueError: if the data have other dimensions than the model, or more times than its known inputs.
        """
        batch = pad_sequences(data)
        t, p = batch.x.shape[1:]
        if p != len(self.H):
            raise ValueError(f"the data are observations of {p} dimensions, and the model has {len(self.H)}")
        for name, value, rows in (("b", self.b, t - 1), ("d", self.d, t)):
            if value.ndim == 2 and len(value) < rows:
                raise ValueError(f"{name} has {len(value)} rows, and sequences of {t} observations need {rows}")
        return kalman_filter(batch, self._start, affine(self.F, self.Q, self.b), affine(self.H, self.R, self.d))

    def smooth(self, data: Any) -> Smoothed:
        """Condition every state on all observations of its sequence."""
        return rts_smoother(self.filter(data))

    def log_prob(self, data: Any) -> Float[Tensor, "b"]:
        """ln p of each sequence, in nats; differentiable in the parameters."""
        return self.filter(data).log_likelihood

    def sample(self, n: int, steps: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """States (n, steps, states) and observations (n, steps, observations)."""
        x = [_draw(self._start, n, generator)]
        for t in range(steps - 1):
            x.append(affine(self.F, self.Q, self.b)(self._start, t)(x[-1]) + _noise(self.Q, n, generator))
        sensor = affine(self.H, self.R, self.d)
        y = [sensor(self._start, t)(each) + _noise(self.R, n, generator) for t, each in enumerate(x)]
        return torch.stack(x, 1), torch.stack(y, 1)

    @property
    def _start(self) -> Belief:
        return Belief(self.m[None], self.P[None])

    # EM

    def expect(self, data: Any) -> SSMStatistics:
        """Expected products of states and observations, given all observations ([Shumway82] eq. 9 to 11)."""
        batch = pad_sequences(data)
        filtered = self.filter(batch)
        mean, cov, cross = rts_smoother(filtered)
        one, inside = torch.ones_like(mean[..., :1]), batch.inside
        x, xx = torch.cat([mean, one], -1), _pad(cov)
        first = Sums(one.new_tensor(len(mean)), *_products(mean[:, 0], one[:, 0], cov[:, 0]))
        r = mean[:, 1:] - _inputs(self.b, mean.shape[1] - 1)
        step = _sums(r, cov[:, 1:], x[:, :-1], xx[:, :-1], _pad_right(cross), inside[:, 1:])
        y, y_cov, yx_cov = self._complete(batch, mean, cov)
        known = inside & batch.seen.any(-1)  # a frame of which nothing is seen says nothing of H and R
        look = _sums(y - _inputs(self.d, mean.shape[1]), y_cov, x, xx, _pad_right(yx_cov), known)
        return SSMStatistics(first, step, look, filtered.log_likelihood.sum())

    def _complete(self, batch: Sequences, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and covariance of the observations, missing ones included, and their covariance with the states.

        y | x, y_seen ~ N(G y_seen + (I - G)(H x + d), (I - G) R (I - G)') where G regresses y on what is seen of it.
        """
        eye, seen = torch.eye(len(self.R)).to(self.R), batch.seen
        if bool(seen[batch.inside].all()):
            zero = mean.new_zeros(())
            p, n = self.H.shape
            return batch.x.nan_to_num(), zero.expand(p, p), zero.expand(p, n)
        both = seen[..., :, None] & seen[..., None, :]
        g = right_divide(self.R * seen[..., None, :], self.R.where(both, eye)) * seen[..., None, :]
        rest, d = eye - g, self.d[: mean.shape[1]] if self.d.ndim == 2 else self.d
        y = (g @ batch.x.nan_to_num()[..., None])[..., 0] + (rest @ (mean @ self.H.mT + d)[..., None])[..., 0]
        a = rest @ self.H
        return y, a @ cov @ a.mT + rest @ self.R @ rest.mT, a @ cov

    def expected_log_prob(self, statistics: SSMStatistics) -> Tensor:
        """Q: expected ln p(states, observations) under these parameters."""
        first, step, look, _ = statistics
        q = first.log_prob(self.m[:, None], self.P) + step.log_prob(_with(self.F, self.b), self.Q)
        return q + look.log_prob(_with(self.H, self.d), self.R)

    def maximise(self, statistics: SSMStatistics) -> "LinearGaussianSSM":
        """The parameters that maximise Q ([Ghahramani96] eq. 15 to 25)."""
        first, step, look, _ = statistics
        m, P = self._solve(first, self.m[:, None], self.P, ("m",), "P")
        f, Q = self._solve(step, _with(self.F, self.b), self.Q, ("F", "b"), "Q")
        h, R = self._solve(look, _with(self.H, self.d), self.R, ("H", "d"), "R")
        b, d = (self.b if self.b.ndim == 2 else f[:, -1]), (self.d if self.d.ndim == 2 else h[:, -1])
        return replace(self, m=m[:, 0], P=P, F=f[:, :-1], b=b, Q=Q, H=h[:, :-1], d=d, R=R)

    def _solve(self, sums: Sums, w: Tensor, c: Tensor, names: tuple[str, ...], cov: str) -> tuple[Tensor, Tensor]:
        n = w.shape[1] - (len(names) - 1)
        free = torch.tensor([names[0] not in self.fixed] * n + [name not in self.fixed for name in names[1:]])
        w = sums.weight(w, free)
        return w, c if cov in self.fixed else at_least(sums.cov(w, c), self.floor)


def _with(w: Tensor, offset: Tensor) -> Tensor:
    """The weight on [x, 1]; an offset that changes with time is already subtracted."""
    return torch.cat([w, torch.zeros_like(w[:, :1]) if offset.ndim == 2 else offset[:, None]], 1)


def _inputs(offset: Tensor, rows: int) -> Tensor:
    """The known part of an offset: what changes with time is known, a constant one is regressed."""
    return offset[:rows] if offset.ndim == 2 else torch.zeros_like(offset)


def _draw(s: Belief, n: int, generator: Generator | None) -> Tensor:
    return s.mean + _noise(s.cov[0], n, generator)


def _noise(cov: Tensor, n: int, generator: Generator | None) -> Tensor:
    """(n, p) of a covariance that may be singular."""
    values, vectors = torch.linalg.eigh(cov)
    return randn((n, len(cov)), cov, generator) * values.clamp_min(0).sqrt() @ vectors.mT


def _pad_right(c: Tensor) -> Tensor:
    """A covariance with [x, 1] of that with x."""
    return torch.nn.functional.pad(c, (0, 1))


def _pad(c: Tensor) -> Tensor:
    return torch.nn.functional.pad(c, (0, 1, 0, 1))


def _products(y: Tensor, x: Tensor, y_cov: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return y_cov.sum(0) + y.mT @ y, y.mT @ x, x.mT @ x


def _sums(y: Tensor, y_cov: Tensor, x: Tensor, x_cov: Tensor, yx_cov: Tensor, use: Tensor) -> Sums:
    """Expected products over the frames (b, t) in `use`."""
    y, x = y[use], x[use]

    def total(c: Tensor) -> Tensor:
        return c.expand(*use.shape, *c.shape[-2:])[use].sum(0)

    yy, yx, xx = y.mT @ y + total(y_cov), y.mT @ x + total(yx_cov), x.mT @ x + total(x_cov)
    return Sums(use.sum().to(xx), yy, yx, xx)
