"""Distances by a matrix product beside differences, and what follows from them beside the metrics of the samples."""

import pytest
import torch

from gen_core import distances
from gen_core.distances import TIE, frechet_distance, kernel_distance, squared_distances
from gen_core.metrics import frechet, kid, prdc


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def differences(a, b):
    return (a[:, None] - b).square().sum(2)


@pytest.mark.parametrize("block", [2**19, 50])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_every_distance_has_its_digits(monkeypatch, offset, block):
    """Pairs at 1e-7 of one another among points at 1, and all of it at 1e6: a bare product gives 0 or below there."""
    monkeypatch.setattr(distances, "BLOCK", block)
    a = normal(40, 9) + offset
    b = torch.cat([a[:20] + 1e-7 * 2**10 * normal(20, 9, seed=1), a[20:30], normal(5, 9, seed=2) + offset])
    found, true = squared_distances(a, b), differences(a, b)
    assert ((found - true).abs() <= TIE / 10 * true).all()
    assert (found[20:30, 20:30].diagonal() == 0).all()


def test_neighbours_within_far_clusters_are_those_of_each_cluster_alone():
    """Clusters of width 1e-9 at a distance of 1: their radii are lost in a bare product."""
    real, fake = 1e-9 * normal(30, 5), 1e-9 * normal(30, 5, seed=1)
    near = prdc(real, fake)
    shift = torch.ones(5, dtype=torch.float64)
    far = prdc(torch.cat([real, real + shift]), torch.cat([fake, fake + shift]))
    assert far == pytest.approx(near, abs=1e-2) and 0 < near.precision < 1


@pytest.mark.parametrize(("n", "m", "d"), [(8, 8, 20), (12, 9, 40), (7, 11, 3)])
def test_frechet_and_kernel_distance_follow_from_the_distances(n, m, d):
    a, b = normal(n, d) + 3, 2 * normal(m, d, seed=1) + 2
    pooled = torch.cat([a, b])
    d2 = squared_distances(pooled, pooled)
    assert frechet_distance(d2, n) == pytest.approx(frechet(a, b), rel=1e-9)
    assert kernel_distance(d2, pooled.square().sum(1), n, d) == pytest.approx(kid(a, b), rel=1e-9)
