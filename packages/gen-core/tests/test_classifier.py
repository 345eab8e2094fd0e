"""The classifier's two-sample test and features, against what is known without one."""

import pytest
import torch

from gen_core import Arrays, digits
from gen_core.classifier import c2st, convolutions, hidden_units
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


def striped(n: int, size: int = 16, seed: int = 0) -> Arrays:
    """Pictures with one bright row or one bright column, in two classes, and noise."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.arange(n) % 2, 0.3 * torch.randn(n, 1, size, size, generator=g) - 0.5
    for i, place in enumerate(torch.randint(size, (n,), generator=g).tolist()):
        (x[i, 0] if y[i] else x[i, 0].T)[place] += 0.8
    return Arrays(x.clamp(-1, 1), y, classes=["column", "row"])


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("GEN_CACHE", str(tmp_path))
    return tmp_path


def test_convolutions_tell_classes_that_are_anywhere_and_digits(fresh):
    """A bright row or column may be anywhere, which no weighted sum of pixels tells; digits enlarged to 16 pixels."""
    x, y = striped(200, seed=1)[:]
    net = convolutions(striped(400), steps=120)
    assert (net.classify(x) == y).float().mean() > 0.95 and net.features(x).shape == (200, 64)
    train, test = digits("train", 16), digits("test", 16)
    assert (convolutions(train, steps=150).classify(test[:][0]) == test.tensors[1]).float().mean() > 0.9


def test_features_are_the_same_in_every_process_and_come_from_the_cache(fresh, monkeypatch):
    """Global streams of random numbers, the order of the calls and gradients that are off change nothing."""
    data, other = striped(60), striped(60, seed=1)
    x = data[:][0]
    with torch.no_grad():
        first = convolutions(data, steps=5).features(x)
    state = torch.get_rng_state()
    monkeypatch.setenv("GEN_CACHE", str(fresh / "other"))
    torch.testing.assert_close(convolutions(data, steps=5).features(x), first, rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setenv("GEN_CACHE", str(fresh))
    monkeypatch.setattr(torch.optim, "AdamW", None)  # training is impossible
    assert torch.equal(convolutions(data, steps=5).features(x), first)
    for fails in (lambda: convolutions(other, steps=5), lambda: convolutions(data, steps=6)):
        with pytest.raises(TypeError):
            fails()


def test_without_a_cache_a_classifier_is_trained_which_is_said(fresh, monkeypatch):
    monkeypatch.setenv("GEN_CACHE_GB", "1e-9")
    with pytest.warns(UserWarning, match="a classifier is trained at every start, for want of a cache"):
        assert convolutions(striped(20), steps=2).features(striped(3)[:][0]).shape == (3, 64)
