"""The six views: each gives each back, at every level, and the ends of the axis are part of it."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from gen_diffusion import GaussianMixture, Preconditioned, convert, from_eps, from_v, view_weight
from gen_diffusion.view import VIEWS, coefficients

INF = math.inf
SIGMAS = [0.0, 1e-6, 0.002, 0.3, 1.0, 80.0, 1e6, INF]


def value_of(view, x0, n, sigma, sigma_data):
    """Each view straight from its paper, in the paper's own coordinates."""
    if view == "velocity":
        return n - x0
    if view == "v":
        phi = math.atan(sigma)
        return math.cos(phi) * n - math.sin(phi) * x0
    if view == "score":
        return torch.zeros_like(n) if sigma in (0, INF) else -n / sigma
    if view == "F":  # the target (x0 - c_skip x) / c_out
        if sigma == INF:
            return x0 / sigma_data
        total = math.hypot(sigma, sigma_data)
        return (sigma * x0 / sigma_data - sigma_data * n) / total
    return x0 if view == "x0" else n


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(("source", "to"), list(product(VIEWS, VIEWS)))
def test_each_view_gives_each_other(source, to, sigma_data):
    """In double precision, from sigma = 0 to infinity; what cannot be known there is 0, never nan."""
    g = torch.Generator().manual_seed(0)
    x0, n = (torch.randn(len(SIGMAS), 5, generator=g, dtype=torch.float64) for _ in range(2))
    sigma = torch.tensor(SIGMAS, dtype=torch.float64)
    x = torch.stack([n[i] if s == INF else x0[i] + s * n[i] for i, s in enumerate(SIGMAS)])
    given = torch.stack([value_of(source, x0[i], n[i], s, sigma_data) for i, s in enumerate(SIGMAS)])
    got = convert(given, x, sigma, source, to, sigma_data)
    assert got.isfinite().all()
    for i, s in enumerate(SIGMAS):
        no_noise = s == 0 and source in ("x0", "score")  # x = x0, and the view says nothing of n
        no_data = s == INF and source in ("eps", "score")
        a, b = (torch.zeros(5) if no_data else x0[i]), (torch.zeros(5) if no_noise else n[i])
        tolerance = 1e-6 if 1e-5 < s < 1e5 else 1e-3  # one of the pair is below the other's rounding
        torch.testing.assert_close(got[i], value_of(to, a, b, s, sigma_data).double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("view", VIEWS)
def test_one_denoiser_in_six_views(view):
    """Tell a mixture's estimate as a view, in single precision, and read it back: the same estimate."""
    mixture = GaussianMixture(
        torch.ones(2), torch.tensor([[1.0, -1.0], [0.5, 2.0]]), 0.3 * torch.eye(2).expand(2, 2, 2)
    )
    x = torch.randn(2, 2)
    for sigma in (1e-3, 0.1, 1.0, 20.0):
        x0 = mixture(x, sigma)
        value = convert(x0, x, sigma, "x0", view, 0.5)
        torch.testing.assert_close(convert(value, x, sigma, view, "x0", 0.5), x0, atol=2e-6, rtol=1e-5)
        c_skip, c_out = coefficients(view, torch.tensor(sigma), 0.5)
        torch.testing.assert_close(c_skip * x + c_out * value, x0, atol=2e-5, rtol=1e-5)


def test_coefficients_of_edm():
    """[Karras22] table 1: c_skip = sigma_data^2 / T^2 and c_out = sigma sigma_data / T."""
    sigma, sd = torch.tensor([0.0, 0.01, 1.0, 80.0], dtype=torch.float64), 0.5
    c_skip, c_out = coefficients("F", sigma, sd)
    torch.testing.assert_close(c_skip, sd**2 / (sigma**2 + sd**2))
    torch.testing.assert_close(c_out, sigma * sd / (sigma**2 + sd**2).sqrt())
    torch.testing.assert_close(
        coefficients("F", sigma, 1.0)[1], -coefficients("v", sigma)[1]
    )  # F is -v at unit variance


def test_weights_make_the_loss_that_of_the_view():
    """view_weight |x0 - x0'|^2 = |value - value'|^2: DDPM's loss is a weight, and so is flow matching's."""
    g = torch.Generator().manual_seed(0)
    x, a, b = (torch.randn(4, 3, generator=g, dtype=torch.float64) for _ in range(3))
    sigma = torch.tensor([0.01, 0.5, 2.0, 50.0], dtype=torch.float64)
    for view in VIEWS:
        error = (convert(a, x, sigma, "x0", view, 0.7) - convert(b, x, sigma, "x0", view, 0.7)).square().sum(1)
        torch.testing.assert_close(view_weight(view, sigma, 0.7) * (a - b).square().sum(1), error)


class Recall(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, c_noise):
        assert x.isfinite().all() and c_noise.isfinite().all()
        return self.value


@pytest.mark.parametrize("view", VIEWS)
def test_preconditioned_networks_answer_any_view(view):
    """D is the estimate that the view stands for, for numbers, 0-d and (b,) levels, and finite at both ends."""
    g = torch.Generator().manual_seed(0)
    x, value = (torch.randn(3, 3, generator=g, dtype=torch.float64) for _ in range(2))
    d, sigma = Preconditioned(Recall(value), 0.5, view), torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
    answer = value / sigma[:, None] if view == "score" else value
    torch.testing.assert_close(d(x, sigma), convert(answer, x, sigma, view, "x0", 0.5))
    assert torch.equal(d(x, 0.5), d(x, torch.tensor(0.5))) and torch.equal(d(x, 0.5), d(x, torch.full((3,), 0.5)))
    assert d(x, torch.tensor([0.0, 1e30, 1.0])).isfinite().all()
    assert d(x, INF).isfinite().all()


def test_v_at_no_signal_at_all():
    """With zero terminal signal x is the noise: v = -x0 there, where eps says nothing."""
    x0, noise = torch.randn(4, 2), torch.randn(4, 2)
    d = from_v(lambda x, t: -x0, lambda sigma: sigma)
    torch.testing.assert_close(d(noise, INF), x0)
    assert torch.equal(from_eps(lambda x, t: x, lambda sigma: sigma)(noise, INF), torch.zeros(4, 2))


def test_unknown_views_are_named():
    with pytest.raises((ValueError, TypeError), match="epsilon"):  # where types are checked, by that check
        Preconditioned(nn.Identity(), view="epsilon")  # type: ignore[arg-type]
