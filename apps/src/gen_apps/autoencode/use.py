"""`gen autoencode denoise`, `inpaint`, `anomaly` and `compress`: each with a figure beside an honest bar."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from gen_apps import strips
from gen_apps.autoencode.bars import kernel_regression, posterior_mean
from gen_apps.autoencode.config import right
from gen_apps.autoencode.train import TrainedAutoEncoder, damaged
from gen_apps.data import subset
from gen_apps.drawn import RunPath
from gen_core import pictures
from gen_latent import QuantizedAutoEncoder, inpaint, manifold_score, neighbour_score, reconstruction_score, threshold
from gen_latent.linear import fill_in, project, wiener


@dataclass(frozen=True)
class Use:
    """Try a run on its held-out data; the figures are also written to the run, as JSON."""

    run: RunPath
    """Directory of the run."""
    device: str = "auto"
    out: Path | None = None
    """Picture to write; by default in the run, named by the command."""


def denoise(config: Use) -> None:
    trained, train, x, _ = _opened(config)
    how = trained.config
    if not how.noise or how.hide != "nothing":
        raise ValueError(
            f"{config.run} was not trained on noise alone; train one with: gen autoencode train --noise 0.5"
        )
    noisy = damaged(how, x)
    clean = {
        "auto-encoder": trained.give_back(noisy),
        "posterior mean of 20 Gaussians": posterior_mean(train, noisy, how.noise, how.seed),
        "Wiener filter": wiener(train, noisy, how.noise),
        "noisy": noisy,
    }
    found = {name: (y - x).square().mean().item() for name, y in clean.items() if y is not None}
    _tell(trained, config, "denoise", found, [x, noisy, clean["Wiener filter"], clean["auto-encoder"]], "squared error")


def fill(config: Use) -> None:
    trained, train, x, _ = _opened(config)
    if trained.config.hide != "right":
        raise ValueError(
            f"{config.run} was trained with all in sight; train one with: gen autoencode train --hide right --noise 0.2"
        )
    seen = right(x)
    hidden = ~seen.expand_as(x)
    nearest = train[torch.cdist((x * seen).flatten(1), (train * seen).flatten(1)).argmin(1)]
    with torch.no_grad():
        ours = inpaint(lambda y: trained.give_back(y), x, seen)
    filled = {
        "auto-encoder": ours,
        "kernel regression": kernel_regression(train, x, seen),
        "Gaussian given what is seen": fill_in(train, x, seen, ridge=0.01),
        "nearest neighbour": torch.where(seen, x, nearest),
        "mean": torch.where(seen, x, train.mean(0)),
    }
    found = {name: (y - x)[hidden].square().mean().item() for name, y in filled.items()}
    sheet = [x, torch.where(seen, x, -1.0), filled["Gaussian given what is seen"], ours]
    _tell(trained, config, "inpaint", found, sheet, "squared error of hidden values")


def anomaly(config: Use) -> None:
    from sklearn.metrics import roc_auc_score

    trained, train, x, y = _opened(config)
    odd = trained.config.leave_out
    if odd is None:
        raise ValueError(f"{config.run} has seen every class; train one with: gen autoencode train --leave-out 3")
    d = min(20, train[0].numel())
    scores = {
        "reconstruction": reconstruction_score(trained.give_back, x),
        "distance to what it makes of normal data": manifold_score(trained.give_back, train, x),
        "5th neighbour in the codes": neighbour_score(trained.codes(train), trained.codes(x)),
        f"PCA of {d} directions": (x - project(train, x, d)).square().flatten(1).mean(1),
        "5th neighbour in the data": neighbour_score(train, x),
    }
    if not 0 < int((y == odd).sum()) < len(y):
        raise ValueError(f"held-out data need samples of class {odd} and of others to tell them apart")
    found = {name: float(roc_auc_score((y == odd).numpy(), s.numpy())) for name, s in scores.items()}
    order = scores["reconstruction"].argsort(descending=True)
    normal = scores["reconstruction"][y != odd]
    if len(normal) >= 100:
        line = threshold(normal, 0.01)
        found["caught at 1 % false alarms"] = (scores["reconstruction"][y == odd] > line).double().mean().item()
    _tell(trained, config, "anomaly", found, [x[order][:10], x[order.flip(0)][:10]], "area under the ROC curve")


def compress(config: Use) -> None:
    trained, train, x, _ = _opened(config)
    back = trained.give_back(x)
    numbers = trained.codes(x[:1]).shape[1]
    d = min(numbers, x[0].numel())
    found = {
        "auto-encoder": (back - x).square().mean().item(),
        f"PCA of {d} numbers": (project(train, x, d) - x).square().mean().item(),
    }
    found |= {f"{name}, PSNR in dB": -10 * math.log10(max(v, 1e-12) / 4) for name, v in list(found.items())}
    found |= {"values of a sample": x[0].numel(), "numbers of its code": numbers}
    if isinstance(trained.model, QuantizedAutoEncoder):
        places = numbers // (trained.config.latents or 16)
        found["bits of its code"] = places * math.log2(trained.config.codes)
    _tell(trained, config, "compress", found, [x, project(train, x, d), back], "squared error")


def _opened(config: Use) -> tuple[TrainedAutoEncoder, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The run, its training data, held-out data and their classes."""
    trained = TrainedAutoEncoder.open(config.run, config.device)
    training, held_out, _ = trained.config.halves()
    x, *_, y = held_out[:]
    return trained, subset(training)[:][0], x, y


def _tell(
    trained: TrainedAutoEncoder, config: Use, name: str, found: dict[str, float], rows: list[torch.Tensor], what: str
) -> None:
    """Figures and a picture, one row for each of `rows`."""
    out = config.out or trained.run.path / f"{name}.png"
    trained.run.write(f"{name}.json", {"of": what, **found})
    if rows[0].ndim == 4:
        pictures.save(out, torch.cat([row[strips.spread(len(row))] for row in rows]), columns=10)
    print(f"{what}: " + "; ".join(f"{key} {value:.4g}" for key, value in found.items()))
    print(f"{out}, {trained.run.path / f'{name}.json'}")
