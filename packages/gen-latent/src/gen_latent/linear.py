"""Estimates by a Gaussian fitted to the data: the bars that an auto-encoder has to pass.

    wiener(train, noisy, 0.5), fill_in(train, x, mask), project(train, x, 16)

Each is the best of its kind if the data are Gaussian, in closed form: no network may do worse on any data.

[Wiener49] Extrapolation, interpolation, and smoothing of stationary time series, 1949.
[Pearson01] On lines and planes of closest fit to systems of points in space, Philosophical Magazine 2(11).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def _moments(train: Tensor) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
    flat = train.flatten(1).double()
    if len(flat) < 2:
        raise ValueError(f"a covariance needs at least 2 samples, got {len(flat)}")
    return flat.mean(0), flat.T.cov()


def wiener(train: Float[Tensor, "n ..."], noisy: Float[Tensor, "b ..."], noise: float) -> Float[Tensor, "b ..."]:
    """The linear denoiser of least squared error, mean + C (C + noise^2 I)^-1 (noisy - mean) ([Wiener49]).

    Args:
        noise: standard deviation of what was added.
    """
    if noise <= 0:
        raise ValueError(f"noise is a standard deviation and positive, got {noise}")
    mean, c = _moments(train)
    gain = torch.linalg.solve(c + noise**2 * torch.eye(len(c)).to(c), c)
    return (mean + (noisy.flatten(1).double() - mean) @ gain).reshape(noisy.shape).to(noisy)


def fill_in(
    train: Float[Tensor, "n ..."], x: Float[Tensor, "b ..."], mask: Bool[Tensor, "..."], ridge: float = 1e-3
) -> Float[Tensor, "b ..."]:
    """Fill in where `mask` is False: the mean of a Gaussian given what is seen; elsewhere `x` as it was.

    Args:
        mask: of one sample, the same for all.
        ridge: variance that is added to what is seen, lest pixels that never change have none.
    """
    mean, c = _moments(train)
    seen = mask.expand(x.shape[1:]).flatten()
    if seen.all() or not seen.any():
        return x.clone() if seen.all() else mean.reshape(x.shape[1:]).expand(x.shape).to(x)
    among, across = c[seen][:, seen], c[seen][:, ~seen]
    flat = x.flatten(1).double()
    gain = torch.linalg.solve(among + ridge * torch.eye(len(among)).to(among), across)
    out = x.flatten(1).clone()
    out[:, ~seen] = (mean[~seen] + (flat[:, seen] - mean[seen]) @ gain).to(x)
    return out.reshape(x.shape)


def project(train: Float[Tensor, "n ..."], x: Float[Tensor, "b ..."], d: int) -> Float[Tensor, "b ..."]:
    """On the plane of the `d` leading principal directions and back: the best linear code of `d` numbers ([Pearson01]).

    Raises:
        ValueError: unless 1 <= d <= the dimensions of the data.
    """
    mean, c = _moments(train)
    if not 1 <= d <= len(mean):
        raise ValueError(f"there are {len(mean)} principal directions, so d lies in 1..{len(mean)}; got {d}")
    v = torch.linalg.eigh(c).eigenvectors[:, -d:]
    flat = x.flatten(1).double() - mean
    return (mean + flat @ v @ v.T).reshape(x.shape).to(x)
