"""Scores of unusual samples, larger for the more unusual, and thresholds for them.

    scores = neighbour_score(encode(train), encode(test))
    line = threshold(reconstruction_score(model, held_out_normal), 0.01)     # one false alarm in a hundred

[An15] Variational autoencoder based anomaly detection using reconstruction probability, SNU Data Mining Center, 2015-2.
[Angiulli02] Fast outlier detection in high dimensional spaces, PKDD 2002.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_latent.bounds import LatentModel, nll


@torch.no_grad()
def reconstruction_score(model: Callable[[Tensor], Tensor], x: Float[Tensor, "b ..."]) -> Float[Tensor, "b"]:
    """|x - model(x)|^2 of each sample, averaged over its dimensions."""
    return (x - model(x)).square().flatten(1).mean(1)


@torch.no_grad()
def manifold_score(
    model: Callable[[Tensor], Tensor], normal: Float[Tensor, "n ..."], x: Float[Tensor, "b ..."], k: int = 1
) -> Float[Tensor, "b"]:
    """Distance to the `k` nearest reconstructions of the normal data: to what the model makes of them, not of x."""
    return neighbour_score(model(normal), x, k)


def likelihood_score(
    model: LatentModel, x: Float[Tensor, "b ..."], k: int = 100, *, generator: Generator | None = None, **cond: Any
) -> Float[Tensor, "b"]:
    """-ln p(x) by `k` importance samples, in nats ([An15] with a bound in place of the reconstruction alone)."""
    return nll(model, x, k, generator=generator, **cond)


def neighbour_score(bank: Float[Tensor, "n ..."], x: Float[Tensor, "b ..."], k: int = 5) -> Float[Tensor, "b"]:
    """Mean Euclidean distance to the `k` nearest of the normal data `bank`, in any features ([Angiulli02]).

    Raises:
        ValueError: unless `bank` has `k` samples.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f"k is a number of neighbours among the {len(bank)} samples of normal data, got {k}")
    distance = torch.cdist(x.flatten(1), bank.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    return distance.topk(k, 1, largest=False).values.mean(1)


def threshold(scores: Float[Tensor, "n"], false_positive_rate: float) -> float:
    """The least line above which at most this share of normal data lies.

    Args:
        scores: of normal data that nothing was fitted to.

    Raises:
        ValueError: unless 0 < rate < 1 and there are enough scores to tell such a rate.
    """
    if not 0 < false_positive_rate < 1 or len(scores) * false_positive_rate < 1:
        raise ValueError(
            f"a false positive rate of {false_positive_rate} cannot be told from {len(scores)} scores; "
            f"it takes a rate in (0, 1) and at least 1 / rate normal samples"
        )
    ordered = scores.double().sort(descending=True).values
    return ordered[int(len(scores) * false_positive_rate + 1e-9)].item()
