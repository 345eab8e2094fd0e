"""`gen vae train`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen_apps import strips
from gen_apps.data import loader, subset
from gen_apps.training import finish_run, fit
from gen_apps.vae import build
from gen_apps.vae.config import TrainVAE
from gen_apps.vae.trained import draw, fit_aggregate
from gen_core import Arrays, Loader, Training, embed, pictures, quality, seed_all
from gen_core.ema import power
from gen_core.summary import summary
from gen_latent import VAE, VAETask
from gen_latent.latents import traverse

SPREAD = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # of a traversal, in standard deviations of the codes


def train(config: TrainVAE, run: Path) -> None:
    training, held_out, subject = build.halves(config)
    seed_all(config.seed, "weights")
    model = build.model(config, subject, training[:30][0])
    task = VAETask(
        model, config.objective, k=config.k, beta=config.beta, free_bits=config.free_bits,
        conditions=("label",) if config.conditional else (), lr=config.optim.lr,
        weight_decay=config.optim.weight_decay,
    )  # fmt: skip
    model.check(subset(training)[:][0])
    few, *_, few_labels = held_out[strips.spread(len(held_out))]
    turns, device = torch.arange(50) % max(1, subject.classes), lambda: next(model.parameters()).device

    def given(labels: Tensor) -> dict[str, Tensor]:
        return {"label": labels.to(device())} if config.conditional else {}

    def drawn(n: int, labels: Tensor, prior: Any = None, noise: bool = False) -> Tensor:
        of = labels if config.conditional else None
        return shown(draw(model, prior or model.prior, n, of, noise=noise, seed=config.seed, device=device()))

    def shown(x: Tensor) -> Tensor:
        return 2 * x - 1 if config.binarise else x

    def preview(t: Training) -> None:
        if t.rank == 0:
            pictures.save(run / "samples" / f"step-{t.step:06d}.png", drawn(50, turns), columns=10)
            if few.ndim == 4:
                again = model.reconstruct(few.to(device()), **given(few_labels)).cpu()
                strips.add(run, "reconstructions", t.step, shown(few), shown(again))

    one = given(torch.zeros(1, dtype=torch.long))
    parts = (model.encoder, torch.zeros(1, *subject.shape)), (model.decoder, torch.zeros(1, config.latents))
    trainer, averaged = fit(
        config, run, task, loader(config, training), network="model",
        facts=asdict(subject), layers="\n\n".join(f"{summary(net, x, **one)}" for net, x in parts),
        preview=preview, ema=power(config.optim.ema),
        validation=Loader(held_out, min(512, len(held_out))),
    )  # fmt: skip
    if trainer.rank:
        return
    with averaged(), torch.no_grad():
        x, *_, labels = subset(training)[:]
        x = x.to(device())
        prior = fit_aggregate(run, model, x, given(labels), config)
        codes = model.encode(x, **given(labels)).mean.cpu()
        folder = run / "pictures"
        folder.mkdir(exist_ok=True)
        if codes.shape[1] > 1:
            embed.scatter(embed.pca(codes).z, labels.tolist(), path=folder / "latents by PCA.png")
        for name, how in {
            "samples of the prior, means": (),
            "samples of the codes' mixture, means": (prior,),
            "samples of the codes' mixture, with noise": (prior, True),
        }.items():
            pictures.save(folder / f"{name}.png", drawn(50, turns, *how), columns=10)
        if few.ndim == 4:
            strips.join(run, "reconstructions")
            same = given(few_labels[:1].expand(8 * len(SPREAD)))
            pictures.save(
                folder / "traversals of the widest latents.png", _traversals(model, codes, same), columns=len(SPREAD)
            )
        y, (known, new) = held_out.tensors[-1], (_shown(part, config.binarise) for part in (training, held_out))
        classes = y if config.conditional else None
        finish_run(
            config, run, lambda: drawn(len(y), y, prior, noise=True), len(y),
            lambda x: quality.assess(x, classes, known, new), labels=classes,
        )  # fmt: skip


def _traversals(model: VAE, codes: Tensor, same: dict[str, Tensor]) -> Tensor:
    """Decoded paths along the eight widest latents from the first code, one a row."""
    device = next(model.parameters()).device
    widest = codes.var(0).argsort(descending=True)[:8].tolist()
    middle, spread = codes.mean(0).tolist(), codes.std(0).tolist()
    way = torch.cat([traverse(codes[0], j, [middle[j] + s * spread[j] for s in SPREAD]) for j in widest])
    return model.decode(way.to(device), **{name: value[: len(way)] for name, value in same.items()}).mean


def _shown(part: Arrays, binarise: bool) -> Arrays:
    """Data in [-1, 1]."""
    if not binarise:
        return part
    x, *rest = part[:]
    return Arrays(2 * x - 1, *rest, classes=part.classes)
