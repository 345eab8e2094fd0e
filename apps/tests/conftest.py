"""Data so small that a command takes a second."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder of 48 grey pictures of 8 pixels in two classes: a bar that stands, a bar that lies, and noise."""
    root, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    for name in ("lying", "standing"):
        (root / name).mkdir()
        for i in range(24):
            x = 40 + 30 * rng.standard_normal((8, 8))
            x[rng.integers(1, 7)] += 160
            x = (x if name == "lying" else x.T).clip(0, 255).astype(np.uint8)
            Image.fromarray(x).save(root / name / f"{i}.png")
    return root
