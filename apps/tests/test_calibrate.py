"""`gen diffusion calibrate`: rows with intervals, differences from the first method, and the page."""

import json

import pytest

from gen_apps.__main__ import main


def test_the_report_has_a_row_for_each_method_and_budget(tmp_path):
    main(
        f"diffusion calibrate --methods moments mcgdiff dps --dim 4 --observed 1 2 --problems 2 --levels 8 16 "
        f"--particles 20 --out {tmp_path} --json {tmp_path / 'c.json'}".split()
    )
    rows = json.loads((tmp_path / "c.json").read_text())["rows"]
    assert [(r["name"], r["observed"], r["calls"]) for r in rows] == [
        (name, dy, n) for dy in (1, 2) for n in (8, 16) for name in ("moments", "mcgdiff", "dps")
    ]
    for row in rows:
        figures = {"sw", "floor", "mode_tv", "ks", "coverage"}
        assert figures <= row.keys() and all(len(row[name]["interval"]) == 2 for name in figures)
        assert ("log_z_error" in row) == (row["name"] != "dps")
        assert ("sw - first" in row) == (row["name"] != "moments")
    by_name = {row["name"]: row for row in rows if row["observed"] == 2}
    assert by_name["moments"]["gradients"] == 2 * by_name["moments"]["calls"]
    assert by_name["dps"]["gradients"] == 16 and by_name["mcgdiff"]["gradients"] == 0
    page = (tmp_path / "calibrate.html").read_text()
    assert page.count("<figure") == 6 and page.count("<tr>") == len(rows) + 1


@pytest.mark.parametrize(
    "flags, reason",
    [
        ("--dim 3", "--dim is even"),
        ("--observed 9", "--observed at most that"),
        ("--problems 1", "--problems must be at least 2"),
        ("--levels 1", "levels 2 or more"),
    ],
)
def test_bad_flags_are_one_sentence(flags, reason, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["diffusion", "calibrate", *flags.split()])
    assert stop.value.code == 2 and reason in capsys.readouterr().err
