"""Priors of latents: `log_prob(z) -> (...)` and `sample(n) -> (n, d)`.

[Tomczak18] VAE with a VampPrior, arXiv:1705.07120.
[Dinh17] Density estimation using Real NVP, arXiv:1605.08803.
[Ghosh20] From variational to deterministic autoencoders, arXiv:1903.12436.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gen_core.description import describable
from gen_core.runtime import numpy_seed
from gen_latent.distributions import LOG_2PI, Normal, diag_gaussian, randn, wide


@runtime_checkable
class Prior(Protocol):
    """A density of latents."""

    def log_prob(self, z: Tensor) -> Tensor: ...

    def sample(self, n: int, generator: Generator | None = None) -> Tensor: ...


@describable
class Standard(nn.Module):
    """N(0, I) in `d` dimensions."""

    def __init__(self, d: int):
        super().__init__()
        if d < 1:
            raise ValueError(f"a latent has at least one dimension, got {d}")
        self.mean = nn.Buffer(torch.zeros(d), persistent=False)

    def log_prob(self, z: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        return -0.5 * (z**2 + LOG_2PI).sum(-1)

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n d"]:
        return randn((n, len(self.mean)), self.mean, generator)


@describable
class Mixture(nn.Module):
    """A mixture of `k` diagonal Gaussians, all of it learned."""

    def __init__(self, d: int, k: int):
        super().__init__()
        if d < 1 or k < 1:
            raise ValueError(f"a mixture prior has at least one dimension and one component, got d={d} and k={k}")
        self.logits = nn.Parameter(torch.zeros(k))
        self.means = nn.Parameter(torch.randn(k, d))
        self.log_stds = nn.Parameter(torch.zeros(k, d))

    def components(self) -> Normal:
        """One row per component."""
        return Normal(self.means, self.log_stds.exp())

    def log_prob(self, z: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        return (self.logits.log_softmax(0) + self.components().log_prob(z[..., None, :])).logsumexp(-1)

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n d"]:
        each, weight = self.components(), self.logits.softmax(0)
        device = generator.device if generator else weight.device
        which = torch.multinomial(weight.to(device), n, replacement=True, generator=generator).to(weight.device)
        return Normal(each.mean[which], each.std[which]).sample(generator)

    @classmethod
    def fitted(cls, z: Float[Tensor, "n d"], k: int, seed: int = 0) -> "Mixture":
        """Fitted by EM to latents of the data: the aggregate posterior as a prior after training ([Ghosh20] section 4).

        vae.prior = Mixture.fitted(vae.encode(x).sample(), 10)
        """
        from sklearn.mixture import GaussianMixture

        fit = GaussianMixture(k, covariance_type="diag", random_state=numpy_seed(seed), reg_covar=1e-5)
        fit.fit(z.detach().double().cpu().numpy())
        prior = cls(z.shape[1], k).to(z)
        with torch.no_grad():
            prior.logits.copy_(torch.from_numpy(fit.weights_).log())
            prior.means.copy_(torch.from_numpy(fit.means_))
            prior.log_stds.copy_(torch.from_numpy(fit.covariances_).log() / 2)
        return prior


@describable
class Vamp(Mixture):
    """The mean of the posteriors of `k` learned pseudo-inputs, weighted ([Tomczak18] eq. 9).

    Args:
        encoder: the VAE's own; held without being owned, as its weights are the VAE's.
        inputs: the first pseudo-inputs, such as `k` samples of the data.
        posterior: the encoder's output -> `Normal`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        inputs: Float[Tensor, "k ..."],
        posterior: Callable[[Tensor], Normal] = diag_gaussian,
    ):
        nn.Module.__init__(self)
        self._encoder, self.posterior = [encoder], posterior
        self.inputs = nn.Parameter(inputs.clone())
        self.logits = nn.Parameter(torch.zeros(len(inputs)))

    def components(self) -> Normal:
        return self.posterior(wide(self._encoder[0](self.inputs)))


@describable
class Flow(nn.Module):
    """Affine coupling layers from N(0, I): every other dimension scaled and shifted by the rest ([Dinh17] eq. 7, 8).

    Args:
        d: at least 2.
        layers: couplings; the halves take turns.
        width: of the network in each.
    """

    def __init__(self, d: int, layers: int = 6, width: int = 64):
        super().__init__()
        if d < 2 or layers < 1:
            raise ValueError(f"couplings need at least 2 dimensions and one layer, got d={d} and layers={layers}")
        self.d = d
        self.nets = nn.ModuleList()
        for _ in range(layers):
            last = nn.Linear(width, 2 * d)
            nn.init.zeros_(last.weight)  # so that the flow begins as N(0, I)
            nn.init.zeros_(last.bias)
            self.nets.append(nn.Sequential(nn.Linear(d, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last))
        self.mask = nn.Buffer(torch.arange(d) % 2 == 0, persistent=False)

    def _affine(self, i: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """(log scale, shift) of layer i, zero for the half that they are computed from."""
        fixed = self.mask if i % 2 else ~self.mask
        log_scale, shift = wide(self.nets[i](z * fixed)).chunk(2, -1)
        return log_scale.tanh() * ~fixed, shift * ~fixed

    def log_prob(self, z: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        log_det: Any = 0.0
        for i in reversed(range(len(self.nets))):
            log_scale, shift = self._affine(i, z)
            z = (z - shift) * (-log_scale).exp()
            log_det = log_det - log_scale.sum(-1)
        return log_det - 0.5 * (z**2 + LOG_2PI).sum(-1)

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n d"]:
        z = randn((n, self.d), next(self.parameters()), generator)
        for i in range(len(self.nets)):
            log_scale, shift = self._affine(i, z)
            z = z * log_scale.exp() + shift
        return z
