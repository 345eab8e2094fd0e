"""The table in sentences, made from its figures; every comparison has its interval."""

from collections.abc import Callable
from typing import Any

from gen_apps.compare.measure import FLOOR, Row, value
from gen_core.scales import text

Gap = Callable[[str, str, str], dict[str, Any]]  # (a, b, column) -> the figure of a minus that of b
COPIED = 0.8  # memorisation below which samples are suspected to be copies


def gaps(differences: list[Row]) -> Gap:
    """Differences of `measure.differences`, in both directions."""
    found = {(row["a"], row["b"]): row for row in differences}

    def gap(a: str, b: str, column: str) -> dict[str, Any]:
        if (a, b) in found:
            return found[a, b][column]
        figure = found[b, a][column]
        low, high = figure["interval"]
        return figure | {"value": -figure["value"], "interval": [-high, -low]}

    return gap


def paragraph(rows: dict[str, Row], families: list[str], gap: Gap) -> str:
    """Who is nearest, who covers most, what that costs, and what the controls say about trusting it."""
    distance = "frechet-features" if "frechet-features" in rows[FLOOR] else "frechet"
    said = [
        _best(rows, families, gap, distance),
        _bar(rows, families, gap, distance),
        _cost(rows, families),
        _controls(rows, gap, distance),
        _copies(rows, families),
    ]
    return " ".join(said)


def _best(rows: dict[str, Row], families: list[str], gap: Gap, distance: str) -> str:
    near = min(families, key=lambda name: value(rows[name], distance) or 0.0)
    wide = max(families, key=lambda name: value(rows[name], "recall") or 0.0)
    nearer = [_nearer(gap, near, name, distance) for name in families if name != near]
    wider = [_wider(gap, wide, name) for name in families if name != wide]
    return (
        f"Of the families the {near} has the smallest Fréchet distance to the held-out data, "
        f"{text(rows[near][distance])}, where as many training data have {text(rows[FLOOR][distance])}"
        + "".join(f"; it {words}" for words in nearer)
        + f". The {wide} has the largest recall, {text(rows[wide]['recall'])}"
        + "".join(f"; it {words}" for words in wider)
        + "."
    )


def _bar(rows: dict[str, Row], families: list[str], gap: Gap, distance: str) -> str:
    """The families beside the mixture of Gaussians, by both figures."""
    bar = next(name for name in rows if name.startswith("GMM"))
    against = [f"the {name} {_nearer(gap, name, bar, distance)} and {_wider(gap, name, bar)}" for name in families]
    return (
        f"{bar} is a mixture of {bar.split('-')[1]} Gaussians, with a distance of {text(rows[bar][distance])} and a "
        f"recall of {text(rows[bar]['recall'])}: {'; '.join(against)}."
    )


def _nearer(gap: Gap, a: str, b: str, column: str) -> str:
    return _verdict(gap(b, a, column), b, ("is nearer than", "is farther than", "cannot be told from"), "in distance")


def _wider(gap: Gap, a: str, b: str) -> str:
    return _verdict(
        gap(a, b, "recall"), b, ("covers more than", "covers less than", "cannot be told from"), "in recall"
    )


def _verdict(figure: dict[str, Any], other: str, words: tuple[str, str, str], where: str) -> str:
    """More, less, or not to be told, by the interval of the difference."""
    low, high = figure["interval"]
    more, less, equal = words
    if low <= 0 <= high:
        return f"{equal} the {other} {where}, a difference of {text(figure)}"
    size = figure if low > 0 else figure | {"value": -figure["value"], "interval": [-high, -low]}
    return f"{more if low > 0 else less} the {other} {where}, by {text(size)}"


def _cost(rows: dict[str, Row], families: list[str]) -> str:
    each = [f"{_calls(rows[name])} and {text(rows[name]['J/sample'])} J for the {name}" for name in families]
    return f"A sample takes {_list(each)}."


def _controls(rows: dict[str, Row], gap: Gap, distance: str) -> str:
    copy, few = rows["memoriser"], rows["collapsed"]
    lost = [
        f"{column} is {text(few[column])}, {text(gap(FLOOR, 'collapsed', column))} below that of the training data"
        for column in ("recall", "coverage")
    ]
    return (
        f"One figure alone can be fooled: the memoriser, training data with a little noise, has a distance of "
        f"{text(copy[distance])}, but its memorisation is {text(copy['memorisation'])} and its two-sample figure "
        f"{text(copy['two-sample'])}; the collapsed sampler has a precision of {text(few['precision'])}, but its "
        f"{_list(lost)}."
    )


def _copies(rows: dict[str, Row], families: list[str]) -> str:
    """Who is suspected of copying: the whole interval of the memorisation is below COPIED."""
    copied = [name for name in families if rows[name]["memorisation"]["interval"][1] < COPIED]
    figures = _list([f"{text(rows[name]['memorisation'])} for the {name}" for name in families])
    sign = f"a sign of copying for {_list([f'the {name}' for name in copied])}" if copied else "no sign of copying"
    return f"Memorisation, near 1 for new samples and near 0 for copies, is {figures}: {sign}."


def _calls(row: Row) -> str:
    n = value(row, "evaluations") or 0
    return f"{n:.0f} network evaluation{'s' if n != 1 else ''}"


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
