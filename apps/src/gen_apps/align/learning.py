"""A table on a tree of completions, trained by one method after another with the same budget."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gen_apps.align.config import Exact
from gen_transformer.alignment import (
    OBJECTIVES,
    Objective,
    Pair,
    Tree,
    TreePolicy,
    align,
    fit_preferences,
    leave_one_out,
)

N = 8  # completions of a group

SCORE = replace(OBJECTIVES["rloo"], advantage=lambda e: e.spread(leave_one_out(e.score, e.n)))  # no KL in the reward
KL: Mapping[str, Objective] = {  # where the KL is, by its name in `Tree.token_level`
    "reward": OBJECTIVES["rloo"],
    "loss": replace(SCORE, kl="loss"),
    **{name: replace(SCORE, kl=name) for name in ("k1", "k2", "k3")},
}


def online(config: Exact, tree: Tree, r: Tensor, objective: Any, **options: Any) -> Tensor:
    """The policy on the tree after learning from its own samples."""
    policy = TreePolicy(tree)
    align(
        policy,
        [[policy.bos]] * (config.samples // N),
        policy.reward(r),
        objective=objective,
        beta=config.beta,
        n=N,
        batch_size=config.samples // N,
        max_new_tokens=tree.path.shape[1],
        eos=policy.eos,
        **_options(config),
        **options,
    )
    return policy.table().detach()


def offline(config: Exact, tree: Tree, p: Tensor, loss: Callable[..., Tensor]) -> Tensor:
    """The policy on a tree of single tokens after learning from all pairs, p[i, j] = P(i preferred to j)."""
    policy = TreePolicy(tree)
    pairs = [Pair([policy.bos], [i], [j], float(p[i, j])) for i, j in torch.combinations(torch.arange(len(p))).tolist()]
    fit_preferences(policy, pairs, loss=loss, batch_size=len(pairs), **_options(config))
    return policy.table().detach()


def _options(config: Exact) -> dict[str, Any]:
    return {
        "steps": config.steps,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, config.lr),
        "schedule": lambda step: 1 - step / config.steps,
        "seed": config.seed,
        "device": "cpu",
    }
