"""The loss of language models: a mean over the tokens that count, computed without keeping the logits.

A batch is `(ids, targets, weight, doc)`: `targets[i]` is the token after `ids[i]` in the same document, and `weight`
is 0 where there is none. Under gen-core's trainer the mean is over all micro-batches and processes:

    t.minimize("model", loss, ids, targets, weight, doc, weight=lambda *batch: batch[2].sum())

[Szegedy15] Rethinking the Inception architecture, arXiv:1512.00567. [Chowdhery22] PaLM, arXiv:2204.02311.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function


def lm_loss(
    hidden: Float[Tensor, "*b d"],
    head: Float[Tensor, "vocab d"],
    targets: Int[Tensor, "*b"],
    weight: Float[Tensor, "*b"] | None = None,
    *,
    total: Float[Tensor, ""] | int | float | None = None,
    bias: Float[Tensor, "vocab"] | None = None,
    smoothing: float = 0.0,
    z: float = 0.0,
    softcap: float | None = None,
    chunk: int = 4096,
) -> Float[Tensor, ""]:
    """sum_i w_i (-log softmax(logits_i)[target_i] + z log^2 Z_i) / total, in nats, in float32 or better.

    Args:
        weight: of each token; 0 leaves it out, and its target is not looked at. None: 1 each.
        total: what the sum is divided by; None: the sum of the weights. A loop of your own that accumulates over
            micro-batches or processes gives the weight of all of them.
        smoothing: share of the target that is spread evenly over the vocabulary ([Szegedy15] section 7).
        z: factor on log^2 Z, which keeps the logits from drifting ([Chowdhery22] section 5; there 1e-4).
        softcap: logits are c tanh(logits / c).
        chunk: tokens whose logits exist at a time. Their gradients are made at once, so the memory is that of a chunk
            and nothing is computed twice; a second derivative cannot be taken.

    Raises:
        ValueError: when no token counts.
    """
    flat = targets.reshape(-1)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    w = torch.ones_like(flat, dtype=wide) if weight is None else weight.reshape(-1).to(wide)
    if total is None:
        total = w.sum()
        if total.device.type == "cpu" and not torch.compiler.is_compiling() and not total > 0:
            raise ValueError("no token counts: every weight is 0, so the mean is 0 / 0; leave such a batch out")
    keep = flat.where(w != 0, 0)  # a target that does not count may be anything
    loss: Any = _ChunkedLoss.apply(
        hidden.reshape(-1, hidden.shape[-1]), head, bias, keep, w / total, smoothing, z, softcap, chunk
    )
    return loss


class _ChunkedLoss(Function):
    """The loss and its gradients chunk by chunk: with p the softmax and l the logits,

    d/dl (-sum_v q_v log p_v + z log^2 Z) = p (1 + 2 z log Z) - q,  q the smoothed target,

    times 1 - (l / c)^2 under a soft cap.
    """

    @staticmethod
    def forward(ctx, hidden, head, bias, targets, w, smoothing, z, softcap, chunk):
        wants = [isinstance(x, Tensor) and x.requires_grad for x in (hidden, head, bias)]
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        wide = torch.promote_types(dtype, torch.float32)
        loss = hidden.new_zeros((), dtype=wide)
        d_hidden, d_head, d_bias = (
            torch.zeros_like(x) if want else None for x, want in zip((hidden, head, bias), wants, strict=True)
        )
        with torch.autocast(device, enabled=False):
            matrix, shift = head.to(dtype), None if bias is None else bias.to(dtype)
            for i in range(0, len(hidden), chunk):
                rows = slice(i, i + chunk)
                x = hidden[rows].to(dtype)
                logits = F.linear(x, matrix, shift).to(wide)
                value, slope = _value_and_slope(logits, targets[rows], w[rows], smoothing, z, softcap)
                loss += value
                slope = slope.to(dtype)
                if d_hidden is not None:
                    d_hidden[rows] = slope @ matrix
                if d_head is not None and dtype == d_head.dtype:
                    d_head.addmm_(slope.T, x)
                elif d_head is not None:  # products in bf16 are summed in float32
                    d_head += slope.T @ x
                if d_bias is not None:
                    d_bias += slope.sum(0)
        ctx.save_for_backward(d_hidden, d_head, d_bias)
        return loss

    @staticmethod
    def backward(ctx, *grad):
        (scale,) = grad
        saved = ctx.saved_tensors
        if (
            torch.compiler.is_compiling() or scale.device.type != "cpu" or scale != 1
        ):  # by 1 would be a pass for nothing
            saved = [None if d is None else d * scale.to(d.dtype) for d in saved]
        d_hidden, d_head, d_bias = saved
        return d_hidden, d_head, d_bias, None, None, None, None, None, None


def _value_and_slope(
    logits: Float[Tensor, "n v"],
    targets: Int[Tensor, "n"],
    w: Float[Tensor, "n"],
    smoothing: float,
    z: float,
    softcap: float | None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "n v"]]:
    """The weighted loss of some tokens and its slope in the logits, which are overwritten."""
    if softcap is not None:
        logits = logits.div_(softcap).tanh_().mul_(softcap)
    flat = None if softcap is None else 1 - (logits / softcap).square_()
    picked = logits.gather(1, targets[:, None])[:, 0]
    spread = logits.mean(1) if smoothing else picked
    top = logits.amax(1)
    powers = logits.sub_(top[:, None]).exp_()  # in place: there is one matrix of this size, and one exp
    total = powers.sum(1)
    log_z = top + total.log()
    value = (w * (log_z - (1 - smoothing) * picked - smoothing * spread + z * log_z.square())).sum()
    slope = powers.mul_((w * (1 + 2 * z * log_z) / total)[:, None])
    if smoothing:
        slope -= (w * (smoothing / slope.shape[1]))[:, None]
    slope.scatter_add_(1, targets[:, None], -(1 - smoothing) * w[:, None])
    if flat is not None:
        slope *= flat
    return value, slope


def logprobs(model: Any, ids: Int[Tensor, "b t"], doc: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b t-1"]:
    """log p(ids[i + 1] | ids[..i]) of every token but the first, in nats, with gradients.

    Where `ids[i + 1]` begins another document or is padding there is no such probability: the value is 0.
    """
    logits = model.logits(model(ids[:, :-1], doc=None if doc is None else doc[:, :-1]))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    value = logits.gather(2, ids[:, 1:, None])[..., 0] - logits.logsumexp(2)
    if doc is None:
        return value
    return value.where((doc[:, 1:] == doc[:, :-1]) & (doc[:, 1:] >= 0), 0.0)
