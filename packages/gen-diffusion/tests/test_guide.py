"""Guidance on centred Gaussians of variance vc and vu has closed forms: the ODE ends at variance vc^w vu^(1-w).

(Not at the variance of the tilted density p_c^w p_u^(1-w), which is what one may expect.)
"""

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad, solve_ivp

from gen_diffusion import GaussianMixture, cfg, drop, interval, karras, sample
from gen_diffusion.guide import autoguide, clamp_linear, classifier, constant, cosine, linear
from gen_diffusion.sample import ancestral
from gen_diffusion.schedule import vp_sigma

DOUBLE = torch.float64


def gaussian(v):
    """The denoiser of N(0, v)."""

    def denoiser(x, sigma, **_):
        s = torch.as_tensor(sigma, dtype=x.dtype)
        return x * v / (v + s.reshape(s.shape + (1,) * (x.ndim - 1) * s.ndim) ** 2)

    return denoiser


def pair(vc, vu):
    """A denoiser of N(0, vc) for label 1, of N(0, vu) without a label; it counts its calls."""

    def denoiser(x, sigma, label=None):
        denoiser.calls.append(label is not None)
        return gaussian(vu if label is None else vc)(x, sigma)

    denoiser.calls = []
    return denoiser


def variance_at_0(denoiser, vc, n=400):
    """Start at the conditional density's own standard deviation; the ODE only scales x."""
    sigmas = karras(n, 0.002, 1000.0)
    x = (vc + sigmas[0] ** 2).sqrt() * torch.ones(1, 1, dtype=DOUBLE)
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


