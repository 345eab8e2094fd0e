"""Exact models beside scikit-learn, hmmlearn and pykalman: CPU seconds of the same computation on the same data.

    uv run --group peers python tests/benchmarks/latent_exact.py

On one thread. The two take turns, so that a machine that drifts drifts for both; printed are medians over rounds of
CPU time and of the ratios, and by how much the log-likelihoods differ.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from gen_latent import HMM, Gaussians, LinearGaussianSSM, MixtureModel, fit_em

ROUNDS = 5
Run = Callable[[], float]  # -> log-likelihood


def mixture(k: int, d: int, steps: int) -> tuple[Run, Run]:
    from sklearn.mixture import GaussianMixture

    x = torch.from_numpy(PCA(d).fit_transform(load_digits().data / 16)).double()
    start = MixtureModel.start(Gaussians.start(x, k, floor=0.0, generator=torch.Generator().manual_seed(0)))
    begin = {
        "weights_init": start.weight.numpy(),
        "means_init": start.emission.mean.numpy(),
        "precisions_init": start.emission.cov.inverse().numpy(),
    }

    def peer() -> float:
        model = GaussianMixture(k, reg_covar=0, tol=0.0, max_iter=steps, **begin).fit(x.numpy())
        return model.score(x.numpy()) * len(x)

    return lambda: fit_em(start, x, steps=steps, tolerance=0.0).log_likelihood, peer


def hmm(k: int, sequences: int, length: int, steps: int) -> tuple[Run, Run]:
    from hmmlearn.hmm import GaussianHMM  # pyright: ignore[reportMissingImports]

    g = torch.Generator().manual_seed(0)
    means = 3 * torch.randn(k, 2, generator=g).double()
    cov = torch.eye(2).double().expand(k, 2, 2)
    truth = HMM.start(Gaussians(means, cov, floor=0.0), persistence=0.9)
    x = truth.sample(sequences, length, g)[1]
    start = HMM.start(Gaussians(means + 0.5, 2 * cov, floor=0.0))
    flat, lengths = x.flatten(0, 1).numpy(), [length] * sequences

    def peer() -> float:
        model = GaussianHMM(
            k, "full", min_covar=0, means_prior=0, means_weight=0, covars_prior=0, covars_weight=0, n_iter=steps,
            tol=-float("inf"), init_params="",
        )  # fmt: skip
        model.startprob_, model.transmat_ = start.initial.numpy(), start.transition.numpy()
        model.means_, model.covars_ = start.emission.mean.numpy(), start.emission.cov.numpy()
        return float(model.fit(flat, lengths).score(flat, lengths))

    return lambda: fit_em(start, x, steps=steps, tolerance=0.0).log_likelihood, peer


def kalman(sequences: int, length: int) -> tuple[Run, Run]:
    from pykalman import KalmanFilter  # pyright: ignore[reportMissingImports]

    f = torch.tensor([[1.0, 0, 0.1, 0], [0, 1, 0, 0.1], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    eye = torch.eye(4).double()
    model = LinearGaussianSSM(torch.zeros(4), eye, f, 0.1 * eye, eye[:2], 0.5 * eye[:2, :2])
    x = model.sample(sequences, length, torch.Generator().manual_seed(0))[1]
    theirs = KalmanFilter(
        *(m.numpy() for m in (model.F, model.H, model.Q, model.R)),
        initial_state_mean=model.m.numpy(),
        initial_state_covariance=model.P.numpy(),
    )

    def ours() -> float:
        model.smooth(x)
        return model.log_prob(x).sum().item()

    def peer() -> float:
        for each in x.numpy():
            theirs.smooth(each)
        return sum(theirs.loglikelihood(each) for each in x.numpy())

    return ours, peer


def seconds(run: Run) -> tuple[float, float]:
    start = time.process_time()
    value = run()
    return time.process_time() - start, value


def compare(name: str, ours: Run, peer: Run) -> None:
    times = []
    for _ in range(ROUNDS):
        (a, x), (b, y) = seconds(ours), seconds(peer)
        times.append((a, b, a / b))
    a, b, ratio = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{name:58} {a:8.3f} s {b:8.3f} s  ratio {ratio:6.3f}  difference {abs(x - y):.0e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cases = {
        "scikit-learn: mixture of 10, 1,797 x 5, 50 steps of EM": partial(mixture, 10, 5, 50),
        "scikit-learn: mixture of 4, 1,797 x 20, 50 steps of EM": partial(mixture, 4, 20, 50),
        "hmmlearn: 3 states, 1 x 2,000 frames, 5 steps of EM": partial(hmm, 3, 1, 2000, 5),
        "hmmlearn: 3 states, 200 x 100 frames, 5 steps of EM": partial(hmm, 3, 200, 100, 5),
        "pykalman: filter and smooth 1 x 500": partial(kalman, 1, 500),
        "pykalman: filter and smooth 100 x 100": partial(kalman, 100, 100),
    }
    for name, make in cases.items():
        compare(name, *make())
