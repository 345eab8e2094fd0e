"""Guidance on centred Gaussians of variance vc and vu has a closed form: the ODE ends at variance vc^w vu^(1-w).

(Not at the variance of the tilted density p_c^w p_u^(1-w), which is what one may expect.)
"""

import pytest
import torch

from gen_diffusion import cfg, drop, interval, karras, sample


def pair(vc, vu):
    """A denoiser of N(0, vc) for label 1, of N(0, vu) without a label; it counts its calls."""

    def denoiser(x, sigma, label=None):
        denoiser.calls.append(label is not None)
        v = vu if label is None else vc
        s = sigma.reshape(sigma.shape + (1,) * (x.ndim - 1) * sigma.ndim)
        return x * v / (v + s**2)

    denoiser.calls = []
    return denoiser


def variance_at_0(denoiser, vc):
    """Start at the conditional density's own standard deviation; the ODE only scales x."""
    sigmas = karras(400, 0.002, 1000.0)
    x = (vc + sigmas[0] ** 2).sqrt() * torch.ones(1, 1, dtype=torch.float64)
    return sample(denoiser, x, sigmas, label=torch.ones(1, dtype=torch.long)).square().item()


@pytest.mark.parametrize(("vc", "vu", "w", "golden"), [(1, 2, 3.0, 0.25), (1, 4, 2.0, 0.25), (0.25, 1, 2.0, 0.0625)])
def test_guided_variance(vc, vu, w, golden):
    assert golden == pytest.approx(vc**w * vu ** (1 - w))
    assert variance_at_0(cfg(pair(vc, vu), w), vc) == pytest.approx(golden, rel=1e-3)


def test_interval_guided_variance():
    """vc [(vc + a^2)(vu + b^2) / ((vc + b^2)(vu + a^2))]^(w - 1) for w on (a, b]."""
    vc, vu, w, a, b = 1.0, 2.0, 3.0, 0.3, 5.0
    exact = vc * ((vc + a**2) * (vu + b**2) / ((vc + b**2) * (vu + a**2))) ** (w - 1)
    assert exact == pytest.approx(0.2933, abs=1e-4)
    assert variance_at_0(cfg(pair(vc, vu), interval(w, a, b)), vc) == pytest.approx(exact, rel=0.01)


def test_weights_0_and_1_are_the_denoisers_themselves():
    """Bit for bit, and at the price of one call."""
    d, x, sigma, label = pair(0.3, 1.1), torch.randn(5, 5), torch.tensor(0.7), torch.ones(5, dtype=torch.long)
    for w in (1.0, lambda sigma: torch.ones_like(sigma)):
        d.calls.clear()
        assert torch.equal(cfg(d, w)(x, sigma, label=label), d(x, sigma, label=label))
        assert d.calls == [True, True]
    d.calls.clear()
    assert torch.equal(cfg(d, 0.0)(x, sigma, label=label), d(x, sigma))
    assert d.calls == [False, False]


def test_outside_its_interval_guidance_is_free():
    d, label = pair(1, 2), torch.ones(2, dtype=torch.long)
    guided = cfg(d, interval(2.0, 0.1, 1.0))
    guided(torch.ones(2, 2), torch.tensor(3.0), label=label)
    assert d.calls == [True]
    guided(torch.ones(2, 2), torch.tensor(0.5), label=label)
    assert sorted(d.calls[1:]) == [False, True]


def test_each_sample_is_guided_at_its_own_level():
    """Batch == width; where the weight is 1 or 0 the mixture is still exact."""
    d, x, label = pair(0.3, 1.1), torch.randn(3, 3), torch.ones(3, dtype=torch.long)
    sigma, weight = torch.tensor([0.1, 0.5, 2.0]), torch.tensor([1.0, 0.0, 2.5])
    guided = cfg(d, lambda sigma: weight)(x, sigma, label=label)
    c, u = d(x, sigma, label=label), d(x, sigma)
    assert torch.equal(guided[0], c[0]) and torch.equal(guided[1], u[1])
    torch.testing.assert_close(guided[2], u[2] + 2.5 * (c[2] - u[2]))


def test_null_conditions_are_passed_on():
    """A denoiser with a null label of its own, as other libraries' have."""
    d = lambda x, sigma, label: x * label[:, None]
    guided = cfg(d, 3.0, null={"label": torch.tensor([10, 10])})
    x = torch.ones(2, 1)
    assert guided(x, torch.tensor(1.0), label=torch.tensor([2, 4])).flatten().tolist() == [10 - 3 * 8, 10 - 3 * 6]


def test_drop_is_per_sample_and_leaves_class_0_alone():
    """The null class takes the chosen samples only, and is not the index of a class."""
    label = torch.arange(10).repeat(100)
    dropped = torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.3
    new = drop(label, dropped, null=10)
    assert torch.equal(new == 10, dropped) and torch.equal(new[~dropped], label[~dropped])
