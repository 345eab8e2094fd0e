from copy import deepcopy
from functools import partial
from math import log, pi
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gen_core import Arrays, Loader, Trainer, seed_all
from gen_core.schedule import warmup_cosine
from gen_core.testing import load
from gen_latent import (
    MLP,
    VAE,
    Bernoulli,
    Categorical,
    ConvDecoder,
    ConvEncoder,
    Gaussian,
    HierarchicalVAE,
    Level,
    VAETask,
    active_units,
    elbo,
    nll,
)

linear = load(Path(__file__).parent / "linear.py")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# ---------------------------------------------------------------------- the linear VAE is probabilistic PCA


@pytest.mark.parametrize("q", [2, 5, 10])
def test_the_best_linear_vae_is_probabilistic_pca(q):
    """Its ELBO is the likelihood of pPCA: .1503, 9.0156, 17.5852 nats by the eigenvalues, and by scikit-learn."""
    from sklearn.decomposition import PCA

    train, test, _, _ = linear.digits()
    vae, known = linear.ppca(train, q), {2: 0.1503, 5: 9.0156, 10: 17.5852}[q]
    bound = linear.exact_elbo(vae, train).mean().item()
    assert bound == pytest.approx(linear.ppca_score(train, q), abs=1e-6)
    assert bound == pytest.approx(known, abs=1e-4)
    assert bound == pytest.approx(PCA(q, svd_solver="full").fit(train.numpy()).score(train.numpy()), abs=1e-3)
    torch.testing.assert_close(linear.exact_elbo(vae, test), linear.log_marginal(vae, test))
    bound_test = linear.exact_elbo(vae, test).mean().item()
    assert bound_test == pytest.approx({2: -0.8590, 5: 8.2069, 10: 16.4504}[q], abs=1e-3)


def test_a_diagonal_posterior_is_only_exact_in_the_principal_axes():
    """With W rotated, 16.8224 instead of 17.5852: a test against pPCA has to use the axes, or to train."""
    train, _, _, _ = linear.digits()
    _, values, _ = linear.spectrum(train)
    vae = linear.ppca(train, 10)
    turn, _ = torch.linalg.qr(randn(10, 10))
    with torch.no_grad():
        vae.decoder.weight.copy_(vae.decoder.weight @ turn)
        vae.encoder.mean.weight.copy_(turn.mT @ vae.encoder.mean.weight)
        vae.encoder.mean.bias.copy_(turn.mT @ vae.encoder.mean.bias)
        precision = 1 + vae.decoder.weight.square().sum(0) / values[10:].mean()
        vae.encoder.log_std.copy_(-precision.log() / 2)  # the best diagonal one
    assert linear.exact_elbo(vae, train).mean().item() < 17.3
    assert linear.log_marginal(vae, train).mean().item() == pytest.approx(17.5852, abs=1e-4)


def test_the_sampled_bound_is_the_exact_one():
    """10,000 draws, at a posterior that is not exact: within 4 standard errors."""
    train, _, _, _ = linear.digits()
    vae = linear.ppca(train, 5)
    with torch.no_grad():
        vae.encoder.log_std += 0.2
        log_w = vae.log_weights(train[:20], 10_000, generator=generator())
        exact = linear.exact_elbo(vae, train[:20])
    assert ((elbo(log_w) - exact).abs() < 4 * log_w.std(0) / 100).all()
    assert (exact < linear.log_marginal(vae, train[:20])).all()


def train_linear(q, steps, *, sigma=None, x=None, **options):
    """The linear VAE from small random weights, by the task and the trainer, on the whole data at once."""
    seed_all(0)
    x = linear.digits()[0] if x is None else x
    vae = linear.linear_vae(x.shape[1], q, sigma or 0.6, learn=sigma is None)
    for layer in (vae.encoder.mean, vae.decoder):
        nn.init.normal_(layer.weight, std=0.1)
    torch.set_default_dtype(torch.float64)
    try:
        schedule = warmup_cosine(0, steps)
        task = VAETask(vae, lr=1e-2, **options)
        Trainer(task, device="cpu", precision="fp32", schedule=schedule).fit(Loader(Arrays(x), len(x)), steps)
    finally:
        torch.set_default_dtype(torch.float32)
    return vae


