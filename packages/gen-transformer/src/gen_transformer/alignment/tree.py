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
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gen_transformer.alignment.exact import Choice, fixed_point
from gen_transformer.alignment.rollout import Rollout

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


class TreePolicy(nn.Module):
    """A table with a logit for each state of a tree, as a language model that `align` trains, in float64.

    The vocabulary is the tokens of the tree, then `eos`, the only token after a completion, and `bos`, the prompt.

        policy = TreePolicy(tree)
        align(policy, [[policy.bos]] * 16, policy.reward(r), max_new_tokens=tree.path.shape[1], eos=policy.eos, ...)
        tree.law(policy.table())
    """

    def __init__(self, tree: Tree):
        super().__init__()
        self.tree, self.table_logits = tree, nn.Parameter(tree.ref.clone())
        tokens = sorted({state[-1] for state in tree.states[1:]}, key=str)
        self.eos, self.bos = len(tokens), len(tokens) + 1
        self.config = SimpleNamespace(vocab=len(tokens) + 2, context=tree.path.shape[1] + 2, dim=len(tokens) + 2)
        last = [0, *(tokens.index(state[-1]) for state in tree.states[1:])]
        after = torch.arange(len(tree.states))[:, None].repeat(1, self.config.vocab)  # a state and a token to a state
        after[tree.parent[1:], torch.tensor(last[1:])] = torch.arange(1, len(tree.states))
        after[:, self.bos] = 0
        ends = torch.ones(len(tree.states), dtype=torch.bool).scatter(0, tree.parent[1:], False)
        for name, value in (("last", torch.tensor(last)), ("after", after), ("ends", ends)):
            self.register_buffer(name, value)

    last: Tensor
    after: Tensor
    ends: Tensor

    def table(self) -> Policy:
        """The policy on the tree."""
        return self.tree.policy(self.table_logits)

    def reward(self, r: Float[Tensor, "sequences"]) -> Any:
        """The reward function of `align` that gives each completion its entry of `r`, a start of one 0."""
        value = torch.zeros(len(self.tree.states), dtype=torch.float64)
        value[self.tree.path.gather(1, self.tree.mask.sum(1, keepdim=True) - 1)[:, 0]] = r.double()
        return lambda rollout: value[self.completed(rollout)]

    def completed(self, rollout: Rollout) -> Int[Tensor, "b"]:
        """The last state of each row."""
        return self._states(rollout.ids.where(rollout.mask, self.eos))[:, -1]

    def forward(self, ids: Int[Tensor, "b t"], *, doc: Any = None, cache: Any = None) -> Float[Tensor, "b t vocab"]:
        """Logits of the next token, which serve as hidden states."""
        seen = ids if cache is None or cache.ids is None else torch.cat([cache.ids, ids], 1)
        if cache is not None:
            cache.ids = seen
        rows = self.table_logits.new_full((len(self.tree.states), self.config.vocab), -torch.inf)
        rows = rows.index_put((self.tree.parent[1:], self.last[1:]), self.table()[1:])
        rows = rows.index_put((self.ends.nonzero()[:, 0], torch.tensor(self.eos)), rows.new_zeros(()))
        return rows[self._states(seen)[:, -ids.shape[1] :]]

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def cache(self, batch: int, length: int) -> Any:
        return SimpleNamespace(ids=None)

    def _states(self, ids: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
        state, states = torch.zeros_like(ids[:, 0]), []
        for token in ids.T:
            state = self.after[state, token]
            states.append(state)
        return torch.stack(states, 1)


def full_tree(ref: Sequence[Float[Tensor, "..."]]) -> Tree:
    """All completions of T tokens over V: `ref[t]` of shape (V,) * (t + 1) holds p(token t | tokens before it)."""
    size, law = ref[0].shape[0], torch.ones((), dtype=torch.float64)
    for step in ref:
        law = law[..., None] * step.double()
    tokens = torch.cartesian_prod(*[torch.arange(size)] * len(ref)).reshape(-1, len(ref)).tolist()
    return Tree.of({tuple(row): p for row, p in zip(tokens, law.flatten().tolist(), strict=True)})
