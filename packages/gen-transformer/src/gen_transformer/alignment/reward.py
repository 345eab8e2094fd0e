"""Models of what is preferred: a reward for one completion, or a preference between two; and their losses.

    model = RewardModel(trunk, dim)                             # (ids, mask) -> one number for each row
    loss = bradley_terry(model(chosen, m), model(rejected, n), p=0.9).mean()
    game = PreferenceModel(trunk, dim)                          # game(a, m, b, n) -> logit of P(a preferred to b)

A reward model can only tell transitive preferences; a preference model of rank 2 or more also cycles.

[Plackett75] The analysis of permutations, Appl. Statist. 24:193.
[Stiennon20] Learning to summarize from human feedback, arXiv:2009.01325.   [Touvron23] Llama 2, arXiv:2307.09288.
[Eisenstein23] Helping or herding, arXiv:2312.09244.   [Zhang24] General preference modeling, arXiv:2410.02197.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gen_transformer.alignment.preference import Probability, gpo

Scores = Float[Tensor, "*b"]


class RewardModel(nn.Module):
    """r(ids) = w . h + b, h the hidden state of the last real token ([Stiennon20] section 3.4).

    Padding may stand left or right and does not count. Pairs leave a constant open: `centre` it before RL.

    Args:
        trunk: a model of this package, or one of transformers that gives `last_hidden_state`.
        dim: width of its hidden states.
    """

    def __init__(self, trunk: nn.Module, dim: int):
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(dim, 1)
        nn.init.normal_(self.head.weight, std=(dim + 1) ** -0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b"]:
        return self.head(last_hidden(self.trunk, ids, mask))[:, 0]

    @torch.no_grad()
    def centre(self, rewards: Float[Tensor, "n"]) -> None:
        """Shift so that rewards which were `rewards` before have mean 0."""
        self.head.bias.sub_(rewards.mean())


class PreferenceModel(nn.Module):
    """logit P(a over b) = r(a) - r(b) + u(a) . J u(b), J antisymmetric: P(a, b) + P(b, a) = 1 whatever the weights.

    u has `2 rank` entries and J turns each pair of them by a right angle ([Zhang24] section 4.1). Any preferences of K
    completions have such a form with 2 rank = K. Without u it is Bradley-Terry's model.
    """

    def __init__(self, trunk: nn.Module, dim: int, rank: int = 4):
        super().__init__()
        self.trunk = trunk
        self.reward = nn.Linear(dim, 1, bias=False)
        self.embed = nn.Linear(dim, 2 * rank, bias=False)

    def forward(
        self, a: Int[Tensor, "b t"], a_mask: Bool[Tensor, "b t"], b: Int[Tensor, "b s"], b_mask: Bool[Tensor, "b s"]
    ) -> Float[Tensor, "b"]:
        """The logit for each pair of rows: prompt and one completion, prompt and the other."""
        return self.logit(last_hidden(self.trunk, a, a_mask), last_hidden(self.trunk, b, b_mask))

    def logit(self, a: Float[Tensor, "*#b d"], b: Float[Tensor, "*#b d"]) -> Float[Tensor, "*b"]:
        """From hidden states; they broadcast: `logit(h[:, None], h[None])` is the matrix of all pairs."""
        (a1, a2), (b1, b2) = self.embed(a).chunk(2, -1), self.embed(b).chunk(2, -1)
        turn = (a1 * b2).sum(-1) - (a2 * b1).sum(-1)
        return (self.reward(a) - self.reward(b))[..., 0] + turn


def last_hidden(trunk: Any, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """The hidden state of each row's last real token; positions count real tokens only."""
    if not bool(mask.any(1).all()):
        raise ValueError(f"row {int((~mask.any(1)).nonzero()[0])} has no token that counts; drop it")
    if hasattr(trunk, "logits"):
        hidden = trunk(ids, doc=mask.long() - 1)
    else:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        hidden = trunk(ids, attention_mask=mask.long(), position_ids=positions).last_hidden_state
    at = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(1)
    return hidden[torch.arange(len(ids), device=ids.device), at]


# ---------------------------------------------------------------------- losses


def bradley_terry(
    chosen: Scores, rejected: Scores, p: Probability = 1.0, margin: Probability = 0.0, centring: int | float = 0.0
) -> Scores:
    """-p log sigmoid(d - margin) - (1 - p) log sigmoid(-d - margin) + centring s^2, d the difference and s the sum.

    Args:
        p: P(chosen preferred to rejected), 0.5 for a tie.
        margin: how clear the preference is ([Touvron23] eq. 2).
        centring: weight of the penalty that holds rewards around 0 ([Eisenstein23] eq. 2).
    """
    return gpo(chosen - rejected, 1.0, "logistic", p, offset=margin) + centring * (chosen + rejected).square()


def plackett_luce(scores: Float[Tensor, "*b k"], top: int | None = None) -> Float[Tensor, "*b"]:
    """-log P(the order) of scores that stand from the best to the worst ([Plackett75]).

    Args:
        top: places of which the order is known, the rest come in no order; None: all.

    >>> plackett_luce(torch.zeros(3))  # one of 3! orders
    tensor(1.7918)
    """
    rest = scores.flip(-1).logcumsumexp(-1).flip(-1)
    return (rest - scores)[..., :top].sum(-1)
