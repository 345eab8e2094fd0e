"""Online objectives as small compositions: which weights tokens get, which loss, how it is reduced, where the KL is.

    align(model, prompts, reward, objective="grpo", ...)
    mine = replace(OBJECTIVES["rloo"], advantage=lambda e: ...)         # or one of your own
    align(model, prompts, reward, objective=mine, ...)

[Ahmadian24] Back to basics: revisiting REINFORCE style optimization, arXiv:2402.14740. [Munos23] Nash learning from
human feedback, arXiv:2312.00886. [Calandriello24] Human alignment of LLMs through online preference optimisation,
arXiv:2403.08635. [Dong23] RAFT, arXiv:2304.06767. The others are cited where their formula is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gen_transformer.alignment.advantages import (
    gae,
    group_normalize,
    informative,
    leave_one_out,
    reward_to_go,
    shape_rewards,
)
from gen_transformer.alignment.logprobs import How, whiten
from gen_transformer.alignment.policy import cispo, ppo_clip, reinforce
from gen_transformer.alignment.preference import gpo, ipo, margin
from gen_transformer.alignment.rollout import Rollout

KL = Literal["reward", "loss", "k1", "k2", "k3"]


@dataclass
class Experience:
    """What an advantage may look at."""

    rollout: Rollout
    score: Float[Tensor, "b"]
    ref_logp: Float[Tensor, "b t"]
    n: int
    """Completions of each prompt."""
    beta: int | float
    """Of the KL in the reward; 0 where it is in the loss."""
    entropy: int | float
    values: Float[Tensor, "b t"] | None
    """Of the critic, before each token."""
    total: Callable[[Tensor], Tensor]
    """Sum over processes."""

    @property
    def mask(self) -> Bool[Tensor, "b t"]:
        return self.rollout.completion_mask

    def rewards(self) -> Float[Tensor, "b t"]:
        """Of each token, with the KL and the bonus for entropy."""
        return shape_rewards(self.score, self.rollout.logp, self.ref_logp, self.mask, self.beta, self.entropy)

    def spread(self, weight: Float[Tensor, "b"]) -> Float[Tensor, "b t"]:
        """The same weight for all tokens of a sequence."""
        return weight[:, None] * self.mask


Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (logp, old_logp, advantages, mask) -> (b, t)


@dataclass(frozen=True)
class Objective:
    """A policy-gradient method."""

    advantage: Callable[[Experience], Tensor]
    """Weights of tokens (b, t)."""
    loss: Loss = lambda logp, old, adv, mask: ppo_clip(logp, old, adv)
    how: How = "constant"
    """See `reduce`."""
    by_length: bool = False
    """Divide by the longest length that a completion may have, too."""
    kl: KL = "reward"
    """Where beta KL(policy || reference) is. "reward" and "loss" (`kl_loss`) both lead to the tilted policy. "k1", "k2"
    and "k3" put the bare estimator into the loss, for study: k1 does not regularise at all, k2 has the gradient of a
    single token, k3 minimises KL(reference || policy)."""
    keep: Callable[[Experience], Tensor] | None = None
    """Rows that count (b,); None: all."""
    critic: bool = False
    """Whether a value function is learned beside."""
    opponent: int | float | None = None
    """With a preference as reward: alpha of the mixture policy^(1 - alpha) reference^alpha of opponents."""


@dataclass(frozen=True)
class PairObjective:
    """A method that compares two completions of a prompt, sampled by the policy now."""

    loss: Callable[..., Tensor]
    """(Margins) -> (pairs,)."""
    mix: int | float = 0.0
    """alpha of the mixture policy^(1 - alpha) reference^alpha that both come from."""


def totals(e: Experience) -> Float[Tensor, "b"]:
    """Reward of each sequence, KL included."""
    return e.rewards().sum(1)


def to_go(e: Experience) -> Float[Tensor, "b t"]:
    """Reward-to-go minus the mean total of the other completions of the prompt, where there are any."""
    rewards, total = e.rewards(), totals(e)
    others = total - leave_one_out(total, e.n) if e.n > 1 else torch.zeros_like(total)
    return (reward_to_go(rewards, e.mask) - others[:, None]).where(e.mask, 0)


def with_critic(e: Experience, lam: int | float = 0.95) -> Float[Tensor, "b t"]:
    assert e.values is not None, "objectives with a critic are given values"
    return whiten(gae(e.rewards(), e.values, e.mask, lam=lam)[0], e.mask, total=e.total)


def winners(e: Experience) -> Float[Tensor, "b t"]:
    """1 for the best completion of each prompt, the first of equals, else 0 ([Dong23])."""
    best = e.score.view(-1, e.n).argmax(1, keepdim=True)
    return e.spread(torch.zeros_like(e.score).view(-1, e.n).scatter(1, best, 1.0).flatten())


def normalised(e: Experience) -> Float[Tensor, "b t"]:
    return e.spread(group_normalize(e.score, e.n))


_rloo = Objective(lambda e: e.spread(leave_one_out(totals(e), e.n)))
_grpo = Objective(normalised, how="sequence", kl="loss")

OBJECTIVES: dict[str, Objective] = {
    "reinforce": Objective(to_go, lambda logp, old, adv, mask: reinforce(logp, adv)),
    "rloo": _rloo,  # [Ahmadian24]
    "ppo": Objective(with_critic, how="token", critic=True),
    "grpo": _grpo,
    "dr_grpo": Objective(lambda e: e.spread(leave_one_out(e.score, e.n)), by_length=True, kl="loss"),
    "dapo": Objective(
        normalised, lambda logp, old, adv, mask: ppo_clip(logp, old, adv, (0.2, 0.28)), how="token",
        kl="loss", keep=lambda e: informative(e.score, e.n),
    ),
    "gspo": Objective(
        normalised,
        lambda logp, old, adv, mask: ppo_clip(logp, old, adv, (3e-4, 4e-4), level="sequence", mask=mask),
        how="sequence", kl="loss",
    ),
    "cispo": Objective(
        normalised, lambda logp, old, adv, mask: cispo(logp, old, adv), how="token", kl="loss"
    ),
    "best-of-n": Objective(winners, lambda logp, old, adv, mask: reinforce(logp, adv)),  # steps regularise, not beta
    "self-play": Objective(_rloo.advantage, opponent=0.0),
    "nash-md": Objective(_rloo.advantage, opponent=0.125),  # [Munos23] section 7
}  # fmt: skip


@dataclass(frozen=True)
class Margins:
    """Log-probs of pairs of completions, summed over tokens."""

    first: Float[Tensor, "b"]
    second: Float[Tensor, "b"]
    ref_first: Float[Tensor, "b"]
    ref_second: Float[Tensor, "b"]
    lengths: tuple[Tensor, Tensor]
    """Tokens of each, (b,)."""
    p: Float[Tensor, "b"]
    """P(first preferred to second)."""

    @property
    def h(self) -> Float[Tensor, "b"]:
        """The difference of log-ratios, in nats."""
        return margin(self.first, self.second, self.ref_first, self.ref_second)


def pairwise(link: str, beta: int | float) -> Callable[[Margins], Tensor]:
    """A loss of `gpo` on soft labels: p f(beta h) + (1 - p) f(-beta h)."""
    return lambda m: gpo(m.h, beta, link, p=m.p)


PAIRS: dict[str, Callable[[float], PairObjective]] = {  # by beta
    "dpo": lambda beta: PairObjective(pairwise("logistic", beta)),
    "ipo": lambda beta: PairObjective(lambda m: ipo(m.h, beta, m.p)),  # [Calandriello24] section 3
    "ipo-md": lambda beta: PairObjective(lambda m: ipo(m.h, beta, m.p), mix=0.125),  # section 4
}
