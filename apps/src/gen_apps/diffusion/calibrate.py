"""`gen diffusion calibrate`."""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import rich
from torch import Tensor

from gen_apps import pages
from gen_apps.diffusion import drawings
from gen_apps.diffusion.config import Calibrate
from gen_apps.results import table, write_results
from gen_core.callbacks import bar
from gen_core.scales import text
from gen_diffusion import (
    Calibration,
    ParticleSampler,
    daps,
    ddnm,
    ddrm,
    difference,
    dps,
    isotropic,
    lattice_levels,
    lattice_problem,
    mcgdiff_sample,
    mgdm,
    moments_sample,
    pigdm,
    twisted,
)
from gen_diffusion import calibrate as measure
from gen_diffusion.calibration import Figure

SPREAD = 11.3  # standard deviation of a coordinate of the lattice, about
METHODS: dict[str, Callable[..., Tensor]] = {
    "moments": moments_sample,
    "twisted": ParticleSampler(twisted, {"twist": partial(isotropic, sigma_data=SPREAD), "order": 2}),
    "mcgdiff": mcgdiff_sample,
    "pigdm": pigdm,
    "dps": partial(dps, scale=0.1),
    "ddrm": ddrm,
    "ddnm": ddnm,
    "daps": partial(daps, sigma_data=SPREAD),
    "mgdm": mgdm,
}
DRAWN: dict[Figure, str] = {
    "sw": "sliced Wasserstein distance to exact draws",
    "mode_tv": "total variation of the weights of modes",
    "ks": "Kolmogorov-Smirnov distance of the spread within modes",
}
COLUMNS = ("dim", "observed", "calls", "gradients", *get_args(Figure)[:-2], "sw - first", "ks - first")
SHOWN = ("observed", "calls", "sw", "floor", "mode_tv", "ks", "coverage", "log_z_error")  # in a terminal


def calibrate(config: Calibrate) -> None:
    rows: list[dict[str, Any]] = []
    planned = [(dy, n, method) for dy in config.observed for n in config.levels for method in config.methods]
    first: dict[tuple[int, int], Calibration] = {}
    with bar("calibrating", len(planned)) as advance:
        for done, (dy, n, method) in enumerate(planned, 1):
            problems = [lattice_problem(config.dim, dy, i, config.seed) for i in range(config.problems)]
            levels = lattice_levels(config.dim, n)
            found = measure(METHODS[method], problems, levels, n=config.particles, seed=config.seed)
            start = first.setdefault((dy, n), found)
            rows.append({"name": method, "dim": config.dim, "observed": dy} | _figures(found) | _beside(found, start))
            advance(done)
    write_results(config.json, "diffusion calibrate", config, rows)
    rich.print(table("method", rows, [name for name in SHOWN if any(name in row for row in rows)]))
    print(_page(config, rows))


def _figures(found: Calibration) -> dict[str, Any]:
    """Means over problems, with their intervals; what was spent, which is the same for all of them."""
    estimates = {name: e for name in get_args(Figure) if (e := found.estimate(name)) is not None}
    spent = {name: estimates.pop(name).value for name in ("calls", "gradients")}
    return spent | {name: e.figure("nats" if name == "log_z_error" else "1") for name, e in estimates.items()}


def _beside(found: Calibration, first: Calibration) -> dict[str, Any]:
    """Differences from the first method, on the same problems, with paired bootstrap intervals."""
    if found is first:
        return {}
    return {f"{name} - first": difference(found, first, name).figure() for name in ("sw", "ks")}


def _page(config: Calibrate, rows: list[dict[str, Any]]) -> Any:
    plots = {}
    for dy in config.observed:
        here = [row for row in rows if row["observed"] == dy]
        for name, title in DRAWN.items():
            curves = {
                method: [(row["calls"], row[name]["value"]) for row in here if row["name"] == method]
                for method in config.methods
            }
            floor = here[0]["floor"]["value"] if name == "sw" else None
            title = f"{title}, {dy} observed"
            plots[f"{name} {dy}"] = (title, drawings.quality(curves, floor, name, "exact draws"))
    config.out.mkdir(parents=True, exist_ok=True)
    return pages.write(
        config.out / "calibrate.html",
        "calibrate",
        title=f"Posterior samplers in {config.dim} dimensions",
        config=config,
        plots=plots,
        columns=[name for name in COLUMNS if any(name in row for row in rows)],
        rows=rows,
        text=text,
    )
