"""`gen align two-token`: where each place of the KL leads when a completion has more than one token."""

from pathlib import Path

import rich
import torch

from gen_apps import pages
from gen_apps.align.config import TwoTokens
from gen_apps.align.learning import KL, online
from gen_apps.results import Row, figure, table, write_results
from gen_core.scales import text
from gen_transformer.alignment import Tree, objective, tilted

TREE = Tree.of({"ax": 0.495, "ay": 0.005, "b": 0.5})
R = torch.tensor([0.0, 4.0, 0.6], dtype=torch.float64)
NAMES = {
    "reward": "KL in the reward",
    "loss": "KL of sequences in the loss",
    "k2": "k2 per token in the loss",
    "k3": "k3 per token in the loss",
    "k1": "k1 in the loss",
}


def two_tokens(config: TwoTokens) -> None:
    law = TREE.law(TREE.ref)
    best = TREE.conditionals(tilted(law, R, config.beta))
    exact = {"reward": best, "loss": best} | {kl: TREE.token_level(R, config.beta, kl) for kl in ("k1", "k2", "k3")}
    rows = [_row(NAMES[kl], online(config, TREE, R, KL[kl]), exact[kl], best, config.beta) for kl in NAMES]
    rows.append(_row("not trained", TREE.ref, TREE.ref, best, config.beta))
    rich.print(table("method", rows))
    write_results(config.json, "align two-token", config, rows)
    values = dict(zip(("start", "a", "b", "ax", "ay"), TREE.soft_values(R, config.beta).tolist(), strict=True))
    out = pages.write(
        config.out or Path("align-two-token.html"),
        "align_two_tokens",
        title="Two tokens: the KL of a completion is not the sum of its tokens’ penalties",
        config=config,
        values={state: text(value, 5) for state, value in values.items()},
        best={"a": text(best[1].exp().item(), 4), "ay": text(best[4].exp().item(), 4)},
        head=["method", *list(rows[0])[1:]],
        rows=[[text(entry, 4) for entry in row.values()] for row in rows],
    )
    print(f"J* = {_value(best, config.beta):.6f}; page {out}")


def _value(policy: torch.Tensor, beta: float) -> float:
    return objective(TREE.law(policy), TREE.law(TREE.ref), R, beta).item()


def _row(name: str, learned: torch.Tensor, exact: torch.Tensor, best: torch.Tensor, beta: float) -> Row:
    """J of what was learned and of the closed form, both exact, and the probabilities of a and of y after a."""
    J = _value(learned, beta)
    return {
        "name": name,
        "J": figure(J),
        "J in closed form": figure(_value(exact, beta)),
        "below the optimum": figure(max(0.0, _value(best, beta) - J)),
        "p(a)": figure(learned[1].exp().item()),
        "p(y after a)": figure(learned[4].exp().item()),
    }
