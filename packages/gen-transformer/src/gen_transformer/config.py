"""What a transformer is: sizes and switches, nothing else.

    Config(vocab=50257, dim=768, layers=12, heads=12, context=1024, norm="layer", mlp="gelu_tanh", pos="learned",
           bias="all", tie=True)                                                   # GPT-2
    Config(vocab=32000, dim=2048, layers=24, heads=16, ffn=5504)                   # CroissantLLM, a Llama

[Su21] RoFormer, arXiv:2104.09864. [Peng23] YaRN, arXiv:2309.00071. [Shazeer20] GLU variants, arXiv:2002.05202.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Rope:
    """Rotary positions ([Su21] section 3.2.2), and how they reach beyond the length that was trained."""

    theta: float = 10_000.0
    """Base of the wavelengths."""
    scaling: Literal["none", "linear", "dynamic", "llama3", "yarn"] = "none"
    factor: float = 1.0
    """How many times longer than `original`."""
    original: int | None = None
    """The context that was trained, in tokens; None: the model's `context`."""
    low: float = 1.0
    """Rotations over `original` below which a frequency is divided by `factor` (llama3, yarn)."""
    high: float | None = None
    """Rotations above which it stays as it is, None: 4 (llama3) or 32 (yarn); in between the two are blended."""
    attention: float | None = None
    """Factor on the rotated vectors (yarn); None: 0.1 ln(factor) + 1."""

    def __post_init__(self):
        _check_choices(self)

    @property
    def fastest(self) -> float:
        """`high`, or what the paper of the scaling takes."""
        return self.high or (32.0 if self.scaling == "yarn" else 4.0)

    def frequencies(
        self, dim: int, context: int, length: int | Int[Tensor, "*length"], device: torch.device | str = "cpu"
    ) -> "Frequencies":
        """Angles per position of the `dim / 2` planes, in float32, and the factor on the rotated vectors.

        Args:
            dim: of a head.
            context: of the model, in tokens.
            length: of the document, or of that of each token; only `dynamic` looks at it.
        """
        original = self.original or context
        theta = self.theta
        if self.scaling == "dynamic":  # the base grows with the sequence once it is longer than the context
            longest = torch.as_tensor(length, device=device)[..., None].clamp(min=original)
            theta = theta * (self.factor * longest / original - (self.factor - 1)) ** (dim / (dim - 2))
        inverse = 1 / theta ** (torch.arange(0, dim, 2, device=device).float() / dim)
        if self.scaling == "linear":
            return inverse / self.factor, 1.0
        if self.scaling == "llama3":
            turns = original * inverse / (2 * math.pi)
            keep = ((turns - self.low) / (self.fastest - self.low)).clamp(0, 1)
            return inverse * (keep + (1 - keep) / self.factor), 1.0
        if self.scaling == "yarn":
            low, high = (self._plane(turns, dim, original) for turns in (self.fastest, self.low))
            low, high = max(math.floor(low), 0), min(math.ceil(high), dim - 1)
            ramp = (torch.arange(dim // 2, device=device) - low) / max(high - low, 0.001)
            keep = 1 - ramp.clamp(0, 1)
            scale = self.attention or (0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0)
            return inverse * (keep + (1 - keep) / self.factor), scale
        return inverse, 1.0

    def _plane(self, turns: float, dim: int, original: int) -> float:
        """The plane that turns so often over `original` positions ([Peng23] appendix A.2)."""
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(self.theta))


def _check_choices(settings: Any) -> None:
    """Raise ValueError for a name that is not among those of its field; it would be taken for another in silence."""
    for field in fields(settings):
        value, allowed = getattr(settings, field.name), get_args(field.type)
        if get_origin(field.type) is Literal and value not in allowed:
            raise ValueError(f"{field.name} is one of {', '.join(allowed)}, got {value!r}")


Frequencies = tuple[Float[Tensor, "*length half"], float]


@dataclass(frozen=True)
class Config:
    """One block stack: a decoder, an encoder, or either half of an encoder-decoder."""

    vocab: int
    """Rows of the token table; 0: no table, the caller gives `embeds`."""
    dim: int
    """Width of the residual stream."""
    layers: int
    heads: int
    kv_heads: int | None = None
    """Heads of keys and values: 1 is multi-query, fewer than `heads` grouped-query attention; None: `heads`."""
    head_dim: int | None = None
    """None: `dim / heads`."""
    ffn: int | None = None
    """Hidden units of the MLP; None: 4 `dim`, or 8/3 `dim` up to a multiple of 64 with swiglu ([Shazeer20])."""
    context: int = 2048
    """Longest sequence, in tokens."""
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    post_norm: bool = False
    """Normalise after the residual sum, as in 2017 and BERT; then there is no norm at the end."""
    mlp: Literal["swiglu", "silu", "gelu", "gelu_tanh", "relu", "relu2"] = "swiglu"
    """gelu is the exact one (BERT, Falcon), gelu_tanh its approximation (GPT-2), relu2 the square of relu."""
    pos: Literal["rope", "learned", "sinusoidal", "sinusoidal_halves", "none"] = "rope"
    """Sines and cosines interleave as in 2017, or stand in halves as in Marian."""
    rope: Rope = Rope()
    bias: Literal["none", "attention", "mlp", "all"] = "none"
    """Which linear maps have a bias; a layer norm always has one."""
    parallel: Literal["none", "one_norm", "two_norms"] = "none"
    """Attention and MLP read the same stream and are added together (Falcon 7B: one norm, 40B: one each)."""
    qk_norm: bool = False
    """RMS norm with a gain on the queries and keys of each head."""
    tie: bool = False
    """The output matrix is the token table."""
    causal: bool = True
    window: tuple[int, ...] = (0,)
    """Tokens that a layer sees, itself included, 0 for all; the pattern repeats over the layers."""
    softcap: float | None = None
    """Logits are bounded by c tanh(logits / c)."""
    zero_init: bool = False
    """The last matrix of attention and MLP starts at zero, so that every block starts as the identity."""
    dropout: float = 0.0

    def __post_init__(self):
        _check_choices(self)
        for name in ("dim", "layers", "heads", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.head_dim is None and self.dim % self.heads:
            raise ValueError(f"dim {self.dim} does not divide into {self.heads} heads; choose a multiple or head_dim")
        if self.heads % self.kv:
            raise ValueError(f"heads must be a multiple of kv_heads, got {self.heads} and {self.kv}")
        if self.pos == "rope" and self.width % 2:
            raise ValueError(f"rotary positions turn pairs, so heads need an even width, got {self.width}")
        if self.rope.scaling == "dynamic" and self.rope.original not in (None, self.context):
            raise ValueError(
                f"dynamic positions grow from the context of {self.context}, got original={self.rope.original}; drop it"
            )
        if self.pos.startswith("sinusoidal") and self.dim % 2:
            raise ValueError(f"sines and cosines come in pairs, so dim must be even, got {self.dim}")
        if self.parallel != "none" and self.post_norm:
            raise ValueError(f"parallel={self.parallel!r} has its norms before; use post_norm=False")
        if not self.window or min(self.window) < 0:
            raise ValueError(f"window is tokens per layer, 0 for all, got {self.window}")

    @property
    def kv(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def width(self) -> int:
        """Of a head."""
        return self.head_dim or self.dim // self.heads

    @property
    def hidden(self) -> int:
        """Of the MLP."""
        return self.ffn or (-(-8 * self.dim // 3 // 64) * 64 if self.mlp == "swiglu" else 4 * self.dim)

    def sees(self, layer: int) -> int:
        """The window of a layer, 0 for all."""
        return self.window[layer % len(self.window)]
