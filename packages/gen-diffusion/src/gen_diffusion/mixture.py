"""A Gaussian mixture under noise: the one rich distribution whose denoiser, score and density are exact.

It stands in for a trained network wherever the truth is wanted: what a sampler's error is, what a posterior sampler
should have drawn, how far a trained denoiser is from the best one.

    mixture = GaussianMixture(weights, means, covs)
    x0 = sample(mixture, x, sigmas)         # a denoiser like any other
    mixture.log_prob(x, sigma)              # of the data at noise level sigma
"""

import math
import warnings
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gen_core.description import describable
from gen_core.runtime import numpy_seed
from gen_diffusion.view import Level, column


@describable
class GaussianMixture(nn.Module):
    """p(x; sigma) = sum_k w_k N(x; m_k, S_k + sigma^2 I), and D(x; sigma) = E[x0 | x] in closed form.

    Pictures may be given as they are: everything but the first dimension is flattened.

    Args:
        weights: positive, normalised here.
        means: m_k.
        covs: S_k, symmetric and positive semi-definite; a degenerate one needs `sigma > 0`.

    Raises:
        ValueError: if a weight is not positive.
    """

    def __init__(self, weights: Float[Tensor, "k"], means: Float[Tensor, "k d"], covs: Float[Tensor, "k d d"]):
        super().__init__()
        if not (weights > 0).all():
            raise ValueError(f"mixture weights must be positive, got {weights.tolist()}; leave out empty components")
        eigenvalues, eigenvectors = torch.linalg.eigh(covs)
        self.log_weights = nn.Buffer(weights.log() - weights.sum().log())
        self.means = nn.Buffer(means)
        self.eigenvalues = nn.Buffer(eigenvalues.clamp_min(0))  # "k d"
        self.eigenvectors = nn.Buffer(eigenvectors)  # "k d e", one in each column

    def forward(self, x: Float[Tensor, "b *shape"], sigma: Level) -> Float[Tensor, "b *shape"]:
        """E[x0 | x] = sum_k p(k | x) (m_k + S_k (S_k + sigma^2 I)^-1 (x - m_k)); the mean at sigma = infinity."""
        z, variance = self._whiten(x, sigma)
        blind = variance[..., 0].isinf()
        responsibility = torch.where(blind, self.log_weights, self._log_joint(z, variance)).softmax(1)
        shrunk = z * self.eigenvalues / variance
        each = self.means + einsum(shrunk, self.eigenvectors, "b k e, k d e -> b k d")
        return einsum(responsibility, each, "b k, b k d -> b d").reshape(x.shape)

    def log_prob(self, x: Float[Tensor, "b *shape"], sigma: Level = 0.0) -> Float[Tensor, "b"]:
        """ln p(x; sigma) in nats."""
        return self._log_joint(*self._whiten(x, sigma)).logsumexp(1)

    def draw(self, n: int, generator: Generator | None = None) -> tuple[Float[Tensor, "n d"], Tensor]:
        """`n` exact samples and the component that each comes from."""
        device = generator.device if generator else self.means.device
        k = torch.multinomial(self.log_weights.exp().to(device), n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], generator=generator, device=device, dtype=self.means.dtype)
        k, z = k.to(self.means.device), z.to(self.means.device) * self.eigenvalues.sqrt()[k.to(self.means.device)]
        return self.means[k] + einsum(z, self.eigenvectors[k], "n e, n d e -> n d"), k

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n d"]:
        """`n` exact samples."""
        return self.draw(n, generator)[0]

    def _whiten(self, x: Tensor, sigma: Level) -> tuple[Tensor, Tensor]:
        """Residuals along the eigenvectors of each component, "b k e", and the variances there."""
        residual = x.flatten(1)[:, None] - self.means
        z = einsum(residual, self.eigenvectors, "b k d, k d e -> b k e")
        return z, self.eigenvalues + column(sigma, z) ** 2

    def _log_joint(self, z: Tensor, variance: Tensor) -> Tensor:
        """ln w_k + ln N(x; m_k, S_k + sigma^2 I), "b k"."""
        return self.log_weights - 0.5 * (z**2 / variance + variance.log() + math.log(2 * math.pi)).sum(-1)


FULL = 128  # dimensions up to which `fit_mixture` fits full covariances; diagonal ones above


def fit_mixture(x: Float[Tensor, "n ..."], components: int, seed: int) -> Any:
    """scikit-learn's mixture of Gaussians, fitted to data of size about 1 by expectation maximisation.

    There are at most as many components as an eighth of the samples.
    """
    from sklearn import mixture

    flat = x.flatten(1).double().numpy()
    kind = "full" if flat.shape[1] <= FULL else "diag"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "not converged": a baseline needs no optimum
        return mixture.GaussianMixture(
            min(components, len(flat) // 8), covariance_type=kind, reg_covar=4e-3, random_state=numpy_seed(seed)
        ).fit(flat)


def posterior_mean(
    train: Float[Tensor, "n ..."], noisy: Float[Tensor, "b ..."], sigma: float, components: int = 20, seed: int = 0
) -> Float[Tensor, "b ..."]:
    """E[clean | noisy] if the data were the mixture of Gaussians that fits `train`: a baseline of denoising.

    Raises:
        ValueError: for more than 128 values in a sample, where full covariances are too large to fit.
    """
    if noisy[0].numel() > FULL:
        raise ValueError(f"a sample has {noisy[0].numel()} values; full covariances are fitted up to {FULL}")
    fit = fit_mixture(train, components, seed)
    mixture = GaussianMixture(*(torch.from_numpy(part) for part in (fit.weights_, fit.means_, fit.covariances_)))
    return mixture(noisy.double(), sigma).to(noisy)
