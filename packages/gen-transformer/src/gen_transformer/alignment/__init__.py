"""Preference methods as four nouns: rollouts, log-probs, advantages and unreduced losses, and the exact optima.

    history = align(model, prompts, reward, objective="rloo", max_new_tokens=16, steps=200)
"""

from gen_core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # of what __init__.pyi lists
