from functools import partial

import pytest
import torch

from gen_core import seed_all
from gen_latent import MLP, VAE, Flow, Gaussian, Level, Mixture, Standard, Vamp, nll
from gen_latent.vae import TopDown


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def perturbed(make):
    """A prior whose parameters are away from where they begin."""
    seed_all(0)
    prior = make().double()
    with torch.no_grad():
        for p in prior.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator(1))
    return prior


def vamp():
    return Vamp(MLP(3, 8, 4).double(), torch.randn(6, 3))


PRIORS = {
    "standard": partial(Standard, 2),
    "mixture": partial(Mixture, 2, 4),
    "vamp": vamp,
    "flow": partial(Flow, 2, 4, 16),
}


@pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS)
def test_a_prior_integrates_to_one_and_its_samples_are_its_own(make):
    """The mean of a sample's log-density is minus the entropy, by quadrature, within 3 standard errors."""
    prior = perturbed(make)
    axis = torch.linspace(-15, 15, 601, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_p = prior.log_prob(z)
        assert log_p.shape == (601**2,)
        p = log_p.exp() * (30 / 600) ** 2
        assert p.sum().item() == pytest.approx(1.0, abs=1e-4)

        sample = prior.sample(20_000, generator())
        assert torch.equal(sample, prior.sample(20_000, generator()))
        values = prior.log_prob(sample)
        assert abs(values.mean() - (p * log_p).sum()) < 3 * values.std() / 20_000**0.5
        mean, error = (p[:, None] * z).sum(0), sample.std(0) / 20_000**0.5
        assert ((sample.mean(0) - mean).abs() < 4 * error).all()


@pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS)
def test_a_prior_takes_any_leading_dimensions(make):
    prior = perturbed(make)
    z = torch.randn(3, 4, 2, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(prior.log_prob(z), torch.stack([prior.log_prob(row) for row in z]))


def test_the_flow_begins_as_the_standard_normal_and_is_invertible():
    z = torch.randn(50, 3, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(Flow(3).double().log_prob(z), Standard(3).log_prob(z))
    flow = perturbed(partial(Flow, 3, 5, 16))
    jacobian = torch.stack([torch.autograd.functional.jacobian(partial(_forward, flow), e) for e in z])
    x = _forward(flow, z)
    exact = Standard(3).log_prob(z) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(flow.log_prob(x), exact)


def _forward(flow, z):
    for i in range(len(flow.nets)):
        log_scale, shift = flow._affine(i, z)
        z = z * log_scale.exp() + shift
    return z


def chain():
    """A hierarchy's prior."""
    seen = torch.nn.Identity()
    return TopDown([Level(1, seen, seen, MLP(1, 8, 2)), Level(1, seen, seen)])


@pytest.mark.parametrize("make", [PRIORS["flow"], vamp, chain], ids=["flow", "vamp", "chain"])
def test_under_autocast_densities_are_computed_in_single_precision(make):
    """Networks may answer in 16 bits: of answers that have no more, the densities are those without autocast."""
    prior, z = perturbed(make).float(), torch.randn(50, 2, generator=generator())
    networks = [prior, prior._encoder[0].float()] if isinstance(prior, Vamp) else [prior]
    for layer in [m for network in networks for m in network.modules() if isinstance(m, torch.nn.Linear)]:
        torch.nn.init.zeros_(layer.weight)
        layer.bias.data = layer.bias.data.bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found, drawn = prior.log_prob(z), prior.sample(50, generator())
    torch.testing.assert_close(found, prior.log_prob(z), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(drawn, prior.sample(50, generator()), rtol=1e-6, atol=1e-6)


def test_a_vamp_prior_of_the_data_is_their_aggregate_posterior():
    """([Tomczak18] eq. 5: the best prior there is), and its gradient reaches encoder and pseudo-inputs."""
    seed_all(0)
    encoder, x = MLP(3, 8, 4), torch.randn(6, 3)
    vae = VAE(encoder, MLP(2, 3), latents=2, prior=Vamp(encoder, x), likelihood=Gaussian())
    z = torch.randn(5, 2)
    each = torch.stack([vae.encode(x[i : i + 1]).log_prob(z) for i in range(6)])
    torch.testing.assert_close(vae.prior.log_prob(z), each.logsumexp(0) - torch.tensor(6.0).log())
    vae.log_weights(x).mean().backward()
    assert vae.prior.inputs.grad.abs().sum() > 0 and encoder[0].weight.grad.abs().sum() > 0
    assert not any(name.startswith("prior.") and "encoder" in name for name in vae.state_dict())


def test_a_mixture_fitted_to_latents_is_a_better_prior_of_them():
    """Two-stage: after training, the aggregate posterior as the prior; the model's likelihood of its data rises."""
    seed_all(0)
    z = torch.cat([torch.randn(300, 2) * 0.2 + torch.tensor(m) for m in ([2.0, 0.0], [-2.0, 1.0])])
    prior = Mixture.fitted(z, 2)
    assert prior.log_prob(z).mean() > Standard(2).log_prob(z).mean() + 1
    from sklearn.mixture import GaussianMixture

    peer = GaussianMixture(2, covariance_type="diag", random_state=0, reg_covar=1e-5).fit(z.double().numpy())
    assert prior.log_prob(z).mean().item() == pytest.approx(peer.score(z.double().numpy()), abs=1e-4)

    vae = VAE(MLP(2, 4), torch.nn.Identity(), latents=2, likelihood=Gaussian(0.1))
    with torch.no_grad():
        vae.encoder[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
        vae.encoder[0].bias.copy_(torch.tensor([0.0, 0.0, -2.3, -2.3]))
    before = nll(vae, z, 200, generator=generator()).mean()
    vae.prior = prior
    assert nll(vae, z, 200, generator=generator()).mean() < before - 0.5
    assert not vae.analytic and vae.sample(4, generator=generator()).shape == (4, 2)


def test_sizes_are_checked():
    for make in (partial(Standard, 0), partial(Mixture, 2, 0), partial(Flow, 1)):
        with pytest.raises(ValueError, match="at least"):
            make()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_mixture_is_fitted_from_any_seed(seed):
    prior = Mixture.fitted(torch.randn(50, 2), 1, seed)
    assert prior.means.shape == (1, 2)
