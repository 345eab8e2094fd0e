from .advantages import (
    AdaptiveKL,
    gae,
    group_normalize,
    informative,
    leave_one_out,
    overlong,
    reward_to_go,
    shape_rewards,
)
from .align import Critic, OnlineTask, Pair, PairTask, align, fit_preferences
from .logprobs import log_ratio_kl, masked_mean, reduce, token_logprobs, whiten
from .objectives import OBJECTIVES, PAIRS, Experience, Margins, Objective, PairObjective, pairwise
from .policy import cispo, kl_loss, ppo_clip, reinforce, value_loss
from .rollout import Rollout, join, rollout

__all__ = [
    "OBJECTIVES",
    "PAIRS",
    "AdaptiveKL",
    "Critic",
    "Experience",
    "Margins",
    "Objective",
    "OnlineTask",
    "Pair",
    "PairObjective",
    "PairTask",
    "Rollout",
    "align",
    "cispo",
    "fit_preferences",
    "gae",
    "group_normalize",
    "informative",
    "join",
    "kl_loss",
    "leave_one_out",
    "log_ratio_kl",
    "masked_mean",
    "overlong",
    "pairwise",
    "ppo_clip",
    "reduce",
    "reinforce",
    "reward_to_go",
    "rollout",
    "shape_rewards",
    "token_logprobs",
    "value_loss",
    "whiten",
]
