"""Our sampling loops beside those of diffusers and k-diffusion, on one network and one set of noise levels.

    uv run --group peers --with k-diffusion python tests/benchmarks/diffusion_sampling.py

Two pairs of samplers, 18 steps each: Heun with a discrete-time eps-network, as diffusers' HeunDiscreteScheduler wants
it, and DPM-Solver++ 2M with an EDM network, as EDMDPMSolverMultistepScheduler does. All contestants of a pair start
from the same noise and call the same U-Net the same number of times. Printed are how far the results are from ours;
what is left of a step without the network, which is the sampler's own time, with the adapter or the preconditioning
around the network; and the ratio of whole steps, the network's part being the same for all, the median over all.

On the CPU with one thread, 4 pictures of 32 x 32. The contestants take turns, a whole sampling of each at a time. Times
are the process's own CPU seconds, which a busy machine does not stretch as it does the clock's; medians over rounds. A
peer that is not installed is left out. Argument: rounds.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gen_diffusion import Preconditioned, UNet, discrete, dpmpp_2m, from_eps, heun, karras, sample

STEPS = 18


class Timed(nn.Module):
    """A network that is no longer 0, and that knows how long it took."""

    def __init__(self, rescale: Callable[[Tensor], Tensor] = lambda t: t):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.rescale = UNet(3, 64, (1, 2, 2), attention=(1,)).eval(), rescale
        for p in self.net.parameters():
            if not p.any():
                nn.init.normal_(p, std=0.02)
        self.calls, self.seconds = 0, 0.0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        start = time.process_time()
        y = self.net(x, self.rescale(t.float().expand(len(x))))
        self.seconds += time.process_time() - start
        self.calls += 1
        return y


Contestant = Callable[[Tensor], Tensor]


def second_order() -> tuple[Timed, float, dict[str, Contestant]]:
    from diffusers import HeunDiscreteScheduler

    net = Timed(lambda t: t / 400 - 1.4)  # 0 ... 999 to the range of c_noise
    scheduler = HeunDiscreteScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(STEPS)
    alphas, repeated = scheduler.alphas_cumprod, scheduler.sigmas
    sigmas = torch.cat([repeated[:1], repeated[1::2]])
    denoiser = from_eps(net, discrete(alphas))

    @torch.no_grad()
    def diffusers(x: Tensor) -> Tensor:
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            eps = net(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(eps, t, x, return_dict=False)[0]
        return x

    rows: dict[str, Contestant] = {"gen_diffusion heun": lambda x: sample(denoiser, x, sigmas, heun)}
    rows["diffusers HeunDiscreteScheduler"] = diffusers
    try:
        from k_diffusion.external import DiscreteEpsDDPMDenoiser
        from k_diffusion.sampling import sample_heun

        peer = DiscreteEpsDDPMDenoiser(net, alphas, quantize=False)
        rows["k-diffusion sample_heun"] = torch.no_grad()(lambda x: sample_heun(peer, x, sigmas, disable=True))
    except ImportError as error:
        print(f"k-diffusion is left out: {error}")
    return net, sigmas[0].item(), rows


def multistep() -> tuple[Timed, float, dict[str, Contestant]]:
    from diffusers import EDMDPMSolverMultistepScheduler

    net = Timed()
    scheduler, sigmas = EDMDPMSolverMultistepScheduler(), karras(STEPS)
    denoiser = Preconditioned(net)

    @torch.no_grad()
    def diffusers(x: Tensor) -> Tensor:
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            F_x = net(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(F_x, t, x, return_dict=False)[0]
        return x

    rows: dict[str, Contestant] = {"gen_diffusion dpmpp_2m": lambda x: sample(denoiser, x, sigmas, dpmpp_2m)}
    rows["diffusers EDMDPMSolverMultistepScheduler"] = diffusers
    try:
        from k_diffusion.sampling import sample_dpmpp_2m

        levels = sigmas.float()
        rows["k-diffusion sample_dpmpp_2m"] = torch.no_grad()(
            lambda x: sample_dpmpp_2m(denoiser, x, levels, disable=True)
        )
    except ImportError as error:
        print(f"k-diffusion is left out: {error}")
    return net, sigmas[0].item(), rows


def compare(net: Timed, sigma: float, rows: dict[str, Contestant], rounds: int) -> None:
    noise = sigma * torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours, results = next(iter(rows)), {name: f(noise) for name, f in rows.items()}
    own: dict[str, list[float]] = {name: [] for name in rows}
    network = []
    for _ in range(rounds):
        for name, f in rows.items():
            net.calls, net.seconds = 0, 0.0
            start = time.process_time()
            f(noise)
            own[name].append((time.process_time() - start - net.seconds) / STEPS)
            network.append(net.seconds / STEPS)
            assert net.calls == (2 * STEPS - 1 if "eun" in name else STEPS)
    shared, size = statistics.median(network), results[ours].std().item()
    step = {name: shared + statistics.median(times) for name, times in own.items()}
    for name in rows:
        alone, far = step[name] - shared, (results[name] - results[ours]).abs().max().item()
        print(
            f"{name:41s} {step[name] * 1e3:6.1f} ms a step, {alone * 1e3:5.2f} its own ({alone / step[name]:.2%})"
            + (f"; ours / it {step[ours] / step[name]:.3f}; differs by {far:.1e}, std {size:.2f}" * (name != ours))
        )


def main(rounds: int = 9) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for pair in (second_order, multistep):
        compare(*pair(), rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
