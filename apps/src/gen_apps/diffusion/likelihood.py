"""`gen diffusion likelihood`."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import rich
import torch
from jaxtyping import Float
from torch import Tensor

from gen_apps import data
from gen_apps.diffusion.config import Likelihood
from gen_apps.diffusion.trained import TrainedDiffusion
from gen_apps.energy import metered
from gen_apps.results import table, write_results
from gen_core import Arrays
from gen_core.callbacks import bar
from gen_core.intervals import mean
from gen_diffusion import keyed, linear_betas
from gen_diffusion.bound import elbo, optimal_variance, posterior_error
from gen_diffusion.likelihood import bits_per_dim, dequantise, log_likelihood
from gen_diffusion.schedule import karras

CHAIN = (1 - linear_betas()).cumprod(0)  # of DDPM, 1000 steps


def likelihood(config: Likelihood) -> None:
    trained = TrainedDiffusion.open(config.run, config.device)
    training, held_out = trained.data()
    if config.n > len(held_out):
        raise ValueError(f"--n must be at most {len(held_out)}, the held-out samples, got {config.n}")
    grey = data.grey_levels(trained.config.data, trained.config.size)
    least = 0.002 if grey is None else 1 / (grey - 1)
    sigma_min = least if config.sigma_min is None else config.sigma_min
    sigmas = karras(config.levels, sigma_min, config.sigma_max)
    width, parts = trained.network.sigma_data, []
    with bar("likelihood", config.n) as advance, metered(config.place, config.n) as cost:
        variances = _variances(trained, training, config, grey) if config.elbo else None
        for x, cond, part in _batches(trained, held_out, config, grey):
            probes = keyed(config.seed, part, "probes")
            ode = log_likelihood(
                trained.network, x, sigmas, probes=config.probes or None, sigma_data=width, generator=probes, **cond
            )
            row = [ode.value, ode.stderr]
            if variances is not None:
                chain = keyed(config.seed, part, "chain")
                row.append(elbo(trained.network, x, CHAIN, variances, steps=config.elbo_steps, generator=chain, **cond))
            parts.append(torch.stack(row).double().cpu())
            advance(part[-1] + 1)
    nats = torch.cat(parts, 1)
    figures = {"probability-flow ODE": _figure(nats[0], trained, grey)}
    if config.elbo:
        figures["variational bound"] = _figure(nats[2], trained, grey)
    labels = "given" if trained.classes and not config.unconditional else "not given"
    facts = {
        "data": f"{config.n} held-out samples of {trained.config.data}, labels {labels}",
        "weights": f"of step {trained.step}, averaged",
        "density": f"at noise level {sigma_min:.4g}; {config.levels} levels up to {config.sigma_max:g}",
        "divergence": f"{config.probes} probes, standard error {nats[1].mean():.2g} nats per sample"
        if config.probes
        else "exact",
        "dequantisation": f"uniform, {grey} grey levels; knowing nothing takes {math.log2(grey):.3f} bits/dim"
        if grey
        else "none",
        "energy": cost.facts["energy"],
    }
    rows = [{"name": name, **values, **facts} for name, values in figures.items()]
    trained.run.write("likelihood.json", {"rows": rows})
    trained.run.log(trained.step, {"likelihood/nats": figures["probability-flow ODE"]["nats"]["value"], **cost.metrics})
    write_results(config.json, "diffusion likelihood", config, rows)
    rich.print(table("mean of the samples", rows, list(figures["probability-flow ODE"]), digits=4))
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()))


def _figure(nats: Float[Tensor, "n"], trained: TrainedDiffusion, grey: int | None) -> dict[str, dict[str, Any]]:
    """Means over samples with their intervals."""
    dims = math.prod(trained.shape)
    figures = {"nats": mean(nats).figure("nats"), "nats/dim": mean(nats / dims).figure("nats")}
    if grey is not None:
        figures["bits/dim"] = mean(bits_per_dim(nats, dims, grey)).figure("bits")
    return figures


def _variances(trained: TrainedDiffusion, training: Arrays, config: Likelihood, grey: int | None) -> Float[Tensor, "t"]:
    """Variances of the reverse steps, from the denoiser's errors on as many training samples as are held out."""
    parts = list(_batches(trained, training, replace(config, n=min(config.n, len(training))), grey))
    sigmas, error = (1 / CHAIN - 1).sqrt(), torch.zeros(len(CHAIN), dtype=torch.float64)
    for x, cond, part in parts:
        generator = keyed(config.seed, part, "variances")
        error += len(x) * posterior_error(trained.network, x, sigmas, generator=generator, **cond)
    return optimal_variance(CHAIN, error / sum(len(x) for x, _, _ in parts))


def _batches(
    trained: TrainedDiffusion, half: Arrays, config: Likelihood, grey: int | None
) -> Iterator[tuple[Tensor, dict[str, Any], range]]:
    """Data, spread over their bins, their conditions, and their indices."""
    for i in range(0, config.n, config.batch):
        part = range(i, min(i + config.batch, config.n))
        x, *labels = half[torch.tensor(part)]
        if grey is not None:
            x = dequantise(x, grey, generator=keyed(config.seed, part, "bins"))
        labelled = trained.classes and not config.unconditional
        yield x.to(trained.device), {"label": labels[0].to(trained.device)} if labelled else {}, part
