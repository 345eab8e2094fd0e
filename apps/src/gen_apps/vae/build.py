"""From the flags of `gen vae train` to data and the model."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from gen_apps import data
from gen_apps.data import Subject
from gen_apps.vae.config import Network, TrainVAE
from gen_core import Arrays
from gen_latent import (
    MLP,
    VAE,
    Bernoulli,
    Categorical,
    ConvDecoder,
    ConvEncoder,
    Flow,
    Gaussian,
    LogisticMixture,
    Mixture,
    Standard,
    Vamp,
)

LIKELIHOODS: dict[
    str, tuple[Callable[..., Any], int | None]
] = {  # of grey levels; numbers per coordinate (None: one a level)
    "logistic-mixture": (lambda levels: partial(LogisticMixture, levels=levels, components=3), 9),
    "categorical": (lambda levels: partial(Categorical, levels=levels), None),
    "gaussian": (lambda levels: Gaussian(0.3), 1),
    "bernoulli": (lambda levels: Bernoulli, 1),
}
PRIORS: dict[str, Callable[..., Any]] = {  # of d latents, an encoder and some data
    "standard": lambda d, encoder, x: Standard(d),
    "mixture": lambda d, encoder, x: Mixture(d, 30),
    "vamp": lambda d, encoder, x: Vamp(encoder, x[:30]),
    "flow": lambda d, encoder, x: Flow(d),
}


def halves(config: TrainVAE) -> tuple[Arrays, Arrays, Subject]:
    """Training data, held-out data, and their facts."""
    train, test = data.of(config)
    subject = Subject.of(config.data, config.size, train)
    if config.binarise:
        train, test = (_binary(part) for part in (train, test))
        subject = Subject(subject.shape, subject.classes, 2)
    if config.conditional:
        subject.need_classes(config.data)
    return train, test, subject


def model(config: TrainVAE, subject: Subject, x: torch.Tensor) -> VAE:
    """The untrained VAE; a VampPrior begins from the data `x`."""
    usual = "bernoulli" if config.binarise else "gaussian" if subject.levels is None else "logistic-mixture"
    chosen = config.likelihood or usual
    if chosen in ("logistic-mixture", "categorical") and (config.binarise or subject.levels is None):
        raise ValueError(
            f"--likelihood {chosen} is of grey levels from -1 to 1, which {config.data} has not; use {usual}"
        )
    classes = subject.classes if config.conditional else 0
    if classes and config.prior == "vamp":
        raise ValueError("--prior vamp is not for a conditional model, whose encoder needs labels; use mixture")
    make, numbers = LIKELIHOODS[chosen]
    encoder, decoder = pair(config.network, subject, config.latents, numbers or subject.levels or 0, classes)
    prior = PRIORS[config.prior](config.latents, encoder, x)
    return VAE(encoder, decoder, latents=config.latents, prior=prior, likelihood=make(subject.levels))


def pair(network: Network, subject: Subject, latents: int, out: int, classes: int) -> tuple[Any, Any]:
    """An encoder to 2 `latents` numbers, and a decoder to `out` numbers per coordinate."""
    shape = subject.shape
    small = len(shape) == 1 or shape[1] != shape[2] or shape[1] <= 8
    if (network.kind or ("mlp" if small else "conv")) == "mlp":
        hidden, full = [network.width] * network.depth, (out * shape[0], *shape[1:])
        how: Any = {"dropout": network.dropout, "classes": classes}
        return MLP(shape, *hidden, 2 * latents, **how), MLP(latents, *hidden, full, **how)
    if len(shape) == 1:
        raise ValueError("--network.kind conv is not for points; leave it out")
    subject.need_square("--network.kind conv")
    c, size, width = shape[0], shape[1], max(8, network.width // 10 // 8 * 8)
    how = {"width": width, "classes": classes}
    return ConvEncoder(c, size, 2 * latents, **how), ConvDecoder(out * c, size, latents, **how)


def _binary(part: Arrays) -> Arrays:
    x, *rest = part[:]
    return Arrays((x > 0).float(), *rest, classes=part.classes, content=part.content)
