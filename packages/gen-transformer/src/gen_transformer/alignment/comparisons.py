"""Abilities from real paired comparisons, with ties and the advantage of the first place.

    data = read_comparisons("matches.csv")              # first, second, result (1, 0.5, 0), perhaps count
    fit = fit_abilities(data, ties="davidson", order=True)
    fit.difference("A", "B")                            # (difference of log abilities, its standard error)

[Bradley52] Rank analysis of incomplete block designs, Biometrika 39:324.
[Davidson70] Extending the Bradley-Terry model to accommodate ties, J. Am. Statist. Assoc. 65:317.
[Davidson77] Davidson and Beaver, Within-pair order effects in paired comparisons, Biometrics 33:693.
[Rao67] Rao and Kupper, Ties in paired-comparison experiments, J. Am. Statist. Assoc. 62:194.
[Ford57] Solution of a ranking problem from binary comparisons, Am. Math. Monthly 64:28.
"""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Ties = Literal["half", "davidson", "rao_kupper"]
Count = float | int
RESULTS = {
    "1": 0,
    "1.0": 0,
    "win": 0,
    "first": 0,
    "0.5": 1,
    ".5": 1,
    "tie": 1,
    "draw": 1,
    "0": 2,
    "0.0": 2,
    "loss": 2,
    "second": 2,
}


@dataclass(frozen=True)
class Comparisons:
    """How often each pair had which result."""

    items: tuple[str, ...]
    first: Int[Tensor, "pairs"]
    second: Int[Tensor, "pairs"]
    counts: Float[Tensor, "pairs 3"]
    """Wins of the first, ties, wins of the second."""

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, Count, Count, Count]]) -> "Comparisons":
        """From rows of (first, second, wins of the first, ties, wins of the second)."""
        rows = list(rows)
        items = tuple(sorted({name for row in rows for name in row[:2]}))
        for a, b, *counts in rows:
            if a == b or min(counts) < 0:
                raise ValueError(f"a row compares two items with counts of at least 0, got {a!r}, {b!r} and {counts}")
        at = {name: i for i, name in enumerate(items)}
        places = torch.tensor([[at[a], at[b]] for a, b, *_ in rows]).reshape(-1, 2)
        counts = torch.tensor([row[2:] for row in rows], dtype=torch.float64).reshape(-1, 3)
        return cls(items, places[:, 0], places[:, 1], counts)


def read_comparisons(path: Path | str) -> Comparisons:
    """A table (.csv, or .tsv with tabs) with the columns first, second and the results of the pair.

    Results are counts in the columns wins, ties and losses (of the first), or one column `result` with 1, 0.5 or 0 (or
    win, tie, loss; or first, tie, second) and perhaps a column `count`.

    Raises:
        ValueError: naming the line and what is wrong with it.
    """
    path = Path(path)
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        columns = set(table.fieldnames or ())
        if not {"first", "second"} <= columns or not ("result" in columns or {"wins", "losses"} <= columns):
            raise ValueError(
                f"{path} has the columns {sorted(columns)}; needs first, second and result, or wins and losses"
            )
        return Comparisons.of([_row(path, table.line_num, row) for row in table])


@dataclass(frozen=True)
class Abilities:
    """Maximum-likelihood abilities, on the scale of log odds, with mean 0."""

    items: tuple[str, ...]
    values: Float[Tensor, "items"]
    covariance: Float[Tensor, "items items"]
    tie: float | None
    """nu of Davidson's model (1: equals tie as often as either wins), or theta of Rao and Kupper's (1: no ties)."""
    order: float | None
    """Log odds that standing first adds."""
    order_error: float | None
    """Its standard error."""
    log_likelihood: float

    def difference(self, a: str, b: str) -> tuple[float, float]:
        """Ability of `a` less that of `b`, and its standard error."""
        i, j = self.items.index(a), self.items.index(b)
        contrast = torch.zeros_like(self.values).index_put((torch.tensor([i, j]),), self.values.new_tensor([1.0, -1.0]))
        return (self.values[i] - self.values[j]).item(), (contrast @ self.covariance @ contrast).sqrt().item()


