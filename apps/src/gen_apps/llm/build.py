"""From the flags of the `gen llm` commands and a tokeniser to networks, schedules, prompts and sampling."""

from dataclasses import replace

from gen_apps.llm.config import Network, Pretrain, PretrainOptim, Sampling
from gen_core.schedule import Schedule, inverse_sqrt, warmup_cosine, wsd
from gen_transformer import Config, Tokenizer, Transformer, dial, sampler
from gen_transformer.sampling import Warp, known


def network_config(network: Network, vocab: int) -> Config:
    """The network's configuration, with a vocabulary of `vocab` tokens."""
    layers, dim = network.layers or network.depth or 4, network.dim or (64 * network.depth if network.depth else 128)
    heads = network.heads or (network.depth or 4)
    same = ("kv_heads", "context", "mlp", "norm", "pos", "qk_norm", "tie", "zero_init", "window", "softcap", "dropout")
    return Config(vocab, dim, layers, heads, **{name: getattr(network, name) for name in same})


def schedule(optim: PretrainOptim) -> Schedule:
    """The factor on the learning rates by step."""
    steps = optim.steps or 1000
    warmup = min(max(1, round(optim.warmup * steps)), steps)
    if optim.schedule == "noam":
        return inverse_sqrt(warmup)
    if optim.schedule == "cosine":
        return warmup_cosine(warmup, steps)
    return wsd(warmup, steps, min(round(optim.cooldown * steps), steps - warmup))


def complete(config: Pretrain, tok: Tokenizer) -> Pretrain:
    """The configuration with batch, steps and rate in place of None, as the size of the network wants, and a prompt.

    Raises:
        ValueError: for a prompt that is empty or that the tokeniser does not know.
    """
    optim, context = config.optim, config.network.context
    if config.network.depth:
        by = dial(network_config(config.network, len(tok)))
        usual = {"steps": by.steps, "batch_size": max(1, by.batch // context), "lr": by.lr}
    else:
        usual = {"steps": 1000, "batch_size": 12, "lr": 0.01}
    missing = {name: value for name, value in usual.items() if getattr(optim, name) is None}
    prompt = opening(tok) if config.prompt is None else config.prompt
    if not tok.encode(prompt):
        raise ValueError("--prompt is empty; samples begin with one token at least")
    return replace(config, optim=replace(optim, **missing), prompt=prompt)


def opening(tok: Tokenizer) -> str:
    """A line end, or the first token of a tokeniser of characters that has none."""
    try:
        tok.encode("\n")
    except ValueError:
        return tok.decode([0])
    return "\n"


def warp(sampling: Sampling, model: Transformer, tok: Tokenizer) -> Warp:
    """Probabilities from logits, of tokens that the tokeniser has where the table is padded beyond."""
    usual = sampler(sampling.temperature, k=sampling.top_k, p=sampling.top_p, m=sampling.min_p, r=sampling.repetition)
    return known(usual, model.config.vocab, len(tok))
