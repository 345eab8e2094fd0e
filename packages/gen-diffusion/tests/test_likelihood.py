"""The ODE's likelihood against closed forms for Gaussians and mixtures, and its trace against the Jacobian itself."""

import copy
import math

import pytest
import torch
from torch.distributions import Normal

from gen_diffusion import GaussianMixture, Preconditioned, UNet, karras, keyed
from gen_diffusion.likelihood import _divergence, bits_per_dim, dequantise, log_likelihood
from gen_diffusion.schedule import flow

DOUBLE = torch.float64
VARIANCES = torch.linspace(0.2, 2.0, 6, dtype=DOUBLE)


@pytest.fixture(scope="module")
def gaussian():
    """N(mu, Q diag(0.2 ... 2) Q^T) in 6 dimensions with |mu| = 2.1, 512 points of it, and the axes Q."""
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=DOUBLE))[0]
    mu = torch.randn(6, generator=g, dtype=DOUBLE)
    mu = 2.1 * mu / mu.norm()
    data = GaussianMixture(torch.ones(1, dtype=DOUBLE), mu[None], (q * VARIANCES @ q.T)[None])
    return data, data.sample(512, g), q


def closed_form(gaussian, sigma_min, sigma_max):
    """The ODE scales each axis by sqrt((l + sigma_max^2) / (l + sigma_min^2)); then the prior N(0, sigma_max^2)."""
    data, x, q = gaussian
    ratio = ((VARIANCES + sigma_max**2) / (VARIANCES + sigma_min**2)).sqrt()
    z = data.means + ((x - data.means) @ q * ratio) @ q.T
    return Normal(torch.zeros(()).double(), sigma_max).log_prob(z).sum(1) + ratio.log().sum()


def rms(x):
    return x.square().mean().sqrt().item()


def test_exact_trace_is_second_order(gaussian):
    """Towards the closed form of the ODE itself, and at least as close as plain Heun for both integrals."""
    data, x, _ = gaussian
    exact = closed_form(gaussian, 0.002, 80.0)
    error = [(log_likelihood(data, x, karras(n)).value - exact).abs().max().item() for n in (50, 100, 200)]
    assert error[0] < 0.144 and error[1] < 0.0365 and error[2] < 0.0092
    assert math.log2(error[1] / error[2]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(("sigma_max", "n", "golden", "most"), [(80.0, 200, 0.027, 0.03), (1000.0, 500, 0.0021, 0.003)])
def test_what_is_left_is_the_prior(gaussian, sigma_max, n, golden, most):
    """Taking the data at sigma_max for centred ones costs |mu| / sigma_max nats, rms; that is all the error."""
    data, x, _ = gaussian
    truth = data.log_prob(x, 0.002)
    assert rms(closed_form(gaussian, 0.002, sigma_max) - truth) == pytest.approx(golden, rel=0.1)
    result = log_likelihood(data, x, karras(n, sigma_max=sigma_max))
    assert 0.8 * golden < rms(result.value - truth) < most
    assert not result.stderr.any()


def test_sigma_data_widens_the_prior():
    """Centred data of one variance are then exactly what the prior says, at any sigma_max."""
    data = GaussianMixture(torch.ones(1), torch.zeros(1, 2), 4 * torch.eye(2)[None]).double()
    x, sigmas = data.sample(50, torch.Generator().manual_seed(0)), karras(100, sigma_max=5.0)
    truth = data.log_prob(x, sigmas[-2])
    assert (log_likelihood(data, x, sigmas, sigma_data=2.0).value - truth).abs().max() < 5e-3
    assert (log_likelihood(data, x, sigmas).value - truth).abs().max() > 0.1


def test_flow_path_ends_at_its_prior(gaussian):
    """rms 1e-4 of the truth with 200 levels, at second order: no sigma_max is left in it."""
    data, x, _ = gaussian
    error = {n: rms(log_likelihood(data, x, flow(n)).value - data.log_prob(x, flow(n)[-2])) for n in (100, 200)}
    assert error[200] < 1e-4
    assert math.log2(error[100] / error[200]) == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1)])
@pytest.mark.parametrize("sigmas", [karras(100, 0.01, 1000.0), flow(100)], ids=["karras", "flow"])
def test_mixture(shape, sigmas):
    """Three components that are not round; batch == width, points and pictures."""
    g = torch.Generator().manual_seed(0)
    roots = torch.randn(3, 3, 3, generator=g, dtype=DOUBLE)
    means = 2 * torch.randn(3, 3, generator=g, dtype=DOUBLE)
    mixture = GaussianMixture(torch.tensor([0.2, 1.0, 0.8]).double(), means, roots @ roots.mT + 0.1 * torch.eye(3))
    x = mixture.sample(3, g).reshape(3, *shape)
    result = log_likelihood(mixture, x, sigmas)
    torch.testing.assert_close(result.value, mixture.log_prob(x, sigmas[-2]), atol=0.03, rtol=0)


