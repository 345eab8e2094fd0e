"""Abilities from comparisons: R's published fits, the likelihood equations with ties, and data without a maximum."""

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from gen_core.testing import load
from gen_transformer import alignment as al
from gen_transformer.alignment.comparisons import outcome_logprobs

problems = load(Path(__file__).with_name("alignment_problems.py"))
F64 = problems.F64

TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
BASEBALL = """43 42 43 61 42 60 33 42 43 60 61 43 25 43 24 43 42 60 33 51 25 43 42 61
51 25 33 42 52 60 25 33 34 43 42 24 25 15 16 24 16 34"""  # wins at home and away, Agresti (2002) table 10.10
SPRINGALL = """2 16 7|0 21 1|5 10 10|2 15 7|0 22 2|12 3 9|13 9 5|10 12 3|6 11 5|17 2 7|5 9 6|8 12 6|24 2 0|16 3 5|15 2 7
22 2 4|14 4 5|11 4 7|24 1 3|22 0 3|17 2 6|3 14 9|2 18 4|12 7 6|10 6 6|8 9 11|5 11 9|20 0 2|15 2 5|13 5 9|27 1 0|19 1 5
18 2 2|2 13 8|2 21 5|6 8 8"""  # win, loss, tie of each pair of nine samples, Springall (1973)


def baseball():
    scores = iter(BASEBALL.split())
    pairs = [(home, away, next(scores)) for home in TEAMS for away in TEAMS if home != away]
    return al.Comparisons.of((home, away, int(s[0]), 0, int(s[1])) for home, away, s in pairs)


def springall():
    results = iter(SPRINGALL.replace("\n", "|").split("|"))
    rows = [(str(i), str(j), *map(int, next(results).split())) for i in range(1, 10) for j in range(i + 1, 10)]
    return al.Comparisons.of((a, b, win, tie, loss) for a, b, win, loss, tie in rows)


def test_the_home_advantage_in_baseball():
    """BTabilities and summary of BradleyTerry2 1.1-2 (vignette, sections 3.3 and 4), with standard errors."""
    fit = al.fit_abilities(baseball(), order=True)
    published = {
        "Boston": (1.1438027, 0.3378422),
        "Cleveland": (0.7046945, 0.3350014),
        "Detroit": (1.4753572, 0.3445518),
        "Milwaukee": (1.6195550, 0.3473653),
        "New York": (1.2813404, 0.3404034),
        "Toronto": (1.3271104, 0.3403222),
    }
    for team, figures in published.items():
        difference, error = fit.difference(team, "Baltimore")
        assert difference == pytest.approx(figures[0], abs=6e-8), team
        assert error == pytest.approx(figures[1], abs=1e-6), team  # glm's comes from the step before the last
    assert (fit.order, fit.order_error) == pytest.approx((0.3023, 0.1309), abs=5e-5)
    assert fit.values.mean().item() == pytest.approx(0, abs=1e-14)


def test_citations_between_journals():
    """citeModel of BradleyTerry2's vignette, section 2.1."""
    journals = ["Biometrika", "Comm Statist", "JASA", "JRSS-B"]
    cited = [[714, 730, 498, 221], [33, 425, 68, 17], [320, 813, 1072, 142], [284, 276, 325, 188]]
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    fit = al.fit_abilities(al.Comparisons.of((journals[i], journals[j], cited[i][j], 0, cited[j][i]) for i, j in pairs))
    differences = [fit.difference(name, "Biometrika")[0] for name in journals[1:]]
    assert differences == pytest.approx([-2.9491, -0.4796, 0.2690], abs=5.1e-5)
    deviance = -2 * fit.log_likelihood + 2 * sum(
        n * math.log(n / (cited[i][j] + cited[j][i])) for i, j in pairs for n in (cited[i][j], cited[j][i])
    )
    assert deviance == pytest.approx(4.293, abs=5e-4)


def test_abilities_are_those_of_choix():
    won, lost = problems.pairs()
    fit = al.fit_abilities(al.Comparisons.of((str(i), str(j), 1, 0, 0) for i, j in zip(won, lost, strict=True)))
    assert fit.values.tolist() == pytest.approx(problems.CHOIX, abs=1e-7)


@pytest.mark.peers
def test_abilities_are_those_of_choix_itself():
    choix = pytest.importorskip("choix")
    pairs = list(zip(*problems.pairs(), strict=True))
    fit = al.fit_abilities(al.Comparisons.of((str(i), str(j), 1, 0, 0) for i, j in pairs))
    assert fit.values.tolist() == pytest.approx(list(choix.ilsr_pairwise(6, pairs, alpha=0.0)), abs=1e-6)


@pytest.mark.parametrize("ties", ["half", "davidson", "rao_kupper"])
@pytest.mark.parametrize("order", [False, True])
def test_the_gradient_vanishes_on_real_data_with_ties(ties, order):
    """Nine samples compared 30 times a pair, a fifth of them tied: no parameter can be moved to a higher likelihood."""
    data = springall()
    fit = al.fit_abilities(data, ties=ties, order=order)
    parameter = {None: 1.0}.get(fit.tie, fit.tie) - (ties == "rao_kupper")  # nu, or theta - 1
    tie = torch.tensor(parameter, dtype=F64).log().requires_grad_()
    theta, home = fit.values.clone().requires_grad_(), torch.tensor(fit.order or 0.0, dtype=F64, requires_grad=True)
    d = theta[data.first] - theta[data.second] + home
    total = sum((n * lp).sum() for n, lp in zip(data.counts.T, outcome_logprobs(d, tie, ties), strict=True))
    assert total.item() == pytest.approx(fit.log_likelihood, rel=1e-12)
    wanted = [theta] + ([] if ties == "half" else [tie]) + ([home] if order else [])
    for gradient in torch.autograd.grad(total, wanted):
        assert gradient.abs().max().item() < 1e-8 * data.counts.sum()