WEIGHTS = {
    "constant": constant(2.5),
    "linear": linear(2.5),
    "cosine": cosine(2.5),
    "clamp_linear": clamp_linear(2.5, low=1.8),
    "interval": interval(2.5, 0.25, 4.0),
    "flow time": linear(2.5, time=lambda s: s / (1 + s)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_guided_variance_of_any_weight(name):
    """vc exp(-2 int (w - 1) s [1 / (vc + s^2) - 1 / (vu + s^2)] ds), by quadrature."""
    vc, vu, w = 1.0, 2.0, WEIGHTS[name]
    rate = lambda s: (w(torch.tensor(s, dtype=DOUBLE)).item() - 1) * s * (1 / (vc + s**2) - 1 / (vu + s**2))
    edges = [0.0, 0.25, 1.0, 4.0, 30.0, 1000.0]  # the interval's own among them
    integral = sum(quad(rate, a, b, limit=200)[0] for a, b in pairwise(edges))
    tolerance = 0.01 if name == "interval" else 1e-3  # a step in w leaves the solver at first order
    assert variance_at_0(cfg(pair(vc, vu), w), vc) == pytest.approx(vc * math.exp(-2 * integral), rel=tolerance)


@pytest.mark.parametrize(
    ("vc", "vu", "w", "golden"), [(1, 2, 3.0, 0.3875), (1, 4, 2.0, 0.4375), (0.25, 1, 2.0, 0.1094)]
)
def test_guided_variance_of_the_reverse_sde(vc, vu, w, golden):
    """With l = sigma^2, going down: dv = -(2 v (w / (vc + l) + (1 - w) / (vu + l)) - 1) (-dl).

    The ancestral sampler is linear in its start and in the noise of each step: row 0 carries the start, row j the
    noise of step j, each of unit size, and their squares add up. It is of first order, so two runs extrapolate.
    """
    pull = lambda l: w / (vc + l) + (1 - w) / (vu + l)
    rate = lambda u, v: (2 * v * pull(math.exp(u)) - 1) * math.exp(u)  # dv / d(ln l)
    exact = solve_ivp(rate, (math.log(1e6), -30.0), [vc + 1e6], rtol=1e-10).y[0, -1]
    assert exact == pytest.approx(golden, abs=1e-4)
    guided, step = cfg(pair(vc, vu), w), ancestral("small")
    denoise = lambda x, sigma: guided(x, sigma, label=torch.ones(len(x), dtype=torch.long))

    def variance(n):
        sigmas, unit = karras(n, 0.002, 1000.0), torch.eye(n + 1, dtype=DOUBLE)
        x = unit[:, :1] * (vc + sigmas[0] ** 2).sqrt()
        for j in range(n):
            noise = lambda _, j=j: unit[:, j + 1 : j + 2]
            x, _ = step(denoise, x, sigmas[j], sigmas[j + 1], steps=n, randn_like=noise, last=None)
        return x.square().sum().item()

    assert 2 * variance(800) - variance(400) == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize("make", [linear, cosine])
def test_mean_weight_over_time(make):
    """Midpoints of the variance-preserving time; the mean is the weight, as the paper normalises it."""
    t = (torch.arange(1000, dtype=DOUBLE) + 0.5) / 1000
    weights = make(3.0)(vp_sigma(t))
    assert weights.mean().item() == pytest.approx(3.0, abs=1e-6)
    assert (weights.diff() < 0).all()  # more guidance the closer to the data
    theirs = {linear: 2 * 2.0 * (1 - t), cosine: 2.0 * (1 - (math.pi * (1 - t)).cos())}[make]  # of mean w0 = 2
    torch.testing.assert_close(weights - 1, theirs)


def test_clamp_linear_is_the_maximum_of_the_two():
    t = torch.linspace(0, 1, 11, dtype=DOUBLE)
    theirs = torch.maximum(torch.tensor(0.7, dtype=DOUBLE), 2 * 2.0 * (1 - t))
    torch.testing.assert_close(clamp_linear(3.0, low=1.7)(vp_sigma(t)) - 1, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_at_the_ends_of_the_axis(dtype):
    """Exactly: 2 w - 1 at the data and 1 at pure noise, where t = 0 and 1."""
    ends = torch.tensor([0.0, math.inf], dtype=dtype)
    for weight in (linear(3.0), cosine(3.0), clamp_linear(3.0, low=0.5)):
        assert weight(ends).tolist() == [5.0, 1.0] and weight(ends).dtype == dtype
        assert weight(0.0).item() == 5.0
    assert clamp_linear(3.0, low=1.5)(ends).tolist() == [5.0, 1.5]
    assert interval(3.0, 1.0, math.inf)(ends).tolist() == [1.0, 3.0]


def test_weights_0_and_1_are_the_denoisers_themselves():
    """Bit for bit, and at the price of one call."""
    d, x, sigma, label = pair(0.3, 1.1), torch.randn(5, 5), torch.tensor(0.7), torch.ones(5, dtype=torch.long)
    for w in (1.0, lambda sigma: torch.ones_like(sigma), lambda sigma: 1.0):
        d.calls.clear()
        assert torch.equal(cfg(d, w)(x, sigma, label=label), d(x, sigma, label=label))
        assert d.calls == [True, True]
    d.calls.clear()
    assert torch.equal(cfg(d, 0.0)(x, sigma, label=label), d(x, sigma))
    assert d.calls == [False, False]


def test_autoguidance():
    """weak + w (D - weak), with both told the label; one call where the weight is 0 or 1."""
    good, weak = pair(0.3, 1.1), pair(0.5, 2.0)
    x, label, sigma = torch.randn(4, 4), torch.ones(4, dtype=torch.long), torch.tensor(0.7)
    g, w = good(x, sigma, label=label), weak(x, sigma, label=label)
    torch.testing.assert_close(autoguide(good, weak, 2.5)(x, sigma, label=label), w + 2.5 * (g - w))
    good.calls.clear(), weak.calls.clear()
    assert torch.equal(autoguide(good, weak, 1.0)(x, sigma, label=label), g) and not weak.calls
    assert torch.equal(autoguide(good, weak, 0.0)(x, sigma, label=label), w) and good.calls == [True]
    assert variance_at_0(autoguide(gaussian(1.0), gaussian(2.0), 3.0), 1.0) == pytest.approx(0.25, rel=1e-3)


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


def components():
    """Four components in three dimensions, two of each class, and the exact classifier ln p(c | x; sigma)."""
    g = torch.Generator().manual_seed(0)
    roots = torch.randn(4, 3, 3, generator=g, dtype=DOUBLE)
    parts = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=DOUBLE), 2 * torch.randn(4, 3, generator=g, dtype=DOUBLE)
    weights, means, covs = *parts, roots @ roots.mT + 0.1 * torch.eye(3)
    whole = GaussianMixture(weights, means, covs)
    classes = [GaussianMixture(weights[c::2], means[c::2], covs[c::2]) for c in (0, 1)]
    prior = torch.stack([weights[0::2].sum(), weights[1::2].sum()]).log()

    def log_prob(x, sigma, label):
        joint = torch.stack([p.log_prob(x, sigma) for p in classes], 1) + prior
        return joint.log_softmax(1).gather(1, label[:, None])[:, 0]

    return whole, classes, log_prob


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0, 80.0])
@pytest.mark.parametrize("b", [3, 5])
def test_exact_classifier_of_weight_1_makes_the_conditional_denoiser(sigma, b):
    """To rounding: sigma^2 grad ln p(c | x) is a difference of gradients of the size of x / sigma^2."""
    whole, classes, log_prob = components()
    x = (2 + sigma) * torch.randn(b, 3, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    label = torch.arange(b) % 2
    exact = torch.stack(
        [classes[c](x[i : i + 1], torch.tensor(sigma, dtype=DOUBLE))[0] for i, c in enumerate(label.tolist())]
    )
    each = torch.full((b,), sigma, dtype=DOUBLE)
    with torch.no_grad():
        for level in (each[0], each):
            guided = classifier(whole, log_prob)(x, level, label=label)
            torch.testing.assert_close(guided, exact, rtol=0, atol=1e-12 * (1 + sigma))
            assert not guided.requires_grad


def test_classifier_guidance_in_the_sampler():
    """The same samples as from the conditional denoiser, drawn under no_grad; a parameter gets no gradient."""
    whole, classes, log_prob = components()
    temperature = torch.ones((), dtype=DOUBLE, requires_grad=True)
    sigmas = karras(12)
    x = sigmas[0] * torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    guided = classifier(whole, lambda x, sigma, label: temperature * log_prob(x, sigma, label))
    samples = sample(guided, x, sigmas, label=torch.ones(4, dtype=torch.long))
    torch.testing.assert_close(samples, sample(classes[1], x, sigmas), rtol=0, atol=1e-9)
    assert not samples.requires_grad and temperature.grad is None


def test_classifier_weight_is_per_sample_and_free_at_0():
    whole, _, log_prob = components()
    x, label = torch.randn(3, 3, dtype=DOUBLE), torch.tensor([0, 1, 1])
    sigma, weight = torch.tensor([0.2, 1.0, 3.0], dtype=DOUBLE), torch.tensor([0.0, 1.0, 2.5], dtype=DOUBLE)
    guided = classifier(whole, log_prob, lambda sigma: weight)(x, sigma, label=label)
    shift = classifier(whole, log_prob)(x, sigma, label=label) - whole(x, sigma)
    torch.testing.assert_close(guided, whole(x, sigma) + weight[:, None] * shift)
    refuse = lambda *_, **__: pytest.fail("the classifier was asked")
    outside = classifier(whole, refuse, lambda sigma: interval(1.0, 0.1, 0.5)(sigma) - 1)
    assert torch.equal(outside(x, torch.tensor(3.0, dtype=DOUBLE)), whole(x, torch.tensor(3.0)))


def test_classifier_guidance_can_be_differentiated():
    """As posterior samplers and likelihoods do: its Jacobian is that of the conditional denoiser."""
    whole, classes, log_prob = components()
    x, sigma = torch.randn(1, 3, dtype=DOUBLE), torch.tensor(0.8, dtype=DOUBLE)
    guided = lambda x: classifier(whole, log_prob)(x, sigma, label=torch.tensor([1]))
    exact = torch.func.jacrev(lambda x: classes[1](x, sigma))(x)
    torch.testing.assert_close(torch.func.jacrev(guided)(x), exact, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.autograd.functional.jacobian(guided, x), exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize("view", ["eps", "v"])
@pytest.mark.parametrize("b", [3, 5])
def test_guidance_is_the_same_in_every_view(view, b):
    """The mixture of x0 is the mixture of eps and of v, because all are affine in each other (batch == width too)."""
    x, sigma, label = (
        torch.randn(b, 3, dtype=DOUBLE),
        0.3 + torch.rand(b, dtype=DOUBLE),
        torch.ones(b, dtype=torch.long),
    )
    d, s, w = pair(0.3, 1.1), sigma[:, None], 3.0
    alpha = 1 / (1 + s**2).sqrt()
    to = {"eps": lambda x0: (x - x0) / s, "v": lambda x0: alpha * (x - x0) / s - s * alpha * x0}[view]
    back = {"eps": lambda eps: x - s * eps, "v": lambda v: (alpha * x - s * v) * alpha}[view]
    c, u = to(d(x, sigma, label=label)), to(d(x, sigma))
    torch.testing.assert_close(back(w * c + (1 - w) * u), cfg(d, w)(x, sigma, label=label))


def test_numbers_are_levels_too():
    """A float, a tensor without dimensions and one level per sample are the same level, in double precision."""
    d, x, label = pair(0.3, 1.1), torch.randn(4, 4, dtype=DOUBLE), torch.ones(4, dtype=torch.long)
    for weight in (1.7, linear(1.7), interval(1.7, 0.1, 2.0)):
        for guided in (cfg(d, weight), autoguide(d, gaussian(3.0), weight)):
            number = guided(x, 0.3, label=label)
            for sigma in (torch.tensor(0.3, dtype=DOUBLE), torch.full((4,), 0.3, dtype=DOUBLE)):
                torch.testing.assert_close(guided(x, sigma, label=label), number, rtol=1e-14, atol=0)


def test_null_conditions_are_passed_on():
    """A denoiser with a null label of its own, as other libraries' have."""
    d = lambda x, sigma, label: x * label[:, None]
    guided = cfg(d, 3.0, null={"label": torch.tensor([10, 10])})
    x = torch.ones(2, 1)
    assert guided(x, torch.tensor(1.0), label=torch.tensor([2, 4])).flatten().tolist() == [10 - 3 * 8, 10 - 3 * 6]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: interval(2.0, -0.1, 1.0), "0 <= low < high"),
        (lambda: interval(2.0, 1.0, 1.0), "0 <= low < high"),
        (lambda: interval(math.nan, 0.0, 1.0), "must be finite"),
        (lambda: clamp_linear(2.0, -1.0), "cannot be negative"),
        (lambda: linear(math.inf), "must be finite"),
        (lambda: cosine(math.nan), "must be finite"),
        (lambda: cfg(gaussian(1.0), math.nan), "must be finite"),
        (lambda: autoguide(gaussian(1.0), gaussian(2.0), math.inf), "must be finite"),
        (lambda: classifier(gaussian(1.0), gaussian(1.0), math.inf), "must be finite"),
        (lambda: classifier(gaussian(1.0), gaussian(1.0))(torch.ones(1, 1), math.inf), "finite noise level"),
    ],
)
def test_bad_input_is_one_sentence(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_drop_is_per_sample_and_leaves_class_0_alone():
    """The null class takes the chosen samples only, and is not the index of a class."""
    label = torch.arange(10).repeat(100)
    dropped = torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.3
    new = drop(label, dropped, null=10)
    assert torch.equal(new == 10, dropped) and torch.equal(new[~dropped], label[~dropped])


def test_share_of_dropped_samples_is_binomial():
    """Over batches of 40 at p = 0.3: the mean B p and the variance B p (1 - p), which a drop per batch has B-fold."""
    B, p, n = 40, 0.3, 4000
    g = torch.Generator().manual_seed(1)
    counts = [
        (drop(torch.zeros(B, dtype=torch.long), torch.rand(B, generator=g) < p, null=7) == 7).sum() for _ in range(n)
    ]
    counts = torch.stack(counts).double()
    assert counts.mean().item() == pytest.approx(B * p, abs=4 * math.sqrt(B * p * (1 - p) / n))
    assert counts.var().item() == pytest.approx(B * p * (1 - p), rel=4 * math.sqrt(2 / n))


@pytest.mark.parametrize(
    "value",
    [torch.ones(3, 3, dtype=torch.long), torch.ones(3, 5, dtype=torch.bool), torch.ones(3, 2, 4, 4)],
    ids=["text", "mask", "picture"],
)
def test_drop_takes_whole_rows(value):
    """Batch == width among them: a row goes entirely, with whatever it holds, and the type stays."""
    dropped = torch.tensor([False, True, False])
    new = drop(value, dropped, null=0)
    assert new.dtype == value.dtype and new[1].eq(0).all() and torch.equal(new[[0, 2]], value[[0, 2]])
    assert value.all()  # the batch itself is as it was


def test_both_branches_are_told_what_is_kept():
    """A mask reaches the unconditional branch with its rows, in any batch; the label does not."""
    seen = []
    denoiser = lambda x, sigma, **cond: seen.append(cond) or x
    mask, label = torch.ones(3, 2), torch.arange(3)
    cfg(denoiser, 1.5, keep=("mask",))(torch.zeros(3, 2), 1.0, mask=mask, label=label)
    assert [sorted(cond) for cond in seen] == [["mask"], ["label", "mask"]] and seen[0]["mask"] is mask
