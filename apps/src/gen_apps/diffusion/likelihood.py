"""`gen diffusion likelihood`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import rich
import torch
import tyro
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from gen_apps import data
from gen_apps.diffusion.trained import Trained
from gen_apps.energy import Place, metered
from gen_core import Arrays
from gen_core.callbacks import bar
from gen_diffusion import keyed, linear_betas
from gen_diffusion.bound import elbo, optimal_variance, posterior_error
from gen_diffusion.likelihood import bits_per_dim, dequantise, log_likelihood
from gen_diffusion.schedule import karras

CHAIN = (1 - linear_betas()).cumprod(0)  # of DDPM, 1000 steps


@dataclass(frozen=True)
class Likelihood:
    """How probable held-out data are under a run: nats per sample, and bits per dimension of pictures.

    Pictures are spread evenly over the bins of their grey levels first, which makes their bits an upper bound.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Directory of the run; the table is also written there, as likelihood.json."""
    n: int = 100
    """Held-out samples."""
    probes: int = 4
    """Random vectors that estimate the divergence of each sample; 0 computes it exactly, one dimension at a time."""
    levels: int = 40
    """Noise levels of the ordinary differential equation; each costs two network evaluations and the gradients."""
    sigma_min: float | None = None
    """The figure is the density of the data at this noise level; by default half a bin of grey levels, or 0.002."""
    sigma_max: float = 80.0
    elbo: bool = False
    """Also the variational bound of the ancestral sampler with DDPM's 1000 steps, whose variances are fitted to the
    training data."""
    elbo_steps: int = 50
    """Of the 1000, how many are drawn for each sample."""
    unconditional: bool = False
    """Ignore the labels of a run with classes; by default they are given."""
    seed: int = 0
    batch: int = 64
    """Samples at a time, to fit memory."""
    device: str = "auto"
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        for name, least in (("n", 2), ("probes", 0), ("levels", 3), ("elbo_steps", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}")
        if not 0 < (0.002 if self.sigma_min is None else self.sigma_min) < self.sigma_max < math.inf:
            raise ValueError(f"need 0 < --sigma-min < --sigma-max, got {self.sigma_min} and {self.sigma_max}")
        if self.elbo_steps > 999:
            raise ValueError(f"--elbo-steps must be below 1000, the steps of the chain, got {self.elbo_steps}")


def likelihood(config: Likelihood) -> None:
    trained = Trained.open(config.run, config.device)
    training, held_out = trained.data()
    if config.n > len(held_out):
        raise ValueError(f"--n must be at most {len(held_out)}, the held-out samples, got {config.n}")
    grey = data.grey_levels(trained.config.data, trained.config.size)
    least = 0.002 if grey is None else 1 / (grey - 1)
    sigma_min = least if config.sigma_min is None else config.sigma_min
    sigmas = karras(config.levels, sigma_min, config.sigma_max)
    width, rows = trained.model.sigma_data, []
    with bar("likelihood", config.n) as advance, metered(config.place, config.n) as cost:
        variances = _variances(trained, training, config, grey) if config.elbo else None
        for x, cond, part in _batches(trained, held_out, config, grey):
            probes = keyed(config.seed, part, "probes")
            ode = log_likelihood(
                trained.denoiser, x, sigmas, probes=config.probes or None, sigma_data=width, generator=probes, **cond
            )
            row = [ode.value, ode.stderr]
            if variances is not None:
                chain = keyed(config.seed, part, "chain")
                row.append(
                    elbo(trained.denoiser, x, CHAIN, variances, steps=config.elbo_steps, generator=chain, **cond)
                )
            rows.append(torch.stack(row).double().cpu())
            advance(part[-1] + 1)
    nats = torch.cat(rows, 1)
    figures = {"probability-flow ODE": _figure(nats[0], trained, grey)}
    if config.elbo:
        figures["variational bound"] = _figure(nats[2], trained, grey)
    labels = "given" if trained.model.classes and not config.unconditional else "not given"
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
    trained.run.write("likelihood.json", {"figures": figures, **facts})
    trained.run.log(trained.step, {"likelihood/nats": figures["probability-flow ODE"]["nats"]["value"], **cost.metrics})
    shown = Table(*["mean ± standard error", *next(iter(figures.values()))], box=None, pad_edge=False)
    for name, values in figures.items():
        shown.add_row(name, *(f"{v['value']:.4g} ± {v['stderr']:.2g}" for v in values.values()))
    rich.print(shown)
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()))


def _figure(nats: Float[Tensor, "n"], trained: Trained, grey: int | None) -> dict[str, dict[str, float]]:
    """Means over samples with their standard errors."""
    dims = math.prod(trained.model.shape)
    found = {"nats": nats, "nats per dim": nats / dims}
    if grey is not None:
        found["bits/dim"] = bits_per_dim(nats, dims, grey)
    return {k: {"value": v.mean().item(), "stderr": (v.std() / len(v) ** 0.5).item()} for k, v in found.items()}


def _variances(trained: Trained, training: Arrays, config: Likelihood, grey: int | None) -> Float[Tensor, "t"]:
    """Of the chain's reverse steps, from the denoiser's errors on as many training samples as are held out."""
    parts = list(_batches(trained, training, replace(config, n=min(config.n, len(training))), grey))
    sigmas, error = (1 / CHAIN - 1).sqrt(), torch.zeros(len(CHAIN), dtype=torch.float64)
    for x, cond, part in parts:
        generator = keyed(config.seed, part, "variances")
        error += len(x) * posterior_error(trained.denoiser, x, sigmas, generator=generator, **cond)
    return optimal_variance(CHAIN, error / sum(len(x) for x, _, _ in parts))


def _batches(
    trained: Trained, half: Arrays, config: Likelihood, grey: int | None
) -> Iterator[tuple[Tensor, dict[str, Any], range]]:
    """Data, spread over their bins, their conditions, and their indices."""
    for i in range(0, config.n, config.batch):
        part = range(i, min(i + config.batch, config.n))
        x, *labels = half[torch.tensor(part)]
        if grey is not None:
            x = dequantise(x, grey, generator=keyed(config.seed, part, "bins"))
        asked = trained.model.classes and not config.unconditional
        yield x.to(trained.device), {"label": labels[0].to(trained.device)} if asked else {}, part
