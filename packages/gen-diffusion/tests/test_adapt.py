"""Networks of other conventions, made from an exact denoiser by their own papers' formulas, are that denoiser again."""

import math

import pytest
import torch

from gen_diffusion import (
    GaussianMixture,
    discrete,
    euler,
    flow,
    from_eps,
    from_score,
    from_v,
    from_velocity,
    from_x0,
    linear_betas,
    sample,
    vp_time,
    zero_terminal_snr,
)
from gen_diffusion.schedule import ddpm, vp_sigma

MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[1.0, -1.0, 0.0], [0.5, 2.0, 1.0]], dtype=torch.float64),
    0.3 * torch.eye(3, dtype=torch.float64).expand(2, 3, 3),
)
ABAR = (1 - linear_betas(1000)).cumprod(0)
X = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # batch == width
SIGMA = torch.tensor([0.02, 1.0, 40.0], dtype=torch.float64)


def ddpm_net(view):
    """A network over (x_t, t) for x_t = sqrt(abar) x0 + sqrt(1 - abar) n, t discrete and possibly between two times."""

    def net(x_t, t):
        low = t.long().clamp(max=998)
        log_level = (1 / ABAR - 1).sqrt().log()
        sigma = torch.lerp(log_level[low], log_level[low + 1], t - low).exp()
        abar = (1 / (1 + sigma**2))[:, None]
        x0 = MIXTURE(x_t / abar.sqrt(), sigma)
        eps = (x_t - abar.sqrt() * x0) / (1 - abar).sqrt()
        return {"x0": x0, "eps": eps, "v": abar.sqrt() * eps - (1 - abar).sqrt() * x0}[view]

    return net


def velocity_net(data_at):
    def net(x_t, t):
        noise_share = (t if data_at == 0 else 1 - t)[:, None]
        x0 = MIXTURE(x_t / (1 - noise_share), (noise_share / (1 - noise_share))[:, 0])
        n = (x_t - (1 - noise_share) * x0) / noise_share
        return n - x0 if data_at == 0 else x0 - n

    return net


@pytest.mark.parametrize(
    "adapted",
    [
        from_x0(ddpm_net("x0"), discrete(ABAR)),
        from_eps(ddpm_net("eps"), discrete(ABAR)),
        from_v(ddpm_net("v"), discrete(ABAR)),
        from_score(lambda x, sigma: (MIXTURE(x, sigma) - x) / sigma[:, None] ** 2),
        from_velocity(velocity_net(0)),
        from_velocity(velocity_net(1), data_at=1),
    ],
    ids=["x0", "eps", "v", "score", "velocity", "velocity of data at 1"],
)
def test_an_adapted_network_is_the_denoiser_that_it_was_made_from(adapted):
    torch.testing.assert_close(adapted(X, SIGMA), MIXTURE(X, SIGMA), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(adapted(X, 1.0), MIXTURE(X, 1.0), atol=1e-6, rtol=1e-6)


def test_continuous_time():
    """A score-SDE network sees t in (0, 1]: its own formula sigma(t) gives the level back."""
    t = torch.tensor([1e-5, 1e-3, 0.1, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(vp_time(vp_sigma(t)), t)
    assert vp_time(torch.tensor([0.0, math.inf, 1e30])).tolist() == [0.0, 1.0, 1.0]
    seen = []
    from_eps(lambda x, t: seen.append(t) or x, vp_time)(X, vp_sigma(torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)))
    assert seen[0].tolist() == pytest.approx([0.2, 0.5, 0.9])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discrete_times_are_whole_at_their_own_levels(dtype):
    levels = ddpm(1000, ABAR)[:-1].to(dtype)
    assert torch.equal(discrete(ABAR)(levels), torch.arange(999, -1, -1, dtype=dtype))
    between = (levels[0] * levels[1]).sqrt()[None]
    assert discrete(ABAR)(between).item() == pytest.approx(998.5, abs=1e-2)
    assert discrete(ABAR)(torch.tensor([0.0, 1e9], dtype=dtype)).tolist() == [0.0, 999.0]


def test_discrete_times_reach_zero_signal():
    abar = (1 - zero_terminal_snr(linear_betas(1000))).cumprod(0)
    levels = ddpm(1000, abar)
    assert levels[0] == math.inf and levels[1] < math.inf
    assert torch.equal(discrete(abar)(levels[:-1]), torch.arange(999, -1, -1, dtype=torch.float64))


def test_euler_on_the_straight_path_is_euler_on_ours():
    """x_t' = x_t + (t' - t) u from pure noise at t = 1, beside `sample` with levels that begin at infinity."""
    net, n = velocity_net(0), 16
    x = X.clone()
    for t, t_next in zip(
        torch.linspace(1, 0, n + 1)[:-1].tolist(), torch.linspace(1, 0, n + 1)[1:].tolist(), strict=True
    ):
        u = X - MIXTURE.means.T @ MIXTURE.log_weights.exp() if t == 1 else net(x, torch.full((3,), t, dtype=x.dtype))
        x = x + (t_next - t) * u

    def denoiser(x, sigma):  # at infinity nothing is known but the mean
        return (MIXTURE.means.T @ MIXTURE.log_weights.exp()).expand_as(x) if sigma == math.inf else MIXTURE(x, sigma)

    torch.testing.assert_close(sample(denoiser, X, flow(n), euler), x, atol=1e-6, rtol=1e-6)
