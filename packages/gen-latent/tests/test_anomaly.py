from pathlib import Path

import numpy as np
import pytest
import torch

from gen_core.testing import load
from gen_latent import (
    MLP,
    VAE,
    likelihood_score,
    manifold_score,
    neighbour_score,
    nll,
    reconstruction_score,
    threshold,
)

linear = load(Path(__file__).parent / "linear.py")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_reconstruction_is_judged_sample_by_sample():
    x = torch.tensor([[[1.0, 2.0]], [[3.0, 5.0]]])
    assert reconstruction_score(lambda x: torch.zeros_like(x), x).tolist() == [2.5, 17.0]


@pytest.mark.parametrize("k", [1, 5])
def test_the_neighbour_score_is_scikit_learns(k):
    from sklearn.neighbors import NearestNeighbors

    train, test, _, _ = linear.digits()
    peer = NearestNeighbors(n_neighbors=k).fit(train.numpy()).kneighbors(test.numpy())[0].mean(1)
    assert neighbour_score(train, test, k).numpy() == pytest.approx(peer, abs=1e-12)
    with pytest.raises(ValueError, match="among the 3 samples of normal data, got 4"):
        neighbour_score(train[:3], test, 4)


def test_the_manifold_score_is_the_distance_to_what_the_model_makes_of_normal_data():
    """A model that answers on a line: off it, the distance to it, and on it 0."""
    line = lambda x: x * torch.tensor([1.0, 0.0])
    normal = torch.stack([torch.linspace(-1, 1, 201), torch.randn(201, generator=generator())], 1)
    x = torch.tensor([[0.5, 0.0], [0.0, 2.0]])
    assert manifold_score(line, normal, x).tolist() == pytest.approx([0.0, 2.0], abs=1e-6)


def test_the_likelihood_score_of_a_linear_vae_is_exact_and_finds_other_classes():
    """Probabilistic PCA by one class, against the rest: a mean area under the curve of at least .996."""
    from sklearn.metrics import roc_auc_score

    train, test, y, test_y = linear.digits()
    x, y = torch.cat([train, test]), torch.cat([y, test_y])
    areas = []
    for c in range(10):
        rng = np.random.default_rng(c)
        own = rng.permutation((y == c).nonzero().flatten().numpy())
        half = len(own) // 2
        rest = np.concatenate([own[half:], (y != c).nonzero().flatten().numpy()])
        vae = linear.ppca(x[own[:half]], 10)
        score = likelihood_score(vae, x[rest], 1, generator=generator())
        torch.testing.assert_close(score, -linear.log_marginal(vae, x[rest]).detach(), rtol=1e-6, atol=1e-6)
        areas.append(roc_auc_score((y[rest] != c).numpy(), score))
    print(f"mean AUROC {np.mean(areas):.4f}")
    assert np.mean(areas) >= 0.996


def test_the_likelihood_score_of_a_conditional_model_is_given_the_condition():
    vae, x = VAE(MLP(3, 4, classes=2), MLP(2, 3, classes=2), latents=2), torch.ones(5, 3)
    label = torch.tensor([0, 1, 0, 1, 1])
    score = likelihood_score(vae, x, 20, generator=generator(), label=label)
    assert torch.equal(score, nll(vae, x, 20, generator=generator(), label=label))


def test_the_likelihood_score_refuses_data_that_are_not_the_models():
    with pytest.raises(ValueError, match="0s and 1s"):
        likelihood_score(VAE(MLP(3, 4), MLP(2, 3), latents=2), torch.rand(5, 3))


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.29, 0.5])
def test_a_threshold_lets_that_share_of_normal_data_through_and_no_more(rate):
    scores = torch.randperm(100, generator=generator()).double()
    line = threshold(scores, rate)
    assert (scores > line).double().mean().item() == pytest.approx(rate)
    assert (scores > line - 1.5).double().mean() > rate  # the least such line


def test_a_threshold_holds_on_new_data():
    scores, new = torch.randn(2, 20_000, generator=generator())
    assert (new > threshold(scores, 0.05)).float().mean().item() == pytest.approx(0.05, abs=0.006)


def test_a_rate_that_so_few_scores_cannot_tell_is_refused():
    for rate, n in ((0.01, 99), (0.0, 10), (1.0, 10)):
        with pytest.raises(ValueError, match="cannot be told from"):
            threshold(torch.randn(n), rate)
