"""Karras levels against the closed form and against k-diffusion."""

import pytest

from gen_diffusion import karras


@pytest.mark.parametrize("n", [10, 18, 40])
def test_karras_is_equation_5(n):
    """Level i is (hi + i/(n-1) (lo - hi))^rho, computed here one number at a time; the last is 0."""
    hi, lo = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    expected = [(hi + i / (n - 1) * (lo - hi)) ** 7 for i in range(n)] + [0.0]
    assert karras(n).tolist() == pytest.approx(expected, rel=1e-12)
    assert len(karras(n)) == n + 1


def test_karras_golden_values():
    """get_sigmas_karras of k-diffusion 4601bf0, which works in float32, printed by k_diffusion_golden.py."""
    golden = [79.99998474121094, 17.527830123901367, 2.5152194499969482, 0.16975267231464386, 0.0019999996293336153, 0]
    assert karras(5).tolist() == pytest.approx(golden, rel=1e-6)


@pytest.mark.parametrize(("n", "low", "high"), [(1, 0.1, 1.0), (3, 0.0, 1.0), (3, 2.0, 1.0)])
def test_karras_refuses_what_has_no_levels(n, low, high):
    with pytest.raises(ValueError, match="karras needs"):
        karras(n, low, high)
