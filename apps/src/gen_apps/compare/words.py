"""What the table shows, in sentences that are made from its figures."""

from typing import Any

from gen_apps.compare.measure import value


def best(rows: list[dict[str, Any]], column: str, most: bool) -> dict[str, Any] | None:
    """The row of the best figure, if any has one."""
    having = [row for row in rows if value(row, column) is not None]
    return (max if most else min)(having, key=lambda row: _value(row, column)) if having else None


def paragraph(rows: dict[str, dict[str, Any]], families: list[str]) -> str:
    """Who is nearest, who covers most, what that costs, and what the controls say about trusting it."""
    ours, distance = (
        [rows[name] for name in families],
        "features" if value(rows["real data"], "features") else "frechet",
    )
    bar = next(row for name, row in rows.items() if name.startswith("GMM"))
    figure = lambda row, column: f"{value(row, column):.3g}"
    said = []
    near, wide = best(ours, distance, False), best(ours, "recall", True)
    if near is not None and wide is not None:
        said.append(
            f"Of the families the {near['name']} is nearest to the held-out data, at a Fréchet distance of "
            f"{figure(near, distance)}, where as many real samples reach {figure(rows['real data'], distance)}; "
            f"the {wide['name']} covers the largest share of them, a recall of {figure(wide, 'recall')}."
        )
        if unsure := [r["name"] for r in ours if r is not near and _low(r, distance) <= _value(near, distance)]:
            said.append(f"It may owe its place before {_list(unsure)} to chance: the intervals overlap.")
    beaten = [r["name"] for r in ours if _less(r, bar, distance) and _less(bar, r, "recall")]
    half = [r["name"] for r in ours if r["name"] not in beaten and (_less(r, bar, distance) or _less(bar, r, "recall"))]
    lost = [r["name"] for r in ours if r["name"] not in beaten + half]
    said.append(
        f"Against a mixture of {bar['name'].split('-')[1]} Gaussians ({figure(bar, distance)} and a recall of "
        f"{figure(bar, 'recall')}) "
        + "; ".join(
            f"{_list(names)} {'wins' if len(names) == 1 else 'win'} {how}"
            if how != "loses"
            else f"{_list(names)} lost both"
            for names, how in ((beaten, "on both"), (half, "on one of the two"), (lost, "loses"))
            if names
        )
        + "."
    )
    cheap, dear = best(ours, "joules", False), best(ours, "joules", True)
    if cheap is not None and dear is not None and cheap is not dear:
        ratio = _value(dear, "joules") / max(_value(cheap, "joules"), 1e-12)
        said.append(
            f"A sample of the {dear['name']} takes {_calls(dear)} and {ratio:.3g} times the energy of one of the "
            f"{cheap['name']}, which takes {_calls(cheap)}."
        )
    copy, few = rows["memoriser"], rows["collapsed"]
    said.append(
        f"Distances alone would be fooled: the memoriser, training data with a little noise, has "
        f"{figure(copy, distance)}; its novelty of {figure(copy, 'novelty')}"
        + (f" and the two-sample test ({figure(copy, 'c2st')})" if _value(copy, "c2st") > 0.6 else "")
        + f" give it away. The collapsed sampler keeps a precision of {figure(few, 'precision')}, but its recall of "
        f"{figure(few, 'recall')} and coverage of {figure(few, 'coverage')} do not hide what it leaves out."
    )
    fooled = [row["name"] for row in ours if (value(row, "novelty") or 1.0) < 0.8]
    said.append(
        f"The samples of {_list(fooled)} lie nearer to training data than to held-out ones, which is a sign of copying."
        if fooled
        else "No family copies its training data by the same measure."
    )
    return " ".join(said)


def _calls(row: dict[str, Any]) -> str:
    n = value(row, "evaluations") or 0
    return f"{n:.0f} network evaluation{'s' if n != 1 else ''}"


def _value(row: dict[str, Any], column: str) -> float:
    return value(row, column) or 0.0


def _low(row: dict[str, Any], column: str) -> float:
    """The lower end of a figure's interval, or the figure where it has none."""
    found = row["values"][column]
    return found["low"] if isinstance(found, dict) else found


def _less(a: dict[str, Any], b: dict[str, Any], column: str) -> bool:
    return _value(a, column) < _value(b, column)


def _list(names: list[str]) -> str:
    names = [f"the {name}" for name in names]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
