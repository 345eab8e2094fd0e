"""Noise levels against their closed forms and their peers' values."""

import math

import pytest
import torch

from gen_diffusion import cosine_betas, ddpm, exponential, flow, karras, linear_betas, vp, zero_terminal_snr

ABAR = (1 - linear_betas(1000)).cumprod(0)


@pytest.mark.parametrize("n", [10, 18, 40])
def test_karras_is_equation_5(n):
    """Level i is (hi + i/(n-1) (lo - hi))^rho, computed here one number at a time; the last is 0."""
    hi, lo = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    expected = [(hi + i / (n - 1) * (lo - hi)) ** 7 for i in range(n)] + [0.0]
    assert karras(n).tolist() == pytest.approx(expected, rel=1e-12)


def test_karras_golden_values():
    """get_sigmas_karras of k-diffusion 4601bf0, which works in float32, printed by k_diffusion_golden.py."""
    golden = [79.99998474121094, 17.527830123901367, 2.5152194499969482, 0.16975267231464386, 0.0019999996293336153, 0]
    assert karras(5).tolist() == pytest.approx(golden, rel=1e-6)


def test_exponential_is_karras_at_large_rho():
    assert exponential(9, 0.01, 50.0).tolist() == pytest.approx(karras(9, 0.01, 50.0, rho=1e7).tolist(), rel=1e-4)


@pytest.mark.parametrize("schedule", [karras, exponential, vp, flow, lambda n: ddpm(n, ABAR)])
def test_levels_decrease_to_zero(schedule):
    sigmas = schedule(20)
    assert len(sigmas) == 21 and sigmas[-1] == 0 and (sigmas[1:] < sigmas[:-1]).all() and sigmas.dtype == torch.float64


@pytest.mark.parametrize("schedule", [karras, exponential])
@pytest.mark.parametrize(("arguments", "said"), [((1,), "2 steps"), ((5, 2.0, 1.0), "<"), ((5, 1.0, math.inf), "inf")])
def test_bad_levels_are_refused(schedule, arguments, said):
    with pytest.raises(ValueError, match=said):
        schedule(*arguments)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_shifts_once(shift):
    """[Esser24] eq. 23 applied once: the last level before 0 is shift u / (1 + (shift - 1) u) at u = 1 / n."""
    sigmas, u = flow(20, shift), 1 / 20
    t = sigmas / (1 + sigmas)
    assert t[-2] == pytest.approx(shift * u / (1 + (shift - 1) * u)) and sigmas[0] == math.inf
    if shift == 3:
        assert t[-2] == pytest.approx(0.13636, abs=1e-5)
    capped = flow(20, shift, sigma_max=80.0)
    assert capped[0] == pytest.approx(80.0) and capped[-1] == 0


def test_ddpm_spacings():
    """Where each spacing visits: trailing the last time, leading never, linspace both ends ([Lin24] table 2)."""
    index = lambda sigmas: [(1 / ABAR - 1).sqrt().tolist().index(s) for s in sigmas.tolist()]
    assert index(ddpm(4, ABAR)[:-1]) == [999, 749, 499, 249]
    assert index(ddpm(4, ABAR, "leading")[:-1]) == [750, 500, 250, 0]
    assert index(ddpm(4, ABAR, "linspace")[:-1]) == [999, 666, 333, 0]
    assert ddpm(7, ABAR)[0] == ddpm(1000, ABAR)[0] and len(ddpm(7, ABAR)) == 8
    with pytest.raises(ValueError, match="1 <= n <= 1000"):
        ddpm(1001, ABAR)


def test_betas_of_the_papers():
    """Linear: abar_T = 4.0e-5. Cosine: abar_t = f(t) / f(0) with f = cos^2, but for the clip."""
    assert ABAR[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)
    abar = (1 - cosine_betas(1000)).cumprod(0)
    f = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    assert abar[499].item() == pytest.approx(f(0.5) / f(0.0), rel=1e-9)
    assert cosine_betas(1000).max() == 0.999


def test_zero_terminal_signal():
    """The last signal is exactly 0, the first one as it was, sqrt(abar) an affine function of the old ([Lin24])."""
    old, new = ABAR.sqrt(), (1 - zero_terminal_snr(linear_betas(1000))).cumprod(0).sqrt()
    assert new[-1] == 0 and new[0] == pytest.approx(old[0].item(), rel=1e-12)
    slope = (new[1:-1] - new[:-2]) / (old[1:-1] - old[:-2])
    torch.testing.assert_close(slope, slope[:1].expand_as(slope), rtol=1e-6, atol=0)


def test_betas_are_no_products_of_alphas():
    for bad in (linear_betas(10), torch.tensor([0.9, 0.9]), torch.tensor([1.0, 0.5])):
        with pytest.raises(ValueError, match="has to decrease"):
            ddpm(2, bad)
