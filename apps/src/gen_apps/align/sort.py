"""`gen align sort`: a small GPT learns to sort digits, first from answers, then from a reward that checks them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen_apps import command, results

END, STOP = 10, 11  # the sign after a problem, and the end of an answer; 0..9 are digits
HELD_OUT = 600


@dataclass(frozen=True)
class Sort(command.Measures):
    """Teach a small GPT to sort digits: supervised fine-tuning, then reinforcement learning from a check."""

    shortest: int = 3
    """Digits of a problem, at least."""
    longest: int = 6
    """Digits of a problem, at most."""
    sft_steps: int = 230
    """Updates of fine-tuning, on 96 solved problems each."""
    steps: int = 100
    """Updates of reinforcement learning, on 8 answers to each of 16 problems."""
    objective: str = "rloo"
    """rloo, reinforce, ppo, grpo, dr_grpo, dapo, gspo, cispo or best-of-n."""
    lr: float = 2e-4
    """Peak learning rate of reinforcement learning: a fifth of the steps warm up, then it falls along a cosine."""
    beta: float = 0.0
    """Weight of the KL to the fine-tuned model."""
    seed: int = 0
    out: Path = Path("align-sort.html")
    """Page to write."""

    def __post_init__(self):
        if not 3 <= self.shortest <= self.longest <= 20:  # of fewer digits there are fewer problems than are held out
            raise ValueError(f"need 3 <= --shortest <= --longest <= 20, got {self.shortest} and {self.longest}")
        for name in ("sft_steps", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")


Problem = tuple[int, ...]


def problems(config: Sort, n: int, name: str, without: frozenset[Problem] = frozenset()) -> list[Problem]:
    """`n` draws of digits of every length alike, each followed by the sign."""
    import numpy as np

    from gen_core import runtime

    random, drawn = np.random.default_rng(runtime.key(config.seed, name)), []
    while len(drawn) < n:
        size = random.integers(config.shortest, config.longest + 1)
        problem = (*map(int, random.integers(0, 10, size)), END)
        drawn += [problem] if problem not in without else []
    return drawn


def answer(problem: Problem | list[int]) -> list[int]:
    return [*sorted(problem[:-1]), STOP]


def reward(rollout: Any) -> list[float]:
    """1 for the very answer, its end included."""
    return [float(completion == answer(prompt)) for prompt, completion in rollout.pairs()]


def sort(config: Sort) -> None:
    import torch

    from gen_apps import pages
    from gen_core import seed_all
    from gen_core.schedule import warmup_cosine
    from gen_transformer import Config, Transformer
    from gen_transformer.alignment import align

    held_out = problems(config, HELD_OUT, "held out")
    seen = frozenset(held_out)
    seed_all(config.seed, "weights")
    model = Transformer(
        Config(vocab=12, dim=64, layers=2, heads=2, context=64, pos="learned", norm="layer", mlp="gelu", bias="all")
    )
    _tune(config, model, problems(config, 96 * config.sft_steps, "solved", seen))
    before, cases = _measure(config, "SFT", model, held_out)
    history = align(
        model, problems(config, 16 * config.steps, "posed", seen), reward, objective=config.objective,
        beta=config.beta, n=8, steps=config.steps, batch_size=16, max_new_tokens=config.longest + 1, eos=STOP, clip=1.0,
        schedule=warmup_cosine(config.steps // 5, config.steps, floor=0.1), seed=config.seed, device="cpu",
        optimizer=lambda parameters: torch.optim.AdamW(parameters, config.lr, weight_decay=0.0),
    )  # fmt: skip
    after, _ = _measure(config, config.objective, model, held_out)
    out = pages.write(
        config.out, "align_sort", title="Sorting digits, from answers to a reward", config=config, cases=cases,
        head=["after", *_columns(before)], rows=[_cells(before), _cells(after)], curve=_curve(history),
    )  # fmt: skip
    results.show(config, "align sort", "after", [before, after])
    print(f"page {out}")


def _tune(config: Sort, model: Any, given: list[Problem]) -> None:
    """Cross-entropy of answers alone: problems are not predicted."""
    from gen_core import Arrays, Loader, Trainer
    from gen_core.schedule import warmup_cosine
    from gen_transformer import LMTask
    from gen_transformer.alignment import join

    ids, mask, start = join(given, [answer(problem) for problem in given])
    weight = mask.clone()
    weight[:, :start] = False
    doc = mask.long() - 1
    data = Arrays(ids[:, :-1], ids[:, 1:], weight[:, 1:].float(), doc[:, :-1])
    schedule = warmup_cosine(min(10, config.sft_steps // 5), config.sft_steps, floor=0.1)
    trainer = Trainer(LMTask(model, lr=2e-3), seed=config.seed, clip=1.0, schedule=schedule, device="cpu")
    trainer.fit(Loader(data, 96, seed=config.seed), config.sft_steps)


def _measure(config: Sort, name: str, model: Any, held_out: list[Problem]) -> tuple[dict[str, Any], list[list[str]]]:
    """Shares of right answers, with intervals, and a few answers."""
    from gen_core import generator
    from gen_core.intervals import proportion
    from gen_transformer.alignment import rollout

    row: dict[str, Any] = {"name": name}
    options = {"max_new_tokens": config.longest + 1, "eos": STOP, "generator": generator(config.seed, "measure")}
    for how, temperature in (("sampled", 1.0), ("greedy", 0.0)):
        rolled = rollout(model, held_out, temperature=temperature, **options)
        right = reward(rolled)
        row[f"{how}_accuracy"] = proportion(sum(right) / len(right), len(right)).figure()
    cases = [
        (_digits(p), _digits(c), "right" if r else "wrong") for (p, c), r in zip(rolled.pairs(), right, strict=True)
    ]
    shown = [[case for case in cases if case[2] == verdict][:2] for verdict in ("right", "wrong")]
    return row, [list(case) for both in shown for case in both]


def _digits(ids: list[int]) -> str:
    return "".join("0123456789>."[i] for i in ids)


def _columns(row: dict[str, Any]) -> list[str]:
    return [name.replace("_", " ") for name in row if name != "name"]


def _cells(row: dict[str, Any]) -> list[str]:
    from gen_core.scales import text

    return [text(entry) for entry in row.values()]


def _curve(history: list[dict[str, float]]) -> str:
    """The share of right answers among the samples of each update."""
    import numpy as np

    from gen_core.chart import svg

    steps = np.arange(1, len(history) + 1, dtype=float)
    return svg({"reward": np.stack([steps, [step["score"] for step in history]])})
