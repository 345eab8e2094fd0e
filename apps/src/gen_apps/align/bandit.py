"""`gen align bandit`: five completions, many methods, and for each the policy to which theory says it leads."""

import math
from collections.abc import Callable
from pathlib import Path

import rich
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gen_apps import pages
from gen_apps.align.config import Bandit
from gen_apps.align.learning import KL, N, offline, online
from gen_apps.results import Row, figure, table, write_results
from gen_core.scales import text
from gen_transformer import alignment as al

ARMS = "ABCDE"
REF = torch.tensor([0.40, 0.30, 0.15, 0.10, 0.05], dtype=torch.float64)
R = torch.tensor([0.0, 0.3, 0.6, 1.0, 1.5], dtype=torch.float64)
TREE = al.Tree.of(dict(zip(ARMS, REF.tolist(), strict=True)))
P = (R[:, None] - R).sigmoid()  # preferences of Bradley and Terry

Method = tuple[str, Callable[[], Tensor], Tensor | None]


def bandit(config: Bandit) -> None:
    groups = {name: [_row(config, *method) for method in chosen] for name, chosen in _methods(config).items()}
    rows = [row for group in groups.values() for row in group]
    rich.print(table("method", rows, ["J", "J in closed form", "apart"]))
    write_results(config.json, "align bandit", config, rows)
    best = al.tilted(REF, R, config.beta)
    out = pages.write(
        config.out or Path("align-bandit.html"),
        "align_bandit",
        title="Five completions: where each method of alignment leads",
        config=config,
        arms=[["probability under ref", *map(text, REF.tolist())], ["reward", *map(text, R.tolist())],
              ["probability under π*", *(text(x) for x in best.tolist())]],
        fitted=[["fitted reward", *map(text, _reward_model().tolist())],
                ["reward − its mean", *map(text, (R - R.mean()).tolist())]],
        best=text(al.objective(best, REF, R, config.beta).item(), 4),
        critical=text(al.critical_beta(REF, R), 3),
        head=["method", "J", "in closed form", "apart", *ARMS],
        tables={name: [_cells(row) for row in group] for name, group in groups.items()},
        of_n=[_best_of(n) for n in (2, 4, 16, 64)],
        frontier=_frontier(config, rows),
    )  # fmt: skip
    print(f"J* = {al.objective(best, REF, R, config.beta):.6f}; page {out}")


def _methods(config: Bandit) -> dict[str, list[Method]]:
    """By the section of the page: names, what learns, and the policy to which it should come (None: to no end)."""
    beta, best = config.beta, al.tilted(REF, R, config.beta)
    learn = lambda objective, **options: lambda: online(config, TREE, R, objective, **options)
    fit = lambda loss: lambda: offline(config, TREE, P, loss)
    hard = lambda a, b: (_score(a) > _score(b)).double() + (_score(a) == _score(b)).double() / 2
    standardised = lambda x: al.group_normalize(x.flatten(), x.shape[1]).view_as(x)
    return {
        "online": [("RLOO", learn("rloo"), best), ("Dr. GRPO", learn("dr_grpo"), best)],
        "offline": [
            ("DPO", fit(al.pairwise("logistic", beta)), best),
            ("IPO", fit(lambda m: al.ipo(m.h, beta, m.p)), al.tilted(REF, P.mean(1), beta)),
        ],
        "extensions": [
            ("online DPO", learn("dpo"), best),
            ("online IPO", learn("ipo"), al.nash(P, REF, beta)),
            ("GRPO", learn("grpo"), al.group_point(REF, R, beta, N, standardised)),
        ],
        "limits": [
            ("k3 in the loss", learn(KL["k3"]), al.fixed_point(REF, R, beta, "k3")),
            ("k1 in the loss", learn(KL["k1"]), al.fixed_point(REF, R, beta, "k1")),
            ("online DPO, only winners", learn("dpo", prefer=hard), None),
        ],
    }


def _score(rollout: al.Rollout) -> Tensor:
    return R[rollout.ids[:, rollout.start]]


def _row(config: Bandit, name: str, learn: Callable[[], Tensor], point: Tensor | None) -> Row:
    """J and the policy after learning, both exact; beside the closed form and the total variation from it."""
    pi = TREE.law(learn())
    J = lambda pi: al.objective(pi, REF, R, config.beta).item()
    known = {} if point is None else {"J in closed form": J(point), "apart": (pi - point).abs().sum().item() / 2}
    figures = {"J": J(pi), **known, "reward": (pi @ R).item(), "KL": al.kl(pi, REF).item()}
    arms = {arm: figure(p) for arm, p in zip(ARMS, pi.tolist(), strict=True)}
    units = {"KL": "nats"}
    return {"name": name} | {k: figure(x, unit=units.get(k, "")) for k, x in figures.items()} | arms


def _cells(row: Row) -> list[str]:
    return [row["name"], *(text(row.get(name), 4) for name in ("J", "J in closed form", "apart", *ARMS))]


def _reward_model() -> Tensor:
    """Rewards of greatest likelihood for comparisons as frequent as P says."""
    pairs = torch.combinations(torch.arange(len(ARMS))).tolist()
    counts = ((ARMS[i], ARMS[j], P[i, j].item(), 0, P[j, i].item()) for i, j in pairs)
    return al.fit_abilities(al.Comparisons.of(counts)).values


def _best_of(n: int) -> list[str]:
    law = al.best_of_n(REF, R, n)
    wins = law @ al.win_rate(R[:, None], R[None]) @ REF
    bound = math.log(n) - (n - 1) / n
    return [str(n), *(text(float(x), 4) for x in (law @ R, al.kl(law, REF), bound, wins))]


def _frontier(config: Bandit, rows: list[Row]) -> Figure:
    """Reward against KL: the best that any policy reaches, best-of-n, and every method."""
    drawn = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = drawn.add_subplot()
    curve = [al.tilted(REF, R, beta) for beta in torch.logspace(-1.2, 1.5, 100).tolist()]
    axes.plot(
        [al.kl(pi, REF) for pi in curve], [pi @ R for pi in curve], color="0.4", lw=1.5, label="optimum of each β"
    )
    laws = [al.best_of_n(REF, R, n) for n in (1, 2, 4, 8, 16, 32)]
    axes.plot([al.kl(pi, REF) for pi in laws], [pi @ R for pi in laws], "s", color="0.4", ms=4, label="best of 1 to 32")
    for i, row in enumerate(rows):
        axes.plot(row["KL"]["value"], row["reward"]["value"], "oXD^v"[i // 4], color=f"C{i}", ms=7, label=row["name"])
    axes.set(xlabel="KL to the reference, nats", ylabel="mean reward")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right", ncols=2)
    return drawn
