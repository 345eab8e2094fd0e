"""Learning from preferences and rewards, each method beside the optimum that it should reach.

    from gen_transformer import alignment as al

    best = al.tilted(ref, r, beta=0.5)                      # what KL-regularised learning should find
    loss = al.gpo(al.margin(c, r, ref_c, ref_r), beta=0.1)  # DPO, one loss for each pair

    history = al.align(model, prompts, reward, objective="rloo", max_new_tokens=16, steps=200)

Losses are pure functions of log-probabilities and come back unreduced; `exact` and `games` hold the closed forms.
"""

from gen_core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # of what __init__.pyi lists
