"""Reward and preference against distance from the reference: the frontier on which methods are compared.

    point("rloo", reward, kl, win)                       # tensors (prompts, samples) -> estimates over prompts
    best_of_n_points(rewards, wins, (1, 4, 16))          # best-of-n on the same axes

KL is that of whole completions, in nats. Intervals are over prompts: the completions of one prompt are not
independent.

[Gao22] Scaling laws for reward model overoptimization, arXiv:2210.10760.
[Beirami24] Theoretical guarantees on the best-of-n alignment policy, arXiv:2401.01879.
[Amini25] Better estimation of the KL divergence between language models, arXiv:2504.10637.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gen_core.intervals import Estimate, mean
from gen_transformer.alignment.exact import best_of_n_estimate

Samples = Float[Tensor, "prompts n"]


def sequence_kl(
    logits: Float[Tensor, "b t vocab"], ref_logits: Float[Tensor, "b t vocab"], mask: Bool[Tensor, "b t"]
) -> Float[Tensor, "b"]:
    """sum_t KL(pi(. | prefix) || ref(. | prefix)) along each sampled completion ([Amini25] eq. 12).

    Its mean over samples of pi is KL(pi || ref) of whole completions, with less variance than the mean log-ratio,
    and it is never negative.

    Args:
        logits, ref_logits: those that predict each token of the completion.
        mask: tokens of the completion, the one that ends it included.
    """
    wide = lambda x: x.to(torch.promote_types(x.dtype, torch.float32)).log_softmax(-1)
    logp, ref_logp = wide(logits), wide(ref_logits)
    each = torch.where(logp.isneginf(), 0.0, logp.exp() * (logp - ref_logp)).sum(-1)
    return each.where(mask, 0.0).sum(1)


def win_rate(
    a: Float[Tensor, "*#b"], b: Float[Tensor, "*#b"], prefer: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Float[Tensor, "*b"]:
    """P(a preferred to b) of each pair: `prefer(a, b)`, or by the larger reward with 1/2 for equals."""
    return ((a > b).double() + (a == b).double() / 2) if prefer is None else prefer(a, b)


@dataclass(frozen=True)
class Point:
    """A policy on the axes of the frontier."""

    name: str
    reward: Estimate
    kl: Estimate
    win: Estimate
    """Against the reference."""
    bound: bool = False
    """Whether `kl` is an upper bound."""

    def row(self) -> dict:
        """A row of results."""
        return {
            "name": self.name,
            "reward": self.reward.figure(),
            "kl": self.kl.figure("nat"),
            "win": self.win.figure(),
            "kl_is": "bound" if self.bound else "estimate",
        }


def point(name: str, reward: Samples, kl: Samples, win: Samples) -> Point:
    """Estimates with 95 % intervals, from the means of each prompt.

    Raises:
        ValueError: for fewer than 2 prompts, from which no interval follows, or values that are not numbers.
    """
    for label, x in (("reward", reward), ("kl", kl), ("win", win)):
        if len(x) < 2:
            raise ValueError(f"an interval needs 2 prompts or more, got {len(x)}; evaluate more prompts")
        if not bool(x.isfinite().all()):
            prompt, sample = (int(i) for i in (~x.isfinite()).nonzero()[0])
            raise ValueError(
                f"{label} of sample {sample} of prompt {prompt} is {x[prompt, sample].item()}; it has to be a number"
            )
    over_prompts = lambda x: mean(x.double().mean(1))
    return Point(name, over_prompts(reward), over_prompts(kl), over_prompts(win))


def best_of_n_points(rewards: Samples, ns: Sequence[int], opponents: Samples | None = None) -> list[Point]:
    """Best-of-n for each n from one set of samples of the reference, without bias.

    KL is the bound log n - (n - 1) / n ([Beirami24] theorem 1), exact where no completion is likely or ties.

    Args:
        rewards: of samples of the reference.
        opponents: rewards of other samples of the reference, for the win rate; None: n / (n + 1), its largest value.
    """
    points = []
    for n in ns:
        bound = math.log(n) - (n - 1) / n
        kl = Estimate(bound, bound, bound, len(rewards))
        if opponents is None:
            win = Estimate(n / (n + 1), n / (n + 1), n / (n + 1), len(rewards))
        else:
            beaten = win_rate(rewards[:, :, None], opponents[:, None, :]).mean(2)  # rises with the reward
            win = mean(best_of_n_estimate(beaten, n))
        points.append(Point(f"best of {n}", mean(best_of_n_estimate(rewards, n)), kl, win, bound=True))
    return points
