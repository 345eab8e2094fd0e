"""One number for every latent-variable model, ln w = ln p(x, z) - ln q(z | x), and what follows from it.

A model answers `log_weights(x, k) -> (k, b)` for k draws of the latents of each of b samples. Its mean over draws is
the evidence lower bound, its log-mean-exp a tighter one, and both are of ln p(x) in nats, per sample:

    log_w = model.log_weights(x, 50)
    elbo(log_w) <= iwae(log_w) <= ln p(x), in expectation

[Kingma14] Auto-encoding variational Bayes, arXiv:1312.6114.
[Burda16] Importance weighted autoencoders, arXiv:1509.00519.
[Roeder17] Sticking the landing, arXiv:1703.09194.
[Tucker19] Doubly reparameterized gradient estimators for Monte Carlo objectives, arXiv:1810.04152.
[Chen18] Isolating sources of disentanglement in VAEs, arXiv:1802.04942.
[Kingma16] Improving variational inference with inverse autoregressive flow, arXiv:1606.04934.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gen_core.task import evaluating
from gen_latent.distributions import LOG_2PI, Normal


@runtime_checkable
class LatentModel(Protocol):
    """A model with a bound."""

    def log_weights(self, x: Tensor, k: int = 1, *, generator: Generator | None = None, **cond: Any) -> Tensor: ...


def elbo(log_w: Float[Tensor, "k b"]) -> Float[Tensor, "b"]:
    """The evidence lower bound, E ln w ([Kingma14] eq. 2)."""
    return log_w.mean(0)


def iwae(log_w: Float[Tensor, "k b"]) -> Float[Tensor, "b"]:
    """The importance-weighted bound ln(1/k sum w), never below the ELBO of the same draws ([Burda16] eq. 8)."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def effective_sample_size(log_w: Float[Tensor, "k b"]) -> Float[Tensor, "b"]:
    """(sum w)^2 / sum w^2: how many of the k draws count; k for the exact posterior, 1 where one outweighs all."""
    return (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()


@torch.no_grad()
def nll(
    model: LatentModel,
    x: Float[Tensor, "b ..."],
    k: int = 5000,
    chunk: int = 500,
    *,
    generator: Generator | None = None,
    **cond: Any,
) -> Float[Tensor, "b"]:
    """-ln p(x) by `k` importance samples, in nats: an upper bound in expectation, tight as k grows ([Burda16]).

    A module is in evaluation mode meanwhile.

    Args:
        chunk: draws at a time, to fit memory; it changes no value but the draws themselves.

    Raises:
        ValueError: for fewer than one draw, or data that the model's likelihood is no density of.
    """
    if k < 1 or chunk < 1:
        raise ValueError(f"nll needs at least one draw, and one at a time; got k={k} and chunk={chunk}")
    if check := getattr(model, "check", None):
        check(x)
    with evaluating(model) if isinstance(model, nn.Module) else nullcontext():
        draws = [min(chunk, k - i) for i in range(0, k, chunk)]
        parts = [model.log_weights(x, m, generator=generator, **cond).logsumexp(0) for m in draws]
    return math.log(k) - torch.stack(parts).logsumexp(0)


def beta_elbo(
    log_likelihood: Float[Tensor, "b"], kl: Float[Tensor, "b d"], beta: float | Tensor = 1.0, free_bits: float = 0.0
) -> Float[Tensor, "b"]:
    """ln p(x | z) - beta sum_j max(KL_j, free_bits): the ELBO at beta = 1 without free bits, no bound otherwise.

    Args:
        kl: of each latent, from the posterior to the prior.
        free_bits: nats that each latent may use for nothing ([Kingma16] section C.8, of the mean over the batch there;
            of each sample here, so that a micro-batch changes nothing).
    """
    return log_likelihood - beta * (kl.clamp_min(free_bits) if free_bits else kl).sum(1)


def dreg(log_w: Float[Tensor, "k b"], z: Float[Tensor, "k b d"]) -> Float[Tensor, "b"]:
    """The importance-weighted bound, with the doubly reparameterised gradient ([Tucker19] eq. 8).

    Its gradient has the expectation of `iwae`'s, with less variance: the encoder's share is sum w~^2 d ln w / dz.

    Args:
        log_w: of draws `z`, with the posterior in the denominator held constant.
        z: the draws, reparameterised, on the graph of `log_w`.

    z, log_q = vae.infer(x, 50, stop=True)
    loss = -dreg(vae.log_joint(x, z) - log_q, z).mean()
    """
    weight = log_w.detach().softmax(0)
    if z.requires_grad:
        z.register_hook(lambda g: weight[..., None] * g)
    surrogate = (weight * log_w).sum(0)
    return iwae(log_w).detach() + surrogate - surrogate.detach()  # the value is the bound, the gradient the surrogate's


@dataclass(frozen=True)
class KLTerms:
    """E KL(q(z | x) | p(z)) as the sum of three parts, in nats ([Chen18] eq. 2)."""

    index_code: Float[Tensor, ""]
    """Mutual information of latents and data."""
    total_correlation: Float[Tensor, ""]
    """Dependence among the latents."""
    dimension_wise: Float[Tensor, ""]
    """Each latent's distance from the prior."""


def stratified_weights(b: int, n: int) -> Float[Tensor, "b b"]:
    """ln of the weights with which `b` samples of `n` stand for all of them; each row adds up to 1.

    Row i gives its own sample 1/n, which stands for itself alone, one other what is left over, and 1/(b - 1) to the
    rest ([Chen18] appendix C.2, minibatch stratified sampling).
    """
    if not 2 <= b <= n:
        raise ValueError(f"stratified weights need a batch of 2 to the {n} samples of the data, got {b}")
    m = b - 1
    weight = torch.full((b, b), 1 / m, dtype=torch.float64)
    rows = torch.arange(b)
    weight[rows, rows] = 1 / n
    weight[rows, (rows + 1) % b] = (n - m) / (n * m)
    return weight.log()


def kl_terms(q: Normal, z: Float[Tensor, "b d"], n: int, prior: Normal | None = None) -> KLTerms:
    """The decomposition, by the posteriors of a batch that is taken from `n` samples of data.

    Args:
        q: posteriors of the batch.
        z: one draw of each.
        prior: of independent coordinates; None is the standard normal.
    """
    prior = prior or Normal(torch.zeros_like(z), torch.ones_like(z))
    pairs = -0.5 * (((z[:, None] - q.mean) / q.std) ** 2 + LOG_2PI) - q.std.log()  # "b b d": draw i, posterior j
    weight = stratified_weights(len(z), n).to(z)
    log_qz = (weight + pairs.sum(2)).logsumexp(1)
    log_qz_each = (weight[..., None] + pairs).logsumexp(1).sum(1)
    log_q, log_p = q.log_prob(z), prior.log_prob(z)
    return KLTerms((log_q - log_qz).mean(), (log_qz - log_qz_each).mean(), (log_qz_each - log_p).mean())


def active_units(means: Float[Tensor, "n d"], threshold: float = 1e-2) -> int:
    """Latents whose posterior mean has a variance above `threshold` over the data ([Burda16] section 5.2)."""
    return int((means.var(0) > threshold).sum())
