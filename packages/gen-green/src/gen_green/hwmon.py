"""Power sensors of other makers: AMD GPUs and Jetson boards (Linux hwmon), and the text of Apple's powermetrics.

They tell power, not energy, so they are `Gauge`s: read them often (`Meter(every=1)`). Files only: no library, no sudo.

    sudo powermetrics -n 1 --samplers cpu_power    # run by you, never from here; `powermetrics` reads its text
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

from gen_green.counter import Counter
from gen_green.nvidia import Gauge

__all__ = ["hwmon", "powermetrics"]

HWMON = Path("/sys/class/hwmon")


def hwmon(root: Path = HWMON, *, clock: Callable[[], float] = time.monotonic) -> list[Counter]:
    """A gauge per AMD GPU (amdgpu), and one for a Jetson board's input (ina3221, rail VDD_IN).

    Args:
        root: tree with hwmon*/name; power in microwatts, rails in millivolts and milliamperes.
    """
    found: list[Counter] = []
    for chip in sorted(root.glob("hwmon*")) if root.is_dir() else []:
        name = _text(chip / "name")
        for file in (chip / "power1_average", chip / "power1_input"):
            if name == "amdgpu" and _text(file).isdigit():
                device = (chip / "device").resolve().name if (chip / "device").exists() else chip.name
                watts = lambda file=file: int(file.read_text()) / 1e6
                found.append(Gauge(f"gpu {device}", watts, f"amdgpu power, {chip.name}", clock))
                break
        for label in sorted(chip.glob("in*_label")) if name == "ina3221" else []:
            rail = label.name.removesuffix("_label").removeprefix("in")
            volts, amperes = chip / f"in{rail}_input", chip / f"curr{rail}_input"
            if _text(label) == "VDD_IN" and _text(volts).isdigit() and _text(amperes).isdigit():
                watts = lambda u=volts, i=amperes: int(u.read_text()) * int(i.read_text()) / 1e6
                found.append(Gauge("board", watts, "INA3221 VDD_IN, the whole board", clock))
    return found


def powermetrics(text: str) -> dict[str, float]:
    """Watts by part ("cpu", "gpu", "ane") from what Apple's powermetrics printed; the last sample counts.

    >>> powermetrics("CPU Power: 1234 mW\\nGPU Power: 56 mW\\nCombined Power (CPU + GPU + ANE): 1290 mW")
    {'cpu': 1.234, 'gpu': 0.056}
    """
    return {part.lower(): int(mw) / 1e3 for part, mw in re.findall(r"^(CPU|GPU|ANE) Power: (\d+) mW", text, re.M)}


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
