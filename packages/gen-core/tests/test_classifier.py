"""The classifier's two-sample test and features, against what is known without one."""

import pytest
import torch

from gen_core.classifier import c2st, hidden_units
from gen_core.metrics import frechet


def test_one_distribution_cannot_be_told_and_two_can():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 200, 5, generator=g)
    found = c2st(a, b)
    assert abs(found.value - 0.5) < 0.08 and found.low < found.value < found.high and found.n == 400
    # the best test of N(0, I) against N(3 e, I) is right in Phi(1.5) = .933 of cases
    assert c2st(a, b + torch.tensor([3.0, 0, 0, 0, 0])).value == pytest.approx(0.933, abs=0.04)
    assert c2st(a, b) == found
    with pytest.raises(ValueError, match="as many samples of both"):
        c2st(a, b[:50])


def test_features_see_classes_and_not_what_tells_none():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    x = torch.randn(200, 4, generator=g)
    x[:, 0] = 6.0 * y - 3
    features = hidden_units(x, y, units=16, epochs=50)
    assert features(x).shape == (200, 16)
    among, between = frechet(features(x[::2]), features(x[::2])), frechet(features(x[y == 0]), features(x[y == 1]))
    assert among < 1e-9 < 1 < between


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_any_seed_will_do(seed):
    x, y = torch.randn(20, 2), torch.arange(20) % 2
    assert hidden_units(x, y, units=3, epochs=2, seed=seed)(x).shape == (20, 3)
    assert 0 <= c2st(x[:10], x[10:], units=3, folds=2, seed=seed).value <= 1
