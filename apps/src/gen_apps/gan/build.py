"""From the flags of `gen gan train` to data, the two networks and their game."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from gen_apps import data
from gen_apps.data import Subject
from gen_apps.gan.config import TrainGAN
from gen_core import Arrays
from gen_latent import (
    MLP,
    Augment,
    DCDiscriminator,
    DCGenerator,
    GANTask,
    MLPDiscriminator,
    ResidualDiscriminator,
    ResidualGenerator,
    hinge,
    least_squares,
    minimax,
    non_saturating,
    relativistic,
    wasserstein,
)

LOSSES: dict[str, Any] = {
    "relativistic": relativistic,
    "non-saturating": non_saturating,
    "hinge": hinge,
    "least-squares": least_squares,
    "wasserstein": wasserstein,
    "minimax": minimax,
}


def halves(config: TrainGAN) -> tuple[Arrays, Arrays, Subject]:
    """Training data, held-out data, and their facts."""
    train, test = data.of(config)
    subject = Subject.of(config.data, config.size, train)
    if config.conditional:
        subject.need_classes(config.data)
    return train, test, subject


def networks(config: TrainGAN, subject: Subject) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator, untrained."""
    flat = len(subject.shape) == 1
    small = flat or subject.shape[1] != subject.shape[2] or subject.shape[1] <= 8
    kind = config.network or ("mlp" if small else "residual")
    if flat and (kind != "mlp" or config.augment):
        raise ValueError(f"--network {kind} and --augment are not for points; leave them out")
    return PAIRS[kind](subject, config.latents, config.width, subject.classes if config.conditional else 0)


def penalties(config: TrainGAN, subject: Subject) -> tuple[float, float]:
    """Gamma at the start and at the end."""
    if len(subject.shape) == 1:
        usual, share = 1.0, 0.1
    else:
        usual, share = 40.0 if subject.shape[1] <= 8 else 10.0, 0.5
    start = usual if config.gamma is None else config.gamma
    return start, start * share if config.gamma_end is None else config.gamma_end


def task(config: TrainGAN, generator: nn.Module, discriminator: nn.Module, subject: Subject) -> GANTask:
    """The game that the two networks play."""
    (start, end), steps = penalties(config, subject), config.optim.steps
    gamma = (lambda step: start * (end / start) ** (step / steps)) if start else 0.0
    return GANTask(
        generator,
        discriminator,
        LOSSES[config.loss],
        latents=config.latents,
        r1=gamma,
        r2=gamma,
        augment=Augment(config.augment) if config.augment else None,
        conditions=("label",) if config.conditional else (),
        lr=config.optim.lr,
    )


def _mlp(subject: Subject, latents: int, width: int, classes: int) -> tuple[nn.Module, nn.Module]:
    hidden, last = [width] * 3, nn.Tanh() if len(subject.shape) == 3 else None
    leaky = partial(nn.LeakyReLU, 0.2)
    return (
        MLP(latents, *hidden, subject.shape, activation=leaky, last=last, classes=classes),
        MLPDiscriminator(subject.shape, *hidden, classes=classes),
    )


def _convolutional(
    generator: Any, discriminator: Any, subject: Subject, latents: int, width: int, classes: int
) -> tuple[nn.Module, nn.Module]:
    subject.need_square("--network dcgan or residual")
    channels, size, *_ = subject.shape
    width = max(8, width // 8)
    return (
        generator(channels, size, latents, width, classes=classes),
        discriminator(channels, size, width, classes=classes),
    )


PAIRS: dict[str, Callable[..., tuple[nn.Module, nn.Module]]] = {
    "mlp": _mlp,
    "dcgan": partial(_convolutional, DCGenerator, DCDiscriminator),
    "residual": partial(_convolutional, partial(ResidualGenerator, blocks=1), partial(ResidualDiscriminator, blocks=1)),
}