@pytest.mark.parametrize("sigmas", [karras(100, 1e-2), flow(200)[:-2]], ids=["karras", "flow"])
def test_it_is_the_density_at_the_last_level(sigmas):
    """Data of standard deviation 0.01 and a last level of 0.01: the density of noisy data, not of clean ones."""
    narrow = GaussianMixture(torch.ones(1), torch.zeros(1, 1), 1e-4 * torch.ones(1, 1, 1)).double()
    x = narrow.sample(20, torch.Generator().manual_seed(0))
    last = sigmas[sigmas > 0][-1]
    assert last == pytest.approx(0.01, rel=0.02)
    value = log_likelihood(narrow, x, sigmas).value
    torch.testing.assert_close(value, narrow.log_prob(x, last), atol=0.02, rtol=0)
    assert (value - narrow.log_prob(x)).abs().median() > 0.3


def test_hutchinson(gaussian):
    """Unbiased, of rms error 1.2 / sqrt(k) here, and two standard errors cover the exact trace 95 % of the time."""
    data, x, _ = gaussian
    exact, g = log_likelihood(data, x, karras(20)).value, torch.Generator().manual_seed(0)
    for k in (4, 32):
        estimate = log_likelihood(data, x, karras(20), probes=k, generator=g)
        error = estimate.value - exact
        assert error.mean().item() == pytest.approx(0.0, abs=4 * rms(error) / math.sqrt(512))
        assert rms(error) * math.sqrt(k) == pytest.approx(1.2, rel=0.15)
        assert rms(estimate.stderr) == pytest.approx(rms(error), rel=0.15)
    covered = (error.abs() < 2 * estimate.stderr).double().mean().item()  # k = 32
    assert 0.92 < covered < 0.98


def test_normal_probes_are_unbiased_and_noisier(gaussian):
    data, x, _ = gaussian
    exact, g = log_likelihood(data, x, karras(20)).value, torch.Generator().manual_seed(0)
    error = log_likelihood(data, x, karras(20), probes=4, probe="normal", generator=g).value - exact
    assert error.mean().item() == pytest.approx(0.0, abs=4 * rms(error) / math.sqrt(512))
    assert rms(error) * 2 > 2.0


def test_probes_stay_the_same_at_all_levels(gaussian, monkeypatch):
    """Drawn once; and where the Jacobian is diagonal, entries of +-1 have no error at all."""
    from gen_diffusion import likelihood

    drawn, randn_like = [], likelihood.randn_like
    monkeypatch.setattr(likelihood, "randn_like", lambda x, g: drawn.append(x.shape) or randn_like(x, g))
    data, x, _ = gaussian
    log_likelihood(data, x[:5], karras(10), probes=3)
    assert drawn == [(5, 3, 6)]
    round_ = GaussianMixture(torch.ones(1), torch.ones(1, 4), torch.eye(4)[None]).double()
    x = torch.randn(4, 4, dtype=DOUBLE)
    estimate, exact = log_likelihood(round_, x, karras(10), probes=2), log_likelihood(round_, x, karras(10))
    torch.testing.assert_close(estimate.value, exact.value)
    assert estimate.stderr.max() < 1e-12


def test_one_probe_cannot_tell_its_error(gaussian):
    data, x, _ = gaussian
    result = log_likelihood(data, x[:4], karras(10), probes=1)
    assert result.value.isfinite().all() and result.stderr.isnan().all()


def test_a_sample_is_independent_of_the_batch(gaussian):
    """Of its neighbours, and of how many backward passes run at once."""
    data, x, _ = gaussian
    for options in ({}, {"probes": 3}):
        of = lambda i, options=options, **more: log_likelihood(
            data, x[i], karras(10), generator=keyed(0, i), **options, **more
        )
        together, each = of([0, 1, 2, 3, 4, 5]), [of([i], batch=2) for i in range(6)]
        torch.testing.assert_close(together.value, torch.cat([r.value for r in each]))
        torch.testing.assert_close(together.stderr, torch.cat([r.stderr for r in each]))


def test_conditions_reach_the_denoiser():
    """Label c says that the data are N(c, 1), and each sample is judged by its own."""
    denoiser = lambda x, sigma, label: label[:, None] + (x - label[:, None]) / (1 + sigma**2)
    label, x = torch.tensor([0.0, 3.0]).double(), torch.tensor([[0.5], [2.0]]).double()
    result = log_likelihood(denoiser, x, flow(100), label=label)
    torch.testing.assert_close(result.value, Normal(label, 1.0).log_prob(x[:, 0]), atol=1e-3, rtol=0)