@pytest.mark.slow
@pytest.mark.parametrize("q", [2, 5, 10])
def test_training_finds_probabilistic_pca(q):
    """From small random weights, sigma learned: within .001 nats of the maximum, and never above it."""
    train, few = linear.digits()[0], linear.alike(linear.digits()[0])
    seed_all(0)
    vae = linear.linear_vae(64, q, 0.6)
    for layer in (vae.encoder.mean, vae.decoder):
        nn.init.normal_(layer.weight, std=0.1)
    options = {"max_iter": 2000, "max_eval": 3000, "history_size": 100, "tolerance_change": 1e-11}
    optimizer = torch.optim.LBFGS(vae.parameters(), line_search_fn="strong_wolfe", **options)

    def closure():
        optimizer.zero_grad()
        loss = -linear.exact_elbo(vae, few).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    gap = linear.ppca_score(train, q) - linear.exact_elbo(vae, train).mean().item()
    print(f"q={q}: gap {gap:.6f} nats")
    assert -1e-6 < gap <= 1e-3


@pytest.mark.slow
def test_the_trainer_finds_it_too():
    """By draws of the latents and gradients that stick the landing, whose noise dies out at the optimum."""
    train, _, _, _ = linear.digits()
    vae = train_linear(2, 2500, objective="dreg")
    assert -1e-6 < linear.ppca_score(train, 2) - linear.exact_elbo(vae, train).mean().item() <= 1e-3


@pytest.mark.parametrize(
    ("beta", "units", "loss"), [(1, 29, 41.407), (4, 14, None), (16, 4, 109.777123), (64, 0, None)]
)
def test_a_linear_beta_vae_keeps_the_directions_above_beta_sigma2(beta, units, loss):
    """Its optimum is that of a VAE with variance beta sigma^2; there the gradient vanishes."""
    train, _, _, _ = linear.digits()
    _, values, _ = linear.spectrum(train)
    vae = linear.ppca(train, 40, beta, sigma2=0.02)
    constant = 64 / 2 * log(2 * pi * 0.02)
    value = -linear.exact_elbo(vae, train, beta).mean() - constant
    k = int((values > beta * 0.02).sum())
    formula = values[k:].sum() / (beta * 0.02) + k + (values[:k] / (beta * 0.02)).log().sum()
    assert k == units and value.item() == pytest.approx(beta / 2 * formula.item(), rel=1e-7)
    assert loss is None or value.item() == pytest.approx(loss, abs=1e-3)
    assert active_units(vae.encode(train).mean, threshold=1e-6) == units
    value.backward()
    assert max(p.grad.abs().max().item() for p in (vae.decoder.weight, vae.encoder.mean.weight)) < 1e-8


@pytest.mark.slow
def test_training_finds_the_active_units_of_the_beta_vae():
    train, _, _, _ = linear.digits()
    vae = train_linear(40, 1500, sigma=0.02**0.5, beta=16.0)
    value = -linear.exact_elbo(vae, train, 16).mean().item() - 32 * log(2 * pi * 0.02)
    print(f"loss {value:.4f}, wanted 109.7771; active {active_units(vae.encode(train).mean)}")
    assert value == pytest.approx(109.777123, rel=1e-3)
    assert active_units(vae.encode(train).mean) == 4


def test_the_optimal_deviation_in_one_line():
    train, _, _, _ = linear.digits()
    vae = linear.ppca(train, 5)
    sigma = vae.likelihood.sigma.item()
    vae.likelihood.fit(1.0)
    z = vae.encode(train).sample(generator())
    vae.likelihood.fit((train - vae.decode(z).mean) ** 2)
    assert vae.likelihood.sigma.item() == pytest.approx(sigma, rel=3e-3)


# ---------------------------------------------------------------------- hierarchies


class Linear(nn.Module):
    """x -> (W x + c, constant log deviations)."""

    def __init__(self, weight, bias, std):
        super().__init__()
        self.weight, self.bias, self.log_std = nn.Buffer(weight), nn.Buffer(bias), nn.Buffer(std.log())

    def forward(self, x):
        return torch.cat([x @ self.weight.mT + self.bias, self.log_std.expand(len(x), -1)], 1)


