"""Closed-form optima of alignment objectives on small problems: what an algorithm has to find.

    best = tilted(ref, r, beta)                     # argmax of E[r] - beta KL(pi || ref)
    objective(best, ref, r, beta)                   # = beta log E_ref[exp(r / beta)]
    fixed_point(ref, r, beta, kl="k3")              # where a KL estimate *in the loss* leads instead

A policy is a vector of probabilities over K completions, `ref` the reference policy, `r` their rewards. All is in
float64. Token by token: `tree.py`; preferences instead of rewards: `games.py`.

[Rafailov23] Direct preference optimization, arXiv:2305.18290.   [Schulman20] Approximating KL divergence, joschu.net.
[Tang25] On a few pitfalls in KL divergence gradient estimation for RL, arXiv:2506.09477.
[Tang24] Generalized preference optimization, arXiv:2402.05749.   [Shao24] DeepSeekMath (GRPO), arXiv:2402.03300.
[Beirami24] Theoretical guarantees on the best-of-n alignment policy, arXiv:2401.01879.
[Chen21] Evaluating large language models trained on code (pass@k), arXiv:2107.03374.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Law = Float[Tensor, "k"]
Choice = Literal["reward", "k1", "k2", "k3", "k3_ratio", "k3_reversed"]
GroupAdvantage = Callable[[Float[Tensor, "rows n"]], Float[Tensor, "rows n"]]


def kl(p: Law, q: Law) -> Float[Tensor, ""]:
    """KL(p || q) in nats; a completion of probability 0 under p adds nothing."""
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum()


def objective(pi: Law, ref: Law, r: Law, beta: int | float) -> Float[Tensor, ""]:
    """E_pi[r] - beta KL(pi || ref), which regularised learning maximises."""
    return pi @ r - beta * kl(pi, ref)


# ---------------------------------------------------------------------- where learning from rewards leads


def tilted(ref: Law, r: Law, beta: int | float) -> Law:
    """The maximiser of E[r] - beta KL(pi || ref): pi = ref exp(r / beta) / Z ([Rafailov23] eq. 4).

    >>> tilted(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]), beta=1.0)
    tensor([0.2689, 0.7311], dtype=torch.float64)
    """
    ref, r = _check(ref, r, beta)
    return (ref.log() + r / beta).softmax(-1)


def forward_tilted(ref: Law, r: Law, beta: int | float) -> Law:
    """The maximiser of E[r] - beta KL(ref || pi): pi = beta ref / (lam - r), lam such that it sums to 1."""
    ref, r = _check(ref, r, beta)
    law = lambda gap: beta * ref / (gap + r.amax() - r)  # gap = lam - max r
    gap = _root(lambda gap: law(gap).sum().item() - 1, beta * ref[r.argmax()].item(), beta)
    return _normalised(law(gap))


def chi_tilted(ref: Law, r: Law, beta: int | float) -> Law:
    """The maximiser of E[r] - (beta / 2) chi^2(pi || ref): pi = ref max(0, c + r / beta), c such that it sums to 1."""
    ref, r = _check(ref, r, beta)
    law = lambda c: ref * (c + r / beta).clamp(min=0)
    c = _root(lambda c: law(c).sum().item() - 1, -r.amax().item() / beta, 1 - r.amin().item() / beta)
    return _normalised(law(c))


def best_arms(ref: Law, r: Law) -> Law:
    """The reference policy on the completions of highest reward: where learning without regularisation leads.

    How equals share is left to the path of learning; here they share as in `ref`.
    """
    return _normalised(ref.double() * (r == r.amax()))


def fixed_point(ref: Law, r: Law, beta: int | float, kl: Choice) -> Law:
    """The policy that on-policy learning of a reward with a KL penalty reaches, for each way to estimate the penalty.

    With d = log pi(y) - log ref(y) of a sample y and gradients through the estimate but not through the sampling:

    | `kl` | penalty | what is maximised in truth |
    |---|---|---|
    | reward | d as a part of the reward, no gradient through it | E[r] - beta KL(pi, ref) |
    | k1 | d in the loss: its expected gradient is 0 | E[r] alone |
    | k2 | d^2 / 2 in the loss | E[r] - beta KL(pi, ref) |
    | k3 | exp(-d) + d - 1 in the loss ([Shao24] eq. 4) | E[r] - beta KL(ref, pi) |
    | k3_ratio | the same times pi / stopgrad(pi) | E[r] - beta KL(pi, ref) |
    | k3_reversed | exp(d) - d - 1, a frequent slip of sign | E[r] - (beta / 2) chi^2(pi, ref) |

    That k2 and k3_ratio are right holds for whole sequences; summed over tokens they are not: `Tree.myopic`.
    """
    if kl == "k1":
        return best_arms(*_check(ref, r, beta))
    points = {"k3": forward_tilted, "k3_reversed": chi_tilted}
    return points.get(kl, tilted)(ref, r, beta)


# ---------------------------------------------------------------------- groups of samples


@dataclass(frozen=True)
class StdPoint:
    """A stationary point of learning from rewards that are divided by their standard deviation under the policy."""

    pi: Law
    sigma: float
    """Standard deviation of the reward under `pi`."""
    stable: bool


def std_points(ref: Law, r: Law, beta: int | float) -> list[StdPoint]:
    """The stationary points pi = ref exp(r / (beta sigma_pi(r))) / Z of GRPO in the limit of large groups.

    Below `critical_beta` there is none, and learning collapses onto the best completion however large the KL becomes.
    """
    ref, r = _check(ref, r, beta)
    grid = _temperatures(r)
    excess = _over_spread(ref, r, grid) - beta
    points = []
    for i in (excess[:-1] * excess[1:] < 0).nonzero()[:, 0].tolist():
        at = lambda log_t: _over_spread(ref, r, torch.tensor([log_t], dtype=torch.float64)).item() - beta
        t = math.exp(_root(at, grid[i].item(), grid[i + 1].item()))
        points.append(StdPoint(tilted(ref, r, t), t / beta, stable=bool(excess[i] < 0)))
    return points


def critical_beta(ref: Law, r: Law) -> float:
    """The smallest beta for which rewards divided by their standard deviation have a stationary point."""
    ref, r = _check(ref, r, 1.0)
    grid = _temperatures(r)
    for _ in range(8):  # ever finer around the least
        i = int(_over_spread(ref, r, grid)[1:-1].argmin()) + 1
        grid = torch.linspace(grid[i - 1].item(), grid[i + 1].item(), 21, dtype=torch.float64)
    return _over_spread(ref, r, grid).amin().item()


def expected_advantage(pi: Law, r: Law, n: int, advantage: GroupAdvantage) -> Law:
    """E[advantage of the first sample | it is completion a] for each a, over all groups of n samples of `pi`.

    The expected policy gradient of the estimator in the logits is pi (h - pi . h), with h this vector.

    Args:
        advantage: from the rewards of groups, one a row, to their advantages.

    >>> pi, r = torch.tensor([0.25, 0.75]), torch.tensor([0.0, 1.0])
    >>> expected_advantage(pi, r, 4, lambda x: x - x.mean(1, keepdim=True))  # 3/4 of r - E r
    tensor([-0.5625,  0.1875], dtype=torch.float64)
    """
    pi, r = pi.double(), r.double()
    others = torch.tensor(list(combinations_with_replacement(range(len(r)), n - 1))).reshape(-1, n - 1)
    counts = torch.zeros(len(others), len(r), dtype=torch.float64).scatter_add(
        1, others, torch.ones(others.shape, dtype=torch.float64)
    )
    log_weight = math.lgamma(n) - (counts + 1).lgamma().sum(1) + torch.special.xlogy(counts, pi).sum(1)
    groups = torch.cat([torch.arange(len(r)).repeat_interleave(len(others))[:, None], others.repeat(len(r), 1)], 1)
    return advantage(r[groups])[:, 0].reshape(len(r), -1) @ log_weight.exp()


def group_point(
    ref: Law, r: Law, beta: int | float, n: int, advantage: GroupAdvantage, *, start: Law | None = None
) -> Law:
    """Where learning from groups of n samples with an exact KL penalty comes to rest: pi = ref exp(h_pi / beta) / Z.

    h is `expected_advantage`. The iteration starts from the reference or `start` and is damped.

    Raises:
        ValueError: when it does not come to rest, as for an advantage that turns against what is frequent.
    """
    ref, r = _check(ref, r, beta)
    log_pi = (ref if start is None else start.double()).log()
    for _ in range(2000):
        target = (ref.log() + expected_advantage(log_pi.exp(), r, n, advantage) / beta).log_softmax(-1)
        step, log_pi = (target - log_pi).abs().amax(), torch.lerp(log_pi, target, 0.2).log_softmax(-1)
        if step < 1e-13 * log_pi.abs().amax().clamp(min=1):
            return log_pi.exp()
    raise ValueError(
        f"learning from groups of {n} does not come to rest at beta={beta}; raise beta, or start elsewhere"
    )


# ---------------------------------------------------------------------- best of n


def best_of_n(ref: Law, r: Law, n: int) -> Law:
    """The law of the best of n samples of `ref`: F^n - F_-^n, shared in proportion to `ref` between equals.

    KL(best of n, ref) is below the often quoted log n - (n - 1) / n ([Beirami24]): take `kl(best_of_n(...), ref)`.
    """
    ref, r = _check(ref, r, 1.0)
    values, tie = r.unique(return_inverse=True)
    mass = torch.zeros_like(values).scatter_add(0, tie, ref)
    upto = mass.cumsum(0)
    below = upto - mass
    best = upto**n * -torch.expm1(n * (below.log() - upto.log()))  # F^n - F_-^n without cancellation
    return ref * (best / mass)[tie]


def best_of_n_estimate(rewards: Float[Tensor, "*b samples"], n: int) -> Float[Tensor, "*b"]:
    """The mean reward of the best of n, over all subsets of n of the samples: unbiased, and of least variance.

    >>> best_of_n_estimate(torch.tensor([3.0, 1.0, 2.0]), 2)  # (3 + 3 + 2) / 3
    tensor(2.6667, dtype=torch.float64)
    """
    size = rewards.shape[-1]
    if not 1 <= n <= size:
        raise ValueError(f"the best of n={n} needs 1 to {size} of the {size} samples; draw more")
    weight = [math.comb(i, n - 1) / math.comb(size, n) for i in range(size)]
    return rewards.double().sort(-1).values @ torch.tensor(weight, dtype=torch.float64, device=rewards.device)


def pass_at_k(n: int, correct: Int[Tensor, "*b"], k: int) -> Float[Tensor, "*b"]:
    """P(some of k samples is correct), 1 - C(n - c, k) / C(n, k) for c correct of n ([Chen21] eq. 1).

    >>> pass_at_k(4, torch.tensor([0, 1, 4]), 2).tolist()
    [0.0, 0.5, 1.0]
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n, got k={k} and n={n}; draw more samples")
    if bool(((correct < 0) | (correct > n)).any()):
        raise ValueError(f"counts of correct samples are 0 to n={n}, got {correct.tolist()}")
    table = torch.tensor([1 - math.comb(n - c, k) / math.comb(n, k) for c in range(n + 1)], dtype=torch.float64)
    return table.to(correct.device)[correct]


