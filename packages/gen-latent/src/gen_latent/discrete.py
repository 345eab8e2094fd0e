"""Likelihoods of data that take evenly spaced values, such as grey levels: probabilities that add up to 1 over them.

    VAE(encoder, decoder, likelihood=partial(LogisticMixture, levels=17, components=3))     # 9 numbers per coordinate
    VAE(encoder, decoder, likelihood=partial(Categorical, levels=17))                       # 17 of them

[Salimans17] PixelCNN++, arXiv:1701.05517.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gen_core.description import describable
from gen_latent.distributions import rand, same_shape


@describable
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
        same_shape(x.shape[1:], each.shape[2:])
        return each.gather(1, level(x, self.levels, self.low, self.high)[:, None]).flatten(1).sum(1)

    def sample(self, generator: Generator | None = None) -> Float[Tensor, "b c *shape"]:
        each = self._each()
        gumbel = -(-rand(each.shape, each, generator).clamp_min(1e-20).log()).log()
        return self.low + (each + gumbel).argmax(1) * (self.high - self.low) / (self.levels - 1)

    @staticmethod
    def check(x: Tensor, levels: int, low: float = -1.0, high: float = 1.0) -> None:
        """Refuse data between the levels, as `on_grid` does; the options are those of the class."""
        on_grid(x, levels, low, high)


def level(x: Float[Tensor, "*shape"], levels: int, low: float = -1.0, high: float = 1.0) -> Int[Tensor, "*shape"]:
    """Index of the nearest of the evenly spaced values."""
    return ((x - low) / (high - low) * (levels - 1)).round().long().clamp(0, levels - 1)


def on_grid(x: Tensor, levels: int, low: float, high: float) -> None:
    """Refuse values that are none of the evenly spaced ones: their probabilities add up to more than 1 beside those.

    Raises:
        ValueError: for a value further than a hundredth of a step from all levels.
    """
    step = (high - low) / (levels - 1)
    off = (x - low - level(x, levels, low, high) * step).abs()
    if (off > 0.01 * step).any():
        raise ValueError(
            f"this likelihood is of {levels} levels from {low:g} to {high:g}, got {x.flatten()[off.argmax()]:.4g}; "
            "round the data to them, give their own number of levels, or choose Gaussian"
        )


@describable
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
        same_shape(x.shape[1:], mean.shape[2:])
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

    @staticmethod
    def check(x: Tensor, levels: int = 256, components: int = 5, low: float = -1.0, high: float = 1.0) -> None:
        """Refuse data between the levels, as `on_grid` does; the options are those of the class."""
        on_grid(x, levels, low, high)
