"""Data so small that a command takes a second."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gen_core import Run
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


@pytest.fixture(scope="session")
def runs(tiny, diffusion_run, vae_run, gan_run, tmp_path_factory) -> dict[str, Path]:
    """A run of every kind, by the class of its configuration."""
    root = tmp_path_factory.mktemp("runs")
    (root / "en.txt").write_text(small.ENGLISH)
    turns = [[{"role": "user", "content": w}, {"role": "assistant", "content": w}] for w in ("cat", "dog") * 4]
    (root / "chats.jsonl").write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    small.gen(
        f"autoencode train {tiny} --size 8 --halvings 1 --latents 2 --width 16 --out {root / 'stage'} {small.STEPS}"
    )
    tiny_net = "--network.width 8 --network.blocks 1 --network.dropout 0 --sampler.steps 3"
    small.gen(f"latent-diffusion train {root / 'stage'} --out {root / 'latent'} {small.STEPS} {tiny_net}")
    short = "--trajectories 16 --frames 60 --samples 8 --sampler.steps 2 --network.width 8 --network.depth 1"
    small.gen(f"trajectory train --out {root / 'camera'} {small.STEPS} {short} --network.heads 2")
    tiny_lm = "--network.layers 1 --network.dim 16 --network.heads 2"
    small.gen(f"llm pretrain {root / 'en.txt'} --out {root / 'lm'} {small.STEPS} {tiny_lm}")
    small.gen(f"llm tune {root / 'lm'} {root / 'chats.jsonl'} --out {root / 'tuned'} {small.STEPS}")
    paths = [diffusion_run, vae_run, gan_run, *(root / n for n in ("stage", "latent", "camera", "lm", "tuned"))]
    return {Run(path).config()["$"]: path for path in paths}


def _trained(words: str, data: Path, places: pytest.TempPathFactory) -> Path:
    out = places.mktemp(words.split()[0]) / "a"
    small.gen(f"{words.format(data)} --out {out}")
    return out
