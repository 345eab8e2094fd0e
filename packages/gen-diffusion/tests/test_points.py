"""Points in the plane have the mean and the standard deviation that they promise, and labels that mean something."""

import pytest
import torch

from gen_diffusion import grid, grid_mixture, moons, rings, swiss_roll

SETS = {moons: 2, rings: 3, swiss_roll: 3, grid: 25}


@pytest.mark.parametrize("make", SETS)
@pytest.mark.parametrize("std", [0.5, 2.0])
def test_mean_and_standard_deviation(make, std):
    """By the distribution's constants: a large sample agrees within chance."""
    x, label = make(200_000, torch.Generator().manual_seed(0), std=std)
    assert x.dtype == torch.float32 and label.dtype == torch.int64
    assert x.mean(0).abs().max() < 0.008 * std
    assert x.square().mean().sqrt() == pytest.approx(std, rel=0.004)
    assert label.bincount().tolist() == pytest.approx([len(x) / SETS[make]] * SETS[make], rel=0.06)


@pytest.mark.parametrize("make", SETS)
def test_the_seed_decides(make):
    draw = lambda seed: make(50, torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(draw(0), draw(0), strict=True))
    assert not torch.equal(draw(0)[0], draw(1)[0])


@pytest.mark.parametrize("make", [moons, rings, swiss_roll])
def test_blur_is_part_of_the_standard_deviation(make):
    x, _ = make(100_000, torch.Generator().manual_seed(0), blur=1.0)
    assert x.square().mean().sqrt() == pytest.approx(0.5, rel=0.01)


def test_labels_of_rings_are_radii():
    x, label = rings(3000, torch.Generator().manual_seed(0), k=4, blur=0.01)
    radius = x.norm(dim=1)
    assert all(radius[label == i].max() < radius[label == i + 1].min() for i in range(3))


def test_labels_of_the_grid_are_its_nearest_means():
    x, label = grid(2000, torch.Generator().manual_seed(0))
    assert (torch.cdist(x, grid_mixture().means).argmin(1) == label).float().mean() > 0.999
