"""Log-probs of completions under any causal model, and sums over them that no cut of a batch changes.

    logp = token_logprobs(model, ids, mask, start)          # (b, t): one number for each token of the completions
    loss = reduce(reinforce(logp, advantages), mask[:, start:], "sequence")

`mask` is True for real tokens: prompts are padded on the left, completions on the right, and `start` is where
completions begin. Positions count from the first real token of each row.

[Schulman20] Approximating KL divergence, joschu.net/blog/kl-approx.html. [Tang25] On a few pitfalls in KL divergence
gradient estimation for RL, arXiv:2506.09477.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gen_transformer.attention import positions
from gen_transformer.prompt import LanguageModel
from gen_transformer.sampling import sampler

Estimator = Literal["k1", "k2", "k3"]
How = Literal["token", "sequence", "constant"]


def token_logprobs(
    model: Any,
    ids: Int[Tensor, "b n"],
    mask: Bool[Tensor, "b n"],
    start: int,
    temperature: int | float = 1.0,
    top_p: int | float = 1.0,
) -> Float[Tensor, "b t"]:
    """log p(ids[i] | ids[..i]) for i >= start in nats, 0 in padding, with gradients.

    Args:
        model: a `LanguageModel` or a causal model of Hugging Face.
        temperature, top_p: of the distribution that the tokens were sampled from.

    Raises:
        ValueError: for a `start` without a token before it, a temperature of 0, a model that is neither.
    """
    if not 1 <= start <= ids.shape[1]:
        raise ValueError(f"start={start} must lie in 1..{ids.shape[1]}: a completion follows a prompt")
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} has no log-probabilities to learn from; use one above 0")
    lm, doc = causal(model), mask.long() - 1
    logits = lm.logits(lm(ids[:, :-1], doc=doc[:, :-1])[:, start - 1 :])
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    flat = sampler(temperature, p=top_p)(logits.flatten(0, 1)).view_as(logits)
    value = flat.gather(2, ids[:, start:, None])[..., 0] - flat.logsumexp(2)
    return value.where(mask[:, start:], 0.0)


def log_ratio_kl(
    logp: Float[Tensor, "*b"], ref_logp: Float[Tensor, "*b"], estimator: Estimator = "k1"
) -> Float[Tensor, "*b"]:
    """Estimate of KL(policy || reference) from samples of the policy ([Schulman20]), unbiased for k1 and k3.

    Its *value* is for logs. Its gradient is not that of the KL: minimised as a loss, k1 does nothing on average, k3
    minimises KL(reference || policy), and k2 is right for one token but not for a sequence, whose later states it
    ignores ([Tang25]). `kl_loss` has the gradient of the KL of sequences.

    >>> [round(log_ratio_kl(torch.tensor(-1.0), torch.tensor(-1.5), k).item(), 4) for k in ("k1", "k2", "k3")]
    [0.5, 0.125, 0.1065]
    """
    d = logp - ref_logp
    if estimator == "k1":
        return d
    if estimator == "k2":
        return d.square() / 2
    if estimator == "k3":
        return torch.expm1(-d) + d
    raise ValueError(f"estimator is k1, k2 or k3, got {estimator!r}")


def masked_mean(x: Float[Tensor, "*b"], mask: Bool[Tensor, "*b"], dim: int | None = None) -> Float[Tensor, "..."]:
    """Mean of x where the mask is True, 0 where it is True nowhere."""
    kept, count = x.where(mask, 0), mask.sum() if dim is None else mask.sum(dim)
    return (kept.sum() if dim is None else kept.sum(dim)) / count.clamp(min=1)


def whiten(
    x: Float[Tensor, "*b"],
    mask: Bool[Tensor, "*b"],
    shift_mean: bool = True,
    *,
    total: Callable[[Tensor], Tensor] = lambda part: part,
) -> Float[Tensor, "*b"]:
    """(x - mean) / standard deviation over the mask, 0 elsewhere.

    The variance is the unbiased one plus 1e-8; of a single number it is 0, and so is the result.

    Args:
        shift_mean: False divides only.
        total: sum over processes, where each has a part of the rows.
    """
    n = total(mask.sum())
    mean = total(x.where(mask, 0).sum()) / n.clamp(min=1)
    variance = total((x - mean).where(mask, 0).square().sum()) / (n - 1).clamp(min=1)
    y = (x - mean) * (variance + 1e-8).rsqrt() + (0 if shift_mean else mean)
    return y.where(mask, 0)


def reduce(
    x: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"], how: How = "token", denom: int | float | Tensor | None = None
) -> Float[Tensor, ""]:
    """One number from the losses of tokens: a sum over `denom`.

    | how | sum of | usual denom | used by |
    |---|---|---|---|
    | token | tokens | tokens | DAPO, PPO |
    | sequence | means of sequences | sequences | GRPO, GSPO |
    | constant | tokens | sequences, perhaps times the longest length | REINFORCE, RLOO, Dr. GRPO |

    With the `denom` of the whole batch, the sum over micro-batches is the loss of the batch.
    """
    kept = x.where(mask, 0)
    if how == "sequence":
        kept = kept.sum(1) / mask.sum(1).clamp(min=1)
    return kept.sum() / (counted(mask, how).clamp(min=1) if denom is None else denom)


def counted(mask: Bool[Tensor, "b t"], how: How) -> Tensor:
    """What `reduce` divides by unless told: tokens for "token", else sequences."""
    if how not in ("token", "sequence", "constant"):
        raise ValueError(f"how is token, sequence or constant, got {how!r}")
    return mask.sum() if how == "token" else torch.tensor(len(mask), device=mask.device)


# ---------------------------------------------------------------------- any causal model


def causal(model: Any) -> Any:
    """`model` as a `LanguageModel`: itself, or a causal model of Hugging Face behind the same calls."""
    if isinstance(model, LanguageModel):
        return model
    if hasattr(getattr(model, "config", None), "vocab_size"):
        return _HuggingFace(model)
    raise ValueError(f"{type(model).__name__} is no LanguageModel (config, logits, cache) nor one of Hugging Face")


class _HuggingFace:
    """A causal model of transformers; its "hidden states" are logits already."""

    def __init__(self, model: Any):
        self.model = model
        context = getattr(model.config, "max_position_embeddings", None)
        self.config = SimpleNamespace(vocab=model.config.vocab_size, context=context)

    def __call__(self, ids: Tensor, *, doc: Tensor | None = None, cache: Any = None) -> Tensor:
        past: Tensor = ids[:, :0] if cache is None else cache.doc
        new = doc
        if new is None:  # the last document goes on
            new = past[:, -1:].expand_as(ids) if past.shape[1] else torch.zeros_like(ids)
        seen = torch.cat((past, new), 1)
        options = {} if cache is None else {"past_key_values": cache.kv}
        out = self.model(
            input_ids=ids, attention_mask=(seen >= 0).long(), position_ids=positions(seen)[:, -ids.shape[1] :],
            use_cache=cache is not None, **options,
        )  # fmt: skip
        if cache is not None:
            cache.doc, cache.kv = seen, out.past_key_values
        return out.logits

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def cache(self, batch: int, length: int) -> Any:
        return SimpleNamespace(doc=torch.zeros(batch, 0, dtype=torch.long, device=self.model.device), kv=None)
