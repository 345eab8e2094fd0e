"""From the flags of a diffusion model to its denoiser, training task and sampler."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gen_apps.data import Subject, subset
from gen_apps.diffusion.flags import LEVELS, NETWORKS, OBJECTIVES, SAMPLERS, WEIGHTS, Network, Objective, Sampler
from gen_apps.options import Factories, build
from gen_core import Arrays
from gen_diffusion import (
    MLP,
    Denoiser,
    DiffusionTask,
    DiT,
    Preconditioned,
    Step,
    Uncertainty,
    UNet,
    ancestral,
    cfg,
    churn,
    clamp_linear,
    constant,
    corrected,
    cosine,
    cosine_betas,
    ddim,
    dpmpp_2m,
    dpmpp_2m_sde,
    draw,
    edm_weight,
    euler,
    exponential,
    flow,
    flow_heun,
    heun,
    interval,
    karras,
    linear,
    linear_betas,
    log_normal,
    min_snr_weight,
    ot_pairing,
    uniform_discrete,
    uniform_flow,
    variational_weight,
    view_weight,
    vp,
)
from gen_diffusion.explain import evaluations, most_steps
from gen_diffusion.guide import Weight
from gen_diffusion.view import View

NETS: Factories = {  # channels and classes -> network
    "unet": lambda channels, classes, **how: UNet(channels, num_classes=classes, **how),
    "dit": lambda channels, classes, **how: DiT(channels, num_classes=classes, **how),
    "mlp": lambda channels, classes, *, blocks, **how: MLP(channels, depth=blocks, num_classes=classes, **how),
}


def denoiser(network: Network, objective: Objective, subject: Subject, sigma_data: float) -> Preconditioned:
    """The untrained denoiser of completed flags, for data with root mean square `sigma_data`."""
    net = build(network, "kind", NETWORKS, NETS, subject.shape[0], subject.classes)
    return Preconditioned(net, sigma_data, cast(View, objective.view))


def root_mean_square(training: Arrays) -> float:
    """The standard deviation of data in units of themselves, about 0."""
    return subset(training)[:][0].square().mean().sqrt().item()


# ---------------------------------------------------------------------------- training


def _centre(level_mean: float, sigma_data: float) -> float:
    """The mean of ln(sigma) for data of this size, where `level_mean` is for 0.5."""
    return level_mean + math.log(sigma_data / 0.5)


def _view_weight(view: View) -> Callable[..., Any]:
    return lambda objective, sigma_data: partial(view_weight, view, sigma_data=sigma_data)


def _variational(objective: Objective, sigma_data: float) -> Any:
    """The weight that divides by the density of the log-normal levels."""
    assert objective.level_mean is not None and objective.level_std is not None, "completed"
    return partial(variational_weight, mean=_centre(objective.level_mean, sigma_data), std=objective.level_std)


DRAWS: Factories = {  # standard deviation of the data -> function from normal draws to noise levels
    "log-normal": lambda sigma_data, *, level_mean, level_std: partial(
        log_normal, mean=_centre(level_mean, sigma_data), std=level_std
    ),
    "flow": lambda sigma_data: uniform_flow,
    "linear-betas": lambda _: partial(uniform_discrete, alphas_cumprod=(1 - linear_betas()).cumprod(0)),
    "cosine-betas": lambda _: partial(uniform_discrete, alphas_cumprod=(1 - cosine_betas()).cumprod(0)),
}
WEIGH: Factories = {  # objective, standard deviation of the data -> weight of |D - x0|^2 by noise level
    "edm": lambda objective, sigma_data: partial(edm_weight, sigma_data=sigma_data),
    **{view: _view_weight(cast(View, view)) for view in WEIGHTS if view not in ("edm", "min-snr", "variational")},
    "min-snr": lambda objective, sigma_data, *, gamma: partial(min_snr_weight, gamma=gamma),
    "variational": _variational,
}
PAIRINGS: Factories = {"independent": lambda: None, "ot": lambda: ot_pairing}


def task(objective: Objective, denoiser: Preconditioned, classes: int, **how: Any) -> DiffusionTask:
    """The training task of a completed objective."""
    sigma_data = denoiser.sigma_data
    return DiffusionTask(
        denoiser,
        conditions={"label": classes} if classes else {},
        levels=build(objective, "levels", LEVELS, DRAWS, sigma_data),
        weight=build(objective, "weight", WEIGHTS, WEIGH, objective, sigma_data),
        uncertainty=Uncertainty() if objective.uncertainty else None,
        pairing=build(objective, "pairing", OBJECTIVES["pairing"], PAIRINGS),
        **how,
    )


# ---------------------------------------------------------------------------- sampling


def _with_churn(amount: float, step: Step) -> Step:
    """Noise added back before each step, unless its amount is 0."""
    return churn(amount, step=step) if amount else step


STEPS: Factories = {
    "heun": lambda *, churn: _with_churn(churn, heun),
    "euler": lambda *, churn: _with_churn(churn, euler),
    "churn": lambda *, churn: _with_churn(churn, heun),
    "flow-heun": lambda: flow_heun,
    "dpmpp-2m": lambda: dpmpp_2m,
    "dpmpp-2m-sde": dpmpp_2m_sde,
    "ddim": ddim,
    "ancestral": ancestral,
    "langevin": lambda *, snr, corrections: corrected(euler, snr, corrections),
}
SIGMAS: Factories = {
    "karras": lambda *, steps, **levels: karras(steps, **levels),
    "exponential": lambda *, steps, **levels: exponential(steps, **levels),
    "vp": lambda *, steps: vp(steps),
    "flow": lambda *, steps, **levels: flow(steps, **levels),
}
GUIDES: Factories = {
    "constant": lambda *, guidance: constant(guidance),
    "linear": lambda *, guidance: linear(guidance),
    "cosine": lambda *, guidance: cosine(guidance),
    "clamp-linear": lambda *, guidance, guidance_low: clamp_linear(guidance, guidance_low),
    "interval": lambda *, guidance, guidance_low, guidance_high: interval(guidance, guidance_low, guidance_high),
}
SAMPLER_PARTS: dict[str, Factories] = {"method": STEPS, "schedule": SIGMAS, "guidance_schedule": GUIDES}


def sampler_part(sampler: Sampler, name: str) -> Any:
    """The step, the noise levels or the guidance weight that a completed configuration selects."""
    return build(sampler, name, SAMPLERS[name], SAMPLER_PARTS[name])


def sampler_parts(sampler: Sampler) -> tuple[Step, Float[Tensor, "levels"], Weight]:
    """The step, the noise levels and the guidance weight of a completed configuration."""
    step, sigmas, weight = (sampler_part(sampler, name) for name in SAMPLERS)
    return step, sigmas, weight


def within(sampler: Sampler, budget: int) -> Sampler | None:
    """The sampler with as many steps as a budget of network evaluations pays for; None if it is too small for two."""
    steps = most_steps(budget, lambda n: evaluations(*sampler_parts(replace(sampler, steps=n))))
    return None if steps is None else replace(sampler, steps=steps)


def draw_samples(
    sampler: Sampler,
    denoiser: Denoiser,
    indices: range,
    shape: Sequence[int],
    labels: Int[Tensor, "n"] | None,
    **where: Any,
) -> Float[Tensor, "n ..."]:
    """Samples `indices`, each of its label, of a completed configuration.

    Args:
        labels: label i belongs to sample i, modulo their number; None for a denoiser without classes.
        where: seed, batch, device, decode and progress, as `gen_diffusion.draw` takes them.
    """
    step, sigmas, weight = sampler_parts(sampler)
    condition = {} if labels is None else {"label": labels[torch.tensor(indices) % len(labels)]}
    x = draw(cfg(denoiser, weight), indices, shape, sigmas, step, **condition, **where)
    if broken := len(x) - int(x.isfinite().flatten(1).all(1).sum()):
        raise ValueError(f"{broken} of {len(x)} samples are not finite; lower the guidance or take more steps")
    return x
