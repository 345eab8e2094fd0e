"""Prints the values of hmmlearn 0.3.3 and pykalman 0.11.2 in test_exact_peers.py.

uv run --group peers python packages/gen-latent/tests/exact_golden.py
"""

import math

import torch


def wave(*shape: int, phase: float = 0.0) -> torch.Tensor:
    """Numbers in (-2, 2) without a pattern, the same on every machine."""
    i = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return (torch.sin(i * 1.3717 + phase) + torch.sin(i * i * 0.7361 + phase)).reshape(shape)


LENGTHS = [40, 1, 25, 60]
MEANS = torch.tensor([[-1.0, 0.5], [0.3, -0.4], [1.0, 1.0]], dtype=torch.float64)
COVS = torch.tensor([[[1.0, 0.2], [0.2, 0.8]], [[0.7, 0], [0, 0.7]], [[1.1, -0.3], [-0.3, 0.9]]], dtype=torch.float64)
INITIAL = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
TRANSITION = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64)


def frames() -> torch.Tensor:
    """All sequences of LENGTHS one after the other, slowly drifting."""
    drift = torch.sin(torch.arange(sum(LENGTHS)).double() / 9)
    return wave(sum(LENGTHS), 2) * 0.6 + drift[:, None] * torch.tensor([1.0, 0.6])


def hmmlearn_model():
    """hmmlearn's model with its priors off, so that its EM is maximum likelihood."""
    from hmmlearn.hmm import GaussianHMM  # pyright: ignore[reportMissingImports]

    model = GaussianHMM(
        3, "full", min_covar=0, startprob_prior=1, transmat_prior=1, means_prior=0, means_weight=0, covars_prior=0,
        covars_weight=0, n_iter=10, tol=-math.inf, init_params="", implementation="log",
    )  # fmt: skip
    model.startprob_, model.transmat_, model.means_ = INITIAL.numpy(), TRANSITION.numpy(), MEANS.numpy()
    model.covars_ = COVS.numpy()
    return model


# a point with constant velocity, seen in place; its EM begins with Q and R too large
F = torch.tensor([[1.0, 0, 0.1, 0], [0, 1, 0, 0.1], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
H = torch.eye(4).double()[:2]
Q, R, P = 0.1 * torch.eye(4).double(), 0.5 * torch.eye(2).double(), 2 * torch.eye(4).double()
M = torch.tensor([0.1, -0.2, 1.0, 0.5], dtype=torch.float64)


def walk() -> torch.Tensor:
    """50 observations, of which 5 are missing."""
    y = wave(50, 2, phase=1.0).cumsum(0) * 0.3
    y[10:15] = torch.nan
    return y


def pykalman_model(learn: list[str]):
    from pykalman import KalmanFilter  # pyright: ignore[reportMissingImports]

    numbers = [x.numpy() for x in (F, H, Q, R)]
    return KalmanFilter(*numbers, initial_state_mean=M.numpy(), initial_state_covariance=P.numpy(), em_vars=learn)


def turn(x: torch.Tensor) -> torch.Tensor:
    """A transition that is not linear, (b, 2) -> (b, 2)."""
    return torch.stack([x[:, 0] + 0.3 * torch.sin(x[:, 1]), 0.9 * x[:, 1] + 0.1 * x[:, 0].square()], 1)


def polar(x: torch.Tensor) -> torch.Tensor:
    """An observation that is not linear, (b, 2) -> (b, 2)."""
    return torch.stack([(1 + x.square().sum(1)).sqrt(), torch.sin(x[:, 0])], 1)


def unscented_means():
    """Filtered means and covariances of pykalman's unscented filter with additive noise."""
    from pykalman import AdditiveUnscentedKalmanFilter  # pyright: ignore[reportMissingImports]

    def numpy(f):
        return lambda x: f(torch.from_numpy(x)[None])[0].numpy()

    noise = [(0.1 * torch.eye(2).double()).numpy(), (0.2 * torch.eye(2).double()).numpy()]
    start = {"initial_state_mean": [0.5, -0.5], "initial_state_covariance": torch.eye(2).double().numpy()}
    return AdditiveUnscentedKalmanFilter(numpy(turn), numpy(polar), *noise, **start).filter(wave(20, 2).numpy())


if __name__ == "__main__":
    import numpy as np

    x, model = frames().numpy(), hmmlearn_model()
    print("hmm", model.score(x, LENGTHS), model.decode(x, LENGTHS)[0])
    model.fit(x, LENGTHS)
    print("hmm em", model.monitor_.history[-1], model.score(x, LENGTHS))
    y = np.ma.masked_invalid(walk().numpy())
    kalman = pykalman_model(["transition_matrices", "transition_covariance", "observation_covariance"])
    means, covs = kalman.smooth(y)
    print("kalman", kalman.loglikelihood(y), np.abs(means).sum(), np.abs(covs).sum())
    print("kalman em", kalman.em(y, n_iter=5).loglikelihood(y))
    means, covs = unscented_means()
    print("unscented", np.abs(means).sum(), np.abs(covs).sum())
