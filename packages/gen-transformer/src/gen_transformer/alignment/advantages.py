"""Rewards of completions to weights of their tokens.

    rewards = shape_rewards(score, logp, ref_logp, mask, beta)      # (b, t): the KL folded in, token by token
    advantages, returns = gae(rewards, values, mask, lam=0.95)

Completions are padded on the right: a mask is True up to the last token, then False. Groups are rows that lie together,
the `n` completions of one prompt. Nothing here has a gradient.

[Schulman15] High-dimensional continuous control using generalized advantage estimation, arXiv:1506.02438.
[Ziegler19] Fine-tuning language models from human preferences, arXiv:1909.08593. [Kool19] Buy 4 REINFORCE samples, get
a baseline for free. [Shao24] DeepSeekMath, arXiv:2402.03300. [Liu25] Understanding R1-Zero-like training,
arXiv:2503.20783. [Yu25] DAPO, arXiv:2503.14476.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@torch.no_grad()
def shape_rewards(
    score: Float[Tensor, "b"],
    logp: Float[Tensor, "b t"],
    ref_logp: Float[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    beta: int | float,
    entropy: int | float = 0.0,
) -> Float[Tensor, "b t"]:
    """-beta log(policy / reference) at every token, plus the score at the last real one ([Ziegler19] eq. 2).

    What maximises the sum is the tilted policy, for sequences of any length: no loss needs another KL term.

    Args:
        entropy: bonus for the entropy of sequences, in the same units: -entropy log(policy) at every token.
    """
    rewards = (-beta * (logp - ref_logp) - entropy * logp).where(mask, 0)
    last = torch.arange(mask.shape[1], device=mask.device) == mask.sum(1, keepdim=True) - 1
    return rewards + score[:, None].to(rewards) * last


@torch.no_grad()
def gae(
    rewards: Float[Tensor, "b t"],
    values: Float[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    gamma: int | float = 1.0,
    lam: int | float = 0.95,
) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b t"]]:
    """(advantages, returns), 0 in padding ([Schulman15] eq. 16); the value after the last token is 0.

    A_t = delta_t + gamma lam A_{t+1},  delta_t = r_t + gamma V_{t+1} - V_t;  returns are A + V.
    """
    rewards, values = rewards.where(mask, 0), values.where(mask, 0)
    after = torch.cat((values[:, 1:], torch.zeros_like(values[:, :1])), 1)
    delta = rewards + gamma * after - values
    advantage, columns = torch.zeros_like(delta[:, 0]), []
    for t in reversed(range(delta.shape[1])):
        advantage = delta[:, t] + gamma * lam * advantage
        columns.append(advantage)
    advantages = torch.stack(columns[::-1], 1)
    return advantages.where(mask, 0), (advantages + values).where(mask, 0)


def reward_to_go(
    rewards: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"], gamma: int | float = 1.0
) -> Float[Tensor, "b t"]:
    """Sum of the rewards from each token on.

    >>> reward_to_go(torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3).bool()).tolist()
    [[7.0, 6.0, 4.0]]
    """
    return gae(rewards, torch.zeros_like(rewards), mask, gamma, lam=1.0)[1]


@torch.no_grad()
def leave_one_out(score: Float[Tensor, "b"], n: int) -> Float[Tensor, "b"]:
    """Each score minus the mean of the others of its group of `n` ([Kool19]): the gradient's mean is unchanged.

    >>> leave_one_out(torch.tensor([1.0, 2.0, 6.0]), 3).tolist()
    [-3.0, -1.5, 4.5]
    """
    groups = _groups(score, n)
    return _centred(groups).mul(n / (n - 1)).flatten()


@torch.no_grad()
def group_normalize(score: Float[Tensor, "b"], n: int, std: bool = True) -> Float[Tensor, "b"]:
    """Scores minus the mean of their group, over its standard deviation + 1e-4 ([Shao24] section 4.1.2).

    The deviation is the unbiased one; equal scores give exactly 0. Dividing changes what is optimised: the
    regularisation becomes beta times the deviation, which for a small beta collapses to the best completion.

    Args:
        std: False only centres, as Dr. GRPO does ([Liu25]).
    """
    centred = _centred(_groups(score, n))
    scale = centred.square().sum(1, keepdim=True).div(n - 1).sqrt() + 1e-4
    return (centred / scale if std else centred).flatten()


def informative(score: Float[Tensor, "b"], n: int) -> Bool[Tensor, "b"]:
    """True for rows of groups whose scores differ; the others have no gradient ([Yu25] section 3.2)."""
    groups = _groups(score, n)
    return (groups.amax(1) > groups.amin(1)).repeat_interleave(n)


def overlong(length: Tensor, limit: int, buffer: int) -> Float[Tensor, "b"]:
    """A penalty from 0 at `limit - buffer` tokens to -1 at `limit`, to be added to scores ([Yu25] eq. 13).

    >>> overlong(torch.tensor([6, 9, 10, 12]), limit=10, buffer=2).tolist()
    [0.0, -0.5, -1.0, -1.0]
    """
    return ((limit - buffer - length) / buffer).clamp(-1, 0)


class AdaptiveKL(nn.Module):
    """beta that moves towards a target KL: beta *= 1 + clip(KL / target - 1, -.2, .2) n / horizon ([Ziegler19] 2.2).

    Args:
        beta: to begin with.
        target: KL of sequences, in nats.
        horizon: samples in which the error of 1 changes beta by a factor of e.
    """

    beta: Tensor

    def __init__(self, beta: int | float = 0.05, *, target: int | float = 6.0, horizon: int = 10_000):
        super().__init__()
        if not (beta > 0 and target > 0 and horizon > 0):
            raise ValueError(f"beta, target and horizon are positive, got {beta}, {target} and {horizon}")
        self.register_buffer("beta", torch.tensor(float(beta), dtype=torch.float32))
        self.target, self.horizon = target, horizon

    def update(self, kl: Tensor | float, n: int) -> None:
        """After a batch of `n` sequences of this mean KL."""
        error = torch.as_tensor(kl).to(self.beta) / self.target - 1
        self.beta.mul_(1 + error.clamp(-0.2, 0.2) * n / self.horizon)


def _groups(score: Tensor, n: int) -> Float[Tensor, "g n"]:
    if n < 2:
        raise ValueError(f"a group has a baseline from 2 completions on, got n={n}; sample more of each prompt")
    if len(score) % n:
        raise ValueError(f"{len(score)} scores are no groups of {n}; give all completions of each prompt together")
    return score.view(-1, n)


def _centred(groups: Tensor) -> Tensor:
    """Minus the mean, exactly 0 for equal scores, whose mean may be rounded."""
    equal = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
    return (groups - groups.mean(1, keepdim=True)).where(~equal, 0.0)
