"""The small problems with known optima on which the alignment tests agree."""

import numpy as np
import torch

from gen_transformer.alignment import Tree

F64 = torch.float64
REF = torch.tensor([0.40, 0.30, 0.15, 0.10, 0.05], dtype=F64)
R = torch.tensor([0.0, 0.3, 0.6, 1.0, 1.5], dtype=F64)

TWO_TOKENS = Tree.of({"ax": 0.495, "ay": 0.005, "b": 0.5})
TWO_TOKEN_REWARD = torch.tensor([0.0, 4.0, 0.6], dtype=F64)

CYCLE = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.95], [0.8, 0.05, 0.5]], dtype=F64)
CYCLE_REF = torch.tensor([0.6, 0.3, 0.1], dtype=F64)
CONDORCET = torch.tensor(  # arm 0 beats each other, arm 1 has the highest mean win rate
    [[0.5, 0.55, 0.55, 0.55], [0.45, 0.5, 0.95, 0.95], [0.45, 0.05, 0.5, 0.5], [0.45, 0.05, 0.5, 0.5]], dtype=F64
)
UNIFORM = torch.full((4,), 0.25, dtype=F64)

ESTIMATES = {  # of KL(pi || ref) from d = log pi(y) - log ref(y), with the gradient that each has in a loss
    "k1": lambda d: d,
    "k2": lambda d: d.square() / 2,
    "k3": lambda d: (-d).exp() + d - 1,
    "k3_ratio": lambda d: (d - d.detach()).exp() * ((-d).exp() + d - 1),
    "k3_reversed": lambda d: d.exp() - d - 1,
}


def random_problem(seed: int, k: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """A reference policy and rewards."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(k, generator=g, dtype=F64).softmax(0), 2 * torch.randn(k, generator=g, dtype=F64)


CHOIX = [-0.01898721, 0.40677205, -0.49071694, 1.0063123, -0.02989841, -0.87348178]  # abilities fitted to `pairs`


def pairs() -> tuple[list[int], list[int]]:
    """Winners and losers of 600 comparisons of 6 items."""
    rng, theta = np.random.default_rng(0), np.array([0, 0.5, -0.3, 1.2, 0.1, -1])
    won, lost = [], []
    for _ in range(600):
        i, j = (int(x) for x in rng.choice(6, 2, replace=False))
        first = rng.random() < 1 / (1 + np.exp(theta[j] - theta[i]))
        won.append(i if first else j)
        lost.append(j if first else i)
    return won, lost
