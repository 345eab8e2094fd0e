"""Predicted cost of a computation: from FLOPs, from its first laps, from a published card.

    training(transformer_flops(7e9, 2e12), device("A100"), mfu=0.4, count=64)     # a Reading
    from_laps(meter.laps, total=90, warmup=1)                                     # a Reading of all 90
    audit(gpu_hours=7.0e6, watts=700, tonnes=12.9).consistent                     # False: Llama 3.3's card

All of them are `Reading`s: energy at the computers, before PUE. `footprint` gives their carbon, and a prediction is
compared with what was measured by subtraction.

[Chowdhery22] PaLM, arXiv:2204.02311, appendix B: 6 N + 12 L H Q T FLOPs per token.
[Faiz23] LLMCarbon, arXiv:2309.14393.   [EcoLogits] genai-impact/ecologits 0.11.3, impacts/llm.py (constants; MPL-2.0).
"""

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gen_green.footprint import KWH, embodied, footprint
from gen_green.hardware import Device, Hardware, factor
from gen_green.intensity import constant
from gen_green.quantity import Quantity, product_spread, weakest
from gen_green.reading import Part, Reading

__all__ = ["Audit", "Inference", "audit", "card", "from_laps", "inference", "training", "transformer_flops"]

MFU_SPREAD = 1.5  # Llama 2 and 3.1 cards imply utilisations of 0.345 to 0.428; smaller runs reach less
INFERENCE_SPREAD = 2.5  # H100 at batch 64: 0.69 to 1.73 times the regression; other batches and servers: not measured


def transformer_flops(
    params: float,
    tokens: float,
    *,
    active: float | None = None,
    layers: int = 0,
    width: int = 0,
    context: int = 0,
    causal: bool = False,
    backward: bool = True,
) -> float:
    """FLOPs of a transformer over `tokens`: 6 N D, plus 12 L (H Q) T D for attention [Chowdhery22].

    Args:
        params: N, all parameters.
        active: of a mixture of experts, those that one token meets; they count instead (N would overestimate, up to 8
            times and more).
        layers, width, context: L, heads x head dimension H Q, and tokens per sequence T; without them attention is
            left out.
        causal: count half of the attention, which a causal kernel skips.
        backward: training; without it, 2 N + 4 L H Q T per token (inference).

    >>> f"{transformer_flops(175e9, 300e9):.3g}"
    '3.15e+23'
    """
    if not (params > 0 and tokens >= 0 and (active is None or 0 < active <= params)):
        raise ValueError(f"need 0 < active <= params and tokens of at least 0, got {active}, {params:g} and {tokens:g}")
    passes = 3 if backward else 1  # the backward pass costs two forward ones
    attention = 4 * layers * width * context * (0.5 if causal else 1.0)
    return passes * tokens * (2 * (active or params) + attention)


