"""The two loops: `align` learns from completions that the policy samples now, `fit_preferences` from given pairs.

    history = align(model, prompts, reward, objective="rloo", beta=0.05, max_new_tokens=16, eos=2, steps=200)
    history = fit_preferences(model, pairs, loss=pairwise("logistic", 0.1), steps=200)

Both are tasks of gen-core's Trainer: they resume bit for bit, and micro-batches and the number of processes change
nothing but rounding. A prompt and its completions stay on one process. The policy learns without dropout, with which
the probabilities of sampling and of learning would differ.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from gen_core.callbacks import Callback
from gen_core.data import Loader
from gen_core.hooks import Training
from gen_core.step import Step
from gen_core.task import Task
from gen_core.trainer import Trainer
from gen_transformer.alignment.advantages import AdaptiveKL, gae
from gen_transformer.alignment.logprobs import causal, counted, log_ratio_kl, reduce, token_logprobs
from gen_transformer.alignment.objectives import OBJECTIVES, PAIRS, Experience, Margins, Objective, PairObjective
from gen_transformer.alignment.policy import kl_loss, value_loss
from gen_transformer.alignment.rollout import Ids, Rollout, join, rollout
from gen_transformer.lora import adapters, adapters_off

Reward = Callable[[Rollout], Any]
"""Rows to numbers, one for each: `lambda r: [grade(*pair) for pair in r.pairs()]`."""
Preference = Callable[[Rollout, Rollout], Any]
"""Two completions of each prompt to P(the first is preferred), in 0..1."""
Optim = Callable[[list[nn.Parameter]], Optimizer]


class Pair(NamedTuple):
    """Two completions of a prompt, as ids."""

    prompt: Ids
    first: Ids
    second: Ids
    p: float = 1.0
    """P(first preferred to second)."""


class Critic(nn.Module):
    """Value of the state before each token: a copy of a policy's trunk, and a linear map that is 0 at first."""

    def __init__(self, model: Any):
        super().__init__()
        self.trunk = copy.deepcopy(model).requires_grad_(True)
        self.head = nn.Linear(model.config.dim, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"], start: int) -> Float[Tensor, "b t"]:
        hidden = self.trunk(ids[:, :-1], doc=mask[:, :-1].long() - 1)
        return self.head(hidden[:, start - 1 :])[..., 0]


class _Aligned(Task):
    """A policy, its frozen reference and one optimiser.

    Args:
        ref: None copies the policy as it is now, or turns its adapters off where it has some (`add_lora`).
    """

    def __init__(
        self,
        policy: nn.Module,
        ref: Any = None,
        *,
        temperature: int | float = 1.0,
        optimizer: Optim | None = None,
    ):
        super().__init__()
        self.policy, self.temperature = policy, temperature
        self.optimizer = optimizer or (lambda parameters: AdamW(parameters, lr=1e-5, weight_decay=0.0))
        if ref is not None:
            _same_vocabulary(policy, ref)
        elif not adapters(policy):
            ref = copy.deepcopy(policy)
        self.ref = ref.requires_grad_(False).eval() if isinstance(ref, nn.Module) else ref

    def optimizers(self) -> dict[str, Optimizer]:
        return {"policy": self.optimizer([p for p in self.parameters() if p.requires_grad])}

    def train(self, mode: bool = True) -> Task:
        """Dropout is off for all, always."""
        return super().train(False)

    @property
    def reference(self) -> Any:
        return _Adapterless(self.policy) if self.ref is None else self.ref

    def logprobs(self, model: Any, ids: Tensor, mask: Tensor, start: int) -> Tensor:
        return token_logprobs(model, ids, mask, start, self.temperature)

    @torch.no_grad()
    def in_pieces(self, t: Step, f: Callable[..., Tensor], ids: Tensor, mask: Tensor, start: int) -> Tensor:
        """`f(ids, mask, start)` in micro-batches."""
        pieces = zip(*(x.split(t.micro_batch or len(ids)) for x in (ids, mask)), strict=True)
        return torch.cat([f(a, b, start) for a, b in pieces])

    def roll(self, t: Step, prompts: Sequence[Ids], n: int, name: str, **options: Any) -> Rollout:
        """Completions whose random numbers are a function of (seed, step, number of the row in the global batch)."""
        rows = len(prompts) * n
        every = torch.Generator().manual_seed(t.key("rollout", name))
        seeds = torch.randint(2**62, (t.world, rows), generator=every)[t.rank].tolist()
        streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        return rollout(self.policy, prompts, n=n, temperature=self.temperature, generator=streams, **options)


class OnlineTask(_Aligned):
    """One step: roll out, score, weigh, and update the policy; batches are lists of prompts. See `align`."""

    def __init__(
        self,
        policy: nn.Module,
        reward: Reward | Preference | None,
        objective: Objective,
        *,
        n: int,
        beta: int | float | AdaptiveKL,
        entropy: int | float,
        epochs: int,
        minibatches: int,
        critic: nn.Module | None,
        sampling: Mapping[str, Any],
        **options: Any,
    ):
        super().__init__(policy, **options)
        self.reward, self.objective, self.n, self.beta, self.entropy = reward, objective, n, beta, entropy
        self.epochs, self.minibatches, self.sampling = epochs, minibatches, dict(sampling)
        self.critic = (critic or Critic(policy)) if objective.critic else None

    def step(self, batch: Sequence[Ids], t: Step) -> dict[str, Tensor]:
        beta = float(self.beta.beta if isinstance(self.beta, AdaptiveKL) else self.beta)
        with _autocast(t):
            roll = self.roll(t, batch, self.n, "policy", **self.sampling)
            score = self._score(t, batch, roll)
            ref = self.in_pieces(t, lambda *x: self.logprobs(self.reference, *x), roll.ids, roll.mask, roll.start)
            values = self.critic and self.in_pieces(t, self.critic, roll.ids, roll.mask, roll.start)
        in_reward = beta if self.objective.kl == "reward" else 0.0
        total = lambda x: t.reduce(x, "sum")
        e = Experience(roll, score, ref, self.n, in_reward, self.entropy, values, total)
        kl = log_ratio_kl(roll.logp, ref).sum(1)
        metrics = {"score": score.mean(), "kl": kl.mean(), "length": roll.completion_mask.sum(1).float().mean()}
        metrics["ended"] = roll.ended.float().mean()
        if self.n > 1:
            groups = score.view(-1, self.n)
            metrics["equal_groups"] = (groups.amax(1) == groups.amin(1)).float().mean()
        self._update(t, e, beta, metrics)
        if isinstance(self.beta, AdaptiveKL):
            metrics["beta"] = self.beta.beta.clone()
            self.beta.update(t.reduce(kl.mean()), len(score) * t.world)
        return metrics

    def _score(self, t: Step, batch: Sequence[Ids], roll: Rollout) -> Tensor:
        if self.reward is None:
            return torch.zeros_like(roll.logp[:, 0])
        others = ()
        if (alpha := self.objective.opponent) is not None:
            mix = (self.reference, alpha) if alpha else None
            others = (self.roll(t, batch, self.n, "opponent", mix=mix, **self.sampling),)
        return _numbers(self.reward(roll, *others), roll)

    def _update(self, t: Step, e: Experience, beta: int | float, metrics: dict[str, Tensor]) -> None:
        roll, advantages = e.rollout, self.objective.advantage(e)
        used = e.mask if self.objective.keep is None else e.mask & self.objective.keep(e)[:, None]
        if not e.total(used.sum()) > 0:  # no row says anything
            return
        returns = None if e.values is None else gae(e.rewards(), e.values, e.mask)[1]
        columns = (roll.ids, roll.mask, used, roll.logp, advantages, e.ref_logp, e.values, returns)
        how = self.objective.how
        fresh = self.epochs * self.minibatches == 1  # the ratio is 1, whatever the sampler's rounding
        loss = lambda *columns: self.loss(*columns, start=roll.start, beta=beta, fresh=fresh)
        for part in [k for _ in range(self.epochs) for k in range(self.minibatches)]:
            rows = [x if x is None else x[part :: self.minibatches] for x in columns]
            value = t.minimize("policy", loss, *rows, weight=lambda *rows: counted(rows[2], how))
            metrics.setdefault("loss", value)

    def loss(
        self, ids: Tensor, mask: Tensor, used: Tensor, old: Tensor, advantages: Tensor, ref: Tensor,
        values: Tensor | None, returns: Tensor | None, *, start: int, beta: int | float, fresh: bool,
    ) -> Float[Tensor, ""]:  # fmt: skip
        """Of some rows, over what `counted` counts in them."""
        o, logp = self.objective, self.logprobs(self.policy, ids, mask, start)
        x = o.loss(logp, logp.detach() if fresh else old, advantages, used)
        if o.kl == "loss" and beta:
            x = x + beta * kl_loss(logp, ref, used)
        elif o.kl != "reward" and beta:
            x = x + beta * log_ratio_kl(logp, ref, o.kl)  # type: ignore[arg-type]
        value = reduce(x, used, o.how) / (self.sampling["max_new_tokens"] if o.by_length else 1)
        if self.critic is None or values is None or returns is None:
            return value
        return value + reduce(value_loss(self.critic(ids, mask, start), values, returns, clip=0.2), used, o.how)


class PairTask(_Aligned):
    """Compare two completions of each prompt: given ones, or with `sampling` those of the policy now."""

    def __init__(
        self,
        policy: nn.Module,
        objective: PairObjective,
        *,
        prefer: Preference | None = None,
        sampling: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__(policy, **options)
        self.objective, self.prefer, self.sampling = objective, prefer, sampling

    def step(self, batch: Sequence[Any], t: Step) -> dict[str, Tensor]:
        with _autocast(t):
            ids, mask, start, p = self._given(batch, t) if self.sampling is None else self._sampled(batch, t)
            flat = (ids.flatten(0, 1), mask.flatten(0, 1), start)
            ref = self.in_pieces(t, lambda *x: self.logprobs(self.reference, *x), *flat).unflatten(0, (-1, 2))
        loss = lambda *columns: self.loss(*columns, start=start)
        return {"loss": t.minimize("policy", loss, ids, mask, ref, p)}

    def loss(self, ids: Tensor, mask: Tensor, ref: Tensor, p: Tensor, *, start: int) -> Float[Tensor, ""]:
        """Mean over pairs (b, 2, n)."""
        own = self.logprobs(self.policy, ids.flatten(0, 1), mask.flatten(0, 1), start).unflatten(0, (-1, 2)).sum(2)
        a, b = mask[:, :, start:].sum(2).unbind(1)
        before = ref.sum(2)
        return self.objective.loss(Margins(own[:, 0], own[:, 1], before[:, 0], before[:, 1], (a, b), p)).mean()

    def _given(self, batch: Sequence[Pair], t: Step) -> tuple[Tensor, Tensor, int, Tensor]:
        completions = [c for pair in batch for c in (pair.first, pair.second)]
        prompts = [pair.prompt for pair in batch for _ in range(2)]
        ids, mask, start = join(prompts, completions, device=t.device)
        p = torch.tensor([pair.p for pair in batch], device=t.device, dtype=torch.get_default_dtype())
        return ids.unflatten(0, (-1, 2)), mask.unflatten(0, (-1, 2)), start, p

    def _sampled(self, batch: Sequence[Ids], t: Step) -> tuple[Tensor, Tensor, int, Tensor]:
        assert self.sampling is not None and self.prefer is not None, "pairs that are sampled need a preference"
        mix = (self.reference, self.objective.mix) if self.objective.mix else None
        both = self.roll(t, batch, 2, "pair", mix=mix, **self.sampling)
        first, second = _rows(both, slice(0, None, 2)), _rows(both, slice(1, None, 2))
        p = _numbers(self.prefer(first, second), first)
        return both.ids.unflatten(0, (-1, 2)), both.mask.unflatten(0, (-1, 2)), both.start, p


def align(
    model: nn.Module,
    prompts: Sequence[Ids],
    reward: Reward | None = None,
    *,
    objective: str | Objective | PairObjective = "rloo",
    prefer: Preference | None = None,
    ref: Any = None,
    beta: int | float | AdaptiveKL = 0.05,
    entropy: int | float = 0.0,
    n: int = 8,
    steps: int,
    batch_size: int = 16,
    max_new_tokens: int,
    eos: int | Sequence[int] | None = None,
    temperature: int | float = 1.0,
    epochs: int = 1,
    minibatches: int = 1,
    critic: nn.Module | None = None,
    optimizer: Optim | None = None,
    run: str | Path | None = None,
    seed: int = 0,
    callbacks: Sequence[Any] = (),
    **trainer: Any,
) -> list[dict[str, float]]:
    """Maximise E[reward] - beta KL(model || ref) on completions that the model samples; metrics of each step.

    Args:
        prompts: ids; their lengths may differ.
        reward: of whole rollouts, a number for each row. None: 0, which with a teacher as `ref` and beta 1 distils it.
        objective: a name of `OBJECTIVES` or `PAIRS`, or your own.
        prefer: a preference, for objectives that compare. Where there is a reward instead, pairs are compared by
            sigmoid(difference of rewards), the soft labels of Bradley and Terry.
        ref: the reference; None: the model as it is now.
        n: completions of each prompt.
        batch_size: prompts of a step, over all processes.
        temperature: of sampling and of all log-probs.
        epochs, minibatches: updates of a rollout are epochs times minibatches.
        critic: `(ids, mask, start) -> (b, t)` for "ppo"; None: `Critic(model)`.
        optimizer: parameters to optimiser; None: AdamW of rate 1e-5 without decay, which would pull to 0, not to ref.
        trainer: micro_batch, clip, schedule, device, precision of `Trainer`.

    Raises:
        ValueError: for an unknown objective, a reward that is not finite (naming the row), another vocabulary.
    """
    if isinstance(objective, str):
        objective = _named(objective, float(beta.beta) if isinstance(beta, AdaptiveKL) else beta)
    if epochs < 1 or minibatches < 1 or (n * batch_size) % minibatches:
        raise ValueError(f"{n * batch_size} completions cannot be cut into {minibatches} minibatches, {epochs} times")
    sampling = {"max_new_tokens": max_new_tokens, "eos": eos}
    options: dict[str, Any] = {"ref": ref, "temperature": temperature, "optimizer": optimizer}
    if isinstance(objective, PairObjective):
        if prefer is None and reward is None:
            raise ValueError("this objective compares completions; give reward or prefer")
        prefer = prefer or _bradley_terry(reward)
        task: Task = PairTask(model, objective, prefer=prefer, sampling=sampling, **options)
    else:
        if objective.opponent is not None and prefer is None:
            raise ValueError("this objective plays against opponents; give prefer, a preference of two rollouts")
        scored = reward if objective.opponent is None else prefer
        task = OnlineTask(
            model, scored, objective, n=n, beta=beta, entropy=entropy, epochs=epochs, minibatches=minibatches,
            critic=critic, sampling=sampling, **options,
        )  # fmt: skip
    return _fit(task, prompts, batch_size, steps, run, seed, callbacks, trainer)


def fit_preferences(
    model: nn.Module,
    pairs: Sequence[Sequence[Any]],
    *,
    loss: Callable[[Margins], Tensor],
    ref: Any = None,
    steps: int,
    batch_size: int = 32,
    optimizer: Optim | None = None,
    run: str | Path | None = None,
    seed: int = 0,
    callbacks: Sequence[Any] = (),
    **trainer: Any,
) -> list[dict[str, float]]:
    """Fit a policy to pairs of completions, with labels that may be soft; metrics of each step.

    Args:
        pairs: (prompt, first, second, p) as ids, p = P(first preferred), 1 if left out.
        loss: of margins, `pairwise("logistic", beta)` for DPO or any function of `Margins`.
    """
    task = PairTask(model, PairObjective(loss), ref=ref, optimizer=optimizer)
    return _fit(task, [Pair(*pair) for pair in pairs], batch_size, steps, run, seed, callbacks, trainer)


# ---------------------------------------------------------------------- what both share


class History(Callback):
    """The metrics of each step, resumed ones included."""

    order = 15
    name = "alignment_history"

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        self.rows.append(t.read(metrics))

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state.get("rows", []))


def _fit(
    task: Task, data: Sequence[Any], batch_size: int, steps: int, run: Any, seed: int, callbacks: Any, options: Any
) -> list[dict[str, float]]:
    history = History()
    trainer = Trainer(task, run, seed=seed, callbacks=[history, *callbacks], **options)
    trainer.fit(Loader(data, batch_size, seed=seed, collate=list), steps)
    return history.rows


def _named(name: str, beta: int | float) -> Objective | PairObjective:
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    if name in PAIRS:
        return PAIRS[name](beta)
    raise ValueError(f"objective {name!r} is not known; use one of {', '.join([*OBJECTIVES, *PAIRS])}, or your own")


def _bradley_terry(reward: Reward | None) -> Preference:
    assert reward is not None
    return lambda a, b: torch.sigmoid(_numbers(reward(a), a) - _numbers(reward(b), b))


def _numbers(values: Any, roll: Rollout) -> Float[Tensor, "b"]:
    """What a reward returned, as a tensor; the first that is no number is named."""
    x = torch.as_tensor(values, device=roll.logp.device).detach()
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    if x.shape != (len(roll.ids),):
        raise ValueError(f"a reward is a number for each of the {len(roll.ids)} rows, got shape {tuple(x.shape)}")
    if not (finite := x.isfinite()).all():
        row = int((~finite).nonzero()[0])
        raise ValueError(f"the reward of row {row} is {x[row].item()}; its completion is {roll.pairs()[row][1]}")
    return x


def _rows(roll: Rollout, rows: slice) -> Rollout:
    cut = {f.name: value[rows] for f in fields(roll) if isinstance(value := getattr(roll, f.name), Tensor)}
    return replace(roll, **cut)


def _autocast(t: Step) -> AbstractContextManager[Any]:
    """The precision of the trainer, for what runs outside of `minimize`."""
    on = getattr(t, "precision", "no") == "bf16"
    return torch.autocast(t.device.type, torch.bfloat16, enabled=on)


def _same_vocabulary(policy: Any, ref: Any) -> None:
    ours, theirs = causal(policy).config.vocab, causal(ref).config.vocab
    if ours != theirs:
        raise ValueError(f"the policy has {ours} tokens and the reference {theirs}; use one vocabulary")


class _Adapterless:
    """A `LanguageModel`: the policy with its adapters off."""

    def __init__(self, policy: nn.Module):
        self.policy, self.lm = policy, causal(policy)
        self.config, self.cache = self.lm.config, self.lm.cache

    def __call__(self, ids: Tensor, *, doc: Tensor | None = None, cache: Any = None) -> Tensor:
        with adapters_off(self.policy):
            return self.lm(ids, doc=doc, cache=cache)

    def logits(self, hidden: Tensor) -> Tensor:
        with adapters_off(self.policy):
            return self.lm.logits(hidden)