def test_davidson_reproduces_points_and_ties():
    """Davidson (1970) eq. 3.1: at the maximum each item's expected points and the expected ties are those observed."""
    data = springall()
    fit = al.fit_abilities(data, ties="davidson")
    d = fit.values[data.first] - fit.values[data.second]
    law = torch.stack(outcome_logprobs(d, torch.tensor(math.log(fit.tie), dtype=F64), "davidson"), 1).exp()
    expected = law * data.counts.sum(1, keepdim=True)
    points = lambda n: (
        torch.zeros(9, dtype=F64)
        .index_add(0, data.first, n[:, 0] + n[:, 1] / 2)
        .index_add(0, data.second, n[:, 2] + n[:, 1] / 2)
    )
    assert_close(points(expected), points(data.counts), rtol=0, atol=1e-7)
    assert expected[:, 1].sum().item() == pytest.approx(data.counts[:, 1].sum().item(), abs=1e-7)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_outcomes_sum_to_1_and_follow_their_model(ties):
    d = torch.tensor([-3.0, 0.0, 0.4], dtype=F64)
    tie = torch.tensor(0.3, dtype=F64)
    win, even, loss = (x.exp() for x in outcome_logprobs(d, tie, ties))
    assert_close(win + even + loss, torch.ones(3, dtype=F64), rtol=0, atol=1e-14)
    a = d.exp()  # abilities a and 1
    if ties == "davidson":
        assert_close(even / win, math.exp(0.3) / a.sqrt())
    else:
        theta = 1 + math.exp(0.3)
        assert_close(win, a / (a + theta))
        assert_close(loss, 1 / (theta * a + 1))


def test_tie_models_find_the_parameter_that_made_the_data():
    """Counts in proportion to the law are their own maximum-likelihood fit."""
    theta = torch.tensor([0.5, -0.2, -0.3], dtype=F64)
    for ties in ("davidson", "rao_kupper"):
        tie = torch.tensor(0.1, dtype=F64)
        rows = []
        for i, j in ((0, 1), (0, 2), (1, 2)):
            law = [lp.exp().item() for lp in outcome_logprobs(theta[i] - theta[j] + 0.2, tie, ties)]
            rows += [(str(i), str(j), *law)]
            law = [lp.exp().item() for lp in outcome_logprobs(theta[j] - theta[i] + 0.2, tie, ties)]
            rows += [(str(j), str(i), *law)]
        fit = al.fit_abilities(al.Comparisons.of(rows), ties=ties, order=True)
        assert_close(fit.values, theta, rtol=0, atol=1e-8)
        want = math.exp(0.1) if ties == "davidson" else 1 + math.exp(0.1)
        assert (fit.tie, fit.order) == pytest.approx((want, 0.2), abs=1e-8)


def test_an_item_that_never_loses_has_no_finite_ability():
    with pytest.raises(ValueError, match="no finite ability"):
        al.fit_abilities(al.Comparisons.of([("a", "b", 3, 0, 0), ("b", "c", 1, 0, 1)]))
    tied = al.Comparisons.of([("a", "b", 3, 1, 0), ("b", "c", 1, 0, 1)])  # a tie is half a loss
    assert bool(al.fit_abilities(tied).values.isfinite().all())


def test_a_tie_parameter_needs_ties():
    with pytest.raises(ValueError, match="ties='half'"):
        al.fit_abilities(baseball(), ties="davidson")


# ---------------------------------------------------------------------- tables


def test_tables_of_results_and_of_counts_are_the_same_data(tmp_path):
    (tmp_path / "a.csv").write_text(
        "first,second,result,count\nx,y,1,3\nx,y,0.5,2\ny,x,tie,1\ny,x,loss,4\nx,z,second,1\n"
    )
    (tmp_path / "b.tsv").write_text("second\tfirst\twins\tties\tlosses\ny\tx\t3\t2\t0\nx\ty\t0\t1\t4\nz\tx\t0\t0\t1\n")

    def totals(data):
        total = Counter()
        for i, j, row in zip(data.first.tolist(), data.second.tolist(), data.counts.tolist(), strict=True):
            total.update({(data.items[i], data.items[j], k): n for k, n in enumerate(row) if n})
        return total

    a, b = al.read_comparisons(tmp_path / "a.csv"), al.read_comparisons(tmp_path / "b.tsv")
    assert a.items == b.items == ("x", "y", "z") and totals(a) == totals(b)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a,b\n1,2\n", "needs first, second and result"),
        ("first,second,result\nx,y,2\n", "line 2: '2' is no result"),
        ("first,second,result,count\nx,y,1,many\n", "line 2.*many"),
        ("first,second,result\nx,x,1\n", "compares two items"),
        ("first,second,wins,losses\nx,y,-1,2\n", "at least 0"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        al.read_comparisons(tmp_path / "t.csv")
