"""Variational auto-encoders: any encoder, decoder, prior and likelihood, and one number, `log_weights`.

    vae = VAE(mlp(64, 128, 2 * 8), mlp(8, 128, 64), latents=8, likelihood=Bernoulli)
    elbo(vae.log_weights(x))                    # per sample, in nats
    nll(vae, x, k=5000)

The KL in the loss is from the posterior q(z | x) to the prior p(z); what maximising the bound brings down is the KL from
the data to the model, by which it misses the entropy of the data, plus the KL from q to the true posterior.

[Kingma14] Auto-encoding variational Bayes, arXiv:1312.6114.
[Sonderby16] Ladder variational autoencoders, arXiv:1602.02282.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gen_latent.distributions import Bernoulli, Distribution, Normal, diag_gaussian, kl, randn
from gen_latent.priors import Standard


class VAE(nn.Module):
    """p(x, z) = p(z) p(x | z) with an approximate posterior q(z | x) ([Kingma14]).

    Args:
        encoder: `(x, **cond)` -> parameters of the posterior.
        decoder: `(z, **cond)` -> parameters of the likelihood.
        latents: number of latent dimensions.
        prior: `log_prob` and `sample`; None is the standard normal.
        posterior: the encoder's output -> `Normal`.
        likelihood: the decoder's output -> distribution of the data; a module is part of the model.

    Raises:
        ValueError: unless `latents` is at least 1.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        latents: int,
        prior: nn.Module | None = None,
        posterior: Callable[[Tensor], Normal] = diag_gaussian,
        likelihood: Callable[[Tensor], Any] = Bernoulli,
    ):
        super().__init__()
        if latents < 1:
            raise ValueError(f"a latent has at least one dimension, got latents={latents}")
        self.encoder, self.decoder, self.latents = encoder, decoder, latents
        self.prior = prior or Standard(latents)
        self.posterior, self.likelihood = posterior, likelihood

    def encode(self, x: Float[Tensor, "b ..."], **cond: Any) -> Normal:
        """q(z | x)."""
        return self.posterior(self.encoder(x, **cond))

    def decode(self, z: Float[Tensor, "b d"], **cond: Any) -> Any:
        """p(x | z)."""
        return self.likelihood(self.decoder(z, **cond))

    def log_weights(
        self,
        x: Float[Tensor, "b ..."],
        k: int = 1,
        *,
        noise: Float[Tensor, "k b d"] | None = None,
        generator: Generator | None = None,
        stop: bool = False,
        **cond: Any,
    ) -> Float[Tensor, "k b"]:
        """ln p(x, z) - ln q(z | x) for `k` draws z of each sample's posterior, in nats.

        Args:
            noise: what the draws are made of; None draws it.
            stop: hold the posterior in the denominator constant: the same value, a gradient of less variance (sticking
                the landing; it is biased for k > 1 unless `dreg` is applied to it).
        """
        if k < 1:
            raise ValueError(f"a bound needs at least one draw of the latents, got k={k}")
        q = self.encode(x, **cond)
        z = q.at(randn((k, *q.mean.shape), q.mean, generator) if noise is None else noise)
        return self.log_joint(x, z, **cond) - (q.detach() if stop else q).log_prob(z)

    def log_joint(self, x: Float[Tensor, "b ..."], z: Float[Tensor, "k b d"], **cond: Any) -> Float[Tensor, "k b"]:
        """ln p(z) + ln p(x | z)."""
        return self.prior.log_prob(z) + self.log_likelihood(x, z, **cond)

    def log_likelihood(self, x: Float[Tensor, "b ..."], z: Float[Tensor, "k b d"], **cond: Any) -> Float[Tensor, "k b"]:
        """ln p(x | z)."""
        k = len(z)
        again = lambda t: t.expand(k, *t.shape).flatten(0, 1)  # draw by draw: row i of each belongs to sample i
        p = self.decode(z.flatten(0, 1), **{name: again(value) for name, value in cond.items()})
        return p.log_prob(again(x)).unflatten(0, (k, -1))

    @property
    def analytic(self) -> bool:
        """Whether the KL to the prior is known in closed form: the prior is N(0, I)."""
        return isinstance(self.prior, Standard)

    def kl(self, x: Float[Tensor, "b ..."], *, q: Normal | None = None, **cond: Any) -> Float[Tensor, "b d"]:
        """KL(q(z_j | x) | p(z_j)) of each latent, in nats, for the prior N(0, I); `q` spares the encoder a call."""
        if not self.analytic:
            raise ValueError("the KL of each latent is known for the standard normal prior only; use log_weights")
        q = q or self.encode(x, **cond)
        return kl(q, Normal(torch.zeros_like(q.mean), torch.ones_like(q.std)))

    @torch.no_grad()
    def sample(
        self, n: int, *, generator: Generator | None = None, noise: bool = False, **cond: Any
    ) -> Float[Tensor, "n ..."]:
        """`n` draws of the prior, decoded: the likelihood's mean, or draws of it with `noise`."""
        p = self.decode(self.prior.sample(n, generator), **cond)
        return p.sample(generator) if noise else p.mean

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "b ..."], **cond: Any) -> Float[Tensor, "b ..."]:
        """The mean of the data at the mean of the posterior."""
        return self.decode(self.encode(x, **cond).mean, **cond).mean


