"""A Gaussian mixture under noise: the one rich distribution whose denoiser, score and density are exact.

It stands in for a trained network wherever the truth is wanted: what a sampler's error is, what a posterior sampler
should have drawn, how far a trained denoiser is from the best one.

    mixture = GaussianMixture(weights, means, covs)
    x0 = sample(mixture, x, sigmas)         # a denoiser like any other
    mixture.log_prob(x, sigma)              # of the data at noise level sigma
    mixture.posterior(obs).sample(1000)     # exact draws of p(x | y); mixture.evidence(obs) is ln p(y)
"""

import math
import warnings
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.distributions import MultivariateNormal

from gen_core.description import describable
from gen_core.runtime import numpy_seed
from gen_diffusion.operators import Gaussian, Linear, Observation
from gen_diffusion.view import Level, column


@describable
class GaussianMixture(nn.Module):
    """p(x; sigma) = sum_k w_k N(x; m_k, S_k + sigma^2 I), and D(x; sigma) = E[x0 | x] in closed form.

    Pictures may be given as they are: everything but the first dimension is flattened.

    Args:
        weights: positive, normalised here.
        means: m_k.
        covs: S_k, symmetric and positive semi-definite; a degenerate one needs `sigma > 0`. Or one S of shape (d, d)
            for all components, or its diagonal (d,), with which large mixtures are quick.

    Raises:
        ValueError: if a weight is not positive.
    """

    def __init__(
        self,
        weights: Float[Tensor, "k"],
        means: Float[Tensor, "k d"],
        covs: Float[Tensor, "k d d"] | Float[Tensor, "d d"] | Float[Tensor, "d"],
    ):
        super().__init__()
        if not (weights > 0).all():
            raise ValueError(f"mixture weights must be positive, got {weights.tolist()}; leave out empty components")
        self._diagonal = covs.ndim == 1
        eigenvalues, eigenvectors = (covs, torch.eye(len(covs)).to(covs)) if self._diagonal else torch.linalg.eigh(covs)
        self.log_weights = nn.Buffer(weights.log() - weights.sum().log())
        self.means = nn.Buffer(means)
        self.eigenvalues = nn.Buffer(eigenvalues.clamp_min(0))  # "k e", or "e" where all components share them
        self.eigenvectors = nn.Buffer(eigenvectors)  # "k d e" or "d e", one in each column

    def forward(self, x: Float[Tensor, "b *shape"], sigma: Level) -> Float[Tensor, "b *shape"]:
        """E[x0 | x] = sum_k p(k | x) (m_k + S_k (S_k + sigma^2 I)^-1 (x - m_k)); the mean at sigma = infinity."""
        r = self.responsibilities(x, sigma)
        mean, keep = r @ self.means, self.eigenvalues / self._variance(x, sigma)
        if self._shared:
            shrunk = self._rotate(keep * self._rotate(x.flatten(1) - mean), back=True)
        else:
            shrunk = einsum(r, keep * self._whiten(x), self.eigenvectors, "b k, b k e, k d e -> b d")
        return (mean + shrunk).reshape(x.shape)

    def log_prob(self, x: Float[Tensor, "b *shape"], sigma: Level = 0.0) -> Float[Tensor, "b"]:
        """ln p(x; sigma) in nats."""
        return self._log_joint(x, sigma).logsumexp(1)

    def score(self, x: Float[Tensor, "b *shape"], sigma: Level) -> Float[Tensor, "b *shape"]:
        """grad ln p(x; sigma) = (D(x; sigma) - x) / sigma^2 (Tweedie's formula), for sigma > 0."""
        return (self(x, sigma) - x) / column(sigma, x) ** 2

    def responsibilities(self, x: Float[Tensor, "b *shape"], sigma: Level = 0.0) -> Float[Tensor, "b k"]:
        """p(k | x), the component that x comes from; the weights at sigma = infinity."""
        blind = column(sigma, x.flatten(1)).isinf()
        return torch.where(blind, self.log_weights, self._log_joint(x, sigma)).softmax(1)

    def radius(self, x: Float[Tensor, "b *shape"]) -> Float[Tensor, "b"]:
        """|S_k^-1/2 (x - m_k)| for the likeliest component k of each x: chi-distributed where components are apart."""
        k = self.responsibilities(x).argmax(1)
        residual = x.flatten(1) - self.means[k]
        if self._shared:
            return (self._rotate(residual) / self.eigenvalues.sqrt()).norm(dim=1)
        z = einsum(residual, self.eigenvectors[k], "b d, b d e -> b e")
        return (z / self.eigenvalues[k].sqrt()).norm(dim=1)

    def posterior(self, obs: Observation) -> "GaussianMixture":
        """p(x | y) for a linear observation with Gaussian noise: a mixture again, hence with exact draws and scores.

        Components of weight 0 in double precision are left out.

        Raises:
            ValueError: for another kind of observation.
        """
        A, noise, log_joint = self._observed(obs)
        S, residual = self.covs, obs.y.flatten().to(self.means) - self.means @ A.T
        gain = torch.linalg.solve(A @ S @ A.T + noise, A @ S).mT  # S A^T (A S A^T + noise)^-1
        keep = torch.eye(A.shape[1]).to(A) - gain @ A
        covs = keep @ S @ keep.mT + gain @ noise @ gain.mT  # positive semi-definite whatever the rounding
        weights, means = log_joint.softmax(0), self.means + (gain @ residual[..., None])[..., 0]
        some = weights > 0
        return GaussianMixture(weights[some], means[some], covs if covs.ndim == 2 else covs[some])

    def evidence(self, obs: Observation) -> Float[Tensor, ""]:
        """ln p(y) in nats."""
        return self._observed(obs)[2].logsumexp(0)

    @property
    def covs(self) -> Float[Tensor, "*k d d"]:
        """S_k, or the one S of all components."""
        return (self.eigenvectors * self.eigenvalues[..., None, :]) @ self.eigenvectors.mT

    def draw(self, n: int, generator: Generator | None = None) -> tuple[Float[Tensor, "n d"], Tensor]:
        """`n` exact samples and the component that each comes from."""
        device = generator.device if generator else self.means.device
        k = torch.multinomial(self.log_weights.exp().to(device), n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], generator=generator, device=device, dtype=self.means.dtype)
        k, z = k.to(self.means.device), z.to(self.means.device)
        if self._shared:
            return self.means[k] + self._rotate(z * self.eigenvalues.sqrt(), back=True), k
        return self.means[k] + einsum(z * self.eigenvalues.sqrt()[k], self.eigenvectors[k], "n e, n d e -> n d"), k

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n d"]:
        """`n` exact samples."""
        return self.draw(n, generator)[0]

    @property
    def _shared(self) -> bool:
        return self.eigenvalues.ndim == 1

    def _rotate(self, x: Float[Tensor, "b d"], back: bool = False) -> Float[Tensor, "b d"]:
        """Coordinates along the shared eigenvectors, or from there back."""
        if self._diagonal:
            return x
        return x @ (self.eigenvectors.mT if back else self.eigenvectors)

    def _whiten(self, x: Tensor) -> Float[Tensor, "b k e"]:
        """Residuals along the eigenvectors of each component."""
        return einsum(x.flatten(1)[:, None] - self.means, self.eigenvectors, "b k d, k d e -> b k e")

    def _variance(self, x: Tensor, sigma: Level) -> Tensor:
        """Along the eigenvectors: "e" or "b e" where they are shared, else "k e" or "b k e"."""
        level = column(sigma, x.flatten(1))
        return self.eigenvalues + (level if self._shared else level[..., None]) ** 2

    def _log_joint(self, x: Tensor, sigma: Level) -> Float[Tensor, "b k"]:
        """ln w_k + ln N(x; m_k, S_k + sigma^2 I)."""
        variance = self._variance(x, sigma)
        log_det = (2 * math.pi * variance).log().sum(-1)
        if not self._shared:
            return self.log_weights - 0.5 * ((self._whiten(x) ** 2 / variance).sum(-1) + log_det)
        centre = self.log_weights.exp() @ self.means  # |z - m|^2 = |z|^2 - 2 z.m + |m|^2 is products of matrices
        z, m = self._rotate(x.flatten(1) - centre), self._rotate(self.means - centre)
        square = (z**2 / variance).sum(-1, keepdim=True) - 2 * (z / variance) @ m.T + (1 / variance) @ (m**2).T
        return self.log_weights - 0.5 * (square + log_det[..., None])

    def _observed(self, obs: Observation) -> tuple[Tensor, Tensor, Float[Tensor, "k"]]:
        """The matrix A, the covariance of the noise, and ln p(k, y)."""
        if not isinstance(obs.A, Linear) or not isinstance(obs.noise, Gaussian):
            raise ValueError("a mixture has an exact posterior for a Linear operator with Gaussian noise alone")
        A = obs.A.dense().to(self.means)
        noise = obs.noise.sigma**2 * torch.eye(len(A)).to(A)
        seen = MultivariateNormal(self.means @ A.T, A @ self.covs @ A.T + noise)
        return A, noise, self.log_weights + seen.log_prob(obs.y.flatten().to(A))


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
