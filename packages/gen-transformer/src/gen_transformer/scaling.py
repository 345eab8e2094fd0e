"""Scaling laws: fit losses of small runs, say how far the fit can be trusted, and spend a budget best.

    law = fit(N, D, loss, bootstrap=200, generator=torch.Generator().manual_seed(0))
    law.predict(7e10, 1.4e12)                       # nats per token
    law.interval(lambda law: law.optimal(1e21)[0])  # parameters worth training with 1e21 FLOP, 95 %

N counts parameters and D tokens; C = 6 N D is in FLOP. Whether N holds the embeddings changes the exponents: choose
one count for all runs, and the same when predicting.

[Hoffmann22] Training compute-optimal large language models, arXiv:2203.15556.
[Besiroglu24] Chinchilla scaling: a replication attempt, arXiv:2404.10102.
[Fernandes23] Scaling laws for multilingual neural machine translation, arXiv:2302.09650.
[Faysse24] CroissantLLM: a truly bilingual French-English language model, arXiv:2402.00786.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import huber_loss

Value = Any  # a number or a tensor; what comes out is what went in
Numbers = Sequence[float] | Sequence[int] | np.ndarray | Tensor
Predict = Callable[[Float[Tensor, "k"]], Float[Tensor, "runs"]]  # parameters -> log loss of every run


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta  ([Hoffmann22] eq. 2), in the unit of the losses it was fitted to."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float = 0.0
    """Sum of the Huber losses of the log residuals, what the fit has made smallest."""
    unidentified: tuple[str, ...] = ()
    """Exponents that the design of the runs leaves open."""
    resamples: tuple["Law", ...] = ()
    """Fits to runs drawn with replacement."""

    def predict(self, N: Value, D: Value) -> Value:
        """Loss of a model of `N` parameters after `D` tokens."""
        return self.E + self.A / N**self.alpha + self.B / D**self.beta

    def optimal(self, C: int | float) -> tuple[float, float]:
        """The (N, D) of lowest loss with 6 N D = C FLOP ([Hoffmann22] eq. 4)."""
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        N = G * (C / 6) ** (self.beta / (self.alpha + self.beta))
        return N, C / 6 / N

    def interval(self, of: Callable[["Law"], float], level: int | float = 0.95) -> tuple[float, float]:
        """Bootstrap interval (percentiles) of anything that is computed from a law."""
        if not self.resamples:
            raise ValueError("an interval needs resampled fits and this law has none; pass bootstrap=200 to fit")
        low, high = np.quantile([of(law) for law in self.resamples], [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def fit(
    N: Numbers,
    D: Numbers,
    loss: Numbers,
    *,
    delta: int | float = 1e-3,
    bootstrap: int = 0,
    generator: torch.Generator | None = None,
) -> Law:
    """Approach 3 of [Hoffmann22]: the least sum of Huber(log L - log L(N, D)) by L-BFGS from 27 starts.

    The published fit stopped early, since a mean of Huber losses is below the tolerance of the optimiser
    ([Besiroglu24]); here the sum is in units of delta^2, and logs are centred so that the parameters move apart.

    Args:
        N, D, loss: one number a run; drop runs that diverged beforehand.
        delta: residual in log loss beyond which a run counts linearly.
        bootstrap: fits to resampled runs, for `Law.interval`; each takes some 5 ms.

    Raises:
        ValueError: for fewer than 6 runs, different lengths, or numbers that are not positive.

    Warns:
        UserWarning: naming the exponents that the design cannot identify, and why.
    """
    n, m, y = _logs(N=N, D=D, loss=loss)
    if len(y) < 6:
        raise ValueError(f"five parameters need 6 runs or more, got {len(y)}; train more")
    at = n.mean(), m.mean()
    n, m = n - at[0], m - at[1]

    def law(rows: Tensor, starts: Iterable[Tensor]) -> tuple[Tensor, Law]:
        x, objective = _solve(lambda x: _log_loss(x, n[rows], m[rows]), y[rows], starts, delta)
        a, b, e, alpha, beta = x.tolist()
        A, B = math.exp(a + alpha * at[0]), math.exp(b + beta * at[1])
        return x, Law(math.exp(e), A, B, alpha, beta, objective)

    every, k = torch.arange(len(y)), len(y)
    x, best = law(every, _starts(y))
    draws = [torch.randint(k, (k,), generator=generator) for _ in range(bootstrap)]
    doubts = _doubts(x, n, m, y, delta)
    for names, reason in doubts:
        warnings.warn(f"these runs do not identify {names}: {reason}", stacklevel=2)
    unidentified = tuple(name for name in ("alpha", "beta") if any(name in names for names, _ in doubts))
    return replace(best, unidentified=unidentified, resamples=tuple(law(rows, [x])[1] for rows in draws))


def extrapolate(
    N: Numbers, D: Numbers, loss: Numbers, C: int | float, *, delta: int | float = 1e-3
) -> tuple[Law, Float[Tensor, "held"]]:
    """Fit to the runs of at most `C` FLOP; the law, and predicted/true - 1 for each of the larger ones."""
    N, D, loss = (torch.as_tensor(x, dtype=torch.float64) for x in (N, D, loss))
    small = 6 * N * D <= C
    law = fit(N[small], D[small], loss[small], delta=delta)
    return law, law.predict(N[~small], D[~small]) / loss[~small] - 1


# ---------------------------------------------------------------------- approaches 1 and 2


@dataclass(frozen=True)
class Power:
    """y = scale x^exponent."""

    scale: float
    exponent: float

    def __call__(self, x: float) -> float:
        return self.scale * x**self.exponent


def envelope(
    N: Numbers, C: Float[Tensor, "runs points"], loss: Float[Tensor, "runs points"], budgets: Numbers
) -> Power:
    """Approach 1: which size has the lowest loss at each budget, along whole training curves; N = k C^a.

    Args:
        N: parameters of each run.
        C, loss: its training curve: FLOP spent so far, increasing, and the (smoothed) loss there.
        budgets: FLOP; a run takes part in those that its curve spans.
    """
    best, curves = [], list(zip(C.log().numpy(), loss.log().numpy(), strict=True))
    for budget in torch.as_tensor(budgets, dtype=torch.float64).log().tolist():
        at = [np.interp(budget, c, l, left=np.inf, right=np.inf) for c, l in curves]
        if np.isinf(min(at)):
            raise ValueError(f"no training curve spans {math.exp(budget):.3g} FLOP; keep budgets within the curves")
        best.append(float(N[int(np.argmin(at))]))
    return _power(budgets, best)


def isoflop(N: Numbers, C: Numbers, loss: Numbers) -> Power:
    """Approach 2: at each budget C the vertex of a parabola through the losses over log N; N = k C^a.

    Raises:
        ValueError: where the losses of a budget bend downwards: its sizes do not bracket a minimum.
    """
    n, c, y = _logs(N=N, C=C, loss=loss)
    best = {}
    for budget in c.unique():
        a, b, _ = np.polyfit(n[c == budget], y[c == budget].exp(), 2)
        if a <= 0:
            raise ValueError(f"the losses at {budget.exp():.3g} FLOP have no minimum over N; add sizes on both sides")
        best[float(budget.exp())] = math.exp(-b / (2 * a))
    return _power(list(best), list(best.values()))


def _power(x: Numbers, y: Numbers) -> Power:
    logx, logy = _logs(x=x, y=y)
    exponent, scale = np.polyfit(logx, logy, 1)
    return Power(math.exp(scale), float(exponent))


# ---------------------------------------------------------------------- mixtures of languages


@dataclass(frozen=True)
class MixLaw:
    """L(N, p) = E + B / (f(p) N)^alpha: the loss in one language that has the share p of the training tokens.

    f(p) = p + c1 p^c2 (1 - p)^c3 is the part of the model that works for this language: f(0) = 0 and f(1) = 1, and what
    is above p came from the other languages ([Fernandes23], the joint law by which [Faysse24] chose 1:1).
    """

    E: float
    B: float
    alpha: float
    c1: float
    c2: float
    c3: float
    objective: float = 0.0

    def ratio(self, p: Value) -> Value:
        """f(p), the effective share of the parameters: never below p, never falling."""
        return p + self.c1 * p**self.c2 * (1 - p) ** self.c3

    def predict(self, N: Value, p: Value) -> Value:
        """Loss in the language at `N` parameters and a share `p` of the tokens."""
        return self.E + self.B / (self.ratio(p) * N) ** self.alpha


def fit_mix(N: Numbers, p: Numbers, loss: Numbers, *, delta: int | float = 1e-3) -> MixLaw:
    """Fit the joint law in one language to runs of several sizes and mixtures, all on the same number of tokens.

    Three shares fix the loss at and between them, but f itself is only identified from four on, p = 1 among them.
    Deviation from [Fernandes23]: c1 is held between 0 and the largest value for which f does not fall anywhere.

    Raises:
        ValueError: for a share outside (0, 1], or fewer than 3 sizes or 3 shares: six parameters need both.
    """
    n, logp, y = _logs(N=N, p=p, loss=loss)
    if logp.max() > 0:
        raise ValueError(f"a share of the tokens lies in (0, 1], got p={logp.max().exp():.4g}; pass fractions")
    if min(len(n.unique()), len(logp.unique())) < 3:
        raise ValueError(
            f"the joint law needs 3 sizes and 3 shares, got {len(n.unique())} and {len(logp.unique())}; train more runs"
        )
    share, at = logp.exp(), n.mean()

    def predict(x: Tensor) -> Tensor:
        b, e, alpha, *c = x
        f = share + _bump(*c) * share ** c[1] * (1 - share) ** c[2]
        return torch.stack([b - alpha * (n - at + f.log()), e.expand_as(n)]).logsumexp(0)

    bounds = [(None, None), (None, None), (0, 4), (0, 1), (0.05, 10), (1, 10)]
    x, objective = _solve(predict, y, _mix_starts(y), delta, bounds)
    b, e, alpha, _, c2, c3 = x.tolist()
    return MixLaw(math.exp(e), math.exp(b + alpha * at), alpha, float(_bump(*x[3:])), c2, c3, objective)


def _bump(part: Tensor, c2: Tensor, c3: Tensor) -> Tensor:
    """c1 as a part of the largest for which p + c1 p^c2 (1-p)^c3 rises everywhere."""
    p = torch.linspace(0, 1, 401, dtype=torch.float64)[1:-1]
    fall = p ** (c2 - 1) * (1 - p) ** (c3 - 1) * (c3 * p - c2 * (1 - p))
    return part / fall.max()


# ---------------------------------------------------------------------- the fit


def _logs(**columns: Numbers) -> list[Float[Tensor, "runs"]]:
    values = {name: torch.as_tensor(x, dtype=torch.float64) for name, x in columns.items()}
    if len({x.shape for x in values.values()}) > 1:
        raise ValueError(
            f"one number a run in each column, got {', '.join(f'{len(x)} {k}' for k, x in values.items())}"
        )
    for name, x in values.items():
        if not (x > 0).all() or x.isinf().any():
            raise ValueError(f"{name} must be positive and finite in every run, got {x[~((x > 0) & x.isfinite())][0]}")
    return [x.log() for x in values.values()]


def _log_loss(x: Float[Tensor, "5"], n: Float[Tensor, "runs"], m: Float[Tensor, "runs"]) -> Float[Tensor, "runs"]:
    a, b, e, alpha, beta = x
    return torch.stack([a - alpha * n, b - beta * m, e.expand_as(n)]).logsumexp(0)


def _starts(y: Float[Tensor, "runs"]) -> Iterable[Tensor]:
    """E a part of the smallest loss, the rest shared by both terms, exponents from slow to fast."""
    for part, alpha, beta in product((0.3, 0.6, 0.9), (0.1, 0.3, 1.0), (0.1, 0.3, 1.0)):
        e = math.log(part) + y.min()
        rest = (y.exp().mean() - e.exp()).log() - math.log(2)
        yield torch.tensor([rest, rest, e, alpha, beta], dtype=torch.float64)


def _mix_starts(y: Float[Tensor, "runs"]) -> Iterable[Tensor]:
    for part, alpha, c1, c2, c3 in product((0.4, 0.8), (0.2, 0.6), (0.2, 0.8), (0.3, 1.0), (1.5, 4.0)):
        e = math.log(part) + y.min()
        rest = (y.exp().mean() - e.exp()).log()
        yield torch.tensor([rest, e, alpha, c1, c2, c3], dtype=torch.float64)


def _solve(
    predict: Predict, y: Float[Tensor, "runs"], starts: Iterable[Tensor], delta: float, bounds: list | None = None
) -> tuple[Float[Tensor, "k"], float]:
    """The best parameters and their sum of Huber losses: roughly from every start, from the best three to the end."""
    from scipy.optimize import minimize

    def objective(values):
        x = torch.tensor(values, requires_grad=True)
        total = huber_loss(predict(x), y, reduction="sum", delta=delta) / delta**2
        return total.item(), torch.autograd.grad(total, x)[0].numpy()

    def descend(start, tolerance):
        options = {"maxiter": 1000, "maxfun": 2000, "ftol": tolerance, "gtol": 1e-7}
        return minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)

    rough = sorted((descend(start.numpy(), 1e-2) for start in starts), key=lambda run: run.fun)
    best = min((descend(run.x, 1e-12) for run in rough[:3]), key=lambda run: run.fun)
    return torch.tensor(best.x), float(best.fun * delta**2)


def _doubts(
    x: Float[Tensor, "5"], n: Float[Tensor, "runs"], m: Float[Tensor, "runs"], y: Float[Tensor, "runs"], delta: float
) -> list[tuple[str, str]]:
    """(exponents, why the design does not identify them)."""
    if min(n.std(), m.std()) > 0.05 and np.corrcoef(n, m)[0, 1] > 0.99:
        why = "D grows with N along one line (one D/N?), where either term explains both; vary D at a fixed N"
        return [("alpha and beta", why)]
    J = torch.func.jacrev(lambda x: _log_loss(x, n, m))(x)
    noise = max((_log_loss(x, n, m) - y).square().mean().sqrt().item(), delta)
    doubts = []
    for k, name, axis, spread in ((3, "alpha", "N", n.std()), (4, "beta", "D", m.std())):
        rest = torch.cat([J[:, :k], J[:, k + 1 :]], 1)
        alone = (J[:, k] - rest @ (torch.linalg.pinv(rest) @ J[:, k])).norm()  # what no other parameter explains
        if spread <= 0.05:
            doubts.append((name, f"all have (nearly) the same {axis}; vary it"))
        elif noise > 0.5 * abs(x[k]) * alone:
            error = f"{noise / alone:.2g}" if alone > 1e-9 else "unbounded"
            doubts.append((name, f"its standard error is {error} beside {x[k]:.2g}; spread {axis} further"))
    return doubts
