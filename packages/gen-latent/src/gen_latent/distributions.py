"""Densities of data given a latent, and of latents: what an encoder, a decoder and a prior answer with.

A distribution is over one sample per row: `log_prob(x) -> (b,)` sums over everything but the first dimension, in nats,
and `sample(generator=) -> (b, ...)` draws. A likelihood is a callable from the decoder's output to a distribution of
the data: the class `Bernoulli` itself, a module with a parameter of its own (`Gaussian`), a `partial`.

    VAE(encoder, decoder, likelihood=Bernoulli)                         # binary data
    VAE(encoder, decoder, likelihood=Gaussian(sigma=0.1))               # real data, sigma learned
    VAE(encoder, decoder, likelihood=partial(LogisticMixture, levels=17))   # grey levels of the digits

[Kingma14] Auto-encoding variational Bayes, arXiv:1312.6114.
[Rybkin21] Simple and effective VAE training with calibrated decoders, arXiv:2006.13202.
[Salimans17] PixelCNN++, arXiv:1701.05517.
[Fevotte09] Nonnegative matrix factorization with the Itakura-Saito divergence, Neural Computation 21(3).
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

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
        """Of `x`, "b ..." or with leading dimensions of its own, "k b ...": one number for each "k b".

        Raises:
            ValueError: when a sample of `x` has another shape than the mean's, which would broadcast.
        """
        if x.shape[x.ndim - self.mean.ndim + 1 :] != self.mean.shape[1:]:
            raise ValueError(
                f"samples have shape {tuple(x.shape[x.ndim - self.mean.ndim + 1 :])} but the mean "
                f"{tuple(self.mean.shape[1:])}; give the network the shape of the data as its output"
            )
        each = -0.5 * (((x - self.mean) / self.std) ** 2 + LOG_2PI) - self.std.log()
        return each.flatten(x.ndim - self.mean.ndim + 1).sum(-1)

    def detach(self) -> "Normal":
        return Normal(self.mean.detach(), self.std.detach())


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


@dataclass(frozen=True)
class Bernoulli:
    """Independent binary coordinates of the given log-odds."""

    logits: Float[Tensor, "b *shape"]

    @property
    def mean(self) -> Float[Tensor, "b *shape"]:
        return self.logits.sigmoid()

    def log_prob(self, x: Float[Tensor, "b *shape"]) -> Float[Tensor, "b"]:
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


@dataclass(frozen=True)
class Categorical:
    """Each coordinate one of `levels` values evenly spaced from `low` to `high`.

    Args:
        logits: the decoder's output, "b (levels c) ..." for data "b c ...".
    """

    logits: Float[Tensor, "b levels_c *shape"]
    levels: int
    low: float = -1.0
    high: float = 1.0

    def _each(self) -> Float[Tensor, "b levels c *shape"]:
        return rearrange(self.logits, "b (levels c) ... -> b levels c ...", levels=self.levels)

    @property
    def mean(self) -> Float[Tensor, "b c *shape"]:
        values = torch.linspace(self.low, self.high, self.levels).to(self.logits)
        return (self._each().softmax(1) * values.reshape(-1, *[1] * (self.logits.ndim - 1))).sum(1)

    def log_prob(self, x: Float[Tensor, "b c *shape"]) -> Float[Tensor, "b"]:
        each = self._each().log_softmax(1)
        return each.gather(1, level(x, self.levels, self.low, self.high)[:, None]).flatten(1).sum(1)

    def sample(self, generator: Generator | None = None) -> Float[Tensor, "b c *shape"]:
        each = self._each()
        gumbel = -(-rand(each.shape, each, generator).clamp_min(1e-20).log()).log()
        return self.low + (each + gumbel).argmax(1) * (self.high - self.low) / (self.levels - 1)


def level(x: Float[Tensor, "*shape"], levels: int, low: float = -1.0, high: float = 1.0) -> Int[Tensor, "*shape"]:
    """Which of the evenly spaced values each is, the nearest one."""
    return ((x - low) / (high - low) * (levels - 1)).round().long().clamp(0, levels - 1)


@dataclass(frozen=True)
class LogisticMixture:
    """Each coordinate a mixture of logistic distributions, rounded to `levels` values from `low` to `high`.

    The probabilities of the values add up to 1: the end bins reach to infinity ([Salimans17] section 2.1, without the
    dependence between channels).

    Args:
        params: the decoder's output, "b (three m c) ...": log-weights, means and log-scales of m components.
    """

    params: Float[Tensor, "b params *shape"]
    levels: int = 256
    components: int = 5
    low: float = -1.0
    high: float = 1.0

    def _each(self) -> tuple[Tensor, Tensor, Tensor]:
        split = "b (three m c) ... -> three b m c ..."
        weight, mean, log_scale = rearrange(self.params, split, three=3, m=self.components)
        return weight.log_softmax(1), mean, log_scale.clamp_min(-7.0)

    @property
    def mean(self) -> Float[Tensor, "b c *shape"]:
        weight, mean, _ = self._each()
        return (weight.exp() * mean).sum(1).clamp(self.low, self.high)

    def log_prob(self, x: Float[Tensor, "b c *shape"]) -> Float[Tensor, "b"]:
        weight, mean, log_scale = self._each()
        half = (self.high - self.low) / (self.levels - 1) / 2
        centred, scale = x[:, None] - mean, log_scale.exp()
        upper, lower = (centred + half) / scale, (centred - half) / scale
        bottom, top = (x < self.low + half)[:, None], (x > self.high - half)[:, None]
        # ln(sigmoid(upper) - sigmoid(lower)) = ln sigmoid(upper) + ln sigmoid(-lower) + ln(1 - e^(lower - upper))
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
        each = torch.where(bottom, F.logsigmoid(upper), torch.where(top, F.logsigmoid(-lower), inside))
        return (weight + each).logsumexp(1).flatten(1).sum(1)

    def sample(self, generator: Generator | None = None) -> Float[Tensor, "b c *shape"]:
        weight, mean, log_scale = self._each()
        gumbel = -(-rand(weight.shape, weight, generator).clamp_min(1e-20).log()).log()
        chosen = (weight + gumbel).argmax(1, keepdim=True)
        u = rand(chosen.shape, weight, generator).clamp(1e-6, 1 - 1e-6)
        x = (mean.gather(1, chosen) + log_scale.gather(1, chosen).exp() * u.logit())[:, 0]
        step = (self.high - self.low) / (self.levels - 1)
        return self.low + level(x, self.levels, self.low, self.high) * step


@dataclass(frozen=True)
class ItakuraSaito:
    """Power spectra: exponential about exp(log_power), as |s|^2 of a complex Gaussian s is ([Fevotte09] section 2)."""

    log_power: Float[Tensor, "b *shape"]

    @property
    def mean(self) -> Float[Tensor, "b *shape"]:
        return self.log_power.exp()

    def log_prob(self, x: Float[Tensor, "b *shape"]) -> Float[Tensor, "b"]:
        """Of the power `x`; minus the Itakura-Saito divergence but for a function of x alone."""
        return -(self.log_power + x * (-self.log_power).exp()).flatten(1).sum(1)

    def sample(self, generator: Generator | None = None) -> Float[Tensor, "b *shape"]:
        return -rand(self.log_power.shape, self.log_power, generator).neg().log1p() * self.mean
