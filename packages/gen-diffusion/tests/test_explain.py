"""What a sampler costs, where its samples walk, and how far a denoiser is from the exact one."""

import pytest
import torch

from gen_diffusion import GaussianMixture, ancestral, cfg, euler, grid_mixture, heun, karras, log_normal, sample
from gen_diffusion.explain import Counted, evaluations, excess_loss, log_density_gap, most_steps, score, trajectory


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(std: float, dim: int = 2) -> GaussianMixture:
    return GaussianMixture(torch.ones(1), torch.zeros(1, dim), std**2 * torch.eye(dim)[None])


def test_evaluations_are_counted_per_sample_through_guidance_and_batches():
    """18 levels: Euler asks once a step, Heun twice but for the last; guidance asks both branches."""
    assert evaluations(euler, karras(18)) == 18 and evaluations(heun, karras(18)) == 35
    counted = Counted(gaussian(0.5))
    sample(cfg(lambda x, sigma, **_: counted(x, sigma), 2.0), torch.randn(5, 2), karras(4), heun, label=torch.zeros(5))
    assert counted.evaluations == 5 * 2 * 7
    assert most_steps(35, lambda n: evaluations(heun, karras(n))) == 18
    assert most_steps(34, lambda n: evaluations(heun, karras(n))) == 17
    assert most_steps(2, lambda n: evaluations(heun, karras(n))) is None


@pytest.mark.parametrize("step", [heun, ancestral()])
def test_a_trajectory_begins_at_the_noise_and_ends_at_the_sample(step):
    x, sigmas = 80 * torch.randn(3, 2, generator=generator()), karras(5)
    states = trajectory(gaussian(0.5), x, sigmas, step, generator=generator(1))
    assert states.shape == (6, 3, 2) and torch.equal(states[0], x)
    assert torch.equal(states[-1], sample(gaussian(0.5), x, sigmas, step, generator=generator(1)))


def test_the_score_is_the_gradient_of_the_log_density():
    mixture = grid_mixture()
    x = torch.randn(2, 2, generator=generator(), requires_grad=True)  # as many samples as dimensions
    for sigma in (0.3, torch.tensor([0.1, 1.0])):
        (gradient,) = torch.autograd.grad(mixture.log_prob(x, sigma).sum(), x)
        torch.testing.assert_close(score(mixture, x.detach(), torch.as_tensor(sigma)), gradient, rtol=1e-3, atol=1e-3)


def test_a_denoising_loss_is_the_floor_and_the_excess():
    """E w|D - x0|^2 = E w|D* - x0|^2 + E w|D - D*|^2, whatever D is: the exact error is orthogonal to all of them."""
    exact, wrong, n = gaussian(0.5), gaussian(0.8), 200_000
    x0, sigma = exact.sample(n, generator()), log_normal(torch.randn(n, generator=generator(1)))
    noise = torch.randn(n, 2, generator=generator(2))
    parts = excess_loss(wrong, exact, x0, sigma, noise)
    whole = excess_loss(exact, wrong, x0, sigma, noise).floor  # the loss of `wrong` itself
    assert parts.excess.mean() > 0.05
    assert whole.mean().item() == pytest.approx((parts.floor + parts.excess).mean().item(), rel=5e-3)
    assert excess_loss(exact, exact, x0, sigma, noise).excess.max() == 0
    assert parts.floor.mean().item() == pytest.approx(1.0, rel=1e-2)  # EDM's weight makes it 1 for Gaussian data


def test_the_log_density_gap_of_a_wider_gaussian_is_known():
    """Samples of variance (1 + e) s^2 in d dimensions lose d e / 2 nats."""
    exact, n = gaussian(0.5, dim=3), 50_000
    gap, error = log_density_gap(exact, exact.sample(n, generator(3)), generator(4))
    assert abs(gap) < 4 * error < 0.1
    gap, error = log_density_gap(exact, 1.2**0.5 * exact.sample(n, generator(3)), generator(4))
    assert gap == pytest.approx(0.3, abs=4 * error)