class Level(nn.Module):
    """One level of a hierarchy.

    Args:
        latents: number of dimensions.
        up: what the level below saw -> what this one sees.
        posterior: what this one sees, and the latents above it (none at the top) -> 2 `latents` numbers.
        prior: the latents above -> 2 `latents` numbers; None at the top.
    """

    def __init__(self, latents: int, up: nn.Module, posterior: nn.Module, prior: nn.Module | None = None):
        super().__init__()
        self.latents, self.up, self.posterior, self.prior = latents, up, posterior, prior


class HierarchicalVAE(VAE):
    """p(z_L) p(z_{L-1} | z_L) ... p(x | z_1), inferred from the top down, seeing the data at each level ([Sonderby16]).

    Args:
        levels: from the data up; only the top one has no `prior`.
        decoder: z_1 -> parameters of the likelihood.
    """

    def __init__(self, levels: Sequence[Level], decoder: nn.Module, *, likelihood: Callable[[Tensor], Any] = Bernoulli):
        if not levels or [level.prior is None for level in levels] != [False] * (len(levels) - 1) + [True]:
            raise ValueError("a hierarchy has a prior at each level but the top one, which is N(0, I)")
        super().__init__(
            nn.Identity(), decoder, latents=sum(level.latents for level in levels),
            prior=Standard(levels[-1].latents), likelihood=likelihood,
        )  # fmt: skip
        self.levels = nn.ModuleList(levels)

    def log_weights(
        self,
        x: Float[Tensor, "b ..."],
        k: int = 1,
        *,
        noise: Float[Tensor, "k b d"] | None = None,
        generator: Generator | None = None,
        stop: bool = False,
        **cond: Any,
    ) -> Float[Tensor, "k b"]:
        """As for `VAE`; `noise` has the latents of all levels one after the other, the top one first."""
        if k < 1:
            raise ValueError(f"a bound needs at least one draw of the latents, got k={k}")
        seen, h = [], x
        for level in self.levels:
            h = level.up(h)
            seen.append(h)
        if noise is None:
            noise = randn((k, len(x), self.latents), x, generator)
        log_w: Any = 0.0
        z: Tensor | None = None
        for level, h, e in zip(
            reversed(self.levels),
            reversed(seen),
            noise.split([l.latents for l in reversed(self.levels)], -1),
            strict=True,
        ):
            h = h.expand(k, *h.shape).flatten(0, 1)
            above, e = z, e.flatten(0, 1)
            q = diag_gaussian(level.posterior(h if above is None else torch.cat([h, above], 1)))
            z = q.at(e)
            prior: Distribution = self.prior if level.prior is None else diag_gaussian(level.prior(above))
            log_w = log_w + prior.log_prob(z) - (q.detach() if stop else q).log_prob(z)
        assert z is not None
        return log_w.unflatten(0, (k, -1)) + self.log_likelihood(x, z.unflatten(0, (k, -1)), **cond)

    @torch.no_grad()
    def sample(
        self, n: int, *, generator: Generator | None = None, noise: bool = False, **cond: Any
    ) -> Float[Tensor, "n ..."]:
        """From the top down; see `VAE.sample`."""
        z = self.prior.sample(n, generator)
        for level in reversed(self.levels[:-1]):
            z = diag_gaussian(level.prior(z)).sample(generator)
        p = self.decode(z, **cond)
        return p.sample(generator) if noise else p.mean
