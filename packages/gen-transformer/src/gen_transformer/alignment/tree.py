"""All completions of one prompt, token by token: where a KL per token differs from the KL of the sequence.

    tree = Tree.of({"ax": 0.495, "ay": 0.005, "b": 0.5})    # completions and their probabilities under the reference
    best = tree.conditionals(tilted(tree.law(tree.ref), r, beta))
    tree.token_level(r, beta, kl="k2")                      # what a KL loss per token finds instead

A policy on the tree is a vector with one entry per state (a prefix, the empty one first): the log-probability of the
last token of the prefix given those before it, 0 for the empty one. Gradients pass, so that a loss can be
checked by its exact expectation: `(tree.law(policy).detach() * loss(tree.tokens(policy))).sum()`.

[Tang25] On a few pitfalls in KL divergence gradient estimation for RL, arXiv:2506.09477.
[Rafailov24] From r to Q*: your language model is secretly a Q-function, arXiv:2404.12358.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gen_transformer.alignment.exact import Choice, fixed_point

Policy = Float[Tensor, "states"]


@dataclass(frozen=True)
class Tree:
    """The completions of a prompt as paths through a tree of prefixes."""

    states: tuple[tuple[Hashable, ...], ...]
    """Every prefix, the shorter first."""
    parent: Int[Tensor, "states"]
    """The prefix without its last token; the empty one is its own."""
    path: Int[Tensor, "sequences length"]
    """The states of each completion without the empty one, -1 after its end."""
    ref: Policy
    """The reference policy."""

    @classmethod
    def of(cls, completions: Mapping[str | tuple[Hashable, ...], float]) -> "Tree":
        """From each completion (a string or a tuple of tokens) and its probability under the reference.

        Raises:
            ValueError: for a completion that is the start of another, or probabilities that do not sum to 1.
        """
        rows = [tuple(c) for c in completions]
        states = sorted(dict.fromkeys(row[:i] for row in rows for i in range(len(row) + 1)), key=len)
        at = {state: i for i, state in enumerate(states)}
        parent = torch.tensor([at[state[:-1]] for state in states])
        if inner := set(rows) & {states[i] for i in parent[1:]}:
            raise ValueError(f"{inner.pop()} ends where another completion goes on; give it a token that ends it")
        longest = max(map(len, rows))
        path = [[at[row[: i + 1]] for i in range(len(row))] + [-1] * (longest - len(row)) for row in rows]
        law = torch.tensor(list(completions.values()), dtype=torch.float64)
        if not bool((law > 0).all()) or abs(law.sum().item() - 1) > 1e-9:
            raise ValueError(f"probabilities are positive and sum to 1, got {law.tolist()}")
        tree = cls(tuple(states), parent, torch.tensor(path), torch.zeros(len(states), dtype=torch.float64))
        return cls(tree.states, parent, tree.path, tree.conditionals(law))

    @property
    def mask(self) -> Bool[Tensor, "sequences length"]:
        """Which tokens exist."""
        return self.path >= 0

    def policy(self, logits: Policy) -> Policy:
        """Log-softmax of the logits among the states with one parent."""
        total = torch.full_like(logits, -torch.inf)
        total = total.scatter_reduce(0, self.parent[1:], logits[1:].detach(), "amax")[self.parent]  # for stability
        norm = torch.zeros_like(logits).index_add(0, self.parent[1:], (logits - total)[1:].exp())
        return torch.cat([logits.new_zeros(1), (logits - total - norm[self.parent].log())[1:]])

    def tokens(self, policy: Policy) -> Float[Tensor, "sequences length"]:
        """Log-probability of each token of each completion, 0 after its end."""
        return policy[self.path.clamp(min=0)] * self.mask

    def law(self, policy: Policy) -> Float[Tensor, "sequences"]:
        """Probability of each completion."""
        return self.tokens(policy).sum(1).exp()

    def conditionals(self, law: Float[Tensor, "sequences"]) -> Policy:
        """The policy under which the completions have this law."""
        mass = self._gather(law.log())
        return mass - mass[self.parent]

    def soft_values(self, r: Float[Tensor, "sequences"], beta: int | float) -> Float[Tensor, "states"]:
        """V(s) = beta log sum_s' ref(s' | s) exp(V(s') / beta), at the end the reward ([Rafailov24] eq. 6).

        V of the empty prefix is the optimum of E[r] - beta KL, and log pi*(s') - log ref(s') = (V(s') - V(s)) / beta.
        """
        log_ref = self.tokens(self.ref).sum(1)
        return beta * (self._gather(log_ref + r.double() / beta) - self._gather(log_ref))

    def token_level(self, r: Float[Tensor, "sequences"], beta: int | float, kl: Choice) -> Policy:
        """Where a KL penalty per token in the loss leads, which ignores that a token changes what follows ([Tang25]).

        At each state it is `fixed_point` for the rewards Q(s, a) = E_pi[r | s, a]: the penalties to come are not in Q.
        With one token, or with `kl="reward"` for whole completions, nothing is lost: that optimum is `conditionals`.
        """
        policy, value = self.ref.clone(), torch.zeros_like(self.ref)
        ends = self.path.gather(1, self.mask.sum(1, keepdim=True) - 1)[:, 0]
        value[ends] = r.double()
        for state in reversed(range(len(self.states))):  # the longer prefixes first
            children = (self.parent[1:] == state).nonzero()[:, 0] + 1
            if len(children):
                pi = fixed_point(self.ref[children].exp(), value[children], beta, kl)
                policy[children], value[state] = pi.log(), pi @ value[children]
        return policy

    def _gather(self, x: Float[Tensor, "sequences"]) -> Float[Tensor, "states"]:
        """Log of the sum of exp(x) over the completions that pass each state."""
        passes = (self.path[:, None, :] == torch.arange(len(self.states))[:, None]).any(2)
        passes[:, 0] = True
        return x[:, None].masked_fill(~passes, -torch.inf).logsumexp(0)


def full_tree(ref: Sequence[Float[Tensor, "..."]]) -> Tree:
    """All completions of T tokens over V: `ref[t]` of shape (V,) * (t + 1) holds p(token t | tokens before it)."""
    size, law = ref[0].shape[0], torch.ones((), dtype=torch.float64)
    for step in ref:
        law = law[..., None] * step.double()
    tokens = torch.cartesian_prod(*[torch.arange(size)] * len(ref)).reshape(-1, len(ref)).tolist()
    return Tree.of({tuple(row): p for row, p in zip(tokens, law.flatten().tolist(), strict=True)})