def fit_abilities(data: Comparisons, *, ties: Ties = "half", order: bool = False) -> Abilities:
    """Maximum likelihood by Newton's method, in float64.

    Args:
        ties: half a win for each ([Bradley52] with the usual convention); P(tie) in proportion to nu sqrt(a b)
            ([Davidson70] eq. 2.1); or a tie where the difference is below a threshold ([Rao67] eq. 2.1).
        order: the first has its odds multiplied, as a team at home ([Davidson77] eq. 3.1).

    Raises:
        ValueError: where no finite maximum exists ([Ford57]): some items never lose to the others, or nothing tied.
    """
    _check_connected(data)
    if ties != "half" and not data.counts[:, 1].sum() > 0:
        raise ValueError(f"nothing tied, so the tie parameter of {ties} has no finite estimate; take ties='half'")
    k = len(data.items)
    x = _newton(lambda x: -_log_likelihood(x, data, ties, order), torch.zeros(k + 1 + order, dtype=torch.float64))
    spread = torch.linalg.pinv(_information(x, data, ties, order), hermitian=True, rtol=1e-12)
    centre = torch.eye(k, dtype=torch.float64) - 1 / k
    return Abilities(
        items=data.items,
        values=x[:k] - x[:k].mean(),
        covariance=centre @ spread[:k, :k] @ centre,
        tie=None if ties == "half" else math.exp(x[k] if ties == "davidson" else F.softplus(x[k])),
        order=x[-1].item() if order else None,
        order_error=spread[-1, -1].sqrt().item() if order else None,
        log_likelihood=_log_likelihood(x, data, ties, order).item(),
    )


# ---------------------------------------------------------------------- the likelihood


def outcome_logprobs(
    d: Float[Tensor, "*b"], tie: Float[Tensor, ""], ties: Ties
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Log-probabilities of win, tie and loss at a difference d of log abilities.

    `tie` is log nu of Davidson's model, the inverse softplus of log theta of Rao and Kupper's; without use for `half`,
    where a tie counts as half a win and half a loss.
    """
    if ties == "davidson":
        total = torch.stack([d / 2, tie.expand_as(d), -d / 2]).logsumexp(0)
        return d / 2 - total, tie - total, -d / 2 - total
    threshold = F.softplus(tie) if ties == "rao_kupper" else torch.zeros_like(tie)
    win, loss = F.logsigmoid(d - threshold), F.logsigmoid(-d - threshold)
    if ties == "half":
        return win, (win + loss) / 2, loss
    return win, torch.expm1(2 * threshold).log() + win + loss, loss


def _log_likelihood(x: Float[Tensor, "p"], data: Comparisons, ties: Ties, order: bool) -> Float[Tensor, ""]:
    k = len(data.items)
    d = x[data.first] - x[data.second] + (x[-1] if order else 0.0)
    return (data.counts * torch.stack(outcome_logprobs(d, x[k], ties), 1)).sum()


def _information(x: Float[Tensor, "p"], data: Comparisons, ties: Ties, order: bool) -> Float[Tensor, "p p"]:
    return -torch.autograd.functional.hessian(lambda x: _log_likelihood(x, data, ties, order), x)


def _newton(f, x: Float[Tensor, "p"]) -> Float[Tensor, "p"]:
    """The minimum of a convex f that is flat in some directions, in which x does not move."""
    for _ in range(100):
        value, gradient = f(x), torch.autograd.functional.jacobian(f, x)
        step = torch.linalg.pinv(torch.autograd.functional.hessian(f, x), hermitian=True, rtol=1e-12) @ gradient
        if step.abs().amax() < 1e-12:
            break
        share = 1.0
        while f(x - share * step) > value + 1e-12 * value.abs() and share > 1e-6:
            share /= 2
        x = x - share * step
    return x


def _check_connected(data: Comparisons) -> None:
    """Every split of the items needs a win, or a tie, in both directions ([Ford57])."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    better = data.counts[:, :2].sum(1) > 0
    worse = data.counts[:, 1:].sum(1) > 0
    start = torch.cat([data.first[better], data.second[worse]])
    end = torch.cat([data.second[better], data.first[worse]])
    k = len(data.items)
    n, part = connected_components(coo_matrix((torch.ones(len(start)), (start, end)), (k, k)), connection="strong")
    if n > 1:
        alone = [name for name, p in zip(data.items, part, strict=True) if p == part[0]]
        raise ValueError(
            f"{', '.join(alone[:5])} never lost to the others, or never won; no finite ability fits, drop them"
        )


def _row(path: Path, line: int, row: dict[str, str]) -> tuple[str, str, float, float, float]:
    try:
        if "result" in row:
            counts = [0.0, 0.0, 0.0]
            counts[RESULTS[row["result"].strip().lower()]] = float(row.get("count") or 1)
        else:
            counts = [float(row.get(name) or 0) for name in ("wins", "ties", "losses")]
    except (KeyError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} line {line}: {error} is no result; write 1, 0.5 or 0, and counts as numbers"
        ) from error
    return row["first"], row["second"], counts[0], counts[1], counts[2]
