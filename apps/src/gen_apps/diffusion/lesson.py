"""The pictures of learn2d's page, whose words are in templates/learn2d.html."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Generator, Tensor

from gen_apps.diffusion import drawings
from gen_diffusion import Denoiser
from gen_diffusion.explain import excess_loss

Points = Float[Tensor, "n 2"]
NOISE = (0.0, 0.05, 0.15, 0.5, 2.0)
FIELD = (0.05, 0.1, 0.6)


def pictures(
    learned: Denoiser,
    exact: Denoiser | None,
    x0: Points,
    walks: Mapping[str, tuple[Tensor, Tensor]],
    drawn: Mapping[str, tuple[Points, str]],
    spread: float,
    generator: Generator,
) -> dict[str, Figure | None]:
    """The figures by their name in the template; without an exact denoiser there is none of the loss.

    Args:
        walks: paths of each sampler from noise to data, and their noise levels.
        drawn: samples of each sampler, and a line about them.
        spread: standard deviation of the data.
    """
    both = {"learned": (learned, drawings.LEARNED)}
    if exact is not None:
        both = {"exact": (exact, drawings.EXACT), **both}
    few = x0[:3000]
    noise, other = (torch.randn(few.shape, generator=generator) for _ in range(2))
    return {
        "forward": drawings.forward(few, noise, NOISE, spread),
        "scores": drawings.scores(both, few, other, FIELD, spread),
        "answers": drawings.answers(both, FIELD, spread),
        "losses": None if exact is None else losses(learned, exact, x0, spread, generator),
        "paths": drawings.paths(walks, few, spread),
        "samples": drawings.samples(drawn, spread),
    }


def losses(learned: Denoiser, exact: Denoiser, x0: Points, spread: float, generator: Generator) -> Figure:
    """The two parts of the loss at each of 28 noise levels, means of 2000 points."""
    levels = torch.logspace(-2.3, 1, 28)
    sigma = levels.repeat_interleave(2000)
    clean = x0[: len(sigma)]
    noise = torch.randn(clean.shape, generator=generator)
    loss = excess_loss(learned, exact, clean, sigma, noise, sigma_data=spread)
    floor, excess = (part.unflatten(0, (len(levels), -1)).mean(1) for part in (loss.floor, loss.excess))
    return drawings.losses(levels, floor, excess)
