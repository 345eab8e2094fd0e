"""One dial for a model: how long to train what is so large, in which batches, at which rate.

    dial(Config(vocab=32768, dim=768, layers=12, heads=12, context=2048))
    # Dial(tokens=1.2e9, batch=524288, steps=2216, lr=0.004)

The constants are those that nanochat found for its models of 12 to 26 layers; below they are an extrapolation.

[Karpathy25] nanochat, github.com/karpathy/nanochat, dev/LOG.md: 10.5 tokens per parameter, a batch that grows as the
tokens to the power .383, rates that fall as the square root of the width.
"""

from dataclasses import dataclass

import torch

from gen_transformer.config import Config
from gen_transformer.model import Transformer, parameters

TOKENS_PER_PARAMETER = 10.5
REFERENCE = (1.16e9, 2**19, 768, 4e-3)  # tokens, batch, width and rate of AdamW of the model of 12 layers


@dataclass(frozen=True)
class Dial:
    """What follows from a model's size."""

    tokens: int
    """To train on."""
    batch: int
    """Tokens per update, a power of two."""
    steps: int
    lr: float
    """Of AdamW; Muon's rate does not depend on the width."""


def dial(cfg: Config, *, ratio: float = TOKENS_PER_PARAMETER) -> Dial:
    """How to train a model of this size ([Karpathy25]).

    Parameters are counted without the tables of tokens and positions, the output matrix included.

    >>> dial(Config(vocab=32768, dim=768, layers=12, heads=12, mlp="relu2")).batch
    524288
    """
    with torch.device("meta"):
        model = Transformer(cfg)
    size = parameters(model, tables=False) + cfg.vocab * cfg.dim
    tokens0, batch0, width0, lr0 = REFERENCE
    tokens = round(ratio * size)
    batch = 2 ** round(torch.tensor(batch0 * (tokens / tokens0) ** 0.383).log2().item())
    return Dial(tokens, batch, max(1, round(tokens / batch)), lr0 * (width0 / cfg.dim) ** 0.5)
