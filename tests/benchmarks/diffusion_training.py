"""One training step of our U-Net and loop beside those of diffusers and of denoising-diffusion-pytorch.

    uv run --group peers --with denoising-diffusion-pytorch python tests/benchmarks/diffusion_training.py

First the networks: forward, squared error, backward and AdamW on 16 pictures of 32 x 32, on the CPU with one thread.
Each peer keeps its own blocks at 64 features, (1, 2, 2) of them at three resolutions, two blocks each, attention at
the second. Beside it stands ours, of the width (in steps of 8) whose number of floating-point operations in a step, by
PyTorch's own count, is the nearest; what is left of a difference is divided out, so that the ratio is one of times per
operation. A peer runs in the memory format it comes in and in channels_last.

Then the loop, on identical work: the EDM objective on one network, ours on 64 pictures of 8 x 8, by AdamW.

The contestants take turns, a step (or round of steps) of each at a time. Times are the process's own CPU seconds, which
a busy machine does not stretch as it does the clock's; ratios are medians over rounds of ours / peer's. A peer that is
not installed is left out. Arguments: rounds of the first part, rounds of the second.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gen_core import Arrays, Loader, Trainer
from gen_diffusion import DiffusionTask, Preconditioned, UNet

BATCH, SIZE = 16, 32
RESOLUTIONS = (1, 2, 2)


def ours(width: int) -> nn.Module:
    return UNet(3, width, RESOLUTIONS, blocks=2, attention=(1,))


def diffusers() -> nn.Module:
    from diffusers import UNet2DModel

    class Peer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = UNet2DModel(
                sample_size=SIZE,
                block_out_channels=tuple(64 * m for m in RESOLUTIONS),
                layers_per_block=2,
                down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
                attention_head_dim=32,
            )

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.net(x, t).sample

    return Peer()


def lucidrains() -> nn.Module:
    from denoising_diffusion_pytorch import Unet

    return Unet(64, dim_mults=RESOLUTIONS, full_attn=(False, True, False), flash_attn=True)


def update(net: nn.Module, batch: int = BATCH) -> Callable[[], None]:
    x, t = torch.randn(batch, 3, SIZE, SIZE), torch.rand(batch)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        opt.zero_grad()
        (net(x, t) - x).square().mean().backward()
        opt.step()

    return step


def gflops(make: Callable[[], nn.Module]) -> float:
    """Of one update of one picture, times the batch."""
    with FlopCounterMode(display=False) as counter:
        update(make(), batch=1)()
    return counter.get_total_flops() * BATCH / 1e9


def cpu_seconds(f: Callable[[], object]) -> float:
    start = time.process_time()
    f()
    return time.process_time() - start


def turns(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    for f in contestants.values():
        f()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, f in contestants.items():
            times[name].append(cpu_seconds(f))
    return times


def ratio(a: list[float], b: list[float], factor: float = 1.0) -> str:
    low, middle, high = statistics.quantiles([factor * i / j for i, j in zip(a, b, strict=True)], n=4)
    return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f})"


def networks(rounds: int) -> None:
    for name, make in {"diffusers UNet2DModel": diffusers, "denoising_diffusion_pytorch Unet": lucidrains}.items():
        try:
            work = gflops(make)
        except ImportError as error:
            print(f"{name}: left out, {error}")
            continue
        width = min(range(48, 128, 8), key=lambda w: abs(gflops(lambda: ours(w)) - work))
        mine_work = gflops(lambda w=width: ours(w))
        last = make().to(memory_format=torch.channels_last)
        nets = {f"gen_diffusion UNet, width {width}": ours(width), name: make(), f"{name}, channels_last": last}
        times = turns({name: update(net) for name, net in nets.items()}, rounds)
        mine, *others = times
        print(f"{mine:50s} {mine_work:6.1f} GFLOP  {statistics.median(times[mine]) * 1e3:5.0f} ms")
        for other in others:
            print(
                f"{other:50s} {work:6.1f} GFLOP  {statistics.median(times[other]) * 1e3:5.0f} ms"
                f"  ours / it, per operation {ratio(times[mine], times[other], work / mine_work)}"
            )


def small() -> UNet:
    torch.manual_seed(0)
    return UNet(1, 32, (1, 2), attention=(1,))


def bare(steps: int, data: Tensor) -> Callable[[], None]:
    """The equations of EDM's table 1 written into the loop: the least that can be done."""
    net = small()
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=True)

    def run() -> None:
        order = torch.randperm(len(data))
        for i in range(steps):
            x0 = data[order[64 * i : 64 * (i + 1)]]
            sigma = (-1.2 + 1.2 * torch.randn(64, 1, 1, 1)).exp()
            total = (sigma**2 + 0.25).sqrt()
            x = x0 + sigma * torch.randn_like(x0)
            denoised = 0.25 / total**2 * x + 0.5 * sigma / total * net(x / total, sigma.flatten().log() / 4)
            loss = ((total / (0.5 * sigma)) ** 2 * (denoised - x0) ** 2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()

    return run


def trained(steps: int, data: Tensor) -> Callable[[], None]:
    task = DiffusionTask(Preconditioned(small()))
    trainer, loader = Trainer(task, device="cpu"), Loader(Arrays(data), 64)
    return lambda: trainer.fit(loader, trainer.step + steps)


def elucidated(steps: int, data: Tensor) -> Callable[[], None]:
    """denoising-diffusion-pytorch's EDM objective around the same network, in a plain loop."""
    from denoising_diffusion_pytorch import ElucidatedDiffusion

    class Net(nn.Module):
        random_or_learned_sinusoidal_cond, self_condition = True, False

        def __init__(self):
            super().__init__()
            self.net = small()

        def forward(self, x: Tensor, t: Tensor, self_cond: None = None) -> Tensor:
            return self.net(x, t)

    diffusion = ElucidatedDiffusion(Net(), image_size=8, channels=1)
    opt = torch.optim.AdamW(diffusion.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=True)

    def run() -> None:
        order = torch.randperm(len(data))
        for i in range(steps):
            loss = diffusion(data[order[64 * i : 64 * (i + 1)]])
            opt.zero_grad()
            loss.backward()
            opt.step()

    return run


def loops(rounds: int, steps: int = 10) -> None:
    data, contestants = torch.randn(64 * steps, 1, 8, 8), {}
    loops = {"gen_diffusion under gen_core's Trainer": trained, "hand-written": bare, "ElucidatedDiffusion": elucidated}
    for name, make in loops.items():
        try:
            contestants[name] = make(steps, data)
        except ImportError as error:
            print(f"{name}: left out, {error}")
    times = turns(contestants, rounds)
    mine, *others = times
    print(f"{mine:50s} {statistics.median(times[mine]) / steps * 1e3:5.1f} ms a step")
    for other in others:
        print(
            f"{other:50s} {statistics.median(times[other]) / steps * 1e3:5.1f} ms a step"
            f"  ours / it {ratio(times[mine], times[other])}"
        )


def main(rounds: int = 12, loop_rounds: int = 12) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    networks(rounds)
    loops(loop_rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