def two_levels(wrong=0.0):
    """z2 ~ N(0, I), z1 ~ N(a z2 + c, s1^2), x ~ N(W z1 + b, s^2), W with orthogonal columns, its exact posterior.

    So each pair of coordinates is a chain of its own, and posteriors of independent coordinates are exact.
    """
    a, s1, s = torch.tensor([0.8, -1.5]).double(), torch.tensor([0.5, 0.9]).double(), 0.3
    c, b = torch.tensor([0.2, -0.4]).double(), randn(5, seed=1)
    w, _ = torch.linalg.qr(randn(5, 2))
    w = w * torch.tensor([1.3, 0.6], dtype=torch.float64)
    gain = (w**2).sum(0)  # W'x is sufficient: W'(x - b) = gain z1 + noise of variance gain s^2

    v = s1**2 + s**2 / gain  # of W'(x - b) / gain, given z2
    std2 = (1 / (1 + a**2 / v)).sqrt()
    top = Linear(std2[:, None] ** 2 * (a / v)[:, None] * w.mT / gain[:, None], torch.zeros(2).double(), std2)
    top.bias.copy_(-top.weight @ b - std2**2 * a / v * c)
    std1 = (1 / (1 / s1**2 + gain / s**2)).sqrt()
    from_x = std1[:, None] ** 2 * w.mT / s**2
    from_z = torch.diag(std1**2 / s1**2 * a)
    bottom = Linear(torch.cat([from_x, from_z], 1), -from_x @ b + std1**2 / s1**2 * c, std1 * (1 + wrong))

    levels = [Level(2, nn.Identity(), bottom, Linear(torch.diag(a), c, s1)), Level(2, nn.Identity(), top)]
    decoder = nn.Linear(2, 5).double()
    with torch.no_grad():
        decoder.weight.copy_(w)
        decoder.bias.copy_(b)
    vae = HierarchicalVAE(levels, decoder, likelihood=Gaussian(learn=False)).double()
    vae.likelihood.fit(s**2)
    inner = torch.diag(a**2 + s1**2)
    cov = w @ inner @ w.mT + s**2 * torch.eye(5).double()
    return vae, torch.distributions.MultivariateNormal(w @ c + b, cov)


def test_a_hierarchy_with_the_exact_posterior_has_weights_without_variance():
    """All equal to the marginal likelihood, which is Gaussian."""
    vae, marginal = two_levels()
    x = marginal.sample((6,))
    for k in (1, 6, 20):
        log_w = vae.log_weights(x, k, generator=generator())
        torch.testing.assert_close(log_w, marginal.log_prob(x).expand(k, -1), rtol=0, atol=1e-10)


def test_a_hierarchy_with_another_posterior_loses_its_kl():
    """A deviation 1.2 times too large costs (1.44 - 1 - ln 1.44) / 2 nats for each of two latents."""
    vae, marginal = two_levels(0.2)
    x = marginal.sample((4,))
    log_w = vae.log_weights(x, 20_000, generator=generator())
    gap = marginal.log_prob(x) - elbo(log_w)
    assert ((gap - (0.44 - log(1.44))).abs() < 4 * log_w.std(0) / 20_000**0.5).all()


def test_a_hierarchy_samples_its_marginal_and_reconstructs():
    vae, marginal = two_levels()
    x = vae.sample(40_000, generator=generator(), noise=True)
    assert (x.mean(0) - marginal.mean).abs().max() < 0.04
    assert (x.mT.cov() - marginal.covariance_matrix).abs().max() < 0.06
    assert torch.equal(vae.sample(3, generator=generator(1)), vae.sample(3, generator=generator(1)))
    y = marginal.sample((500,))
    assert (vae.reconstruct(y) - y).square().mean() < 0.3**2
    assert vae.encode(y).mean.shape == (500, 4)
    with pytest.raises(ValueError, match="standard normal prior only"):
        vae.kl(y)


def test_a_hierarchy_draws_batched_as_it_draws_alone():
    seed_all(0)
    levels = [Level(3, MLP(6, 8, 8), MLP(8 + 2, 8, 6), MLP(2, 8, 6)), Level(2, MLP(8, 8, 5), MLP(5, 8, 4))]
    vae = HierarchicalVAE(levels, MLP(3, 8, 6), likelihood=Gaussian(0.5)).double()
    x = randn(4, 6)
    for k in (4, 3):
        noise = randn(k, 4, 5, seed=1)
        whole = vae.log_weights(x, k, noise=noise)
        alone = [
            vae.log_weights(x[i : i + 1], 1, noise=noise[j : j + 1, i : i + 1]) for j in range(k) for i in range(4)
        ]
        torch.testing.assert_close(whole, torch.cat(alone, 1).reshape(k, 4))
        z, log_q = vae.infer(x, k, noise=noise)
        torch.testing.assert_close(vae.log_joint(x, z) - log_q, whole)


