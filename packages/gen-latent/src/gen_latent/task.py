"""Training latent-variable models and auto-encoders under gen-core's Trainer; the game of a GAN is in `gan_task`.

What is random in a step is drawn for the global batch and handed to the loss, so that neither the micro-batch nor the
number of processes changes an update.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gen_core.step import Step
from gen_core.task import Task, decay_groups, unpack
from gen_latent.autoencoder import AutoEncoder, QuantizedAutoEncoder
from gen_latent.bounds import beta_elbo, dreg, iwae, kl_terms
from gen_latent.distributions import Gaussian
from gen_latent.vae import VAE, HierarchicalVAE


class VAETask(Task):
    """Maximises a bound of a VAE.

    Args:
        model: what to train.
        objective: "elbo", by the analytic KL where the prior is standard, with `beta` and `free_bits`; "iwae" and
            "dreg", the importance-weighted bound by either gradient, with `k` draws ("dreg" at k = 1 is the ELBO with
            the sticking-the-landing gradient); "tc", which multiplies the total correlation alone by `beta` (Chen et
            al. 2018), estimated from the whole batch: on one process, without micro-batches.
        k: draws of the latents for each sample.
        beta: a number, or a function of the step, for warming it up; of "elbo" and "tc".
        free_bits: nats that each latent may use for nothing, of "elbo".
        samples: size of the training data, for "tc".
        conditions: names of the conditions that follow x in a batch.

    The validation loss is always minus the ELBO, in nats: no warm-up or weight changes what is compared. Beside it
    stands the part of it that the latents cost, KL(q | p): it goes to 0 when the posterior collapses.
    """

    def __init__(
        self,
        model: VAE,
        objective: Literal["elbo", "iwae", "dreg", "tc"] = "elbo",
        *,
        k: int = 1,
        beta: float | Callable[[int], float] = 1.0,
        free_bits: float = 0.0,
        samples: int = 0,
        conditions: tuple[str, ...] = (),
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ):
        super().__init__()
        if objective not in ("elbo", "iwae", "dreg", "tc"):
            raise ValueError(f"objective is elbo, iwae, dreg or tc, got {objective!r}")
        if k < 1:
            raise ValueError(f"a bound needs at least one draw of the latents, got k={k}")
        if objective == "tc" and samples < 2:
            raise ValueError(f"the total correlation needs samples, the size of the training data, got {samples}")
        if objective != "tc" and samples:
            raise ValueError(f"samples={samples} is of the tc objective; leave it at 0 for {objective}")
        if objective in ("iwae", "dreg") and (callable(beta) or beta != 1):
            raise ValueError(f"beta weighs a KL, which {objective} does not have; use the elbo or tc objective")
        if free_bits and not (objective == "elbo" and model.analytic):
            raise ValueError(f"free_bits={free_bits} is of the elbo objective with the prior N(0, I); leave it at 0")
        if isinstance(model, HierarchicalVAE) and objective in ("dreg", "tc"):
            raise ValueError(f"a hierarchy is trained by the elbo or iwae objective, got {objective}")
        self.model, self.objective, self.k, self.samples, self.conditions = model, objective, k, samples, conditions
        self.beta = beta if callable(beta) else lambda _: beta
        self.free_bits = free_bits
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "net": torch.optim.AdamW(decay_groups(self, self.weight_decay), lr=self.lr, betas=self.betas, fused=True)
        }

    def step(self, batch: Any, t: Step) -> dict[str, Tensor]:
        x, *cond = unpack(batch, self.conditions)
        if t.step == 0:
            self.model.check(x)
        if self.objective == "tc" and (t.world > 1 or (t.micro_batch or len(x)) < len(x)):
            raise ValueError("the total correlation is of a whole batch; train on one process without micro_batch")
        noise, beta = t.randn(len(x), self.k, self.model.latents), self.beta(t.step)
        metrics = {"loss": t.minimize("net", lambda *parts: self.loss(*parts, beta=beta), x, noise, *cond)}
        if isinstance(likelihood := self.model.likelihood, Gaussian):
            metrics["sigma"] = likelihood.sigma.detach()
        return metrics

    def loss(
        self, x: Float[Tensor, "b ..."], noise: Float[Tensor, "b k d"], *cond: Tensor, beta: float = 1.0
    ) -> Float[Tensor, ""]:
        """Minus the objective, averaged over samples, in nats per sample."""
        model, e = self.model, noise.movedim(1, 0)
        named: dict[str, Any] = dict(zip(self.conditions, cond, strict=True))
        if self.objective in ("iwae", "dreg"):
            z, log_q = model.infer(x, self.k, noise=e, stop=self.objective == "dreg", **named)
            log_w = model.log_joint(x, z, **named) - log_q
            return -(iwae(log_w) if self.objective == "iwae" else dreg(log_w, z)).mean()
        if not model.analytic:
            z, log_q = model.infer(x, self.k, noise=e, **named)
            cost = log_q - model.prior.log_prob(z)
            return (beta * cost - model.log_likelihood(x, z, **named)).mean()
        q = model.encode(x, **named)
        z = q.at(e)
        log_likelihood = model.log_likelihood(x, z, **named).mean(0)
        if self.objective == "tc":
            terms = kl_terms(q, z[0], self.samples)
            return terms.index_code + beta * terms.total_correlation + terms.dimension_wise - log_likelihood.mean()
        return -beta_elbo(log_likelihood, model.kl(x, q=q), beta, self.free_bits).mean()

    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        x, *cond = unpack(batch, self.conditions)
        named: dict[str, Any] = dict(zip(self.conditions, cond, strict=True))
        self.model.check(x)
        z, log_q = self.model.infer(x, self.k, **named)
        cost = log_q - self.model.prior.log_prob(z)
        return {"loss": (cost - self.model.log_likelihood(x, z, **named)).mean(0), "kl": cost.mean(0)}


class AutoEncoderTask(Task):
    """Reconstructs the data from a corrupted version of it by least squares.

    Args:
        model: what to train; a `QuantizedAutoEncoder`'s commitment is part of the loss, and its codebook is updated
            after each step by what all processes saw.
        noise: standard deviation of the corruption.
        mask: `(uniform numbers (b,), x) -> True where the data are seen`; None shows everything.
        feature: x -> features whose squared distance is added, such as a frozen network's.

    Validation corrupts its data alike, by noise keyed by the batch.
    """

    def __init__(
        self,
        model: AutoEncoder,
        *,
        noise: float = 0.0,
        mask: Callable[[Tensor, Tensor], Tensor] | None = None,
        feature: Callable[[Tensor], Tensor] | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        super().__init__()
        if noise < 0:
            raise ValueError(f"noise is a standard deviation and cannot be negative, got {noise}")
        self.model, self.noise, self.mask = model, noise, mask
        self._feature = [feature]  # in a list, so that a network is no part of this one's weights
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "net": torch.optim.AdamW(decay_groups(self, self.weight_decay), lr=self.lr, betas=self.betas, fused=True)
        }

    def step(self, batch: Any, t: Step) -> dict[str, Tensor]:
        (x,) = unpack(batch)
        seen = self._corrupt(x, t.randn_like, t.rand)
        metrics = {"loss": t.minimize("net", self.loss, x, seen)}
        if isinstance(self.model, QuantizedAutoEncoder) and hasattr(self.model.quantizer, "update"):
            generator = torch.Generator().manual_seed(t.key("codes") % 2**63)
            self.model.quantizer.update(lambda v: t.reduce(v, "sum"), t.rank, generator)
        return metrics

    def loss(self, x: Float[Tensor, "b ..."], seen: Float[Tensor, "b ..."]) -> Float[Tensor, ""]:
        return self._losses(x, seen).mean()

    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        (x,) = unpack(batch)
        return {"loss": self._losses(x, self._corrupt(x, torch.randn_like, lambda n: torch.rand(n, device=x.device)))}

    def _corrupt(
        self, x: Tensor, randn_like: Callable[[Tensor], Tensor], rand: Callable[[int], Tensor]
    ) -> Float[Tensor, "b ..."]:
        seen = x + self.noise * randn_like(x) if self.noise else x
        return seen if self.mask is None else torch.where(self.mask(rand(len(x)), x), seen, 0.0)

    def _losses(self, x: Tensor, seen: Tensor) -> Float[Tensor, "b"]:
        if isinstance(self.model, QuantizedAutoEncoder):
            y, codes = self.model.parts(seen)
            cost: Any = codes.loss
        else:
            y, cost = self.model(seen), 0.0
        error = (y - x).square().flatten(1).mean(1) + cost
        feature = self._feature[0]
        return error if feature is None else error + (feature(y) - feature(x)).square().flatten(1).mean(1)


def frozen(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, none of its parameters trained: a fixed measure of likeness."""
    return network.eval().requires_grad_(False)
