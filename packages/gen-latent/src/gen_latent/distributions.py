"""Densities of data given a latent, and of latents: what an encoder, a decoder and a prior answer with.

A distribution is over one sample per row: `log_prob(x) -> (b,)` sums over everything but the first dimension, in nats,
and `sample(generator=) -> (b, ...)` draws. A likelihood is a callable from the decoder's output to a distribution of
the data: the class `Bernoulli` itself, a module with a parameter of its own (`Gaussian`), a `partial`.

    VAE(encoder, decoder, likelihood=Bernoulli)                         # binary data
    VAE(encoder, decoder, likelihood=Gaussian(sigma=0.1))               # real data, sigma learned
    VAE(encoder, decoder, likelihood=partial(LogisticMixture, levels=17))   # grey levels: see `discrete`

[Kingma14] Auto-encoding variational Bayes, arXiv:1312.6114.
[Rybkin21] Simple and effective VAE training with calibrated decoders, arXiv:2006.13202.
[Fevotte09] Nonnegative matrix factorization with the Itakura-Saito divergence, Neural Computation 21(3).
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gen_core.description import describable

LOG_2PI = math.log(2 * math.pi)


@runtime_checkable
class Distribution(Protocol):
    """One distribution per row, or one for all rows."""

    def log_prob(self, x: Tensor) -> Tensor: ...


def randn(shape: torch.Size | tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
    """Standard normal of the type and on the device of `like`, drawn on the generator's own device."""
    device = generator.device if generator else like.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def rand(shape: torch.Size | tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
    """Uniform on [0, 1), otherwise as `randn`."""
    device = generator.device if generator else like.device
    return torch.rand(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def wide(x: Tensor) -> Tensor:
    """In at least single precision: a network under autocast answers in 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def same_shape(x: torch.Size | tuple[int, ...], mean: torch.Size | tuple[int, ...]) -> None:
    """Refuse samples that would broadcast against a distribution of another shape.

    Raises:
        ValueError: with both shapes, unless they are equal.
    """
    if tuple(x) != tuple(mean):
        raise ValueError(
            f"samples have shape {tuple(x)} but the distribution {tuple(mean)}; give the network the shape of the "
            "data as its output"
        )


@dataclass(frozen=True)
class Normal:
    """Independent normal coordinates of the given mean and standard deviation."""

    mean: Float[Tensor, "b ..."]
    std: Float[Tensor, "b ..."]

    def at(self, noise: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """mean + std noise: a draw as a function of standard normal noise ([Kingma14] section 2.4)."""
        return self.mean + self.std * noise

    def sample(self, generator: Generator | None = None) -> Float[Tensor, "b ..."]:
        return self.at(randn(self.mean.shape, self.mean, generator))

    def log_prob(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Log-density of `x`, "b ..." or with leading dimensions of its own, "k b ...": one number for each "k b".

        Raises:
            ValueError: when a sample of `x` has another shape than the mean's, which would broadcast.
        """
        same_shape(x.shape[x.ndim - self.mean.ndim + 1 :], self.mean.shape[1:])
        each = -0.5 * (((x - self.mean) / self.std) ** 2 + LOG_2PI) - self.std.log()
        return each.flatten(x.ndim - self.mean.ndim + 1).sum(-1)

    def detach(self) -> "Normal":
        return Normal(self.mean.detach(), self.std.detach())


@describable
def diag_gaussian(params: Float[Tensor, "b two_d"]) -> Normal:
    """The usual posterior: the first half of `params` is the mean, the second ln of the standard deviation."""
    if params.shape[1] % 2 or params.shape[1] == 0:
        raise ValueError(
            f"the encoder gave {params.shape[1]} numbers; a diagonal Gaussian takes a mean and a log-deviation each"
        )
    mean, log_std = params.chunk(2, 1)
    return Normal(mean, log_std.exp())


def kl(q: Normal, p: Normal) -> Float[Tensor, "b ..."]:
    """KL(q | p) of each coordinate, exactly 0 for q = p."""
    ratio = (q.std / p.std) ** 2
    return 0.5 * (ratio - 1 - ratio.log() + ((q.mean - p.mean) / p.std) ** 2)


def kl_standard(q: Normal) -> Float[Tensor, "b ..."]:
    """KL(q | N(0, I)) of each coordinate ([Kingma14] appendix B)."""
    return (q.mean.square() + q.std.square() - 1) / 2 - q.std.log()


@describable
@dataclass(frozen=True)
class Bernoulli:
    """Independent binary coordinates of the given log-odds."""

    logits: Float[Tensor, "b *shape"]

    @property
    def mean(self) -> Float[Tensor, "b *shape"]:
        return self.logits.sigmoid()

    def log_prob(self, x: Float[Tensor, "b *shape"]) -> Float[Tensor, "b"]:
        same_shape(x.shape[1:], self.logits.shape[1:])
        return -F.binary_cross_entropy_with_logits(self.logits, x, reduction="none").flatten(1).sum(1)

    def sample(self, generator: Generator | None = None) -> Float[Tensor, "b *shape"]:
        return (rand(self.logits.shape, self.logits, generator) < self.mean).to(self.logits)

    @staticmethod
    def check(x: Tensor) -> None:
        """Refuse data for which this is no likelihood.

        Raises:
            ValueError: unless every value is 0 or 1.
        """
        if not ((x == 0) | (x == 1)).all():
            raise ValueError(
                f"a Bernoulli likelihood is of 0s and 1s, got values from {x.min():.3g} to {x.max():.3g}; binarise the "
                "data (x > 0.5) or choose another likelihood: Gaussian, or LogisticMixture for grey levels"
            )


@describable
class Gaussian(nn.Module):
    """Normal data about the decoder's output, with one standard deviation for all, learned by default.

    sigma^2 = floor^2 + exp(2 log_excess): it never falls below `floor`, where a constant pixel would send an unbounded
    density, and its gradient does not vanish there as that of a clamp.

    Args:
        sigma: its first value, in the units of the data.
        learn: whether it is a parameter. [Rybkin21] instead set it to its optimum, which `fit` does.
        floor: what it never falls below, in training or in `fit`.
    """

    def __init__(self, sigma: float = 1.0, learn: bool = True, floor: float = 1e-3):
        super().__init__()
        if not sigma > floor > 0:
            raise ValueError(f"a Gaussian likelihood needs sigma > floor > 0, got {sigma} and {floor}")
        self.floor = floor
        self.log_excess = nn.Parameter(torch.tensor(math.log(sigma**2 - floor**2) / 2), requires_grad=learn)

    @property
    def sigma(self) -> Float[Tensor, ""]:
        return (self.floor**2 + (2 * self.log_excess).exp()).sqrt()

    def forward(self, mean: Float[Tensor, "b *shape"]) -> Normal:
        return Normal(mean, self.sigma.to(mean).expand_as(mean))

    @torch.no_grad()
    def fit(self, squared_error: float | Tensor) -> None:
        """The best sigma for these squared errors per coordinate, the root of their mean ([Rybkin21] eq. 4).

        vae.likelihood.fit((x - vae.reconstruct(x)) ** 2)
        """
        excess = torch.as_tensor(squared_error, dtype=torch.float64).mean() - self.floor**2
        self.log_excess.copy_(excess.clamp_min(1e-6 * self.floor**2).log() / 2)


@describable
@dataclass(frozen=True)
class ItakuraSaito:
    """Power spectra: exponential about exp(log_power), as |s|^2 of a complex Gaussian s is ([Fevotte09] section 2)."""

    log_power: Float[Tensor, "b *shape"]

    @property
    def mean(self) -> Float[Tensor, "b *shape"]:
        return self.log_power.exp()

    def log_prob(self, x: Float[Tensor, "b *shape"]) -> Float[Tensor, "b"]:
        """Log-density of the power `x`; minus the Itakura-Saito divergence but for a function of x alone."""
        same_shape(x.shape[1:], self.log_power.shape[1:])
        return -(self.log_power + x * (-self.log_power).exp()).flatten(1).sum(1)

    def sample(self, generator: Generator | None = None) -> Float[Tensor, "b *shape"]:
        return -rand(self.log_power.shape, self.log_power, generator).neg().log1p() * self.mean

    @staticmethod
    def check(x: Tensor) -> None:
        """Refuse data that are no powers.

        Raises:
            ValueError: for a negative value.
        """
        if (x < 0).any():
            raise ValueError(
                f"an Itakura-Saito likelihood is of powers, got {x.min():.3g}; give it |s|^2, never below 0"
            )
