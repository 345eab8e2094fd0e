"""DATA on the command line: digits, points:NAME, hub:NAME or a folder of pictures, as two halves: one is held out."""

from gen_core import Arrays, digits, folder, halves, hub
from gen_core.runtime import generator
from gen_diffusion import grid, moons, rings, swiss_roll

POINTS = {"moons": moons, "rings": rings, "grid": grid, "swiss-roll": swiss_roll}


def load(name: str, size: int) -> tuple[Arrays, Arrays]:
    """(training half, held-out half), every number of them finite.

    Args:
        size: of pictures, in pixels; 0 is 8 for digits and 32 otherwise.

    Raises:
        ValueError: for an unknown set of points, data with fewer than 24 samples, or data that are not finite.
        FileNotFoundError: for a folder that is not there.
    """
    train, test = _load(name, size)
    for half in (train, test):
        x, *_ = half[:]
        if broken := len(x) - int(x.isfinite().flatten(1).all(1).sum()):
            raise ValueError(f"{broken} of {len(x)} samples of {name} hold NaN or infinity; mend or drop them")
    return train, test


def grey_levels(name: str, size: int) -> int | None:
    """Equally spaced values from -1 to 1 that a pixel can have; None for points, and for digits that were resized."""
    if name == "digits":
        return 17 if size in (0, 8) else None
    return None if name.startswith("points:") else 256


def _load(name: str, size: int) -> tuple[Arrays, Arrays]:
    if name == "digits":
        return digits("train", size or 8), digits("test", size or 8)
    kind, _, rest = name.partition(":")
    if kind == "points":
        if rest not in POINTS:
            raise ValueError(f"points:{rest} is not known; there are {', '.join('points:' + p for p in POINTS)}")
        parts = [POINTS[rest](n, generator("points", rest, n)) for n in (4_000, 1_000)]
        names = [str(c) for c in range(int(parts[0][1].max()) + 1)]
        train, test = (Arrays(*part, classes=names) for part in parts)
        return train, test
    data = hub(rest, size or 32) if kind == "hub" else folder(name, size or 32)
    if len(data) < 24:
        raise ValueError(f"{name} holds {len(data)} pictures; training and measuring need at least 24")
    return halves(data)
