"""Variational auto-encoders: any encoder, decoder, prior and likelihood, and one number, `log_weights`.

    vae = VAE(MLP(64, 128, 2 * 8), MLP(8, 128, 64), latents=8, likelihood=Bernoulli)
    elbo(vae.log_weights(x))                    # per sample, in nats
    nll(vae, x, k=5000)

The KL in the loss is from the posterior q(z | x) to the prior p(z). What the data's own distribution has to do with it:
minus the ELBO, averaged over data, is the entropy of the data, plus the KL from the data to the model, plus the KL from
q to the true posterior. Maximising the bound brings the last two down together.

[Kingma14] Auto-encoding variational Bayes, arXiv:1312.6114.
[Sonderby16] Ladder variational autoencoders, arXiv:1602.02282.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gen_core.description import describable
from gen_latent.distributions import Bernoulli, Normal, diag_gaussian, kl_standard, randn, wide
from gen_latent.priors import Prior, Standard


@describable
class VAE(nn.Module):
    """p(x, z) = p(z) p(x | z) with an approximate posterior q(z | x) ([Kingma14]).

    Args:
        encoder: `(x, **cond)` -> parameters of the posterior.
        decoder: `(z, **cond)` -> parameters of the likelihood.
        latents: number of latent dimensions.
        prior: `log_prob` and `sample`, a module if it learns; None is the standard normal.
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
        prior: Prior | None = None,
        posterior: Callable[[Tensor], Normal] = diag_gaussian,
        likelihood: Callable[[Tensor], Any] = Bernoulli,
    ):
        super().__init__()
        if latents < 1:
            raise ValueError(f"a latent has at least one dimension, got latents={latents}")
        self.encoder, self.decoder, self.latents = encoder, decoder, latents
        self.prior: Prior = prior or Standard(latents)
        self.posterior, self.likelihood = posterior, likelihood

    def encode(self, x: Float[Tensor, "b ..."], **cond: Any) -> Normal:
        """q(z | x)."""
        q = self.posterior(wide(self.encoder(x, **cond)))
        if q.mean.shape[1:] != (self.latents,):
            raise ValueError(f"the encoder answers for latents {tuple(q.mean.shape[1:])}, built for {self.latents}")
        return q

    def decode(self, z: Float[Tensor, "b d"], **cond: Any) -> Any:
        """p(x | z)."""
        return self.likelihood(wide(self.decoder(z, **cond)))

    def infer(
        self,
        x: Float[Tensor, "b ..."],
        k: int = 1,
        *,
        noise: Float[Tensor, "k b d"] | None = None,
        generator: Generator | None = None,
        stop: bool = False,
        **cond: Any,
    ) -> tuple[Float[Tensor, "k b d"], Float[Tensor, "k b"]]:
        """`k` draws of each sample's posterior, and ln q(z | x) of them; the arguments are those of `log_weights`."""
        q = self.encode(x, **cond)
        z = q.at(_draws(noise, k, q.mean, generator))
        return z, (q.detach() if stop else q).log_prob(z)

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
            noise: what the draws are made of, standard normal; None draws it.
            stop: hold the posterior in the denominator constant, "sticking the landing": the same value and, for the
                ELBO, a gradient of the same expectation, whose variance goes to 0 as q becomes exact. Under `iwae` it
                is biased; use `dreg`.

        Raises:
            ValueError: unless `k` is at least 1, and `noise` of `k` draws.
        """
        z, log_q = self.infer(x, k, noise=noise, generator=generator, stop=stop, **cond)
        return self.log_joint(x, z, **cond) - log_q

    def log_joint(self, x: Float[Tensor, "b ..."], z: Float[Tensor, "k b d"], **cond: Any) -> Float[Tensor, "k b"]:
        """ln p(z) + ln p(x | z)."""
        return self.prior.log_prob(z) + self.log_likelihood(x, z, **cond)

    def log_likelihood(self, x: Float[Tensor, "b ..."], z: Float[Tensor, "k b d"], **cond: Any) -> Float[Tensor, "k b"]:
        """ln p(x | z)."""
        k = len(z)
        again = partial(_repeat, k=k)
        p = self.decode(z.flatten(0, 1), **{name: again(value) for name, value in cond.items()})
        log_p = p.log_prob(again(x))
        if log_p.shape != (k * len(x),):
            raise ValueError(
                f"the likelihood answers {tuple(log_p.shape)} for {k * len(x)} samples of shape {tuple(x.shape[1:])}; "
                "give the decoder the shape of the data as its output"
            )
        return log_p.unflatten(0, (k, -1))

    def check(self, x: Tensor) -> None:
        """Refuse data that the likelihood is no density of, such as grey levels under `Bernoulli`."""
        make: Any = self.likelihood
        make, options = (make.func, make.keywords) if isinstance(make, partial) else (make, {})
        if check := getattr(make, "check", None):
            check(x, **options)

    @property
    def analytic(self) -> bool:
        """True where the KL to the prior is known in closed form: the prior is N(0, I)."""
        return isinstance(self.prior, Standard)

    def kl(self, x: Float[Tensor, "b ..."], *, q: Normal | None = None, **cond: Any) -> Float[Tensor, "b d"]:
        """KL(q(z_j | x) | p(z_j)) of each latent, in nats, for the prior N(0, I); `q` spares the encoder a call."""
        if not self.analytic:
            raise ValueError("the KL of each latent is known for the standard normal prior only; use log_weights")
        return kl_standard(q or self.encode(x, **cond))

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


def _repeat(x: Tensor, k: int) -> Tensor:
    """Draw by draw: row i of each of the `k` belongs to sample i."""
    return x.expand(k, *x.shape).flatten(0, 1)


def _draws(noise: Tensor | None, k: int, like: Tensor, generator: Generator | None) -> Float[Tensor, "k b d"]:
    if k < 1:
        raise ValueError(f"a bound needs at least one draw of the latents, got k={k}")
    if noise is not None and noise.shape != (k, *like.shape):
        raise ValueError(
            f"noise for k={k} draws of {len(like)} samples has shape {(k, *like.shape)}, got {tuple(noise.shape)}"
        )
    return randn((k, *like.shape), like, generator) if noise is None else noise


@describable
class Level(nn.Module):
    """One level of a hierarchy.

    Args:
        latents: number of dimensions.
        up: what the level below saw -> what this one sees.
        posterior: `(what this one sees, beside the latents above it (none at the top), **cond)` -> 2 `latents` numbers.
        prior: the latents above -> 2 `latents` numbers; None at the top.
    """

    def __init__(self, latents: int, up: nn.Module, posterior: nn.Module, prior: nn.Module | None = None):
        super().__init__()
        self.latents, self.up, self.posterior, self.prior = latents, up, posterior, prior

    def given(self, above: Float[Tensor, "b d"]) -> Normal:
        """p(z_l | z_{l+1})."""
        assert self.prior is not None, "the top level has no prior of its own"
        return diag_gaussian(wide(self.prior(above)))


class TopDown(nn.Module):
    """p(z_L) p(z_{L-1} | z_L) ... p(z_1 | z_2) as a prior of all latents side by side, those of the top level first."""

    def __init__(self, levels: Sequence[Level]):
        super().__init__()
        self.levels = nn.ModuleList(reversed(levels))
        self.sizes = [level.latents for level in reversed(levels)]
        self.top = Standard(self.sizes[0])

    def log_prob(self, z: Float[Tensor, "*k d"]) -> Float[Tensor, "*k"]:
        above, *rest = z.flatten(0, -2).split(self.sizes, -1)
        log_p = self.top.log_prob(above)
        for level, z_l in zip(list(self.levels)[1:], rest, strict=True):
            log_p = log_p + cast(Level, level).given(above).log_prob(z_l)
            above = z_l
        return log_p.reshape(z.shape[:-1])

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n d"]:
        z = [self.top.sample(n, generator)]
        for level in list(self.levels)[1:]:
            z.append(cast(Level, level).given(z[-1]).sample(generator))
        return torch.cat(z, 1)


@describable
class HierarchicalVAE(VAE):
    """p(z_L) ... p(z_1 | z_2) p(x | z_1), inferred from the top down, each level seeing the data ([Sonderby16]).

    Its latents are those of all levels side by side, the top one first.

    Args:
        levels: from the data up; only the top one has no `prior`.
        decoder: z_1 -> parameters of the likelihood.
    """

    def __init__(self, levels: Sequence[Level], decoder: nn.Module, *, likelihood: Callable[[Tensor], Any] = Bernoulli):
        if not levels or [level.prior is None for level in levels] != [False] * (len(levels) - 1) + [True]:
            raise ValueError("a hierarchy has a prior at each level but the top one, which is N(0, I)")
        prior = TopDown(levels)
        super().__init__(nn.Identity(), decoder, latents=sum(prior.sizes), prior=prior, likelihood=likelihood)

    def decode(self, z: Float[Tensor, "b d"], **cond: Any) -> Any:
        """p(x | z_1): of all latents the last ones count."""
        return super().decode(z[:, -cast(TopDown, self.prior).sizes[-1] :], **cond)

    def encode(self, x: Float[Tensor, "b ..."], **cond: Any) -> Normal:
        """The posterior of each level at the means of those above it; no joint posterior: for bounds, `log_weights`."""
        q = self._descend(x, x.new_zeros(1, len(x), self.latents), cond)
        return Normal(torch.cat([level.mean for level in q], 1), torch.cat([level.std for level in q], 1))

    def infer(
        self,
        x: Float[Tensor, "b ..."],
        k: int = 1,
        *,
        noise: Float[Tensor, "k b d"] | None = None,
        generator: Generator | None = None,
        stop: bool = False,
        **cond: Any,
    ) -> tuple[Float[Tensor, "k b d"], Float[Tensor, "k b"]]:
        """Draw latents as `VAE` does, from the top down."""
        noise = _draws(noise, k, x.new_empty(len(x), self.latents), generator)
        q = self._descend(x, noise, cond)
        z = [level.at(e) for level, e in zip(q, self._split(noise), strict=True)]
        log_q: Any = sum((level.detach() if stop else level).log_prob(z_l) for level, z_l in zip(q, z, strict=True))
        return torch.cat(z, 1).unflatten(0, (len(noise), -1)), log_q.unflatten(0, (len(noise), -1))

    def _split(self, noise: Float[Tensor, "k b d"]) -> Sequence[Tensor]:
        """Posterior of each level, draw by draw."""
        return noise.flatten(0, 1).split(cast(TopDown, self.prior).sizes, 1)

    def _descend(self, x: Float[Tensor, "b ..."], noise: Float[Tensor, "k b d"], cond: dict[str, Any]) -> list[Normal]:
        """q(z_l | x, z_{l+1}) of each level from the top, at draws made of `noise`, in rows "(k b)"."""
        levels, seen, h = [cast(Level, level) for level in cast(TopDown, self.prior).levels], [], x
        again = partial(_repeat, k=len(noise))
        for level in reversed(levels):
            h = level.up(h)
            seen.insert(0, again(h))
        named = {name: again(value) for name, value in cond.items()}
        q: list[Normal] = []
        z: list[Tensor] = []
        for level, h, e in zip(levels, seen, self._split(noise), strict=True):
            q.append(diag_gaussian(wide(level.posterior(torch.cat([h, *z[-1:]], 1), **named))))
            z.append(q[-1].at(e))
        return q
