"""A training step of gen-latent's tasks under gen-core's Trainer beside the same work written by hand.

    uv run python tests/benchmarks/latent_speed.py [row ...]

The contestants of a row take turns, a block of steps of each at a time, on the CPU with one thread. Times are the
process's own CPU seconds, which a busy machine does not stretch as it does the clock's; a ratio is the median over
rounds of ours / the other's. A row is a function that returns blocks of steps by name, ours first.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from gen_core import Arrays, Loader, Trainer
from gen_core.runtime import seed_all
from gen_latent import MLP, DCDiscriminator, DCGenerator, GANTask

Blocks = dict[str, Callable[[], object]]
STEPS = 10  # in a block


def trained(task, data: Loader) -> Callable[[], object]:
    """A block of steps of the task."""
    trainer = Trainer(task, device="cpu")
    return lambda: trainer.fit(data, trainer.step + STEPS)


def by_hand(g: nn.Module, d: nn.Module, x: torch.Tensor, batch: int, latents: int) -> Callable[[], object]:
    """The relativistic game with R1 and R2, its equations written into the loop."""
    adam = lambda net: torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.0, 0.99), fused=True)
    opt_g, opt_d = adam(g), adam(d)

    def squared_gradient(logits, at):
        return torch.autograd.grad(logits.sum(), at, create_graph=True)[0].square().flatten(1).sum(1)

    def block():
        order = torch.randperm(len(x))
        for i in range(STEPS):
            real = x[order[batch * i : batch * (i + 1)]].requires_grad_()
            with torch.no_grad():
                fake = g(torch.randn(batch, latents))
            fake.requires_grad_()
            on_real, on_fake = d(real), d(fake)
            penalty = (squared_gradient(on_real, real) + squared_gradient(on_fake, fake)) / 2
            opt_d.zero_grad()
            (F.softplus(on_fake - on_real) + penalty).mean().backward()
            opt_d.step()

            d.requires_grad_(False)
            fake = g(torch.randn(batch, latents))
            with torch.no_grad():
                on_real = d(real)
            opt_g.zero_grad()
            F.softplus(on_real - d(fake)).mean().backward()
            opt_g.step()
            d.requires_grad_(True)

    return block


def game(players: Callable[[], tuple[nn.Module, nn.Module]], x: torch.Tensor, batch: int, latents: int) -> Blocks:
    """The same networks and the same work, ours and by hand."""
    seed_all(0)
    g, d = players()
    ours = trained(GANTask(*players(), latents=latents, r1=1.0, r2=1.0), Loader(Arrays(x), batch))
    return {"GANTask": ours, "by hand": by_hand(g, d, x, batch, latents)}


def gan_pictures() -> Blocks:
    """DCGAN on pictures of 32 x 32."""
    players = lambda: (DCGenerator(3, 32, 64, width=16), DCDiscriminator(3, 32, width=16))
    return game(players, torch.randn(32 * STEPS, 3, 32, 32), 32, 64)


def gan_points() -> Blocks:
    """MLPs on points in the plane, where the loop weighs the most."""
    players = lambda: (MLP(2, 128, 128, 2), nn.Sequential(MLP(2, 128, 128, 1), nn.Flatten(0)))
    return game(players, torch.randn(128 * STEPS, 2), 128, 2)


ROWS: dict[str, Callable[[], Blocks]] = {"gan_pictures": gan_pictures, "gan_points": gan_points}


def cpu_seconds(block: Callable[[], object]) -> float:
    start = time.process_time()
    block()
    return time.process_time() - start


def main(*names: str, rounds: int = 20) -> None:
    torch.set_num_threads(1)
    for name in names or ROWS:
        blocks = ROWS[name]()
        for block in blocks.values():
            block()
        times: dict[str, list[float]] = {contestant: [] for contestant in blocks}
        for _ in range(rounds):
            for contestant, block in blocks.items():
                times[contestant].append(cpu_seconds(block))
        ours, *others = times
        print(f"{name}: {ours} {statistics.median(times[ours]) / STEPS * 1e3:.2f} ms a step")
        for other in others:
            ratios = [a / b for a, b in zip(times[ours], times[other], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            each = statistics.median(times[other]) / STEPS * 1e3
            print(f"  {other} {each:.2f} ms; ours / it {middle:.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
