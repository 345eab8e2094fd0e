"""Losses on pairs of completions, each a function of log-probabilities, unreduced.

    h = margin(chosen, rejected, ref_chosen, ref_rejected)      # sums of log-probabilities over each completion
    gpo(h, beta=0.1).mean()                                     # DPO
    gpo(h, beta=0.1, p=0.9).mean()                              # cDPO: 0.9 = P(first preferred to second)
    ipo(h, tau=0.5).mean()

`p` is a number or one number per pair, so that labels may be probabilities: of raters, or of a preference model.
Exchanging the completions of a pair and p with 1 - p changes no loss.

[Tang24] Generalized preference optimization, arXiv:2402.05749.   [Rafailov23] DPO, arXiv:2305.18290.
[Azar23] A general theoretical paradigm (IPO), arXiv:2310.12036.   [Zhao23] SLiC-HF, arXiv:2305.10425.
[Mitchell23] A note on DPO with noisy preferences (cDPO).   [Chowdhury24] Robust DPO, arXiv:2403.00409.
[Wang24] Beyond reverse KL (f-DPO), arXiv:2309.16240.   [Meng24] SimPO, arXiv:2405.14734.
[Hong24] ORPO, arXiv:2403.07691.   [Ethayarajh24] KTO, arXiv:2402.01306.   [Wu24] SPPO, arXiv:2405.00675.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Values = Float[Tensor, "*b"]
Probability = Float[Tensor, "*b"] | float | int
Link = Callable[[Tensor], Tensor]

LINKS: dict[str, Link] = {
    "logistic": lambda x: F.softplus(-x),  # DPO
    "squared": lambda x: (x - 1).square(),  # IPO
    "hinge": lambda x: (1 - x).relu(),  # SLiC
    "exponential": lambda x: (-x).exp(),
    "truncated_quadratic": lambda x: (1 - x).relu().square(),
    "savage": lambda x: (-x).sigmoid().square(),
}
"""Losses of a binary classifier as functions of its signed margin ([Tang24] table 1)."""

DIVERGENCES: dict[str, Link] = {
    "reverse_kl": lambda x: x,
    "forward_kl": lambda x: -_exp(-x),
    "js": lambda x: F.logsigmoid(x),
}
"""f'(u) for the penalty E_ref[f(u)], u = pi / ref, as a function of log u and up to a constant ([Wang24] table 1)."""


def margin(
    chosen: Values,
    rejected: Values,
    ref_chosen: Values,
    ref_rejected: Values,
    *,
    lengths: tuple[Values, Values] | None = None,
    divergence: str | Link = "reverse_kl",
) -> Values:
    """h = g(log pi(chosen) / ref(chosen)) - g(log pi(rejected) / ref(rejected)), in float32 or better.

    Args:
        chosen, rejected: log-probabilities of whole completions, summed over their tokens.
        lengths: tokens of chosen and rejected, by which the log-ratios are divided: a mean per token. None keeps the
            sum, which is what the papers on DPO and IPO define.
        divergence: g = f', a name of `DIVERGENCES` or a function; for the KL of DPO it is the identity.
    """
    g = DIVERGENCES[divergence] if isinstance(divergence, str) else divergence
    ratios = (_wide(chosen) - _wide(ref_chosen), _wide(rejected) - _wide(ref_rejected))
    if lengths is not None:
        ratios = tuple(ratio / n.clamp(min=1) for ratio, n in zip(ratios, lengths, strict=True))
    return g(ratios[0]) - g(ratios[1])


def alpha_divergence(alpha: float) -> Link:
    """g of the alpha divergence, (1 - (pi / ref)^-alpha) / alpha: towards 0 the reverse KL, at 1 the forward KL."""
    if not 0 < alpha <= 1:
        raise ValueError(f"need 0 < alpha <= 1, got {alpha}; for the limit 0 take divergence='reverse_kl'")
    return lambda x: (1 - _exp(-alpha * x)) / alpha


def gpo(
    h: Values, beta: int | float, link: str | Link = "logistic", p: Probability = 1.0, *, offset: Probability = 0.0
) -> Values:
    """p f(beta h - offset) + (1 - p) f(-beta h - offset), f = `link` ([Tang24] eq. 4).

    Logistic is DPO ([Rafailov23] eq. 7) and with p < 1 cDPO ([Mitchell23]), hinge is SLiC ([Zhao23]). Every link's
    minimiser beta h is `gpo_minimiser(p, link)`; hinge, exponential, ... differ in how they weigh certainty.

    Args:
        h: log-ratio margins, as `margin` gives them.
        link: a name of `LINKS`, or any function of the signed margin.
        p: P(first preferred to second), from 0 to 1.
        offset: margin by which the preferred one has to win.

    >>> gpo(torch.tensor([0.0, 2.0]), beta=0.5)
    tensor([0.6931, 0.3133])
    """
    on_gpu = isinstance(p, Tensor) and p.device.type != "cpu"  # where looking would wait for it
    if not on_gpu and not bool(((q := torch.as_tensor(p)) >= 0).all() & (q <= 1).all()):
        raise ValueError(f"p is a probability from 0 to 1, got {p}")
    return _mix(beta * h, link, p, offset)


