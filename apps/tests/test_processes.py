"""Two processes train as one does, through the commands: whatever passes between them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gen_core import Run
from gen_core.checkpoint import load_tensors
from gen_core.testing import launch, load

small = load(Path(__file__).with_name("small.py"))


def all_three(folder: Path, root: Path) -> None:
    for name in ("DIFFUSION", "VAE", "GAN"):
        small.gen(f"{getattr(small, name).format(folder)} --out {root / name}")


@pytest.fixture(scope="module")
def two(tiny, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("two")
    launch(2, all_three, tiny, root, timeout=300)
    return root


def weights(run: Path, step: int, file: str) -> dict[str, torch.Tensor]:
    return load_tensors(run / "checkpoints" / f"step-{step:06d}" / f"{file}.safetensors")


def test_diffusion(diffusion_run, two):
    """Up to float32 rounding; each process draws a part of the samples."""
    one, both = (np.load(p / "samples.npz")["x"] for p in (diffusion_run, two / "DIFFUSION"))
    assert np.abs(one - both).mean() < 2e-3  # AdamW enlarges the rounding of float32
    for a, b in zip(Run(diffusion_run).metrics()[:8], Run(two / "DIFFUSION").metrics(), strict=True):
        assert all(a[name] == pytest.approx(b[name], rel=1e-2) for name in ("step", "loss", "val/loss") if name in a)
        assert a.keys() == b.keys()


def test_vae(vae_run, two):
    """Weights, and a validation that each process does a part of."""
    one, both = (weights(p, 6, "ema") for p in (vae_run, two / "VAE"))
    for name, value in one.items():
        torch.testing.assert_close(both[name], value, rtol=1e-3, atol=1e-5, msg=name)
    for a, b in zip(Run(vae_run).metrics(), Run(two / "VAE").metrics(), strict=False):
        assert a.keys() == b.keys() and a.get("val/kl") == pytest.approx(b.get("val/kl"), rel=1e-3)


@pytest.mark.parametrize("file", ["task", "ema"])
def test_gan(file, gan_run, two):
    """Both players, the strength of the augmentation, and the generator's average."""
    one, both = (weights(p, 6, file) for p in (gan_run, two / "GAN"))
    for name, value in one.items():
        torch.testing.assert_close(both[name], value, rtol=1e-3, atol=1e-4, msg=name)
