"""`gen align`: pages that teach, figures that are the closed forms, flags that are refused in one sentence."""

import html
import json
import re
from pathlib import Path

import pytest

from gen_apps.align import bandit, two_tokens
from gen_apps.align.config import TwoTokens
from gen_apps.align.learning import KL, offline, online
from gen_core.testing import load
from gen_transformer import alignment as al

small = load(Path(__file__).with_name("small.py"))


def words_of(page: Path) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.read_text())).split())


def test_the_default_reaches_the_optimum_of_whole_completions():
    """J* = .518228 within 1e-6, from samples; the penalty per token stays .1 below."""
    config = TwoTokens(steps=150, samples=128)
    tree, r = two_tokens.TREE, two_tokens.R
    J = lambda policy: al.objective(tree.law(policy), tree.law(tree.ref), r, 1.0).item()
    assert J(online(config, tree, r, KL["reward"])) == pytest.approx(0.5182282468, abs=1e-6)
    assert J(online(config, tree, r, KL["k2"])) < 0.45


def test_two_token_writes_its_page(tmp_path, capsys):
    out, found = tmp_path / "page.html", tmp_path / "found.json"
    small.gen(f"align two-token --steps 2 --samples 16 --out {out} --json {found}")
    rows = {row["name"]: row for row in json.loads(found.read_text())["rows"]}
    closed = {name: row["J in closed form"]["value"] for name, row in rows.items()}
    assert closed["KL in the reward"] == pytest.approx(0.518228, abs=1e-6)
    assert closed["k2 per token in the loss"] == pytest.approx(0.403537, abs=1e-6)
    assert closed["k3 per token in the loss"] == pytest.approx(-0.060499, abs=1e-6)
    assert rows["not trained"]["J"]["value"] == pytest.approx(0.32, abs=1e-12)
    assert "0.51823" in words_of(out) and "J* = 0.518228" in capsys.readouterr().out


def test_bandit_writes_its_page(tmp_path, capsys):
    out = tmp_path / "page.html"
    small.gen(f"align bandit --steps 2 --samples 16 --out {out}")
    words = words_of(out)
    assert "J* = 0.5797" in words and "fitted reward" in words and "J* = 0.579671" in capsys.readouterr().out
    assert "fitted reward −0.68" in words or "fitted reward -0.68" in words


def test_dpo_on_all_pairs_finds_the_tilted_policy():
    """From soft labels of Bradley and Terry, without a sample of the policy."""
    policy = offline(TwoTokens(steps=200), bandit.TREE, bandit.P, al.pairwise("logistic", 0.5))
    apart = (bandit.TREE.law(policy) - al.tilted(bandit.REF, bandit.R, 0.5)).abs().sum()
    assert apart.item() < 1e-3


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--steps 0", "--steps must be at least 1"),
        ("--samples 12", "groups of 8"),
        ("--beta 0", "--beta must be positive"),
    ],
)
def test_impossible_flags_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        small.gen(f"align bandit {flags}")
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
