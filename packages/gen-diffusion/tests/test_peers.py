"""The same numbers as diffusers and k-diffusion: their values by default, their code under `-m peers`.

What is compared is a step given levels; where a peer's grid is wrong (the previous time of DDIM as t - T // n, a shift
applied twice) its levels are handed to our step, and ours stay right.
"""

import math

import pytest
import torch

from gen_diffusion import (
    ancestral,
    churn,
    cosine_betas,
    ddim,
    ddpm,
    discrete,
    dpmpp_2m,
    dpmpp_2m_sde,
    euler,
    flow,
    from_eps,
    from_v,
    from_velocity,
    heun,
    karras,
    linear_betas,
    sample,
)

ABAR = (1 - linear_betas(1000)).cumprod(0)


def net(x, t):
    """The network of diffusers' own unit tests."""
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    return x * t / (t + 1)


def picture():
    """The picture of diffusers' own unit tests."""
    return (torch.arange(768, dtype=torch.float64).reshape(3, 8, 8, 4) / 768).permute(3, 0, 1, 2)


def clipped(denoiser):
    return lambda x, sigma: denoiser(x, sigma).clamp(-1, 1)


def walk(denoiser, x, sigmas, step, **kwargs):
    """`sample` from and to variance-preserving states."""
    to_vp = lambda x, s: x / (1 + s**2).sqrt()
    return to_vp(sample(denoiser, x * (1 + sigmas[0] ** 2).sqrt(), sigmas, step, **kwargs), sigmas[-1])


@pytest.mark.parametrize(
    ("adapt", "first", "golden"),
    [
        (from_eps, 1e-4, 172.0067),
        (from_v, 1e-4, 52.5302),
        (from_eps, 0.01, 149.8295),
    ],
)
def test_ddim_golden_values_of_diffusers(adapt, first, golden):
    """tests/schedulers/test_scheduler_ddim.py of diffusers 0.42.1: sum of |x| after 10 steps, x0 clipped to [-1, 1]."""
    abar = (1 - linear_betas(1000, first)).cumprod(0)
    denoiser = clipped(adapt(net, discrete(abar)))
    x = walk(denoiser, picture(), ddpm(10, abar, "leading"), ddim())
    assert x.abs().sum().item() == pytest.approx(golden, abs=1e-3)


@pytest.mark.parametrize(("adapt", "golden"), [(from_eps, 0.3301), (from_v, 0.2251)])
def test_dpmpp_2m_golden_values_of_diffusers(adapt, golden):
    """tests/schedulers/test_scheduler_dpm_multi.py of diffusers 0.42.1: mean of |x|, 10 steps to the first level."""
    sigmas = (1 / ABAR - 1).sqrt()[torch.linspace(999, 0, 11, dtype=torch.float64).round().long()]
    x = walk(adapt(net, discrete(ABAR)), picture(), sigmas, dpmpp_2m)
    assert x.abs().mean().item() == pytest.approx(golden, abs=1e-3)


