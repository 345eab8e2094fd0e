"""`gen autoencode train`."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from gen_apps import strips
from gen_apps.autoencode import build
from gen_apps.autoencode.config import TrainAutoEncoder
from gen_apps.autoencode.trained import SCALE, fit_scale
from gen_apps.data import loader, subset
from gen_apps.training import conclude, fit
from gen_core import Loader, Training, embed, seed_all
from gen_core.ema import power
from gen_core.intervals import mean
from gen_core.scales import text
from gen_core.summary import summary
from gen_latent.task import AutoEncoderTask


def train(config: TrainAutoEncoder, run: Path) -> None:
    training, held_out, subject = build.halves(config)
    seed_all(config.seed, "weights")
    model = build.model(config, subject)
    task = AutoEncoderTask(
        model, noise=config.noise, mask=build.mask(config), lr=config.optim.lr, weight_decay=config.optim.weight_decay
    )
    few = build.damaged(config, held_out[strips.spread(len(held_out))][0])

    def reconstruct(x: Tensor) -> Tensor:
        return model(x.to(next(model.parameters()).device)).cpu()

    def preview(t: Training) -> None:
        if t.rank == 0 and few.ndim == 4:
            strips.add(run, "given back", t.step, few, reconstruct(few))

    trainer, averaged = fit(
        config, run, task, loader(config, training), network="model",
        facts={**asdict(subject), "fitted": SCALE}, layers=summary(model, torch.zeros(1, *subject.shape)),
        preview=preview, ema=power(config.optim.ema),
        validation=Loader(held_out, min(512, len(held_out))),
    )  # fmt: skip
    if trainer.rank:
        return
    with averaged(), torch.no_grad():
        x, *_, y = subset(training)[:]
        x = x.to(trainer.device)
        fit_scale(run, model, x)
        strips.join(run, "given back")
        shown = strips.spread(len(x), 1000)
        codes, labels = model.encode(x[shown]).flatten(1).cpu(), y[shown]
        if codes.shape[1] > 1:
            (run / "pictures").mkdir(exist_ok=True)
            embed.scatter(embed.pca(codes).z, labels.tolist(), path=run / "pictures" / "codes by PCA.png")
        clean = held_out[:][0]
        errors = (reconstruct(build.damaged(config, clean)) - clean).square().flatten(1).mean(1)
    row = {"name": "held-out data", "n": len(errors), "squared error": mean(errors).figure()}
    notes = ["Squared error per value of held-out samples in [-1, 1], damaged as in training and given back."]
    conclude(
        config, run, {"columns": ["squared error"], "rows": [row], "notes": notes},
        f"squared error per value of {len(errors)} held-out samples {text(row['squared error'])}",
    )  # fmt: skip
