"""`gen vae sample`, `interpolate` and `nll`."""

import math

import torch

from gen_apps import pages
from gen_apps.results import write_results
from gen_apps.samples import requested_labels, write_pictures
from gen_apps.vae.config import NLLVAE, InterpolateVAE, SampleVAE
from gen_apps.vae.trained import TrainedVAE
from gen_core import pictures
from gen_core.intervals import mean
from gen_core.runtime import generator
from gen_core.scales import text
from gen_latent import active_units, effective_sample_size, elbo, nll
from gen_latent.latents import largest_jump, lerp, slerp


def sample(config: SampleVAE) -> None:
    trained = TrainedVAE.open(config.run, config.device)
    labels = requested_labels(config.label, config.n, trained.classes)

    def draw() -> torch.Tensor:
        x = trained.sample(config.n, labels, seed=config.seed, prior=config.prior, mean=config.mean)
        return 2 * x - 1 if trained.config.binarise else x

    write_pictures(config, trained, labels, draw)


@torch.no_grad()
def interpolate(config: InterpolateVAE) -> None:
    trained = TrainedVAE.open(config.run, config.device)
    _, held_out = trained.data()
    order = torch.randperm(len(held_out), generator=generator(config.seed, "ends"))
    if len(order) < 2 * config.n:
        raise ValueError(f"--n {config.n} paths take {2 * config.n} held-out samples, but there are {len(order)}")
    x, *_, label = held_out[order[: 2 * config.n]]
    labels = label if trained.config.conditional else None
    z = trained.encode(x, labels)
    way = (slerp if config.kind == "slerp" else lerp)(z[: config.n], z[config.n :], torch.linspace(0, 1, config.steps))
    along = None if labels is None else labels[: config.n].repeat_interleave(config.steps)
    y = trained.decode(way.transpose(0, 1).flatten(0, 1), along)
    jumps = [largest_jump(path) for path in y.unflatten(0, (config.n, config.steps))]
    out = config.out or trained.run.path / "interpolation.png"
    pictures.save(out, 2 * y - 1 if trained.config.binarise else y, columns=config.steps)
    pages.show(trained.run, out)
    rows = [{"name": f"path {i}", "largest jump": jump} for i, jump in enumerate(jumps)]
    write_results(config.json, "vae interpolate", config, rows)
    print(
        f"{out}: {config.n} paths by {config.kind}; the largest jump is {max(jumps):.2f} times its path's median step"
    )


@torch.no_grad()
def bound(config: NLLVAE) -> None:
    trained = TrainedVAE.open(config.run, config.device)
    model, (_, held_out) = trained.network, trained.data()
    x, *_, label = held_out[: config.n]
    x, given = x.to(trained.device), trained.conditions(label if trained.config.conditional else None)
    draws = lambda: generator(config.seed, "bound")
    log_w = model.log_weights(x, min(100, config.k), generator=draws(), **given)
    values = nll(model, x, config.k, min(500, config.k), generator=draws(), **given)
    row = {
        "name": "held-out data",
        "k": config.k,
        "nll": mean(values).figure("nats"),
        "minus elbo": mean(-elbo(log_w)).figure("nats"),
        f"effective draws of {len(log_w)}": mean(effective_sample_size(log_w)).figure(),
        "active units": active_units(model.encode(x, **given).mean),
        "latents": trained.config.latents,
    }
    if trained.facts["levels"] is not None and trained.config.likelihood != "gaussian":
        row["bits/dim"] = mean(values / (math.log(2) * x[0].numel())).figure("bits")
    trained.run.write("nll.json", {"rows": [row]})
    write_results(config.json, "vae nll", config, [row])
    shown = "; ".join(f"{name} {text(entry, 4)}" for name, entry in row.items() if name != "name")
    print(f"{len(x)} samples; {shown} (nats per sample)")
