"""What an auto-encoder is good for, beside what simpler methods reach: denoising, in-painting, anomalies, size.

    OMP_NUM_THREADS=1 python tests/benchmarks/autoencoders.py             # all of it, some ten minutes on one core
    OMP_NUM_THREADS=1 python tests/benchmarks/autoencoders.py denoise     # mixture, inpaint, anomaly, one-class, size

Data are scikit-learn's digits in [0, 1], 1,500 of `default_rng(0).permutation` for training and the last 297 to test
with; errors are means of squares over pixels. "denoise" undoes noise of deviation .25; the bar is the posterior mean of
a mixture of 20 Gaussians. "mixture" does so where the posterior mean is known: nothing can be below it. "inpaint" hides
the right half. "anomaly" leaves one class out of training and ranks it against held-out samples of the others,
"one-class" trains on one class alone; both by the mean area under the ROC curve over ten classes. "size" compares with
principal components of as many numbers.
"""

import sys
import time
from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from gen_core import Arrays, Loader, Trainer, seed_all
from gen_core.schedule import warmup_cosine
from gen_latent import (
    MLP,
    AutoEncoder,
    AutoEncoderTask,
    inpaint,
    manifold_score,
    neighbour_score,
    reconstruction_score,
)


@cache
def digits() -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(load_digits().data / 16).float()[np.random.default_rng(0).permutation(1797)]
    return x[:1500], x[1500:]


def wide(d: int, width: int) -> AutoEncoder:
    """d - width - width - d, for corrupted data: nothing is squeezed, it is the corruption that teaches."""
    encoder = MLP(d, width, activation=nn.GELU, last=nn.GELU())
    return AutoEncoder(encoder, MLP(width, width, d, activation=nn.GELU), width)


def narrow(latents: int, *sizes: int) -> AutoEncoder:
    """64 pixels through `sizes` to `latents` and back."""
    encoder, decoder = MLP(64, *sizes, latents, activation=nn.GELU), MLP(latents, *sizes[::-1], 64, activation=nn.GELU)
    return AutoEncoder(encoder, decoder, latents)


def train(ae: AutoEncoder, x: Tensor, steps: int, *, decay: float = 1e-2, **task) -> AutoEncoder:
    seed = task.pop("seed", 0)
    task = AutoEncoderTask(ae, lr=2e-3, betas=(0.9, 0.999), weight_decay=decay, **task)
    trainer = Trainer(task, seed=seed, device="cpu", precision="fp32", schedule=warmup_cosine(0, steps))
    trainer.fit(Loader(Arrays(x), min(128, len(x))), steps)
    return ae.eval()


def say(name: str, value: float, asked: str, others: str) -> None:
    print(f"{name:42s} {value:8.5f}   asked {asked:22s} {others}", flush=True)


@torch.no_grad()
def denoise_digits(steps: int = 4000) -> None:
    x, test = digits()
    seed_all(0)
    ae = train(wide(64, 256), x, steps, noise=0.25)
    seen = test + 0.25 * torch.from_numpy(np.random.default_rng(5).standard_normal(test.shape)).float()
    error = (ae(seen) - test).square().mean().item()
    say("denoise digits", error, "<= .0130", "noisy .06333, Wiener .01933, kernel .01874, GMM-20 .01295")


def denoise_mixture(steps: int = 4000, n: int = 200_000) -> tuple[float, float]:
    """(mean squared distance of the denoised to the clean, the same by the posterior mean) on `n` new points."""
    angle = torch.arange(8) * torch.pi / 4
    centres = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> Tensor:
        return centres[torch.randint(8, (n,), generator=generator)] + 0.2 * torch.randn(n, 2, generator=generator)

    clean, total = draw(n), 0.2**2 + 0.7**2
    seen = clean + 0.7 * torch.randn(n, 2, generator=generator)
    share = (-torch.cdist(seen, centres).square() / (2 * total)).softmax(1)
    best = share @ centres * (0.7**2 / total) + seen * (0.2**2 / total)  # E[clean | seen]
    seed_all(0)
    task = AutoEncoderTask(wide(2, 128), noise=0.7, lr=2e-3)
    loader = Loader(Arrays(draw(200_000)), 512)
    trainer = Trainer(task, device="cpu", precision="fp32", schedule=warmup_cosine(0, steps))
    trainer.fit(loader, steps)
    with torch.no_grad():
        found = task.model(seen)
    return tuple((y - clean).square().sum(1).double().mean().item() for y in (found, best))


