import math
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from gen_core.embed import pca, scatter, trustworthiness, tsne, umap

X = torch.tensor(load_digits().data / 16)
Y = load_digits().target


def accuracy(z):
    """5-fold accuracy of 5 nearest neighbours on the map."""
    return cross_val_score(KNeighborsClassifier(5), z.numpy(), Y, cv=5).mean()


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_pca_of_digits_golden():
    """scikit-learn 1.9.1 on digits/16: variance .14891 and .13619, trustworthiness .8296, 5-NN accuracy .6032."""
    p = pca(X)
    assert p.variance_ratio.tolist() == pytest.approx([0.14891, 0.13619], abs=5e-6)
    assert trustworthiness(X, p.z) == pytest.approx(0.8296, abs=5e-5)
    assert accuracy(p.z) == pytest.approx(0.6032, abs=5e-5)


def test_pca_equals_scikit_learn_with_its_signs():
    ours, theirs = pca(X, 5), SklearnPCA(5, svd_solver="full").fit(X.numpy())
    torch.testing.assert_close(ours.components, torch.tensor(theirs.components_), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.variance_ratio, torch.tensor(theirs.explained_variance_ratio_), rtol=0, atol=1e-13)
    torch.testing.assert_close(ours.z, torch.tensor(theirs.transform(X.numpy())), rtol=0, atol=1e-12)


def test_pca_sign_does_not_follow_the_data():
    """The map of -x is the mirrored map of x, on the same components; SVDs alone may return either sign."""
    x = normal(40, 6)
    p, q = pca(x, 3), pca(-x, 3)
    torch.testing.assert_close(p.components, q.components)
    torch.testing.assert_close(p.z, -q.z)
    assert (p.components.gather(1, p.components.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("n, p", [(40, 6), (6, 40)])
def test_pca_of_all_components_is_lossless(n, p):
    x = normal(n, p) + 3
    record = pca(x, min(n, p))
    torch.testing.assert_close(record.z @ record.components + record.mean, x)
    assert record.variance_ratio.sum().item() == pytest.approx(1)
    torch.testing.assert_close(record(x), record.z)
    torch.testing.assert_close(record(x.mean(0, keepdim=True)), torch.zeros(1, min(n, p), dtype=x.dtype))


def test_pca_coordinates_are_uncorrelated_with_the_stated_variances():
    record = pca(normal(50, 4) @ normal(4, 4, seed=1), 4)
    covariance = record.z.T @ record.z
    torch.testing.assert_close(covariance / covariance.trace(), record.variance_ratio.diag())


def test_trustworthiness_is_1_for_the_data_itself_and_a_half_for_noise():
    x = normal(300, 5)
    assert trustworthiness(x, 3 * x) == 1
    assert trustworthiness(x, normal(300, 2, seed=1)) == pytest.approx(0.5, abs=0.05)


def test_tsne_separates_clusters_and_repeats():
    x = torch.cat([normal(40, 10), normal(40, 10, seed=1) + 8])
    z = tsne(x, perplexity=10)
    assert z.shape == (80, 2)
    assert torch.equal(z, tsne(x, perplexity=10))
    gap = torch.cdist(z[:40], z[40:]).min()
    assert gap > torch.cdist(z[:40], z[:40]).sort(1).values[:, 1].max()  # the clusters are apart: beyond any neighbour


@pytest.mark.slow
def test_tsne_of_digits_golden():
    """scikit-learn 1.9.1 TSNE(init="pca", random_state=0): trustworthiness .9917, 5-NN accuracy .9761."""
    z = tsne(X)
    assert trustworthiness(X, z) == pytest.approx(0.9917, abs=0.005)
    assert accuracy(z) == pytest.approx(0.9761, abs=0.005)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_umap_of_digits_golden():
    """umap-learn 0.5.12 UMAP(random_state=0): trustworthiness .9888, 5-NN accuracy .9761."""
    pytest.importorskip("umap")
    z = umap(X)
    assert z.shape == (1797, 2)
    assert trustworthiness(X, z) == pytest.approx(0.9888, abs=0.005)
    assert accuracy(z) == pytest.approx(0.9761, abs=0.005)


def test_umap_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not there
    with pytest.raises(ImportError, match=r"pip install 'gen-core\[umap\]'"):
        umap(X)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: pca(normal(5, 3), 4), "5 points with 3 features have no 4 components"),
        (lambda: tsne(normal(20, 3)), "perplexity=30 needs more points than that, got 20"),
        (lambda: trustworthiness(normal(20, 3), normal(20, 2)), "k=12 neighbours need more than 24 points, got 20"),
        (lambda: scatter(normal(4, 2), [1, 2, 3]), r"labels of shape \(3,\) for 4 points"),
        (lambda: scatter(normal(9, 2), groups=range(9)), "9 groups but only 8 markers"),
    ],
)
def test_errors_name_value_rule_and_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def drawn(ax):
    return sum(len(c.get_offsets()) for c in ax.collections)


def test_scatter_names_labels_and_groups_and_draws_each_point_once():
    z, labels = normal(30, 2), torch.arange(30) % 3
    ax = scatter(z, labels, groups=["data"] * 20 + ["samples"] * 10)
    assert legend(ax) == ["0", "1", "2", "data", "samples"]
    assert drawn(ax) == 30
    data, samples = ax.collections[:2]
    np.testing.assert_array_equal(data.get_offsets(), z[:20])
    np.testing.assert_array_equal(samples.get_offsets(), z[20:])
    colours = np.concatenate([data.get_facecolors(), samples.get_edgecolors()])
    assert len(np.unique(colours, axis=0)) == 3
    np.testing.assert_array_equal(colours[labels == 0], np.broadcast_to(colours[0], (10, 4)))


@pytest.mark.parametrize("labels", [None, np.arange(30) % 25, ["b", "a"] * 15])
def test_scatter_of_any_labels(labels):
    ax = scatter(normal(30, 2), labels)
    assert drawn(ax) == 30
    assert ax.get_legend() is None if labels is None else legend(ax) == [str(x) for x in sorted(set(labels))]


def test_scatter_colours_groups_that_have_no_labels():
    ax = scatter(normal(4, 2), groups=["data", "data", "samples", "samples"])
    assert legend(ax) == ["data", "samples"]
    data, samples = ax.collections[:2]
    assert not np.array_equal(data.get_facecolors()[0], samples.get_edgecolors()[0])


@pytest.mark.parametrize("suffix, magic", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_scatter_saves_without_pyplot(tmp_path, monkeypatch, suffix, magic):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would raise
    ax = Figure().subplots()
    path = tmp_path / f"map.{suffix}"
    assert scatter(normal(5, 2).requires_grad_(), path=path, ax=ax) is ax
    assert path.read_bytes().startswith(magic)


@pytest.mark.parametrize("value", [1.0, 0.1, math.nan, math.inf])
def test_tsne_refuses_points_without_a_map(value):
    """scikit-learn divides by their spread of 0, and its tree of nan ends the interpreter."""
    with pytest.raises(ValueError, match="50 whose largest difference is"):
        tsne(torch.full((50, 5), value))


def test_tsne_is_of_proportions():
    """A power of two changes no digit, also where squares would be 0 or infinite in single precision."""
    x = normal(40, 3).float()
    maps = [tsne(x * scale, perplexity=5) for scale in (1.0, 2.0**-100, 2.0**100)]
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_tsne_takes_any_seed(seed):
    assert tsne(normal(20, 3), seed=seed, perplexity=5).shape == (20, 2)