def test_a_hierarchy_sticks_the_landing():
    """d ln q / d ln std is -1 along a draw m + std e; with q held constant it is -e^2, e being in the draw alone."""
    seed_all(0)
    levels = [Level(3, MLP(6, 8, 8), MLP(8 + 2, 8, 6), MLP(2, 8, 6)), Level(2, MLP(8, 8, 5), MLP(5, 8, 4))]
    vae = HierarchicalVAE(levels, MLP(3, 8, 6), likelihood=Gaussian(0.5)).double()
    x, noise, bias = randn(4, 6), randn(1, 4, 5, seed=1), levels[0].posterior[-1].bias
    for stop, slope in ((False, -torch.ones(3).double() * 4), (True, -noise[0, :, 2:].square().sum(0))):
        _, log_q = vae.infer(x, noise=noise, stop=stop)
        (grad,) = torch.autograd.grad(log_q.sum(), bias)
        torch.testing.assert_close(grad[3:], slope)


def test_a_hierarchy_is_checked_when_it_is_made():
    level = Level(2, nn.Identity(), nn.Linear(3, 4))
    with pytest.raises(ValueError, match="a prior at each level but the top one"):
        HierarchicalVAE([level, level], nn.Linear(2, 3))


# ---------------------------------------------------------------------- conditions, likelihoods, mistakes


def conditional(likelihood=Bernoulli):
    return VAE(MLP(64, 32, 8, classes=10), MLP(4, 32, 64, classes=10), latents=4, likelihood=likelihood)


def test_a_conditional_model_follows_its_labels_sample_by_sample():
    seed_all(0)
    vae = conditional().double()
    x, label, noise = (randn(5, 64) > 0).double(), torch.tensor([3, 1, 4, 1, 5]), randn(5, 5, 4)
    whole = vae.log_weights(x, 5, noise=noise, label=label)
    for i in range(5):
        row = vae.log_weights(x[i : i + 1], 5, noise=noise[:, i : i + 1], label=label[i : i + 1])
        torch.testing.assert_close(row, whole[:, i : i + 1])
    other = vae.log_weights(x, 5, noise=noise, label=(label + 1) % 10)
    assert (other != whole).all()
    assert nll(vae, x, 10, label=label).shape == (5,)
    assert vae.sample(5, label=label, generator=generator()).shape == (5, 64)
    assert vae.reconstruct(x, label=label).shape == (5, 64)


def test_a_conditional_hierarchy_infers_and_decodes_by_the_label():
    """Sample by sample; the posteriors see the label too, not the decoder alone."""
    seed_all(0)
    level = lambda d, up, seen, prior=None: Level(d, up, MLP(seen, 8, 2 * d, classes=3), prior)
    levels = [level(3, MLP(6, 8), 8 + 2, MLP(2, 6)), level(2, MLP(8, 5), 5)]
    vae = HierarchicalVAE(levels, MLP(3, 8, 6, classes=3), likelihood=Gaussian(0.5)).double()
    x, label, noise = randn(4, 6), torch.tensor([0, 2, 1, 2]), randn(4, 4, 5, seed=1)
    whole = vae.log_weights(x, 4, noise=noise, label=label)
    for i in range(4):
        alone = vae.log_weights(x[i : i + 1], 4, noise=noise[:, i : i + 1], label=label[i : i + 1])
        torch.testing.assert_close(alone, whole[:, i : i + 1])
    assert (vae.encode(x, label=label).mean != vae.encode(x, label=(label + 1) % 3).mean).any(1).all()
    with pytest.raises(ValueError, match="3 classes and needs a label"):
        vae.infer(x)


