"""Hidden Markov and Kalman models beside hmmlearn 0.3.3 and pykalman 0.11.2; exact_golden.py prints their values."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gen_latent import HMM, Belief, Gaussians, LinearGaussianSSM, fit_em, kalman_filter, unscented

GOLDEN = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "exact_golden.py"), run_name="golden"))


def ragged() -> list[torch.Tensor]:
    return list(GOLDEN.frames().split(GOLDEN.LENGTHS))


def our_hmm() -> HMM:
    return HMM(GOLDEN.INITIAL, GOLDEN.TRANSITION, Gaussians(GOLDEN.MEANS, GOLDEN.COVS, floor=0.0))


def our_kalman(*learn: str) -> LinearGaussianSSM:
    g = GOLDEN
    return LinearGaussianSSM(g.M, g.P, g.F, g.Q, g.H, g.R, fixed=frozenset("mPFbQHdR") - set(learn))


def our_unscented():
    start = Belief(torch.tensor([[0.5, -0.5]]).double(), torch.eye(2).double()[None])
    noise = [0.1 * torch.eye(2).double(), 0.2 * torch.eye(2).double()]
    rules = unscented(GOLDEN.turn, noise[0]), unscented(GOLDEN.polar, noise[1])
    return kalman_filter([GOLDEN.wave(20, 2)], start, *rules)


def test_golden_values_of_hmmlearn():
    model, data = our_hmm(), ragged()
    assert model.log_prob(data).sum().item() == pytest.approx(-329.0473186318484, abs=1e-8)
    assert model.viterbi(data)[1].sum().item() == pytest.approx(-352.76985419992025, abs=1e-8)
    fit = fit_em(model, data, steps=10, tolerance=0.0)
    assert fit.log_likelihoods[-2:] == pytest.approx([-248.51312605897283, -248.4728256659388], abs=1e-8)


def test_golden_values_of_pykalman():
    model, data = our_kalman("F", "Q", "R"), [GOLDEN.walk()]
    assert model.log_prob(data).item() == pytest.approx(-82.02936202285328, abs=1e-8)
    smoothed = model.smooth(data)
    assert smoothed.mean.abs().sum().item() == pytest.approx(62.60163126907691, abs=1e-8)
    assert smoothed.cov.abs().sum().item() == pytest.approx(78.2541651771283, abs=1e-8)
    assert fit_em(model, data, steps=5).log_likelihood == pytest.approx(-4.950324569431498, abs=1e-8)
    filtered = our_unscented()
    assert filtered.mean.abs().sum().item() == pytest.approx(17.58127080762055, abs=1e-8)
    assert filtered.cov.abs().sum().item() == pytest.approx(13.6942986173362, abs=1e-8)


def close(ours: torch.Tensor, peer) -> None:
    torch.testing.assert_close(ours, torch.as_tensor(peer), rtol=0, atol=1e-8)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_beside_hmmlearn():
    pytest.importorskip("hmmlearn")
    peer, model, data = GOLDEN.hmmlearn_model(), our_hmm(), ragged()
    x, lengths = GOLDEN.frames().numpy(), GOLDEN.LENGTHS
    close(model.posterior(data)[model.viterbi(data)[0] >= 0], peer.predict_proba(x, lengths))
    close(model.viterbi(data)[0][model.viterbi(data)[0] >= 0], peer.predict(x, lengths))
    peer.fit(x, lengths)
    fit = fit_em(model, data, steps=10, tolerance=0.0)
    assert fit.log_likelihoods[:-1] == pytest.approx(list(peer.monitor_.history), abs=1e-8)
    close(fit.model.transition, peer.transmat_)
    close(fit.model.initial, peer.startprob_)
    close(fit.model.emission.mean, peer.means_)
    close(fit.model.emission.cov, peer.covars_)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_beside_pykalman():
    pytest.importorskip("pykalman")
    import numpy as np

    y = np.ma.masked_invalid(GOLDEN.walk().numpy())
    learn = {
        "F": "transition_matrices",
        "Q": "transition_covariance",
        "H": "observation_matrices",
        "R": "observation_covariance",
        "m": "initial_state_mean",
        "P": "initial_state_covariance",
    }
    peer, model = GOLDEN.pykalman_model(list(learn.values())), our_kalman(*learn)
    means, covs = peer.smooth(y)
    smoothed = model.smooth([GOLDEN.walk()])
    close(smoothed.mean[0], means)
    close(smoothed.cov[0], covs)
    means, covs = peer.filter(y)
    close(model.filter([GOLDEN.walk()]).mean[0], means)
    peer = peer.em(y, n_iter=5)
    fit = fit_em(model, [GOLDEN.walk()], steps=5).model
    for ours, theirs in learn.items():
        close(getattr(fit, ours), getattr(peer, theirs))
    means, covs = GOLDEN.unscented_means()
    close(our_unscented().mean[0], means)
    close(our_unscented().cov[0], covs)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_robot_series_has_the_likelihoods_that_ship_with_pykalman():
    """501 steps with known inputs: Q and R by EM, 50 likelihoods; the first five to 1e-6, all to 1e-4."""
    d = pytest.importorskip("pykalman.datasets").load_robot()
    y = torch.from_numpy(d.observations.filled(float("nan")))
    model = LinearGaussianSSM(
        torch.from_numpy(d.initial_state_mean),
        torch.from_numpy(d.initial_state_covariance),
        torch.from_numpy(d.transition_matrix),
        torch.from_numpy(d.initial_transition_covariance),
        torch.from_numpy(d.observation_matrix),
        torch.from_numpy(d.initial_observation_covariance),
        b=torch.from_numpy(d.transition_offsets),
        d=torch.from_numpy(d.observation_offset),
        fixed=frozenset("mPFbHd"),
    )
    fit = fit_em(model, [y], steps=len(d.loglikelihoods) - 1, tolerance=0.0)
    want = d.loglikelihoods.flatten().tolist()
    assert fit.log_likelihoods[:5] == pytest.approx(want[:5], abs=1e-6)
    assert fit.log_likelihoods == pytest.approx(want, abs=1e-4)
