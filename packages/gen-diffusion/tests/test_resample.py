"""Resampling is unbiased, as precise as its theory says, and gives the indices of particles 0.4."""

import math

import pytest
import torch

from gen_diffusion import effective_size, multinomial, resample, residual, stratified, systematic

SCHEMES = {f.__name__: f for f in (multinomial, residual, stratified, systematic)}
GOLDEN = {  # of particles 0.4, printed by particles_golden.py
    ("multinomial", 8): [2, 2, 2, 5, 5, 5, 6, 6],
    ("multinomial", 13): [1, 2, 2, 2, 5, 5, 5, 5, 5, 5, 5, 5, 6],
    ("multinomial", 3): [2, 5, 5],
    ("residual", 8): [2, 5, 5, 5, 5, 2, 6, 6],
    ("residual", 13): [2, 2, 2, 5, 5, 5, 5, 5, 5, 6, 1, 5, 5],
    ("residual", 3): [5, 2, 6],
    ("stratified", 8): [2, 2, 5, 5, 5, 5, 5, 7],
    ("stratified", 13): [1, 2, 2, 2, 3, 5, 5, 5, 5, 5, 5, 6, 6],
    ("stratified", 3): [2, 5, 6],
    ("systematic", 8): [2, 2, 3, 5, 5, 5, 5, 6],
    ("systematic", 13): [1, 2, 2, 2, 5, 5, 5, 5, 5, 5, 5, 6, 6],
    ("systematic", 3): [2, 5, 6],
}


@pytest.fixture
def uniforms(monkeypatch):
    """The same uniform numbers as in particles_golden.py."""
    numbers = lambda w, m, _: (0.618033988749895 * torch.arange(1, m + 1, dtype=torch.float64)) % 1
    monkeypatch.setattr(resample, "_uniform", numbers)


@pytest.mark.parametrize("name, m", GOLDEN)
def test_indices_are_those_of_particles(uniforms, name, m):
    weights = torch.tensor([0.0, 1.0, 4.0, 0.5, 0.0, 9.0, 2.0, 0.25], dtype=torch.float64)
    assert SCHEMES[name](weights.log(), m).tolist() == GOLDEN[name, m]


@pytest.mark.peers
@pytest.mark.parametrize("name", SCHEMES)
def test_indices_are_those_of_the_installed_particles(monkeypatch, name):
    resampling = pytest.importorskip("particles.resampling")
    g = torch.Generator().manual_seed(0)
    weights, u = torch.rand(50, generator=g, dtype=torch.float64) ** 8, torch.rand(51, generator=g, dtype=torch.float64)
    monkeypatch.setattr(resample, "_uniform", lambda w, m, _: u[:m])
    monkeypatch.setattr(resampling.random, "rand", lambda n: u[:n].numpy())
    theirs = getattr(resampling, name)((weights / weights.sum()).numpy(), 50)
    assert SCHEMES[name](weights.log()).tolist() == theirs.tolist()


@pytest.mark.parametrize("name", SCHEMES)
def test_expected_copies_are_in_proportion_to_weights(name):
    """E[count_i] = m W_i, for m above and below n; the runs of a batch are independent."""
    g = torch.Generator().manual_seed(0)
    w = torch.tensor([0.5, 0.0, 2.0, 1.2, 0.3], dtype=torch.float64)
    for m in (3, 8):
        index = SCHEMES[name](w.log().expand(40_000, -1), m, g)
        counts = torch.nn.functional.one_hot(index, 5).sum(1).double()
        assert index.shape == (40_000, m) and counts[:, 1].max() == 0
        torch.testing.assert_close(counts.mean(0), m * w / w.sum(), atol=5 * math.sqrt(m / 4 / 40_000), rtol=0)


def test_variance_of_a_resampled_mean():
    """N = 50 weights of gamma(.3): multinomial has its known variance, residual, stratified and systematic less."""
    g = torch.Generator().manual_seed(0)
    w = torch._standard_gamma(torch.full((50,), 0.3, dtype=torch.float64), generator=g)
    w, x = w / w.sum(), torch.randn(50, generator=g, dtype=torch.float64)
    mean = w @ x
    error = {
        name: (x[f(w.log().expand(20_000, -1), None, g)].mean(1) - mean).square().mean() for name, f in SCHEMES.items()
    }
    assert error["multinomial"] == pytest.approx((w @ x**2 - mean**2).item() / 50, rel=0.05)
    assert error["residual"] < 0.7 * error["multinomial"] and error["stratified"] < error["residual"]
    assert error["systematic"] < error["residual"]


@pytest.mark.parametrize("name", SCHEMES)
def test_weights_of_zero_are_never_chosen_among_a_million_in_single_precision(name):
    """Where cumulated weights are rounded, the last index is still that of a particle with weight."""
    w = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0))
    w[::3] = 0
    w[-1000:] = 0
    index = SCHEMES[name](w.log(), 1_000_003, torch.Generator().manual_seed(1))
    assert index.max() < len(w) and (w[index] > 0).all() and (index.diff() >= 0).float().mean() > 0.3


def test_the_last_position_may_be_rounded_to_one(monkeypatch):
    monkeypatch.setattr(resample, "_uniform", lambda w, m, _: torch.full((m,), 1 - 2**-53, dtype=torch.float64))
    assert systematic(torch.tensor([0.0, 0.0, -math.inf])).max() == 1
    assert stratified(torch.zeros(10_000_001))[-1] == 10_000_000


def test_log_weights_reach_over_thousands_of_nats():
    log_w = torch.tensor([-1e4, -2.0, -math.inf, -2.0])
    assert effective_size(log_w) == 2
    assert systematic(log_w, generator=torch.Generator().manual_seed(0)).unique().tolist() == [1, 3]
    assert effective_size(torch.zeros(7, dtype=torch.bfloat16)) == pytest.approx(7, rel=1e-12)


@pytest.mark.parametrize("value", [-math.inf, math.nan])
@pytest.mark.parametrize("name", SCHEMES)
def test_particles_without_weight_are_an_error(name, value):
    with pytest.raises(ValueError, match="log-weights of a run have no finite maximum"):
        SCHEMES[name](torch.tensor([[0.0, 1.0], [value, value]]))
    with pytest.raises(ValueError, match="no finite maximum"):
        effective_size(torch.full((3,), value))
