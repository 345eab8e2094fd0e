"""Preferences without a reward: the regularised Nash policy, the distance from it, and the steps that lead there.

    P = torch.tensor([[.5, .9, .2], [.1, .5, .95], [.8, .05, .5]])     # P[i, j] = P(i preferred to j): a cycle
    best = nash(P, ref, tau=0.1)
    for _ in range(200):
        pi = nash_mp_step(pi, P, ref, tau=0.1, eta=0.5)

A policy is a vector of probabilities over K completions. Its opponent is itself: P + P^T = 1, so that the value of the
game is 1/2. All is in float64.

[Munos24] Nash learning from human feedback, arXiv:2312.00886.   [Azar23] IPO, arXiv:2310.12036.
[Calandriello24] Human alignment through online preference optimisation, arXiv:2403.08635.
[Tiapkin25] Accelerating Nash learning from human feedback via mirror prox, arXiv:2505.19731.
[Wu24] Self-play preference optimization (SPPO), arXiv:2405.00675.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gen_transformer.alignment.exact import kl, tilted

Law = Float[Tensor, "k"]
Preferences = Float[Tensor, "k k"]


def exploitability(pi: Law, P: Preferences, ref: Law, tau: int | float) -> float:
    """What the best opponent gains over `pi`: 0 at the regularised Nash policy alone.

    max_q [P(q, pi) - tau KL(q || ref)] - [1/2 - tau KL(pi || ref)]; for tau = 0 the largest win rate less 1/2.
    """
    pi, P, ref = _check(P, pi, ref)
    wins = P @ pi
    if tau == 0:
        return wins.amax().item() - 0.5
    best = tau * (ref.log() + wins / tau).logsumexp(0)
    return (best + tau * kl(pi, ref) - 0.5).item()


def nash(P: Preferences, ref: Law, tau: int | float) -> Law:
    """The policy that is its own best opponent, pi = ref exp(P pi / tau) / Z; for tau = 0 a maximin policy of P.

    Newton's method from large to small tau: P - 1/2 is antisymmetric, so that each system has one solution.
    """
    ref, P, _ = _check(P, ref, ref)
    if tau == 0:
        return _maximin(P)
    z, t = ref.log(), max(1.0, float(tau))
    while True:
        z = _newton(z, P, ref, t)
        if t <= tau:
            return z.softmax(0)
        t = max(t / 1.5, float(tau))


def ipo_point(P: Preferences, mu: Law, tau: int | float) -> Law:
    """The optimum of IPO on pairs from `mu`, also its reference: mu exp(P(. over mu) / tau) / Z ([Azar23] eq. 8)."""
    mu, P, _ = _check(P, mu, mu)
    return tilted(mu, P @ mu, tau)


# ---------------------------------------------------------------------- steps


def mirror_step(pi: Law, opponent: Law, P: Preferences, ref: Law, tau: int | float, eta: int | float) -> Law:
    """pi^(1 - eta tau) ref^(eta tau) exp(eta P opponent) / Z: a step of rate eta against a fixed opponent.

    With `opponent = pi` it is self-play, the step of online IPO ([Calandriello24]); with tau = 0 also that of SPPO
    ([Wu24] eq. 4.2), whose average plays well but whose last policy may cycle outward.
    """
    pi, P, ref = _check(P, pi, ref)
    if not 0 < eta or eta * tau > 1:
        raise ValueError(f"need 0 < eta <= 1 / tau, got eta={eta} and tau={tau}; lower eta")
    return (geometric(pi, ref, eta * tau).log() + eta * P @ opponent.double()).softmax(0)


def nash_md_step(pi: Law, P: Preferences, ref: Law, tau: int | float, eta: int | float) -> Law:
    """Nash-MD: the opponent is the geometric mixture of `pi` and `ref` ([Munos24] eq. 6).

    At a constant eta the end is not the Nash policy: let eta fall, as log T / (tau T) for T steps.
    """
    return mirror_step(pi, geometric(pi, ref, eta * tau), P, ref, tau, eta)


def nash_mp_step(pi: Law, P: Preferences, ref: Law, tau: int | float, eta: int | float) -> Law:
    """Nash mirror prox: a look-ahead step, then the step from `pi` against what was seen ([Tiapkin25] section 4).

    `eta` is that of an explicit step, as in the other functions.
    """
    ahead = mirror_step(pi, pi, P, ref, tau, eta)
    return mirror_step(pi, ahead, P, ref, tau, eta)


def geometric(pi: Law, ref: Law, alpha: int | float) -> Law:
    """pi^(1 - alpha) ref^alpha / Z: alpha is the share of the reference."""
    return ((1 - alpha) * pi.double().log() + alpha * ref.double().log()).softmax(0)


# ---------------------------------------------------------------------- small print


def _newton(z: Law, P: Preferences, ref: Law, tau: float) -> Law:
    """The logits z with z = log ref + P softmax(z) / tau, by steps that are halved until the residual falls."""
    gap = lambda z: z - ref.log() - P @ z.softmax(0) / tau
    eye, size = torch.eye(len(z), dtype=z.dtype), gap(z).norm()
    for _ in range(100):
        pi = z.softmax(0)
        step = torch.linalg.solve(eye - P @ (pi.diag() - pi.outer(pi)) / tau, gap(z))
        share = 1.0
        while (new := gap(z - share * step).norm()) > size and share > 1e-6:
            share /= 2
        if not new < size:  # rounding is all that remains
            return z
        z, size = z - share * step, new
    return z


def _maximin(P: Preferences) -> Law:
    from scipy.optimize import linprog

    k = len(P)
    c = torch.cat([torch.zeros(k), -torch.ones(1)]).double()  # maximise v such that every opponent is beaten by v
    A = torch.cat([-P.T, torch.ones(k, 1, dtype=P.dtype)], 1)
    total = torch.cat([torch.ones(1, k), torch.zeros(1, 1)], 1).double()
    x = linprog(c.numpy(), A.numpy(), [0.0] * k, total.numpy(), [1.0], bounds=[(0, None)] * k + [(None, None)]).x
    return torch.tensor(x[:k], dtype=torch.float64)


def _check(P: Preferences, pi: Law, ref: Law) -> tuple[Law, Preferences, Law]:
    P = P.double()
    if not torch.allclose(P + P.T, torch.ones_like(P), rtol=0, atol=1e-6):
        i, j = divmod(int((P + P.T - 1).abs().argmax()), len(P))
        raise ValueError(f"P[{i}, {j}] + P[{j}, {i}] is 1 for preferences, got {(P[i, j] + P[j, i]).item():.6g}")
    return pi.double(), (P + 1 - P.T) / 2, ref.double()
