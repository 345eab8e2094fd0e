"""Ways between codes: norms, ends, speed, and what a torn path looks like."""

import pytest
import torch

from gen_latent.latents import largest_jump, lerp, slerp, traverse


@pytest.mark.parametrize("d", [7, 5])  # as many codes as dimensions, and not
def test_slerp_keeps_the_norm_and_lerp_shrinks_it(d):
    z = torch.randn(2, 5, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = 3 * torch.nn.functional.normalize(z, dim=2)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    round_, straight = slerp(a, b, t), lerp(a, b, t)
    assert (round_.norm(dim=2) - 3).abs().max() < 1e-6
    assert (straight.norm(dim=2)[1:-1] < 3 - 1e-3).all()
    for way in (round_, straight):
        assert torch.allclose(way[0], a) and torch.allclose(way[-1], b)
    steps = round_.diff(dim=0).norm(dim=2)
    assert (steps / steps[0] - 1).abs().max() < 1e-9, "the speed is not constant"


def test_slerp_between_codes_of_different_norm_and_of_one_direction():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    half = slerp(a, b, torch.tensor([0.5]))
    assert torch.allclose(half, torch.tensor([[[2.5 / 2**0.5, 2.5 / 2**0.5]]]))
    assert torch.allclose(slerp(a, 3 * a, torch.tensor([0.5])), 2 * a)
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -a, torch.tensor([0.5]))
    with pytest.raises(ValueError, match="code of 0"):
        slerp(a, 0 * a, torch.tensor([0.5]))


def test_the_places_on_a_way_may_be_of_another_type_than_the_codes():
    a, b = torch.eye(2, dtype=torch.float64).split(1)
    for way in (lerp, slerp):
        assert torch.equal(way(a, b, torch.tensor([0.0, 0.5])), way(a, b, torch.tensor([0.0, 0.5], dtype=a.dtype)))


def test_a_traversal_changes_one_latent_and_a_torn_path_jumps():
    way = traverse(torch.zeros(4), 2, (-1.0, 0.0, 2.0))
    assert way.tolist() == [[0, 0, -1, 0], [0, 0, 0, 0], [0, 0, 2, 0]]
    with pytest.raises(ValueError, match="0 to 3"):
        traverse(torch.zeros(4), 4, (0.0,))
    even = torch.arange(10.0)[:, None, None].expand(10, 2, 2)
    assert largest_jump(even) == pytest.approx(1)
    torn = torch.cat([even, even + 20])
    assert largest_jump(torn) == pytest.approx(11)
    with pytest.raises(ValueError, match="two steps"):
        largest_jump(even[:2])
