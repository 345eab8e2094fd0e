"""From the flags of `gen trajectory train` to the denoiser, and samples by caption."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from torch import Tensor

from gen_apps.trajectory.config import Network, Sampler
from gen_diffusion.denoise import Preconditioned
from gen_diffusion.director import Director
from gen_diffusion.draw import draw
from gen_diffusion.guide import cfg
from gen_diffusion.loss import log_normal
from gen_diffusion.schedule import karras
from gen_diffusion.text import Texted, TextEncoder, Words, tokenise

CAPTION = 64  # tokens of the longest caption, and features of a token
LEVELS = partial(log_normal, mean=0.8, std=1.6)  # higher than for pictures: see Director


def denoiser(network: Network, words: Words, sigma_data: float) -> Preconditioned:
    """The untrained denoiser of trajectories of root mean square `sigma_data`, conditioned on captions."""
    net = Director(**asdict(network), context_dim=CAPTION)
    return Preconditioned(Texted(net, TextEncoder(words.size, CAPTION, length=CAPTION)), sigma_data)


def draw_samples(
    denoiser: Preconditioned, words: Words, sampler: Sampler, captions: Sequence[str], frames: int, **how: Any
) -> Tensor:
    """One trajectory for each caption."""
    text = tokenise(captions, words)
    guided = cfg(denoiser, sampler.guidance)
    return draw(guided, range(len(text)), (frames, 9), karras(sampler.steps), text=text, **how)
