"""Modes that a GAN reaches: 25 Gaussians on a grid, and the 1,000 classes of stacked digits.

    uv run python tests/benchmarks/gan_modes.py [grid|digits] [seed ...]

Both play the relativistic game with R1 and R2, whose gamma falls over training, and sample from the moving average of
the generator's weights. The grid has means -4, -2, ..., 4 in each direction and standard deviation .05; of 2,500
samples, those within three standard deviations of a mean are good. A stacked digit is three random ones of
scikit-learn's 8 x 8 digits as channels; an SVC that was fitted on all digits says of 25,600 samples which of the
1,000 triples each is. The first row of each table are real samples, which cannot be bettered.

Averaged weights at seeds 0, 1, 2 reached 25, 25, 25 modes with 84.6, 85.2, 84.8 % good and KL .028, .022, .022 on the
grid (two minutes each), and 997, 998, 999 modes with KL .198, .182, .169 on the digits (80 seconds each).

[Lin18] PacGAN, arXiv:1712.04086, is where both come from; its figures are of other networks and longer training.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from sklearn.svm import SVC
from torch import Tensor, nn

from gen_core import EMA, Arrays, Loader, Trainer, digits
from gen_core.runtime import generator, seed_all
from gen_latent import MLP, GANTask, relativistic
from gen_latent.modes import Modes, count_modes, nearest_mode, too_narrow

EMAS = (0.995, 0.998)  # decays of the generator's average in the first and in the second half
leaky: Any = partial(nn.LeakyReLU, 0.2)


def critic(*sizes: int) -> nn.Module:
    """An MLP of flat samples whose one output has no dimension of its own."""
    return nn.Sequential(MLP(*sizes, 1, activation=leaky), nn.Flatten(0))


def falling(first: float, last: float, steps: int) -> Callable[[int], float]:
    """From `first` to `last` by the same factor at every step."""
    return lambda step: first * (last / first) ** (step / steps)


def played(
    task: GANTask, data: Tensor, steps: int, batch: int, schedule: Callable, seed: int, score: Callable
) -> tuple[Modes, Modes]:
    """Scores of the trained generator and of its average."""
    ema = EMA("generator", lambda n: EMAS[n > steps / 2])
    Trainer(task, seed=seed, device="cpu", schedule=schedule, callbacks=[ema]).fit(
        Loader(Arrays(data), batch, seed=seed), steps
    )
    raw = score(task)
    with ema.swapped():
        return raw, score(task)


# ---------------------------------------------------------------------- 25 Gaussians

MEANS = torch.cartesian_prod(*[torch.arange(-4.0, 5.0, 2.0)] * 2)
STD = 0.05


def grid(n: int, seed: int = 0) -> Tensor:
    g = generator("grid", seed)
    return MEANS[torch.randint(25, (n,), generator=g)] + STD * torch.randn(n, 2, generator=g)


def grid_modes(x: Tensor) -> Modes:
    return count_modes(nearest_mode(x, MEANS, STD), 25)


def grid_gan(seed: int, steps: int = 18_000, batch: int = 256, width: int = 128) -> tuple[Modes, Modes]:
    seed_all(seed)
    gamma = falling(1.0, 2e-5, steps)  # from the scale at which modes exchange samples to that of a mode
    g, d = MLP(2, width, width, width, 2, activation=leaky), critic(2, width, width, width)
    task = GANTask(g, d, relativistic, latents=2, r1=gamma, r2=gamma, lr=1e-3)
    score = lambda task: grid_modes(task.sample(2_500, generator=generator("latents")))
    return played(task, grid(100_000), steps, batch, lambda s: 1 - 0.95 * s / steps, seed, score)


# ---------------------------------------------------------------------- stacked digits


def stacked(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three random digits as channels "n 3 8 8", and which of the 1,000 triples."""
    x, y = digits().tensors
    rows = torch.randint(len(x), (n, 3), generator=generator("stacked", seed))
    return x[rows][:, :, 0], y[rows] @ torch.tensor([100, 10, 1])


def digit_classifier() -> SVC:
    x, y = digits().tensors
    return SVC(gamma=0.256).fit((x.flatten(1).numpy() + 1) / 2, y.numpy())


def triple_modes(classifier: SVC, x: Tensor) -> Modes:
    """Of the triples that the classifier sees."""
    each = torch.from_numpy(classifier.predict((x.reshape(-1, 64).numpy() + 1) / 2))
    return count_modes(each.view(-1, 3) @ torch.tensor([100, 10, 1]), 1000)


def digit_gan(seed: int, classifier: SVC, steps: int = 5_000) -> tuple[Modes, Modes]:
    seed_all(seed)
    gamma = falling(1.0, 0.1, steps)
    g, d = MLP(64, 256, 256, 256, (3, 8, 8), activation=leaky, last=nn.Tanh()), critic(192, 256, 256, 256)
    task = GANTask(g, d, relativistic, latents=64, r1=gamma, r2=gamma, lr=5e-4)
    score = lambda task: triple_modes(classifier, task.sample(25_600, generator=generator("latents")))
    schedule = lambda s: min(1.0, 0.1 + 9 * (1 - s / steps))  # falls in the last tenth only: modes even out slowly
    return played(task, stacked(50_000)[0], steps, 128, schedule, seed, score)


def report(name: str, modes: Modes, narrow: bool = False, seconds: float = 0.0) -> None:
    flag = "  too narrow" if narrow else ""
    print(f"{name:24s} {modes.covered:5d} modes  {modes.good:6.1%} good  KL {modes.divergence:.3f}{flag}", end="")
    print(f"  ({seconds:.0f} s of CPU)" if seconds else "", flush=True)


def main(which: str = "both", *seeds: str) -> None:
    torch.set_num_threads(1)
    numbers = [int(s) for s in seeds] or [0, 1, 2]
    if which in ("both", "grid"):
        report("25 Gaussians: real", grid_modes(grid(2_500, seed=1)))
        for seed in numbers:
            start = time.process_time()
            raw, average = grid_gan(seed)
            report(f"  last weights, seed {seed}", raw, too_narrow(raw.good, 2_500, 2))
            report(f"  average, seed {seed}", average, too_narrow(average.good, 2_500, 2), time.process_time() - start)
    if which in ("both", "digits"):
        classifier = digit_classifier()
        report("stacked digits: real", triple_modes(classifier, stacked(25_600, seed=1)[0]))
        for seed in numbers:
            start = time.process_time()
            raw, average = digit_gan(seed, classifier)
            report(f"  last weights, seed {seed}", raw)
            report(f"  average, seed {seed}", average, seconds=time.process_time() - start)


if __name__ == "__main__":
    main(*sys.argv[1:])