def training(flops: float, device: Device, mfu: float = 0.40, count: int = 1, *, watts: float | None = None) -> Reading:
    """Time and energy of `flops` on `count` devices.

    Args:
        mfu: model FLOPs utilisation, the share of the peak that the model's FLOPs get, in (0, 1].
        watts: mean draw per device, with its share of the server where that is meant; the TDP where nothing is known.

    Raises:
        ValueError: for a utilisation outside (0, 1], or a device whose peak is unknown.
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu is the share of the peak FLOP/s that a model gets, in (0, 1], got {mfu}")
    if not (device.flops > 0 and count >= 1 and flops >= 0):
        raise ValueError(
            f"need a device with a known peak and FLOPs of at least 0, got {device.name} at {device.flops:g} FLOP/s, "
            f"count {count} and {flops:g} FLOPs; make a Device(name, watts, flops)"
        )
    seconds = flops / (device.flops * mfu * count)
    draw = device.watts.value if watts is None else watts
    source = f"{flops:.3g} FLOPs at {mfu:.0%} of {device.name}'s {device.flops / 1e12:g} TFLOP/s, {draw:g} W each"
    part = Part(seconds * count * draw, "modelled", source, MFU_SPREAD)
    return Reading(seconds, {"gpu": part}, label="predicted")


def from_laps(laps: Sequence[Reading], total: int, *, warmup: int = 0) -> Reading:
    """All `total` laps, of which the first ones are known: what they took, and their mean for each one to come.

    Args:
        warmup: first laps that were not like the rest (compilation, cold caches): counted, but left out of the mean.

    Raises:
        ValueError: for fewer laps than `warmup + 1`, or more than `total`.
    """
    if not 0 <= warmup < len(laps) <= total:
        raise ValueError(f"need 0 <= warmup < laps <= total, got warmup {warmup}, {len(laps)} laps and total {total}")
    usual = laps[warmup:]
    done, mean = functools.reduce(operator.add, laps), functools.reduce(operator.add, usual) * (1 / len(usual))
    joules = [lap.total for lap in usual]
    varied = math.sqrt(max(joules) / min(joules)) if len(usual) > 1 and min(joules) > 0 else 1.2
    whole = done + mean * (total - len(laps))
    if len(laps) == total:
        return whole
    source = f"{len(usual)} of {total} laps"
    parts = {
        name: replace(
            part,
            kind=weakest((part.kind, "modelled")),
            source=f"{part.source}; {source}",
            spread=product_spread(part.spread, varied),
        )
        for name, part in whole.joules.items()
    }
    return replace(whole, joules=parts, label="predicted")


@dataclass(frozen=True)
class Inference:
    """A request to a language model.

    Args:
        reading: energy at the computers; its seconds are the machine time that falls to this request.
        gpus: that hold the model.
        latency: seconds until the last token.
        embodied: g of CO2 equivalent of that share of the server, for `footprint(..., embodied=...)`.
    """

    reading: Reading
    gpus: int
    latency: float
    embodied: Quantity


def inference(
    active: float,
    tokens: float,
    *,
    total: float | None = None,
    latency: float | None = None,
    batch: int = 64,
    bits: int = 16,
    gpu_memory_gb: float = 80.0,
    server_gpus: int = 8,
    server_watts: float = 1200.0,
    lifetime_years: float = 3.0,
) -> Inference:
    """A request that generates `tokens`, by the regressions of [EcoLogits] over an eight-GPU server.

    kWh per token and GPU = (1.16653e-6 exp(-0.0112059 B) P + 4.05293e-5) / 1000; the rest of the server by its share of
    GPUs, over the latency, shared by the batch.

    Args:
        active, total: parameters, of a token and of the whole model (not billions).
        latency: measured seconds; the shorter of it and the model's counts.
        batch: B, requests served at once.

    Raises:
        ValueError: for figures that are not above 0.
    """
    total = active if total is None else total
    if not (0 < active <= total and tokens > 0 and batch >= 1):
        raise ValueError(
            f"need 0 < active <= total parameters and tokens above 0, got {active:g}, {total:g}, {tokens:g}"
        )
    billions = active / 1e9
    gpus = 2 ** math.ceil(math.log2(math.ceil(1.2 * total / 1e9 * bits / 8 / gpu_memory_gb)))
    modelled = tokens * (6.785088094353663e-4 * billions + 3.119310311688259e-4 * batch + 1.9473717579473387e-2)
    seconds = min(modelled, latency if latency is not None else math.inf)
    regression = 1.1665273170451914e-6 * math.exp(-0.011205921025579175 * batch) * billions + 4.052928146734005e-5
    gpu = gpus * tokens * regression / 1000 * KWH
    server = seconds * server_watts * gpus / server_gpus / batch
    parts = {
        "gpu": Part(gpu, "modelled", "EcoLogits 0.11.3", INFERENCE_SPREAD),
        "server": Part(server, "modelled", "EcoLogits 0.11.3", INFERENCE_SPREAD),
    }
    held = [
        Hardware("server", factor("server without gpu embodied (ecologits)"), gpus / server_gpus),
        Hardware("gpu", factor("gpu embodied (ecologits)"), gpus),
    ]
    made = embodied(held, seconds / batch, lifetime_years, utilisation=1.0)
    return Inference(Reading(seconds / batch, parts, tokens=tokens, label="predicted"), gpus, seconds, made)


def card(gpu_hours: float, watts: float) -> Reading:
    """Energy of a published card: device hours at a draw, before PUE. Its seconds are device seconds."""
    if not (gpu_hours > 0 and watts > 0):
        raise ValueError(f"a card states device hours and watts above 0, got {gpu_hours:g} and {watts:g}")
    seconds = gpu_hours * 3600
    return Reading(seconds, {"gpu": Part(seconds * watts, "assumed", "published card", 1.2)}, label="published")


@dataclass(frozen=True)
class Audit:
    """A card's tonnes against its own hours.

    Args:
        expected: tonnes of CO2 equivalent that hours, watts, PUE and intensity give.
        ratio: stated over expected.
        implied: g per kWh of IT energy that the stated tonnes mean, PUE included.
        consistent: whether the ratio is within the tolerance of 1.
    """

    expected: float
    ratio: float
    implied: float
    consistent: bool

    def __float__(self) -> float:
        return self.ratio


def audit(
    gpu_hours: float,
    watts: float,
    tonnes: float,
    pue: float = 1.1,
    intensity: float = 385.0,
    *,
    tolerance: float = 0.10,
) -> Audit:
    """Recompute a card's carbon: gpu_hours x watts x PUE x intensity.

    Args:
        pue: 1.1 and `intensity` 385 g/kWh reproduce Meta's cards, whose "700 W" lies before PUE whatever they say.
        tolerance: of the ratio around 1.

    >>> audit(1_720_320, 400, 291.42).consistent, audit(7.0e6, 700, 12.9).consistent
    (True, False)
    """
    if not tonnes >= 0:
        raise ValueError(f"a card states tonnes of at least 0, got {tonnes}")
    stated = footprint(card(gpu_hours, watts), constant(intensity), pue)
    expected = stated.carbon.value / 1e6
    ratio = tonnes / expected if expected else math.inf
    return Audit(expected, ratio, tonnes * 1e6 / stated.it.value, abs(ratio - 1) <= tolerance)
