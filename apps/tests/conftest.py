"""Data so small that a command takes a second."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gen_core.testing import load

small = load(Path(__file__).with_name("small.py"))


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """The cache of pictures is the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


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


@pytest.fixture(scope="session")
def diffusion_run(tiny, tmp_path_factory) -> Path:
    return _trained(small.DIFFUSION, tiny, tmp_path_factory)


@pytest.fixture(scope="session")
def vae_run(tiny, tmp_path_factory) -> Path:
    """Conditional, of binary data."""
    return _trained(small.VAE, tiny, tmp_path_factory)


@pytest.fixture(scope="session")
def gan_run(tiny, tmp_path_factory) -> Path:
    """Conditional, with augmentation."""
    return _trained(small.GAN, tiny, tmp_path_factory)


def _trained(words: str, data: Path, places: pytest.TempPathFactory) -> Path:
    out = places.mktemp(words.split()[0]) / "a"
    small.gen(f"{words.format(data)} --out {out}")
    return out
