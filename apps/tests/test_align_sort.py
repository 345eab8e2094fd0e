"""`gen align sort`: problems and answers by hand; a tiny run learns, and writes its page and its figures."""

import json

import pytest

from gen_apps.__main__ import main
from gen_apps.align.sort import END, STOP, Sort, answer, problems


def test_problems_and_answers():
    config = Sort(shortest=3, longest=5)
    some = problems(config, 200, "some")
    assert {len(p) for p in some} == {4, 5, 6} and all(p[-1] == END and max(p[:-1]) < 10 for p in some)
    assert problems(config, 200, "some") == some != problems(config, 200, "others")
    assert not set(problems(config, 200, "others", frozenset(some))) & set(some)
    assert answer((3, 0, 3, END)) == [0, 3, 3, STOP]


def test_a_tiny_run_learns_to_sort_three_digits(tmp_path):
    page, figures = tmp_path / "sort.html", tmp_path / "sort.json"
    flags = ["--longest", "3", "--sft-steps", "100", "--steps", "4"]
    main(["align", "sort", *flags, "--out", str(page), "--json", str(figures)])
    sft, rl = json.loads(figures.read_text())["rows"]
    assert [sft["name"], rl["name"]] == ["SFT", "rloo"]
    for row in (sft, rl):
        assert row["greedy_accuracy"]["value"] > 0.1  # by chance below .005
        assert row["sampled_accuracy"]["n"] == 600
    assert "<svg" in page.read_text()


def test_refusals():
    with pytest.raises(ValueError, match="--longest <= 20"):
        Sort(shortest=5, longest=4)
    with pytest.raises(ValueError, match="--steps must be at least 1"):
        Sort(steps=0)
