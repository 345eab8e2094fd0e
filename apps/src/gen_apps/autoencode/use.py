"""`gen autoencode denoise`, `inpaint`, `anomaly` and `compress`: each with a figure beside a baseline."""

import math
from collections.abc import Sequence
from typing import Any

import rich
import torch

from gen_apps import pages, strips
from gen_apps.autoencode.build import damaged, right
from gen_apps.autoencode.config import Use
from gen_apps.autoencode.trained import TrainedAutoEncoder
from gen_apps.data import subset
from gen_apps.results import Row, figure, table, write_results
from gen_core import pictures
from gen_core.intervals import bootstrap, mean, proportion
from gen_core.runtime import generator
from gen_diffusion.mixture import FULL, posterior_mean
from gen_latent import QuantizedAutoEncoder, inpaint, manifold_score, neighbour_score, reconstruction_score, threshold
from gen_latent.kernel import kernel_regression
from gen_latent.linear import fill_in, project, wiener


def denoise(config: Use) -> None:
    trained, train, x, _ = _opened(config)
    how = trained.config
    if not how.noise or how.hide != "nothing":
        raise ValueError(
            f"{config.run} was not trained on noise alone; train one with: gen autoencode train --noise 0.5"
        )
    noisy = damaged(how, x)
    clean = {"auto-encoder": trained.reconstruct(noisy)}
    if x[0].numel() <= FULL:
        clean["posterior mean of 20 Gaussians"] = posterior_mean(train, noisy, how.noise, 20, how.seed)
    clean |= {"Wiener filter": wiener(train, noisy, how.noise), "noisy": noisy}
    rows = [{"name": name, "squared error": mean(_errors(y, x)).figure()} for name, y in clean.items()]
    _write(trained, config, "denoise", rows, [x, noisy, clean["Wiener filter"], clean["auto-encoder"]])


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
        ours = inpaint(trained.reconstruct, x, seen)
    filled = {
        "auto-encoder": ours,
        "kernel regression": kernel_regression(train, x, seen),
        "Gaussian given what is seen": fill_in(train, x, seen, ridge=0.01),
        "nearest neighbour": torch.where(seen, x, nearest),
        "mean": torch.where(seen, x, train.mean(0)),
    }
    rows = [
        {"name": name, "squared error of hidden values": mean(_errors(y[hidden], x[hidden], len(x))).figure()}
        for name, y in filled.items()
    ]
    sheet = [x, torch.where(seen, x, -1.0), filled["Gaussian given what is seen"], ours]
    _write(trained, config, "inpaint", rows, sheet)


def anomaly(config: Use) -> None:
    trained, train, x, y = _opened(config)
    odd = trained.config.leave_out
    if odd is None:
        raise ValueError(f"{config.run} has seen every class; train one with: gen autoencode train --leave-out 3")
    d = min(20, train[0].numel())
    scores = {
        "reconstruction": reconstruction_score(trained.reconstruct, x),
        "distance to what it makes of normal data": manifold_score(trained.reconstruct, train, x),
        "5th neighbour in the codes": neighbour_score(trained.encode(train).flatten(1), trained.encode(x).flatten(1)),
        f"PCA of {d} directions": (x - project(train, x, d)).square().flatten(1).mean(1),
        "5th neighbour in the data": neighbour_score(train, x),
    }
    if not 2 <= int((y == odd).sum()) <= len(y) - 2:
        raise ValueError(f"held-out data need 2 samples of class {odd} at least and 2 of others to tell them apart")
    rows = [{"name": name, "area under the ROC curve": _area(s[y == odd], s[y != odd])} for name, s in scores.items()]
    order = scores["reconstruction"].argsort(descending=True)
    normal = scores["reconstruction"][y != odd]
    if len(normal) >= 100:
        line = threshold(normal, 0.01)
        caught = (scores["reconstruction"][y == odd] > line).double()
        rows[0]["caught at 1 % false alarms"] = proportion(caught.mean().item(), len(caught)).figure()
    _write(trained, config, "anomaly", rows, [x[order][:10], x[order.flip(0)][:10]])


def compress(config: Use) -> None:
    trained, train, x, _ = _opened(config)
    back = trained.reconstruct(x)
    numbers = trained.encode(x[:1]).numel()
    d = min(numbers, x[0].numel())
    linear = project(train, x, d)
    rows: list[dict[str, Any]] = [
        {"name": name, "numbers": size, "of": x[0].numel(), **_loss(y, x)}
        for name, size, y in (("auto-encoder", numbers, back), (f"PCA of {d} numbers", d, linear))
    ]
    if isinstance(trained.network, QuantizedAutoEncoder):
        places = numbers // (trained.config.latents or 16)
        rows[0]["bits"] = places * math.log2(trained.config.codes)
    _write(trained, config, "compress", rows, [x, linear, back])


def _opened(config: Use) -> tuple[TrainedAutoEncoder, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The run, its training data, held-out data and their classes."""
    trained = TrainedAutoEncoder.open(config.run, config.device)
    training, held_out = trained.data()
    x, *_, y = held_out[:]
    return trained, subset(training)[:][0], x, y


def _errors(y: torch.Tensor, x: torch.Tensor, n: int | None = None) -> torch.Tensor:
    """The mean squared error of each of `n` samples."""
    return (y - x).square().reshape(n or len(x), -1).mean(1)


def _loss(y: torch.Tensor, x: torch.Tensor) -> dict[str, Row]:
    """Squared error and peak signal-to-noise ratio of data in [-1, 1], both with the interval of the former."""
    error = mean(_errors(y, x))
    decibels = lambda v: -10 * math.log10(max(v, 1e-12) / 4)
    ends = [decibels(error.high), decibels(error.low)]
    ratio = figure(decibels(error.value), interval=ends, n=len(x), unit="dB")
    return {"squared error": error.figure(), "PSNR": ratio}


def _area(odd: torch.Tensor, normal: torch.Tensor) -> Row:
    """The area under the ROC curve of the scores of two sets: the share of pairs in the right order."""
    from sklearn.metrics import roc_auc_score

    def area(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(roc_auc_score([1] * len(a) + [0] * len(b), torch.cat([a, b]).numpy()))

    return bootstrap(area, odd, normal, draws=100, bounds=(0, 1), generator=generator("area")).figure()


def _write(
    trained: TrainedAutoEncoder, config: Use, name: str, rows: Sequence[Row], sheet: Sequence[torch.Tensor]
) -> None:
    """Figures and a picture, one line of it for each of `sheet`."""
    out = config.out or trained.run.path / f"{name}.png"
    trained.run.write(f"{name}.json", {"rows": rows})
    write_results(config.json, f"autoencode {name}", config, rows)
    if sheet[0].ndim == 4:
        pictures.save(out, torch.cat([part[strips.spread(len(part))] for part in sheet]), columns=10)
        pages.show(trained.run, out)
    rich.print(table("held-out data", rows))
    print(f"{out}, {trained.run.path / f'{name}.json'}")