def test_trace_through_a_network_with_attention():
    """The vector products of a U-Net's slope, against its Jacobian; nothing is left on the parameters."""
    torch.manual_seed(0)
    net = UNet(channels=1, width=8, multipliers=(1, 2), blocks=1, attention=(1,), num_classes=3)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    net, x = Preconditioned(net, 0.5).double(), torch.randn(2, 1, 4, 4, dtype=DOUBLE)
    f = lambda x: net(x, torch.tensor(0.7, dtype=DOUBLE), label=torch.tensor([0, 2]))
    jacobian = torch.autograd.functional.jacobian(f, x).detach().reshape(2, 16, 2, 16)
    blocks = torch.stack([jacobian[0, :, 0], jacobian[1, :, 1]])
    with torch.no_grad():
        value, trace = _divergence(f, x, None, 5)
        torch.testing.assert_close(trace[:, 0], blocks.diagonal(dim1=1, dim2=2).sum(1))
        torch.testing.assert_close(value, f(x))
        v = torch.randn(2, 3, 1, 4, 4, dtype=DOUBLE)
        along = torch.einsum("bki,bij,bkj->bk", v.flatten(2), blocks, v.flatten(2))
        torch.testing.assert_close(_divergence(f, x, v, 2)[1], along)
    result = log_likelihood(net, x, karras(3), label=torch.tensor([0, 2]))
    assert not result.value.requires_grad and all(p.grad is None for p in net.parameters())


def test_single_precision_is_enough(gaussian):
    data, x, _ = gaussian
    single = log_likelihood(copy.deepcopy(data).float(), x.float(), karras(40))
    assert rms(single.value.double() - log_likelihood(data, x, karras(40)).value) < 1e-3


def test_bits_of_a_density_that_is_even_over_bins():
    """P = 1/2, 1/4, 1/8, 1/8 on four values: 1, 2, 3, 3 bits each, wherever in its bin a value was spread to."""
    low, high, levels = -1.0, 2.0, 4
    values, p = torch.linspace(low, high, levels), torch.tensor([0.5, 0.25, 0.125, 0.125])
    x = values[torch.arange(400) % 4][:, None]
    spread = dequantise(x, levels, low, high, torch.Generator().manual_seed(0))
    edges = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])
    assert edges[0] < spread.min() and spread.max() < edges[-1] and (spread - x).abs().max() > 0.45
    bin_ = torch.bucketize(spread[:, 0], edges) - 1
    assert torch.equal(bin_, torch.arange(400) % 4)
    bits = bits_per_dim((p / (edges.diff()))[bin_].log(), 1, levels, low, high)
    torch.testing.assert_close(bits, torch.tensor([1.0, 2.0, 3.0, 3.0]).repeat(100))
    entropy = -(p * p.log2()).sum()
    torch.testing.assert_close((p * bits[:4]).sum(), entropy)


def test_offset_of_pictures():
    """256 values in [-1, 1]: bits = -nats / (d ln 2) + log2(255 / 2); in [0, 255] there is no offset."""
    nats = torch.tensor([-100.0, 30.0])
    torch.testing.assert_close(bits_per_dim(nats, 64, 256), -nats / (64 * math.log(2)) + math.log2(255 / 2))
    torch.testing.assert_close(bits_per_dim(nats, 64, 256, 0.0, 255.0), -nats / (64 * math.log(2)))


@pytest.mark.parametrize("std", [0.3, 1.0, 3.0])
def test_dequantised_bits_never_beat_the_exact_ones(std):
    """N(0, std^2) rounded to integers: -log2 P(k) exactly; its bound, the mean over a bin, in closed form."""
    k, normal = torch.arange(-5.0, 6.0, dtype=DOUBLE), Normal(torch.zeros(()).double(), std)
    above, below = (torch.special.log_ndtr((edge - k.abs()) / std) for edge in (0.5, -0.5))
    exact = -(above + (-(below - above).exp()).log1p()) / math.log(2)
    x = dequantise(k.repeat(5000, 1), 11, -5.0, 5.0, torch.Generator().manual_seed(0))
    bits = bits_per_dim(normal.log_prob(x), 1, 11, -5.0, 5.0)
    mean, error = bits.mean(0), bits.std(0) / math.sqrt(5000)
    assert (mean > exact - 3 * error).all()
    exact_mean = -normal.log_prob(k) / math.log(2) + 1 / (24 * std**2 * math.log(2))  # E[(k + u)^2] = k^2 + 1 / 12
    assert (exact_mean >= exact).all() and ((mean - exact_mean).abs() < 4 * error).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, x: log_likelihood(d, x, torch.tensor([0.1, 1.0])), "decreasing levels above 0"),
        (lambda d, x: log_likelihood(d, x, torch.tensor([1.0, 0.0])), "decreasing levels above 0"),
        (lambda d, x: log_likelihood(d, x, karras(3), probes=0), "at least 1"),
        (lambda d, x: dequantise(x, 1), "at least 2 levels"),
        (lambda d, x: bits_per_dim(x, 2, 256, 1.0, 1.0), "low < high"),
    ],
)
def test_bad_input_is_one_sentence(gaussian, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(*gaussian[:2])
    assert "\n" not in str(error.value)
