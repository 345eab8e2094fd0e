"""The digits, and what is known in closed form about linear models of them: the truth of the tests beside this file."""

from functools import cache
from math import log, pi

import numpy as np
import torch
from torch import Tensor, nn

from gen_latent import VAE, Gaussian


@cache
def digits(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1,500 training and 297 test images "n 64" in [0, 1], and their labels."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = torch.from_numpy(x[order] / 16).to(dtype), torch.from_numpy(y[order])
    return x[:1500], x[1500:], y[:1500], y[1500:]


def spectrum(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, eigenvalues of the covariance (over n) from the largest, and eigenvectors as columns."""
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).mT @ (x - mean) / len(x))
    return mean, values.flip(0), vectors.flip(1)


def alike(x: Tensor) -> Tensor:
    """2 d points of the same mean and covariance as `x`: for linear models the same loss, sooner."""
    _, s, vh = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    root = s[:, None] * vh * (x.shape[1] / len(x)) ** 0.5
    return torch.cat([root, -root]) + x.mean(0)


def linear_vae(d: int, q: int, sigma: float = 1.0, learn: bool = True) -> VAE:
    """Encoder and decoder linear; the encoder's deviations do not see the data (a matrix of zeros would, at first)."""
    vae = VAE(Affine(d, q), nn.Linear(q, d), latents=q, likelihood=Gaussian(learn=learn)).double()
    vae.likelihood.fit(sigma**2)
    return vae


class Affine(nn.Module):
    """x -> (V x + c, log deviations that are the same for all x)."""

    def __init__(self, d: int, q: int):
        super().__init__()
        self.mean, self.log_std = nn.Linear(d, q), nn.Parameter(torch.zeros(q))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mean(x), self.log_std.expand(len(x), -1)], 1)


@torch.no_grad()
def ppca(x: Tensor, q: int, beta: float = 1.0, sigma2: float | None = None) -> VAE:
    """The linear VAE at the optimum of its (beta-)ELBO: probabilistic PCA in the principal axes, for beta = 1."""
    mean, values, vectors = spectrum(x)
    sigma2 = float(values[q:].mean()) if sigma2 is None else sigma2
    noise = beta * sigma2  # a beta-VAE's loss is beta times that of a VAE with this variance, but for a constant
    gain = (values[:q] - noise).clamp_min(0)
    vae = linear_vae(x.shape[1], q, sigma2**0.5)
    m = gain + noise
    vae.decoder.weight.copy_(vectors[:, :q] * gain.sqrt())
    vae.decoder.bias.copy_(mean)
    vae.encoder.mean.weight.copy_((vectors[:, :q] * gain.sqrt() / m).mT)
    vae.encoder.mean.bias.copy_(-vae.encoder.mean.weight @ mean)
    vae.encoder.log_std.copy_((noise / m).log() / 2)
    return vae


def exact_elbo(vae: VAE, x: Tensor, beta: float = 1.0) -> Tensor:
    """E_q ln p(x | z) - beta KL of a linear VAE, "b", with no draw."""
    q, w, s2 = vae.encode(x), vae.decoder.weight, vae.likelihood.sigma**2
    error = (x - vae.decoder(q.mean)).square().sum(1) + (q.std**2 @ w.square().sum(0))
    return -x.shape[1] / 2 * torch.log(2 * pi * s2) - error / (2 * s2) - beta * vae.kl(x, q=q).sum(1)


def log_marginal(vae: VAE, x: Tensor) -> Tensor:
    """ln N(x; b, W W' + sigma^2 I), "b"."""
    w, s2 = vae.decoder.weight, vae.likelihood.sigma**2
    cov = w @ w.mT + s2 * torch.eye(len(w), dtype=w.dtype)
    return torch.distributions.MultivariateNormal(vae.decoder.bias, cov).log_prob(x)


def ppca_score(x: Tensor, q: int) -> float:
    """Mean log-likelihood of probabilistic PCA at its maximum, by the eigenvalues alone."""
    _, values, _ = spectrum(x)
    rest = values[q:].mean()
    d = x.shape[1]
    return float(-(d * log(2 * pi) + values[:q].log().sum() + (d - q) * rest.log() + d) / 2)
