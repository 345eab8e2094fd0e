"""The cost of a draw given an observation, over that of a draw from the prior: ours, and deepinv's beside it.

    python tests/benchmarks/posterior_cost.py

A U-Net for pictures of 32 x 32, 8 pictures at a time, half of their pixels hidden, 15 levels. Ours are compared with
`sample(denoiser, x, sigmas, ddim(1.0))`, which calls the network as often. deepinv 0.5 restores the same pictures by
the same network and operator in as many steps, if it is installed. Times are the process's own CPU seconds, on one
thread; the contestants take turns, and the medians of their rounds are compared. Argument: rounds.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gen_diffusion import (
    Gaussian,
    Observation,
    Preconditioned,
    UNet,
    daps,
    ddim,
    ddnm,
    ddrm,
    dps,
    inpaint,
    karras,
    pigdm,
    sample,
)

LEVELS, SHAPE, N = 15, (3, 32, 32), 8
LIMITS = {"dps": 3.2, "pigdm": 3.2, "ddrm": 1.15, "ddnm": 1.15, "daps": 1.15}


def contestants(denoiser: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Draws by name, the prior's first."""
    g = torch.Generator().manual_seed(0)
    mask = torch.rand(SHAPE[1:], generator=g).expand(SHAPE) > 0.5
    A = inpaint(mask)
    obs = Observation(A, A(torch.randn(1, *SHAPE, generator=g).clamp(-1, 1))[0], Gaussian(0.1))
    sigmas = karras(LEVELS, 0.02, 80.0)
    x = 80 * torch.randn(N, *SHAPE, generator=g)
    draws = {"prior": partial(sample, denoiser, x, sigmas, ddim(1.0), generator=g)}
    methods = {"dps": dps, "pigdm": pigdm, "ddrm": ddrm, "ddnm": ddnm, "daps": daps}
    draws |= {name: partial(f, denoiser, obs, x, sigmas, generator=g) for name, f in methods.items()}
    try:
        return draws | _deepinv(denoiser, mask, A.T(obs.y[None]).expand(N, *SHAPE))
    except ImportError:
        print("deepinv is not installed")
        return draws


def _deepinv(denoiser: nn.Module, mask: Tensor, y: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Its DPS and DDRM, which draw pictures in [0, 1] and know the network as a denoiser of those."""
    import deepinv

    class Theirs(deepinv.models.Denoiser):
        def forward(self, x: Tensor, sigma: Tensor | float, **_: object) -> Tensor:
            level = 2 * torch.as_tensor(sigma, dtype=torch.float32).flatten()[:1]
            return (denoiser(2 * x - 1, level[0]) + 1) / 2

    physics = deepinv.physics.Inpainting(SHAPE, mask=mask.float(), noise_model=deepinv.physics.GaussianNoise(0.05))
    theirs = {
        "deepinv DPS": deepinv.sampling.DPS(Theirs(), num_steps=LEVELS + 1, dtype=torch.float32),
        "deepinv DDRM": deepinv.sampling.DDRM(Theirs(), sigmas=torch.linspace(1, 0, LEVELS).numpy()),
    }
    return {name: partial(model, (y + 1) / 2 * mask, physics) for name, model in theirs.items()}


def main(rounds: int = 5) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = UNet(3, 32, (1, 2), attention=(1,)).eval()
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.02)
    draws = contestants(Preconditioned(net).requires_grad_(False))
    seconds: dict[str, list[float]] = {name: [] for name in draws}
    for _ in range(rounds):
        for name, draw in draws.items():
            start = time.process_time()
            draw()
            seconds[name].append(time.process_time() - start)
    prior = statistics.median(seconds["prior"])
    print(f"{'method':14} {'s/draw':>8} {'over prior':>11} {'at most':>8}")
    for name, times in seconds.items():
        ratio = statistics.median(times) / prior
        print(f"{name:14} {statistics.median(times) / N:8.3f} {ratio:11.2f} {LIMITS.get(name, ''):>8}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