GOLDEN_SIGMAS = torch.tensor([80.0, 10.0, 1.0, 0.1, 0.0], dtype=torch.float64)
GOLDEN_X = torch.tensor([[80.0, -40.0, 5.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("step", "golden"),
    [
        (euler, [0.6242568933936853, -0.42022175744120877, 0.06154514511461927]),
        (heun, [0.3915353445916842, -0.33358946217294017, 0.06120629074330598]),
        (churn(1.2, 1.1, s_min=0.5), [0.21477497521171485, 0.26309608060798584, 0.23477576200222167]),
        (dpmpp_2m, [0.6113590618732418, -0.41530058440636985, 0.06152868477297467]),
        (dpmpp_2m_sde(1.0), [0.6385093902276816, 0.7300733208882237, 0.6958023307806164]),
        (dpmpp_2m_sde(0.5), [0.6891800690862758, 0.7511577986423926, 0.7245706006318086]),
        (ancestral(), [0.6490539687103067, 0.6280947950218896, 0.6376124025842973]),
    ],
    ids=["euler", "heun", "churn", "2m", "2m sde", "2m sde half", "ancestral"],
)
def test_steps_are_those_of_k_diffusion(step, golden, monkeypatch):
    """Samplers of k-diffusion 4601bf0 and 0.1.1, printed by k_diffusion_golden.py; noise is all ones."""
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    ours = sample(lambda x, sigma: torch.tanh(x / (1 + sigma)), GOLDEN_X, GOLDEN_SIGMAS, step)
    assert ours[0].tolist() == pytest.approx(golden, abs=1e-12)


# ------------------------------------------------------------------ the peers themselves


def run(scheduler, n, x, network=net, **step_arguments):
    """A diffusers pipeline's loop, in double precision."""
    scheduler.set_timesteps(n)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t)
        x = scheduler.step(network(seen, torch.as_tensor(t, dtype=x.dtype)), t, x, **step_arguments).prev_sample
    return x


def double(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim_of_diffusers(eta, spacing, to_one):
    """Each of 20 steps, from the level it is at to the level it says it goes to (t - T // n, right or wrong)."""
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing=spacing, set_alpha_to_one=to_one)
    theirs.set_timesteps(20)
    times = [t.item() for t in theirs.timesteps]
    denoiser = from_eps(net, discrete(ABAR))
    for t in times:
        x, noise, previous = double(3, 3), double(3, 3), t - 50
        levels = (1 / ABAR - 1).sqrt()
        to = levels[previous] if previous >= 0 else torch.zeros(()) if to_one else levels[0]
        expected = theirs.step(net(x, torch.tensor(float(t))), t, x, eta=eta, variance_noise=noise).prev_sample
        x_ve = x * (1 + levels[t] ** 2).sqrt()
        got, _ = ddim(eta)(denoiser, x_ve, levels[t], to.double(), randn_like=lambda x, noise=noise: noise)
        torch.testing.assert_close(got / (1 + to**2).sqrt(), expected, atol=1e-5, rtol=0)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n", [50, 1000])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_of_diffusers(variance, n):
    diffusers = pytest.importorskip("diffusers")
    name = f"fixed_{variance}"
    theirs = diffusers.DDPMScheduler(clip_sample=False, variance_type=name, timestep_spacing="leading")
    expected = run(theirs, n, double(3, 3), generator=torch.Generator().manual_seed(7))
    sigmas = ddpm(n, ABAR, "leading")
    if n < 1000:  # the peer's first steps come from T // n times, as ours
        assert [t.item() for t in theirs.timesteps][:2] == [(n - 1) * (1000 // n), (n - 2) * (1000 // n)]
    got = walk(from_eps(net, discrete(ABAR)), double(3, 3), sigmas, ancestral(variance),
               generator=torch.Generator().manual_seed(7))  # fmt: skip
    scale = expected.abs().max().clamp_min(1.0)
    torch.testing.assert_close(got / scale, expected / scale, atol=3e-5, rtol=0)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("karras_levels", [False, True])
@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
def test_dpmpp_2m_of_diffusers(algorithm, karras_levels, final):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DPMSolverMultistepScheduler(
        use_karras_sigmas=karras_levels, final_sigmas_type=final, algorithm_type=algorithm, lower_order_final=False
    )
    noise = {"generator": torch.Generator().manual_seed(3)}
    expected = run(theirs, 18, double(3, 3), **noise)
    sigmas, times = theirs.sigmas.double(), iter(theirs.timesteps.double())
    denoiser = from_eps(net, lambda sigma: next(times).expand(sigma.shape))
    step = dpmpp_2m if algorithm == "dpmsolver++" else dpmpp_2m_sde(1.0)
    if sigmas[-1] == sigmas[-2]:  # the peer's last step goes nowhere
        sigmas = sigmas[:-1]
    got = walk(denoiser, double(3, 3), sigmas, step, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_edm_solvers_of_diffusers():
    """Heun and Euler on Karras levels, and the 2M solver of EDM, on the variance-exploding axis."""
    diffusers = pytest.importorskip("diffusers")
    eps = lambda x, sigma: torch.tanh(x / (1 + sigma**2).sqrt())
    for scheduler, step in ((diffusers.HeunDiscreteScheduler, heun), (diffusers.EulerDiscreteScheduler, euler)):
        theirs = scheduler(use_karras_sigmas=True)
        theirs.set_timesteps(18)
        sigmas, x = theirs.sigmas.double(), double(3, 3)
        levels = torch.cat([sigmas[:1], sigmas[1:-1:2], sigmas[-1:]]) if step is heun else sigmas
        got = sample(lambda x, sigma: x - sigma * eps(x, sigma), x * sigmas[0], levels, step)
        out = x * sigmas[0]
        for t in theirs.timesteps:
            out = theirs.step(torch.tanh(theirs.scale_model_input(out, t)), t, out).prev_sample
        torch.testing.assert_close(got, out, atol=1e-5, rtol=1e-6)
    theirs = diffusers.EDMDPMSolverMultistepScheduler()
    theirs.set_timesteps(18)
    x = out = 80 * double(3, 3)
    for t in theirs.timesteps:
        out = theirs.step(torch.tanh(theirs.scale_model_input(out, t)), t, out).prev_sample

    def denoiser(x, sigma):
        c_skip, total = 0.25 / (sigma**2 + 0.25), (sigma**2 + 0.25).sqrt()
        return c_skip * x + 0.5 * sigma / total * torch.tanh(x / total)

    torch.testing.assert_close(sample(denoiser, x, karras(18), dpmpp_2m), out, atol=1e-5, rtol=1e-5)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_flow_euler_of_diffusers():
    """Given its own levels: its grid applies the shift twice."""
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(20)
    t, x = theirs.sigmas.double(), double(3, 3)
    out = x
    for time in theirs.timesteps:
        out = theirs.step(torch.tanh(out), time, out).prev_sample
    got = sample(from_velocity(lambda x, t: torch.tanh(x)), x, t / (1 - t), euler)
    torch.testing.assert_close(got, out, atol=1e-5, rtol=1e-5)
    assert t[-2].item() == pytest.approx(0.0089, abs=1e-4)
    ours = flow(20, 3.0)
    assert (ours / (1 + ours))[-2].item() == pytest.approx(3 * 0.05 / (1 + 2 * 0.05))


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_betas_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").betas
    torch.testing.assert_close(cosine_betas(1000).float(), theirs, atol=1e-6, rtol=1e-5)
    theirs = diffusers.DDIMScheduler(rescale_betas_zero_snr=True).alphas_cumprod
    from gen_diffusion import zero_terminal_snr

    ours = (1 - zero_terminal_snr(linear_betas(1000))).cumprod(0)
    torch.testing.assert_close(ours[:-1].float(), theirs[:-1], atol=1e-6, rtol=1e-4)
    assert ours[-1] == 0 and math.isinf((1 / ours[-1] - 1).sqrt().item())