def ipo(h: Values, tau: int | float, p: Probability = 1.0) -> Values:
    """p (h - 1 / (2 tau))^2 + (1 - p) (h + 1 / (2 tau))^2 ([Azar23] eq. 17), with minimiser (p - 1/2) / tau.

    With sums in `margin` tau is that of the paper; with `lengths` it is a tau per token, as TRL's DPOTrainer has it.
    """
    return gpo(h, 2 * tau, "squared", p) / (4 * tau**2)


def robust(h: Values, beta: int | float, eps: float, link: str | Link = "logistic") -> Values:
    """((1 - eps) f(beta h) - eps f(-beta h)) / (1 - 2 eps): unbiased if a share eps of labels is wrong.

    It has no lower bound in h ([Chowdhury24] eq. 12); cDPO, which is `gpo` with p = 1 - eps, has.
    """
    if not 0 <= eps < 0.5:
        raise ValueError(f"the share of flipped labels is 0 <= eps < 0.5, got {eps}")
    return _mix(beta * h, link, (1 - eps) / (1 - 2 * eps), 0.0)


def simpo(chosen: Values, rejected: Values, beta: int | float, gamma: int | float, p: Probability = 1.0) -> Values:
    """-log sigmoid(beta (chosen - rejected) - gamma) of mean log-probabilities per token ([Meng24] eq. 6)."""
    return gpo(_wide(chosen) - _wide(rejected), beta, "logistic", p, offset=gamma)


def orpo(chosen: Values, rejected: Values, beta: int | float, p: Probability = 1.0) -> Values:
    """-beta log sigmoid of the log odds ratio of mean log-probabilities per token ([Hong24] eq. 7).

    The whole objective adds the cross-entropy of the chosen completion ([Hong24] eq. 6).
    """
    return beta * gpo(_log_odds(_wide(chosen)) - _log_odds(_wide(rejected)), 1.0, "logistic", p)


def kto(log_ratio: Values, desirable: Probability, kl: Float[Tensor, ""] | float | int, beta: int | float) -> Values:
    """1 - sigmoid(beta (log_ratio - kl)) for desirable completions, 1 - sigmoid(beta (kl - log_ratio)) for others.

    Weigh the two kinds afterwards ([Ethayarajh24] eq. 8 has a factor for each). With `kl=0` it is APO-zero.

    Args:
        log_ratio: log pi - log ref of single completions; no pairs are needed.
        desirable: 1 or 0, or the probability to be desirable.
        kl: the reference point, as `kto_reference` gives it.
    """
    return gpo(_wide(log_ratio) - kl, beta, lambda x: (-x).sigmoid(), desirable)


def kto_reference(mismatched: Values) -> Float[Tensor, ""]:
    """Estimate of KL(pi || ref) for `kto`: mean log-ratio of completions of *other* prompts, 0 or more, detached."""
    return _wide(mismatched).detach().mean().clamp(min=0)


def sppo(log_ratio: Values, win_rate: Probability, beta: int | float) -> Values:
    """(log_ratio - (win_rate - 1/2) / beta)^2, win_rate = P(completion over the policy) ([Wu24] eq. 4.4).

    `beta` is 1 / eta of the paper. With win rates 1 and 0 of a pair it is the hard variant.
    """
    return (_wide(log_ratio) - (win_rate - 0.5) / beta).square()


# ---------------------------------------------------------------------- small print


def _mix(x: Values, link: str | Link, p: Probability, offset: Probability) -> Values:
    """p f(x - offset) + (1 - p) f(-x - offset); a side of weight 0 is left out, for f may overflow there."""
    f = LINKS[link] if isinstance(link, str) else link
    p = torch.as_tensor(p, dtype=x.dtype, device=x.device).expand_as(x)
    side = lambda weight, x: weight * f(x.where(weight != 0, 0.0) - offset)
    return side(p, x) + side(1 - p, -x)


def _wide(x: Tensor) -> Tensor:
    """In float32 or better: sums of a thousand nats are subtracted."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _exp(x: Tensor) -> Tensor:
    """exp(x) that stays finite, with its gradient: cut at e^80."""
    return x.clamp(max=80).exp()


def _log_odds(x: Values) -> Values:
    """log(p / (1 - p)) of x = log p, exact for small and large p; p = 1 counts as the number before it."""
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    near = x > -math.log(2)  # each branch sees only what it can compute, for a NaN of the other spoils the gradient
    small, large = x.where(near, -0.1), x.where(~near, -10.0)
    return x - torch.where(near, (-small.expm1()).log(), (-large.exp()).log1p())
