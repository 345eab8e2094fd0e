"""Green Algorithms' calculator, version 3.0: its energy model times a footprint, and its printed figures.

    f = green_algorithms(12, "GB", cores=12, watts_per_core=7.5, memory_gb=64)
    print(green_algorithms_text(f)["carbon"])

[Lannelongue21] Green Algorithms: quantifying the carbon footprint of computation, Advanced Science 8(12), 2100707.
"""

from collections.abc import Mapping

from gen_green.footprint import Footprint, equivalents, footprint
from gen_green.hardware import factor
from gen_green.intensity import Intensity, constant
from gen_green.quantity import Quantity, sum_spread

__all__ = ["green_algorithms", "green_algorithms_text"]


def green_algorithms(
    hours: float,
    grid: Intensity | str | float,
    *,
    cores: float = 0,
    watts_per_core: float = 12.0,
    usage: float = 1.0,
    gpus: float = 0,
    watts_per_gpu: float = 200.0,
    gpu_usage: float = 1.0,
    memory_gb: float = 0.0,
    pue: float = 1.56,
    psf: float = 1.0,
) -> Footprint:
    """The calculator's estimate: runtime x (cores x watts x usage + memory x 0.3725 W/GB) x PUE x PSF [Lannelongue21].

    Usage multiplies cores, never memory; memory is what was asked for, not what was touched. Defaults are those of
    version 3.0: 12 W per core and 200 W per GPU of an unknown model, PUE 1.56.
    """
    each = factor("memory power")
    compute = cores * watts_per_core * usage + gpus * watts_per_gpu * gpu_usage
    values, spreads = (compute, memory_gb * each.value), (1.5, each.spread)
    joules = Quantity(
        sum(values) * hours * 3600, "J", "assumed", "Green Algorithms v3.0", 2025, sum_spread(values, spreads)
    )
    return footprint(joules, constant(grid) if isinstance(grid, int | float) else grid, pue, psf)


def green_algorithms_text(f: Footprint) -> dict[str, str]:
    """Energy, carbon, trees, car and flight, digit by digit as the calculator prints them."""
    kwh, grams = f.energy.value, f.carbon.value
    same = equivalents(grams)
    return {
        "energy": _scaled(kwh, 1.0, (1e3, 1e3, "MWh"), (1, 1, "kWh"), (0, 1e-3, "Wh")),
        "carbon": _scaled(grams, 1.0, (1e6, 1e6, "TCO2e"), (1e3, 1e3, "kgCO2e"), (1, 1, "gCO2e"), (0, 1e-3, "mgCO2e")),
        "trees": _scaled(same["tree months"], 0.1, (24, 12, "tree-years"), (0, 1, "tree-months")),
        "car": _scaled(same["car km eu"], 0.1, (0, 1, "km")),
        "flight": _flight(same),
    }


def _scaled(value: float, least: float, *units: tuple[float, float, str]) -> str:
    """Two decimals in the first unit (from, divisor, name) that `value` reaches; an exponent outside [least, 1000)."""
    _, divisor, unit = next(u for u in units if value >= u[0])
    scaled = value / divisor
    return f"{scaled:,.2e} {unit}" if scaled and not least <= scaled < 1e3 else f"{scaled:,.2f} {unit}"


def _flight(same: Mapping[str, float]) -> str:
    """The shortest of three flights that half reaches beyond the emission, as a share of it."""
    names = ("Paris-Dublin", "NYC-San Francisco", "NYC-Melbourne")
    further = [same[f"flight {name}"] for name in names[1:]]
    name = next((n for n, share in zip(names[:2], further, strict=True) if share < 0.5), names[2])
    share = same[f"flight {name}"]
    if share >= 1 or share == 0:
        return f"{share:,.0e} {name}" if share > 1e6 else f"{share:,.1f} {name}"
    return f"{share:,.0%} of {name}" if share >= 0.01 else f"{share:,.2%} of {name}"