def test_likelihoods_with_options_are_checked_too():
    vae = VAE(MLP(4, 4), MLP(2, (20, 1)), latents=2, likelihood=partial(Categorical, levels=5))
    vae.check(torch.tensor([[-1.0, -0.5, 0.0, 1.0]]))
    with pytest.raises(ValueError, match="5 levels from -1 to 1"):
        vae.check(torch.tensor([[0.1, 0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("shape", [(5, 3, 4), (2, 3, 1)])
def test_noise_that_is_not_k_draws_of_each_sample_is_refused(shape):
    with pytest.raises(ValueError, match=r"noise for k=2 draws of 3 samples has shape \(2, 3, 4\), got "):
        VAE(MLP(6, 8), MLP(4, 6), latents=4).log_weights(torch.zeros(3, 6), 2, noise=torch.zeros(shape))


def test_what_cannot_work_is_said_in_one_sentence():
    with pytest.raises(ValueError, match="at least one dimension, got latents=0"):
        VAE(MLP(4, 8, 2), MLP(1, 4), latents=0)
    with pytest.raises(ValueError, match=r"answers for latents \(4,\), built for 1"):
        VAE(MLP(4, 8), MLP(1, 4), latents=1).log_weights(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="at least one draw of the latents, got k=0"):
        VAE(MLP(4, 8), MLP(4, 4), latents=4).log_weights(torch.zeros(3, 4), 0)
    with pytest.raises(ValueError, match="10 classes and needs a label"):
        conditional().log_weights(torch.zeros(3, 64))
    with pytest.raises(ValueError, match="lacks conditions"):
        VAETask(conditional(), conditions=("label",)).evaluate(torch.zeros(3, 64))
    with pytest.raises(ValueError, match="give the decoder the shape of the data"):
        VAE(MLP((2, 2), 8), MLP(4, 2), latents=4, likelihood=Gaussian()).log_weights(torch.zeros(2, 2, 2))


def test_the_convolutional_networks_fit_together_and_see_each_picture_alone():
    seed_all(0)
    vae = VAE(ConvEncoder(3, 16, 10, 8), ConvDecoder(3, 16, 5, 8), latents=5, likelihood=Gaussian())
    x = torch.randn(3, 3, 16, 16, generator=generator())
    noise = torch.randn(2, 3, 5, generator=generator())
    log_w = vae.log_weights(x, 2, noise=noise)
    assert log_w.shape == (2, 3)
    torch.testing.assert_close(vae.log_weights(x[1:2], 2, noise=noise[:, 1:2]), log_w[:, 1:2], rtol=1e-4, atol=1e-3)
    assert ConvDecoder(1, 28, 5, 8)(ConvEncoder(1, 28, 5, 8)(torch.zeros(2, 1, 28, 28))).shape == (2, 1, 28, 28)
    assert ConvDecoder(3, 16, 5, 8, spatial=1)(ConvEncoder(3, 16, 5, 8, spatial=1)(x)).shape == x.shape
    assert ConvEncoder(3, 16, 5, 8, spatial=1)(x).shape == (3, 5, 8, 8)
    with pytest.raises(ValueError, match="25 pixels cannot be halved"):
        ConvEncoder(3, 25, 5)
    for make in (ConvEncoder, ConvDecoder):
        with pytest.raises(ValueError, match="18 pixels cannot be halved 2 times"):
            make(3, 18, 5, spatial=2)
        with pytest.raises(ValueError, match="classes=10 are for networks of vectors"):
            make(3, 16, 5, spatial=2, classes=10)


def test_a_copy_is_a_model_of_its_own():
    """As an averaged one is: a prior that looks at the encoder must look at the copy's."""
    from gen_latent import Vamp

    encoder = MLP(3, 4)
    vae = VAE(encoder, MLP(2, 3), latents=2, prior=Vamp(encoder, torch.randn(5, 3)), likelihood=Gaussian())
    assert len(list(vae.prior.parameters())) == 2
    twin, z = deepcopy(vae), torch.randn(4, 2)
    nn.init.zeros_(twin.encoder[0].weight)
    assert not torch.allclose(twin.prior.log_prob(z), vae.prior.log_prob(z))
    nn.init.zeros_(vae.encoder[0].weight)
    assert torch.allclose(twin.prior.log_prob(z), vae.prior.log_prob(z))


@pytest.mark.slow
def test_conditional_samples_are_of_their_class():
    """By a classifier of real digits: at least nine in ten."""
    from sklearn.svm import SVC

    train, _, y, _ = linear.digits(torch.float32)
    seed_all(0)
    encoder, decoder = MLP(64, 128, 128, 16, classes=10), MLP(8, 128, 128, 64, classes=10)
    vae = VAE(encoder, decoder, latents=8, likelihood=Gaussian(0.3))
    task = VAETask(vae, conditions=("label",), lr=2e-3)
    Trainer(task, device="cpu", precision="fp32", schedule=warmup_cosine(0, 1000)).fit(
        Loader(Arrays(train, y), 100), 1000
    )
    label = torch.arange(10).repeat(50)
    right = np.mean(SVC().fit(train, y).predict(vae.sample(500, generator=generator(), label=label)) == label.numpy())
    print(f"{right:.3f} of conditional samples are of their class")
    assert right >= 0.9