@torch.no_grad()
def inpaint_digits(steps: int = 6000) -> None:
    x, test = digits()
    mask = (torch.arange(64) % 8) < 4
    seed_all(0)
    task = {"mask": lambda u, x: mask.expand(len(x), -1), "noise": 0.1, "decay": 0.1}
    ae = train(wide(64, 512), x, steps, **task)
    y = inpaint(ae, test, mask)
    assert torch.equal(y[:, mask], test[:, mask])
    error = (y - test)[:, ~mask].square().mean().item()
    say("in-paint the right half", error, "< .036", "mean .07848, nearest .05805, Gaussian .05608, kernel .03621")


def classes(one: bool):
    """(class, normal training data, the rest, whether it is an anomaly) for each class in turn."""
    pixels, y = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels / 16).float()
    for c in range(10):
        odd = y != c if one else y == c
        normal = np.random.default_rng(c).permutation(np.flatnonzero(~odd))
        half = len(normal) // 2
        rest = np.concatenate([normal[half:], np.flatnonzero(odd)])
        yield c, x[normal[:half]], x[rest], odd[rest]


@torch.no_grad()
def anomaly(one: bool, steps: int = 3000) -> dict[str, float]:
    areas: dict[str, list[float]] = {}
    for c, x, test, odd in classes(one):
        seed_all(c)
        ae = train(narrow(8, 256, 256), x, steps, noise=0.1, decay=0.1, seed=c)
        pca = PCA(10 if one else 20).fit(x)
        again = pca.inverse_transform(pca.transform(test))
        scores = {
            "PCA": (test - torch.from_numpy(again)).square().mean(1),
            "reconstruction": reconstruction_score(ae, test),
            "reconstructed manifold": manifold_score(ae, x, test),
            "5 nearest neighbours": neighbour_score(x, test, 5),
            "nearest neighbour": neighbour_score(x, test, 1),
        }
        for name, score in scores.items():
            areas.setdefault(name, []).append(float(roc_auc_score(odd, score.numpy())))
    return {name: float(np.mean(area)) for name, area in areas.items()}


@torch.no_grad()
def size(steps: int = 4000) -> None:
    x, test = digits()
    for d in (4, 8, 16):
        seed_all(0)
        ae = train(narrow(d, 256, 256), x, steps, noise=0.1)
        pca = PCA(d).fit(x)
        linear = (test.numpy() - pca.inverse_transform(pca.transform(test))).astype(float)
        error = (ae(test) - test).square().mean().item()
        say(f"64 pixels in {d} numbers", error, "below PCA's", f"PCA {np.square(linear).mean():.5f}")


def main(parts: list[str]) -> None:
    start = time.perf_counter()
    if "denoise" in parts:
        denoise_digits()
    if "mixture" in parts:
        found, best = denoise_mixture()
        say(
            "denoise a known mixture", found, "<= .5632, never < .5595", f"posterior mean {best:.5f} here, .56037 exact"
        )
    if "inpaint" in parts:
        inpaint_digits()
    if "anomaly" in parts:
        asked = {"reconstruction": ">= .975", "nearest neighbour": ">= .984"}
        for name, area in anomaly(one=False).items():
            say(f"one class left out, {name}", area, asked.get(name, ""), "PCA-20 .8067, kNN-5 .9836, AE-8 .9735")
    if "one-class" in parts:
        for name, area in anomaly(one=True, steps=1200).items():
            say(f"one class only, {name}", area, ">= .996 by the best", "PCA .9960, pPCA .9963, kNN .9965")
    if "size" in parts:
        size()
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:] or ["denoise", "mixture", "inpaint", "anomaly", "one-class", "size"])
