"""Losses of a policy from the log-probs of its samples; each has the shape of its log-probs and is not reduced.

    loss = reduce(ppo_clip(logp, old_logp, advantages), mask)

[Williams92] Simple statistical gradient-following algorithms. [Schulman17] Proximal policy optimization,
arXiv:1707.06347. [Ye20] Mastering complex control in MOBA games, arXiv:1912.09729. [Zheng25] Group sequence policy
optimization, arXiv:2507.18071. [MiniMax25] MiniMax-M1, arXiv:2506.13585. [Tang25] arXiv:2506.09477.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gen_transformer.alignment.advantages import reward_to_go
from gen_transformer.alignment.logprobs import Estimator, log_ratio_kl

Logp = Float[Tensor, "b t"]
Clip = tuple[float, float]


def reinforce(logp: Logp, adv: Logp) -> Logp:
    """-A log p: its gradient is that of the expected reward, for samples of the policy itself ([Williams92])."""
    return -adv.detach() * logp


def ppo_clip(
    logp: Logp,
    old_logp: Logp,
    adv: Logp,
    clip: Clip = (0.2, 0.2),
    *,
    dual: int | float | None = None,
    level: Literal["token", "sequence"] = "token",
    mask: Bool[Tensor, "b t"] | None = None,
) -> Logp:
    """-min(r A, clip(r, 1 - low, 1 + high) A), r the ratio of probabilities to those of sampling ([Schulman17] eq. 7).

    At r = 1 its gradient is that of `reinforce`.

    Args:
        clip: (low, high); a higher `high` is DAPO's.
        dual: for A < 0 the loss is at most dual |A| ([Ye20] eq. 5), dual > 1.
        level: "sequence" takes the geometric mean of a sequence's ratios for all of its tokens ([Zheng25] eq. 5),
            and needs the mask.
    """
    if dual is not None and not dual > 1:
        raise ValueError(f"dual is above 1 (3 is usual), got {dual}; None does not bound the loss")
    ratio, adv = (logp - old_logp).exp() if level == "token" else _sequence_ratio(logp, old_logp, mask), adv.detach()
    clipped = ratio.clamp(1 - clip[0], 1 + clip[1])
    loss = -torch.minimum(ratio * adv, clipped * adv)
    return loss if dual is None else torch.where(adv < 0, loss.clamp(max=-dual * adv), loss)


def _sequence_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        raise ValueError("the ratio of a sequence is a mean over its tokens; pass mask")
    total = (logp - old_logp).where(mask, 0).sum(1, keepdim=True)
    return (total / mask.sum(1, keepdim=True).clamp(min=1)).exp().expand_as(logp)


def cispo(logp: Logp, old_logp: Logp, adv: Logp, high: int | float = 5.0) -> Logp:
    """-min(r, high) A log p, no gradient through r: no token is without gradient ([MiniMax25] eq. 4)."""
    ratio = (logp - old_logp).exp().clamp(max=high)
    return -(ratio * adv).detach() * logp


def value_loss(v: Logp, old_v: Logp, returns: Logp, clip: int | float | None = None) -> Logp:
    """(v - returns)^2 / 2, or the larger of it and that of v within `clip` of the value at sampling."""
    loss = (v - returns).square() / 2
    if clip is None:
        return loss
    near = old_v + (v - old_v).clamp(-clip, clip)
    return torch.maximum(loss, (near - returns).square() / 2)


def kl_loss(logp: Logp, ref_logp: Logp, mask: Bool[Tensor, "b t"], estimator: Estimator = "k1") -> Logp:
    """Estimate of KL(policy || reference) by token, whose gradient is that of the KL of sequences ([Tang25]).

    The gradient of token t is that of log p_t times the sum of log-ratios from t on: a token is also charged for the
    states that it leads to. Reduced by `reduce(..., "constant")` it is that of the KL, for samples of the policy.
    With `ref_logp` 0 it is minus the entropy of sequences.

    Args:
        estimator: of the value, which has no effect on the gradient.
    """
    charge = reward_to_go((logp - ref_logp).detach(), mask)
    value = log_ratio_kl(logp, ref_logp, estimator).detach()
    weight = charge * (logp - logp.detach())  # 0, with the gradient
    return (value + weight).where(mask, 0)
