"""From the flags of `gen autoencode train` to data, their damage and the model."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gen_apps import data
from gen_apps.autoencode.config import TrainAutoEncoder
from gen_apps.data import Subject
from gen_core import Arrays
from gen_core.runtime import generator
from gen_latent import MLP, AutoEncoder, ConvDecoder, ConvEncoder, QuantizedAutoEncoder, VectorQuantizer, corrupt


def right(x: Tensor) -> Tensor:
    """The mask of one sample that is True where it is visible: all but the right half."""
    visible = torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device)
    visible[:, x.shape[-1] // 2 :] = False
    return visible


def mask(config: TrainAutoEncoder) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The mask that `AutoEncoderTask` takes; None where nothing is hidden."""
    return None if config.hide == "nothing" else lambda u, x: right(x).expand_as(x)


def damaged(config: TrainAutoEncoder, x: Tensor) -> Tensor:
    """`x` with noise and hidden parts as in training, by the run's seed."""
    hidden = mask(config)
    visible = None if hidden is None else hidden(torch.zeros(len(x)), x)
    return corrupt(x, noise=config.noise, mask=visible, generator=generator(config.seed, "damage"))


def halves(config: TrainAutoEncoder) -> tuple[Arrays, Arrays, Subject]:
    """Training data, without the class that is left out; all held-out data; their facts."""
    train, test = data.of(config)
    subject = Subject.of(config.data, config.size, train)
    if config.leave_out is not None:
        if not 0 <= config.leave_out < subject.classes:
            raise ValueError(
                f"--leave-out must be a class of {config.data}, 0..{subject.classes - 1}, got {config.leave_out}"
            )
        train = train.select((train.tensors[-1][:] != config.leave_out).nonzero()[:, 0])
    if len(subject.shape) == 1 and (config.halvings or config.hide != "nothing"):
        raise ValueError("--halvings and --hide are of pictures, not of points; leave them out")
    return train, test, subject


def model(config: TrainAutoEncoder, subject: Subject) -> AutoEncoder:
    """The untrained auto-encoder."""
    latents, width = config.latents or 16, config.width
    if not config.halvings and config.latents is None and (config.noise or config.hide != "nothing"):
        encoder = MLP(subject.shape, width, activation=nn.GELU, last=nn.GELU())
        return AutoEncoder(encoder, MLP(width, width, subject.shape, activation=nn.GELU), width)
    if not config.halvings:
        encoder = MLP(subject.shape, width, width, latents)
        return AutoEncoder(encoder, MLP(latents, width, width, subject.shape), latents)
    c, *sides = subject.shape
    size = math.gcd(*sides)  # which can be halved as often as both
    how: dict[str, Any] = {"width": max(8, width // 8), "spatial": config.halvings}
    parts = ConvEncoder(c, size, latents, **how), ConvDecoder(c, size, latents, **how)
    if not config.codes:
        return AutoEncoder(*parts, latents)
    book = VectorQuantizer(config.codes, latents, revive_below=0.01)
    return QuantizedAutoEncoder(*parts, book, latents)
