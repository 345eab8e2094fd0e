"""The sections of learn2d's page: a sentence or two, the equation, the picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_apps.diffusion import drawings
from gen_apps.page import equation, image, section, table, text
from gen_diffusion import Denoiser
from gen_diffusion.explain import excess_loss

Points = Float[Tensor, "n 2"]
NOISE = (0.0, 0.05, 0.15, 0.5, 2.0)
FIELD = (0.05, 0.1, 0.6)


def beside(learned: Denoiser, exact: Denoiser | None) -> dict[str, tuple[Denoiser, str]]:
    """Both denoisers with their colours, the exact one first, where there is one."""
    both = {"learned": (learned, drawings.LEARNED)}
    return both if exact is None else {"exact": (exact, drawings.EXACT), **both}


def noise(x0: Points, spread: float, generator: Generator) -> str:
    x0 = x0[:3000]
    figure = drawings.forward(x0, torch.randn(x0.shape, generator=generator), NOISE, spread)
    return section(
        "1. Noise is added",
        text(
            """
            Each data point gets Gaussian noise of standard deviation σ. Nothing is learned here: the
            distribution is blurred until, far above the size of the data, it is noise and nothing else.
            The colour of a point is where it came from; at σ = 2 nobody could tell.
            """
        ),
        equation(
            "x = x<sub>0</sub> + σ n, &nbsp; n ~ N(0, I), &nbsp; so &nbsp; p(x; σ) = p<sub>data</sub> * N(0, σ²I)"
        ),
        image(figure, f"the data at noise levels {NOISE}"),
    )


def field(learned: Denoiser, exact: Denoiser | None, x0: Points, spread: float, generator: Generator) -> str:
    x0 = x0[:3000]
    noise = torch.randn(x0.shape, generator=generator)
    figure = drawings.scores(beside(learned, exact), x0, noise, FIELD, spread)
    return section(
        "2. A network learns where the data are",
        text(
            """
            The score points from a noisy point to where the data are denser. It is learned without
            knowing any density: a network D that guesses the clean point from the noisy one gives it by
            Tweedie’s formula. At high noise all arrows point to the middle; at low noise each point has
            its own nearest piece of the data. The longer an arrow, the larger
            σ times the score; dots are the noisy data,
            and far from them the network has never been asked.
            """
        ),
        equation(
            "D = argmin E w(σ) |D(x; σ) − x<sub>0</sub>|² = E[x<sub>0</sub> | x]"
            ", &nbsp; ∇ log p(x; σ) = (D(x; σ) − x) / σ²"
        ),
        image(figure, "score fields of the denoisers at three noise levels"),
    )


def denoiser(learned: Denoiser, exact: Denoiser | None, x0: Points, spread: float, generator: Generator) -> str:
    content = [
        text(
            """
            The denoiser answers with the mean of all clean points that the noisy one could have come
            from. A fine lattice of points is sent through it: at low noise they fall onto the data, at
            high noise the answers shrink to the mean.
            """
        ),
        image(drawings.answers(beside(learned, exact), FIELD, spread), "where the denoisers send a lattice of points"),
    ]
    if exact is not None:
        levels = torch.logspace(-2.3, 1, 28)
        sigma = levels.repeat_interleave(2000)
        clean = x0[: len(sigma)]
        loss = excess_loss(
            learned, exact, clean, sigma, torch.randn(clean.shape, generator=generator), sigma_data=spread
        )
        floor, excess = (part.unflatten(0, (len(levels), -1)).mean(1) for part in (loss.floor, loss.excess))
        content += [
            text(
                """
                These data are a mixture whose denoiser D* is known exactly, so the training loss
                can be taken apart. Most of it is what nobody can know; what is left to learn is the
                excess, far below.
                """
            ),
            equation(
                "E w |D − x<sub>0</sub>|² = E w |D* − x<sub>0</sub>|² + E w |D − D*|²"
                ", &nbsp; w = 1/σ² + 1/σ<sub>data</sub>²"
            ),
            image(drawings.losses(levels, floor, excess), "floor and excess of the loss at each noise level"),
        ]
    return section("3. What the denoiser answers", *content)


def reverse(walks: Mapping[str, tuple[Tensor, Tensor]], x0: Points, spread: float) -> str:
    return section(
        "4. Samplers walk back",
        text(
            """
            From pure noise, a sampler follows the denoiser down the noise levels. The ordinary
            differential equation gives smooth paths, and every sampler that solves it should take the
            same noise to the same point; the stochastic ones add fresh noise on the way and end
            elsewhere, in the same distribution. All plots start from the same points of noise; each
            state is drawn shrunk to the size of the data.
            """
        ),
        equation("dx/dσ = (x − D(x; σ)) / σ &nbsp;&nbsp; drawn: x · σ<sub>data</sub> / √(σ<sub>data</sub>² + σ²)"),
        image(drawings.paths(walks, x0[:3000], spread), "paths from noise to data of each sampler"),
    )


def final(drawn: Mapping[str, tuple[Points, str]], lines: Sequence[Sequence[Any]], exact: bool, spread: float) -> str:
    gap = text(
        """
            The gap is in nats: how much less probable the samples are, on average, than data under the
            true density. It is 0 for a perfect sampler of a perfect network; points between the modes
            cost most.
            """
    ) + equation("gap = E<sub>data</sub> log p(x) − E<sub>samples</sub> log p(x)")
    return section(
        "5. What comes out, and what it costs",
        text(
            """
            Each sampler gets the same number of network evaluations, or the next below that its steps
            allow: Heun asks twice per step and so takes half as many.
            """
        ),
        gap if exact else "",
        table(["sampler", "steps", "evaluations per sample", *["gap, nats"] * exact], lines),
        image(drawings.samples(drawn, spread), "samples of each sampler beside the data"),
    )


def views(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    return section(
        "6. What the network is asked for",
        text(
            """
            The same network may be asked for the clean point, the noise, or a mixture of both. All are
            the same denoiser on paper, since each can be turned into each; what differs is how large an
            error of the network becomes at which noise level. Same data, same steps, same weights of
            the loss.
            """
        ),
        table(head, lines),
    )
