"""What is honest to stand beside a network that mends data: the best guesses without one, tuned on the training data.

A Gaussian's are `wiener` and `fill_in` of gen-latent; these know that data come in kinds.
"""

import torch
from torch import Tensor

from gen_apps.mixture import FULL, fitted
from gen_diffusion import GaussianMixture

MOST = 4000  # samples of a kernel, whose distances to one another have to fit memory


def posterior_mean(train: Tensor, noisy: Tensor, noise: float, seed: int) -> Tensor | None:
    """The mean of the clean data given the noisy, were they of 20 Gaussians; None where these are too large to fit."""
    if noisy[0].numel() > FULL:
        return None
    fit = fitted(train, 20, seed)
    mixture = GaussianMixture(*(torch.from_numpy(part) for part in (fit.weights_, fit.means_, fit.covariances_)))
    return mixture(noisy.double(), noise).to(noisy)


def kernel_regression(train: Tensor, x: Tensor, seen: Tensor) -> Tensor:
    """Where `seen` is False, the mean of training samples, each weighed by how near it is where `seen` is True.

    The width of the kernel is that of least error when each training sample is filled in from the others.
    """
    known = train[:MOST]
    look = lambda samples: (samples * seen).flatten(1)
    among = torch.cdist(look(known), look(known)).fill_diagonal_(torch.inf)
    near = among.min(1).values.median().item()
    error = lambda width: (_mean(among, known, width) - known)[:, ~seen.expand_as(known[0])].square().mean().item()
    width = min((near * share for share in (0.125, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0)), key=error)
    return torch.where(seen, x, _mean(torch.cdist(look(x), look(known)), known, width))


def _mean(distance: Tensor, of: Tensor, width: float) -> Tensor:
    weight = (-0.5 * (distance / max(width, 1e-6)) ** 2).softmax(1)
    return (weight @ of.flatten(1)).unflatten(1, of.shape[1:])
