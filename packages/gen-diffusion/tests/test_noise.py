"""Noise belongs to its sample."""

import pytest
import torch

from gen_diffusion import initial_noise, keyed
from gen_diffusion.noise import randn_like


def test_rows_depend_on_their_index_only():
    noise = initial_noise([3, 4, 5], (2, 2), seed=7)
    assert torch.equal(noise[1:2], initial_noise([4], (2, 2), seed=7))
    assert not torch.equal(noise[1], noise[0])
    assert not torch.equal(noise, initial_noise([3, 4, 5], (2, 2), seed=0))


def test_noise_is_standard_normal_across_indices():
    noise = initial_noise(range(4000), (4,))
    assert noise.mean(0).abs().max() < 0.06 and (noise.T.cov() - torch.eye(4)).abs().max() < 0.08


def test_the_start_and_the_steps_are_independent():
    """The same seed and indices serve both; were the streams one, the first step would repeat the start."""
    start = initial_noise(range(2000), (1,), seed=5)
    first = randn_like(start, keyed(5, range(2000)))
    assert torch.corrcoef(torch.cat([start, first], 1).T)[0, 1].abs() < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_noise_is_like_x(dtype):
    x = torch.zeros(2, 3, dtype=dtype)
    for g in (None, torch.Generator(), keyed(0, range(2))):
        assert randn_like(x, g).dtype == dtype and randn_like(x, g).shape == x.shape


def test_generators_are_counted():
    with pytest.raises(ValueError, match="got 2 generators for 3 samples"):
        randn_like(torch.zeros(3, 1), keyed(0, range(2)))


def test_a_sample_may_be_a_number():
    """Levels or times, shape (b,): each from its own generator."""
    noise = initial_noise([3, 5], (), seed=1)
    assert noise.shape == (2,) and torch.equal(noise[1:], initial_noise([5], (), seed=1))
    assert randn_like(torch.zeros(2), keyed(0, range(2))).shape == (2,)