# ---------------------------------------------------------------------- preferences as a classification


def gpo_minimiser(p: float, link: str | Callable[[Tensor], Tensor]) -> float:
    """The x that minimises p f(x) + (1 - p) f(-x): the scaled log-ratio margin that a loss teaches ([Tang24] eq. 5).

    Logistic and Savage give logit p (Bradley-Terry); squared and truncated quadratic 2 p - 1; exponential
    logit(p) / 2; hinge 1 or -1, whatever p. For a convex function of your own it is searched in [-50, 50].
    """
    if not 0 < p < 1:
        raise ValueError(f"a probability of 0 < p < 1 has a finite minimiser for every link, got p={p}")
    logit = math.log(p / (1 - p))
    closed = {"logistic": logit, "savage": logit, "exponential": logit / 2}
    closed |= {"squared": 2 * p - 1, "truncated_quadratic": 2 * p - 1, "hinge": math.copysign(1.0, p - 0.5)}
    if isinstance(link, str):
        return closed[link]

    def slope(value: float) -> float:
        x = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(p * link(x) + (1 - p) * link(-x), x)[0].item()

    return _root(slope, -50.0, 50.0)


# ---------------------------------------------------------------------- small print


def _check(ref: Law, r: Law, beta: int | float) -> tuple[Law, Law]:
    if not beta > 0:
        raise ValueError(f"beta is positive, got {beta}; without regularisation the optimum is best_arms")
    if not bool((ref > 0).all()) or abs(ref.double().sum().item() - 1) > 1e-5:
        raise ValueError(f"ref holds positive probabilities that sum to 1, got {ref.tolist()}")
    if not bool(r.isfinite().all()):
        raise ValueError(f"rewards are finite, got {r.tolist()}")
    return _normalised(ref.double()), r.double()


def _normalised(x: Law) -> Law:
    return x / x.sum()


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a monotone f changes its sign between `low` and `high`, to rounding, by halving."""
    rises = f(low) < f(high)
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if (f(middle) < 0) == rises else (low, middle)
    return middle


def _over_spread(ref: Law, r: Law, log_t: Float[Tensor, "t"]) -> Float[Tensor, "t"]:
    """t over the standard deviation of r under ref exp(r / t) / Z: a stationary point is where it is beta."""
    t = log_t.exp()
    pi = (ref.log() + r / t[:, None]).softmax(1)
    spread = (pi * (r - (pi @ r)[:, None]).square()).sum(1).sqrt()
    return t / spread.clamp(min=1e-300)


def _temperatures(r: Law) -> Float[Tensor, "t"]:
    """Logs of temperatures, from a hundredth of the range of the rewards to far above it."""
    width = (r.amax() - r.amin()).item()
    if width == 0:
        raise ValueError("all rewards are equal: their standard deviation is 0, and the policy stays the reference")
    return torch.linspace(math.log(width / 100), math.log(width * 1e4), 800, dtype=torch.float64)
