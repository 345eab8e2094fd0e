"""Every view of the denoiser trained the same way on 25 Gaussians, beside the denoiser that is exact.

    uv run python tests/benchmarks/views_2d.py [VIEW ...]

One network (at most 60,000 parameters), 4,000 updates of 1,024 points, levels ln(sigma) ~ N(-2, 1.6^2), EDM's weight,
gradients clipped (at high noise the errors of some views weigh a thousand times those of others), averaged weights.
Printed are the excess E w |D - D*|^2 over the least possible loss, on 100,000 points, which neither
memorising nor another scale of the loss can improve, and what the samples of 40 Heun steps lack in mean log-density.
"""

import copy
import math
import sys
import time
from functools import partial

import numpy as np
import torch

from gen_diffusion import MLP, DiffusionTask, GaussianMixture, Preconditioned, karras, log_normal, sample
from gen_diffusion.explain import excess_loss, log_density_gap
from gen_diffusion.view import VIEWS

STEPS, BATCH, CLIP = 4000, 1024, 0.3


def mixture() -> GaussianMixture:
    """The 25 components at multiples of 8 in the plane, of uneven weight, divided by 12."""
    side = torch.arange(-2.0, 3.0) * 8 / 12
    weights = torch.from_numpy(np.random.default_rng(0).standard_normal(25)).float().square()
    return GaussianMixture(weights, torch.cartesian_prod(side, side), torch.eye(2).expand(25, 2, 2) / 144)


def train(view, truth, sigma_data, levels, lr=3e-3):
    torch.manual_seed(0)
    task = DiffusionTask(Preconditioned(MLP(2), sigma_data, view), levels=levels, lr=lr)
    assert sum(p.numel() for p in task.parameters()) <= 60_000
    optimizer, average = task.optimizers()["net"], copy.deepcopy(task.denoiser)
    for i in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = task.lr * min(1, (i + 1) / 200) * (1 + math.cos(math.pi * i / STEPS)) / 2
        x0 = truth.sample(BATCH)
        loss = task.loss(x0, levels(torch.randn(BATCH)), torch.randn_like(x0))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), CLIP)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(task.denoiser.parameters()), 8 / (i + 8))
    return average


@torch.no_grad()
def measure(denoiser, truth, sigma_data, levels):
    """(excess loss, log-density gap in nats)."""
    g = torch.Generator().manual_seed(1)
    x0, z = truth.sample(100_000, g), torch.randn(100_000, generator=g)
    noise = torch.randn(x0.shape, generator=g)
    excess = excess_loss(denoiser, truth, x0, levels(z), noise, sigma_data=sigma_data).excess.mean().item()
    samples = sample(denoiser, 50 * torch.randn(10_000, 2, generator=g), karras(40, sigma_max=50.0))
    return excess, log_density_gap(truth, samples, g)[0]


def protocol():
    """(the mixture, its root mean square, the training levels)."""
    truth = mixture()
    sigma_data = truth.sample(200_000, torch.Generator().manual_seed(0)).square().mean().sqrt().item()
    return truth, sigma_data, partial(log_normal, mean=-2.0, std=1.6)


def main() -> None:
    setting, edm = protocol(), None
    for view in sys.argv[1:] or ["F", *(v for v in VIEWS if v != "F")]:
        start = time.time()
        excess, gap = measure(train(view, *setting), *setting)
        edm = edm or excess
        seconds = time.time() - start
        print(f"{view:10} excess {excess:.4f} ({excess / edm:4.1f} x)  gap {gap:.3f} nats  {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
