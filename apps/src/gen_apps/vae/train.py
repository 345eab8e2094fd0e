"""`gen vae train`."""

from pathlib import Path
from typing import Any

import torch

from gen_apps import strips
from gen_apps.data import loader, subset
from gen_apps.drawn import named
from gen_apps.identity import placed
from gen_apps.training import fit, leave
from gen_apps.vae import trained
from gen_apps.vae.config import TrainVAE
from gen_core import embed, pictures, seed_all
from gen_core.summary import summary
from gen_latent import VAE, VAETask
from gen_latent.latents import traverse

SPREAD = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # of a traversal, in standard deviations of the codes


def train(config: TrainVAE) -> None:
    config, run = placed(config, "vae train")
    training, held_out, subject = config.halves()
    seed_all(config.seed, "weights")
    model = config.model(subject, training[:30][0])
    conditions = ("label",) if config.conditional else ()
    task = VAETask(
        model, config.objective, k=config.k, beta=config.beta, free_bits=config.free_bits, conditions=conditions,
        lr=config.optim.lr, weight_decay=config.optim.weight_decay,
    )  # fmt: skip
    model.check(subset(training)[:][0])
    one = {"label": torch.zeros(1, dtype=torch.long)} if config.conditional else {}
    layers = "\n\n".join(
        f"{summary(net, x, **one)}"
        for net, x in ((model.encoder, torch.zeros(1, *subject.shape)), (model.decoder, torch.zeros(1, config.latents)))
    )
    few, *_, label = held_out[strips.spread(len(held_out))]
    label = label if config.conditional else None
    classes = torch.arange(50) % max(1, subject.classes) if config.conditional else None

    device = lambda: next(model.parameters()).device

    def drawn(n: int, prior: Any = None, noise: bool = False) -> torch.Tensor:
        asked = None if not config.conditional else classes if n == 50 else held_out.tensors[-1]
        x = trained.draw(model, prior or model.prior, n, asked, noise=noise, seed=config.seed, device=device())
        return shown(x)

    def look(step: int) -> None:
        if few.ndim == 4:
            again = model.reconstruct(few.to(device()), **named(label, device())).cpu()
            strips.add(run, "reconstructions", step, shown(few), shown(again))

    shown = lambda x: 2 * x - 1 if config.binarise else x
    trainer, ema = fit(
        "vae train", config, run, task, loader(config, training), drawn, averaged="model", model=subject, layers=layers,
        held_out=held_out, look=look,
    )  # fmt: skip
    if trainer.rank == 0:
        with ema.swapped(), torch.no_grad():
            x, *_, labels = subset(training)[:]
            x = x.to(trainer.device)
            y = labels.to(trainer.device) if config.conditional else None
            prior = trained.aggregate(model, x, y, config)
            trained.keep(run, prior)
            codes = model.encode(x, **named(y)).mean.cpu()
            _draw_pictures(run, model, codes, labels, drawn, prior, label)
            y_test = held_out.tensors[-1] if config.conditional else None
            shift = lambda part: type(part)(shown(part[:][0]), *part[:][1:], classes=part.classes)
            leave(config, run, lambda n: drawn(n, prior, noise=True), shift(subset(training)), shift(held_out), y_test)


def _draw_pictures(
    run: Path, model: VAE, codes: torch.Tensor, labels: torch.Tensor, drawn: Any, prior: Any, label: torch.Tensor | None
) -> None:
    folder = run / "pictures"
    folder.mkdir(exist_ok=True)
    if codes.shape[1] > 1:
        embed.scatter(embed.pca(codes).z, labels.tolist(), path=folder / "latents by PCA.png")
    pictures.save(folder / "samples of the prior, means.png", drawn(50), columns=10)
    pictures.save(folder / "samples of the codes' mixture, means.png", drawn(50, prior), columns=10)
    pictures.save(folder / "samples of the codes' mixture, with noise.png", drawn(50, prior, noise=True), columns=10)
    if drawn(50).ndim < 4:
        return
    strips.join(run, "reconstructions")
    widest = codes.var(0).argsort(descending=True)[:8]
    device = next(model.parameters()).device
    middle, spread = codes.mean(0).tolist(), codes.std(0).tolist()
    way = torch.cat([traverse(codes[0], j, [middle[j] + s * spread[j] for s in SPREAD]) for j in widest.tolist()])
    same = None if label is None else labels[:1].expand(len(way)).to(device)
    x = model.decode(way.to(device), **named(same)).mean
    pictures.save(folder / "traversals of the widest latents.png", x, columns=len(SPREAD))
