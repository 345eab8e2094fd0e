"""The one block stack: GPT-2, Llama, Falcon, the trunk of BERT, the two halves of an encoder-decoder.

    model = Transformer(Config(vocab=96, dim=128, layers=4, heads=4))
    hidden = model(ids)                     # (b, t, dim)
    logits = model.logits(hidden)           # (b, t, vocab)

[Vaswani17] Attention is all you need, arXiv:1706.03762. [Radford19] Language models are unsupervised multitask
learners. [Touvron23] LLaMA, arXiv:2302.13971. [Almazrouei23] Falcon, arXiv:2311.16867.
[Chowdhery22] PaLM, arXiv:2204.02311.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gen_core.description import describable
from gen_transformer.attention import Attention, KVCache, Rotary, lengths, positions, rotary, sinusoids, visible
from gen_transformer.config import Config

ACTIVATIONS = {
    "swiglu": F.silu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}


def norm(cfg: Config) -> nn.Module:
    return nn.RMSNorm(cfg.dim, cfg.norm_eps) if cfg.norm == "rms" else nn.LayerNorm(cfg.dim, cfg.norm_eps)


class MLP(nn.Module):
    """down(act(up x)), or with swiglu down(silu(gate x) * up x)."""

    def __init__(self, cfg: Config):
        super().__init__()
        bias = cfg.bias in ("mlp", "all")
        self.gate = nn.Linear(cfg.dim, cfg.hidden, bias) if cfg.mlp == "swiglu" else None
        self.up = nn.Linear(cfg.dim, cfg.hidden, bias)
        self.down = nn.Linear(cfg.hidden, cfg.dim, bias)
        self.act = ACTIVATIONS[cfg.mlp]

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return self.down(self.act(self.up(x)) if self.gate is None else self.act(self.gate(x)) * self.up(x))


@dataclass
class Sight:
    """What the layers of one forward pass share: masks, angles, the source of cross-attention, the cache."""

    masks: dict[int, Tensor | None]
    """By window."""
    turn: Rotary | None
    cache: KVCache | None
    source: Tensor | None
    source_mask: Tensor | None


class Block(nn.Module):
    """Attention and MLP on a residual stream, with cross-attention between them in a decoder with a source."""

    def __init__(self, cfg: Config, layer: int, source_dim: int | None = None):
        super().__init__()
        self.window, self.causal = cfg.sees(layer), cfg.causal
        self.post, self.parallel = cfg.post_norm, cfg.parallel != "none"
        self.norm1, self.attention = norm(cfg), Attention(cfg, layer)
        if source_dim is not None:
            self.norm_cross, self.cross = norm(cfg), Attention(cfg, layer, source_dim)
        self.norm2 = None if cfg.parallel == "one_norm" else norm(cfg)
        self.mlp = MLP(cfg)
        self.drop = nn.Dropout(cfg.dropout) if cfg.dropout else nn.Identity()

    def forward(self, x: Float[Tensor, "b t d"], sight: Sight) -> Float[Tensor, "b t d"]:
        if self.parallel:
            read = self.norm1(x)
            return x + self._attend(read, sight) + self._think(read if self.norm2 is None else self.norm2(x))
        x = self._residual(x, self.norm1, lambda y: self._attend(y, sight))
        if sight.source is not None:
            x = self._residual(x, self.norm_cross, lambda y: self._look(y, sight))
        return self._residual(x, cast(nn.Module, self.norm2), self._think)

    def _residual(self, x: Tensor, norm: nn.Module, part) -> Tensor:
        return norm(x + part(x)) if self.post else x + part(norm(x))

    def _attend(self, x: Tensor, sight: Sight) -> Tensor:
        mask = sight.masks[self.window]
        causal = self.causal and mask is None and x.shape[1] > 1
        return self.drop(self.attention(x, mask=mask, causal=causal, turn=sight.turn, cache=sight.cache))

    def _look(self, x: Tensor, sight: Sight) -> Tensor:
        return self.drop(self.cross(x, mask=sight.source_mask, source=sight.source, cache=sight.cache))

    def _think(self, x: Tensor) -> Tensor:
        return self.drop(self.mlp(x))


@describable
class Transformer(nn.Module):
    """The stack, its token table and its output matrix.

    Args:
        cfg: sizes and switches.
        source_dim: width of what the blocks cross-attend to; None: they have no cross-attention.

    Attributes:
        recompute: whether blocks are recomputed in the backward pass instead of kept (activation checkpointing).
    """

    def __init__(self, cfg: Config, source_dim: int | None = None):
        super().__init__()
        self.config, self.recompute = cfg, False
        if source_dim is not None and cfg.parallel != "none":
            raise ValueError(f"parallel={cfg.parallel!r} leaves no place for cross-attention; use parallel='none'")
        self.tokens = nn.Embedding(cfg.vocab, cfg.dim) if cfg.vocab else None
        self.places = nn.Embedding(cfg.context, cfg.dim) if cfg.pos == "learned" else None
        self.blocks = nn.ModuleList(Block(cfg, layer, source_dim) for layer in range(cfg.layers))
        self.norm = None if cfg.post_norm else norm(cfg)
        self.head = nn.Linear(cfg.dim, cfg.vocab, bias=False) if cfg.vocab and not cfg.tie else None
        self.drop = nn.Dropout(cfg.dropout) if cfg.dropout else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights, smaller where they write to the residual stream ([Radford19] section 2.3).

        | | standard deviation |
        |---|---|
        | linear maps, tables, head | .02 |
        | last matrix of attention, cross-attention and MLP | .02 / sqrt(2 layers), or 0 with `zero_init` |
        | biases 0, gains 1 | |
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                out = name.endswith((".o", ".down"))
                std = 0.02 / math.sqrt(2 * self.config.layers) if out else 0.02
                nn.init.normal_(module.weight, std=0.0 if out and self.config.zero_init else std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    @property
    def output(self) -> Tensor:
        """The matrix from hidden states to logits, `(vocab, dim)`."""
        table = self.head or self.tokens
        if table is None:
            raise ValueError("this stack has no vocabulary (vocab=0), so it has no logits; use its hidden states")
        return table.weight

    def forward(
        self,
        ids: Int[Tensor, "b t"] | None = None,
        *,
        embeds: Float[Tensor, "b t d"] | None = None,
        doc: Int[Tensor, "b t"] | None = None,
        source: Float[Tensor, "b s e"] | None = None,
        source_doc: Int[Tensor, "b s"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Hidden states after the last norm.

        Args:
            ids: tokens, or `embeds` in their place.
            doc: document of each token, negative for padding; None: one document a row, without padding.
            source: what cross-attention looks at; `source_doc` marks its documents and padding in the same way.
            cache: keys and values of what came before; `ids` goes on from there and is added.

        Raises:
            ValueError: for ids outside the vocabulary and for more tokens than the context.
        """
        x = embeds if ids is None else self.embed(ids)
        if x is None:
            raise ValueError("give ids or embeds")
        start = cache.used if cache is not None else 0
        total = start + x.shape[1]
        self._check_length(total)
        if cache is not None:
            doc = cache.documents(doc, len(x), x.shape[1])
        if doc is None:
            place = torch.arange(start, total, device=x.device)[None]
        else:
            place = positions(doc)[:, start:]
        x = self.drop(self._placed(x, place))
        sight = self._sight(x, place, doc, total, source, source_doc, cache)
        for block in self.blocks:
            x = checkpoint(block, x, sight, use_reentrant=False) if self.recompute else block(x, sight)
        if cache is not None:
            cache.used = total
        return x if self.norm is None else self.norm(x)

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Unnormalised log-probabilities of the next token."""
        logits = F.linear(hidden, self.output)
        cap = self.config.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Rows of the token table."""
        if self.tokens is None:
            raise ValueError("this stack has no vocabulary (vocab=0); give embeds instead of ids")
        if ids.device.type == "cpu" and not torch.compiler.is_compiling():  # on a GPU looking would wait for it
            check_ids(ids, self.config.vocab)
        return self.tokens(ids)

    def cache(self, batch: int, length: int) -> KVCache:
        """An empty cache for `batch` rows of at most `length` tokens, like the weights in device and precision."""
        self._check_length(length)
        weight = next(self.blocks.parameters())
        return KVCache(self.config, batch, length, device=weight.device, dtype=weight.dtype)

    def _check_length(self, total: int) -> None:
        cfg = self.config
        endless = cfg.pos == "none" or (cfg.pos == "rope" and cfg.rope.scaling == "dynamic")
        if total > cfg.context and not endless:
            raise ValueError(
                f"{total} tokens do not fit the context of {cfg.context}; cut the text, or generate fewer tokens"
            )

    def _placed(self, x: Tensor, place: Tensor) -> Tensor:
        """The embeddings with their positions, where these are added."""
        if self.places is not None:
            return x + self.places(place)
        if self.config.pos in ("sinusoidal", "sinusoidal_halves"):
            return x + sinusoids(place, self.config.dim, halves=self.config.pos == "sinusoidal_halves").to(x.dtype)
        return x

    def _sight(
        self,
        x: Tensor,
        place: Tensor,
        doc: Tensor | None,
        total: int,
        source: Tensor | None,
        source_doc: Tensor | None,
        cache: KVCache | None,
    ) -> Sight:
        cfg, new = self.config, x.shape[1]
        masks = {
            window: visible(new, total, causal=cfg.causal, window=window, doc=doc, device=x.device)
            for window in set(cfg.window)
        }
        turn = None if cache is None else cache.turn(place)
        if turn is None and cfg.pos == "rope":
            dynamic = doc if cfg.rope.scaling == "dynamic" else None
            turn = rotary(cfg, place, x.dtype, total if dynamic is None else lengths(dynamic)[:, -new:])
        source_mask = None
        if source_doc is not None:
            source_mask = (source_doc >= 0)[:, None, None, :]
            if doc is not None:  # padding looks at everything: its row of the mask must not be empty
                own = doc[:, -new:, None]
                source_mask = ((source_doc[:, None] == own) | (own < 0))[:, None]
        return Sight(masks, turn, cache, source, source_mask)


def check_ids(ids: Int[Tensor, "..."], vocab: int) -> None:
    """Raise ValueError unless all ids lie in 0 .. vocab - 1."""
    low, high = map(int, ids.aminmax()) if ids.numel() else (0, 0)
    if not 0 <= low <= high < vocab:
        wrong = low if low < 0 else high
        raise ValueError(f"id {wrong} is outside of the vocabulary 0..{vocab - 1}; was another tokeniser used?")


# ---------------------------------------------------------------------- encoder and decoder


@describable
class EncoderDecoder(nn.Module):
    """Two stacks: the decoder looks at the encoder's hidden states ([Vaswani17] section 3.1).

    Args:
        encoder: its `causal` is False.
        decoder: its `vocab` is that of the targets.
        share: one token table for both, and for the output.
        scale: multiply embeddings by sqrt(dim) before the positions are added (section 3.4).
    """

    def __init__(self, encoder: Config, decoder: Config, *, share: bool = True, scale: bool = True):
        super().__init__()
        if encoder.causal or not decoder.causal:
            raise ValueError("an encoder sees both ways (causal=False) and a decoder only the past (causal=True)")
        if share and (encoder.vocab, encoder.dim) != (decoder.vocab, decoder.dim):
            raise ValueError(f"one table cannot be {encoder.vocab, encoder.dim} and {decoder.vocab, decoder.dim}")
        self.scale = scale
        self.encoder = Transformer(encoder)
        self.decoder = Transformer(decoder, source_dim=encoder.dim)
        self.encoder.head = None  # an encoder predicts nothing
        self.bias = nn.Parameter(torch.zeros(decoder.vocab))
        if share:
            self.encoder.tokens = self.decoder.tokens

    @property
    def config(self) -> Config:
        return self.decoder.config

    @property
    def output(self) -> Tensor:
        """The matrix from hidden states to logits, `(vocab, dim)`; `bias` is added to what it gives."""
        return self.decoder.output

    def encode(self, ids: Int[Tensor, "b s"], doc: Int[Tensor, "b s"] | None = None) -> Float[Tensor, "b s d"]:
        return self.encoder(embeds=self._embed(self.encoder, ids), doc=doc)

    def forward(
        self,
        source: Int[Tensor, "b s"],
        ids: Int[Tensor, "b t"],
        *,
        source_doc: Int[Tensor, "b s"] | None = None,
        doc: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Hidden states of the target tokens, each of which saw the source and the targets up to itself."""
        seen = self.encode(source, source_doc)
        return self.decode(ids, seen, source_doc, doc=doc)

    def decode(
        self,
        ids: Int[Tensor, "b t"],
        seen: Float[Tensor, "b s d"],
        source_doc: Int[Tensor, "b s"] | None = None,
        *,
        doc: Int[Tensor, "b t"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Hidden states of the target tokens from those of the source."""
        embeds = self._embed(self.decoder, ids)
        return self.decoder(embeds=embeds, doc=doc, source=seen, source_doc=source_doc, cache=cache)

    def _embed(self, stack: Transformer, ids: Tensor) -> Tensor:
        return stack.embed(ids) * (math.sqrt(stack.config.dim) if self.scale else 1.0)

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        return self.decoder.logits(hidden) + self.bias

    def given(self, source: Int[Tensor, "b s"], source_doc: Int[Tensor, "b s"] | None = None) -> "Given":
        """The decoder as a language model of the target, the source being read once."""
        return Given(self, self.encode(source, source_doc), source_doc)


class Given:
    """A decoder with its source: called, cached and sampled as a decoder without one."""

    def __init__(self, model: EncoderDecoder, seen: Float[Tensor, "b s d"], source_doc: Int[Tensor, "b s"] | None):
        self.model, self.seen, self.source_doc, self.config = model, seen, source_doc, model.config
        self.logits, self.cache = model.logits, model.decoder.cache

    def row(self, i: int) -> "Given":
        """The decoder with the source of one row."""
        return Given(self.model, self.seen[i : i + 1], None if self.source_doc is None else self.source_doc[i : i + 1])

    def __call__(
        self, ids: Int[Tensor, "b t"], *, doc: Int[Tensor, "b t"] | None = None, cache: KVCache | None = None
    ) -> Float[Tensor, "b t d"]:
        """Rows of `ids` may be a multiple of those of the source: a beam's, each source's together."""
        times = len(ids) // len(self.seen)
        seen = self.seen.repeat_interleave(times, 0)
        source_doc = None if self.source_doc is None else self.source_doc.repeat_interleave(times, 0)
        return self.model.decode(ids, seen, source_doc, doc=doc, cache=cache)


# ---------------------------------------------------------------------- counting


def parameters(model: nn.Module, *, tables: bool = True) -> int:
    """Numbers that are learned; if `tables` is False, without token and position tables and the output matrix."""
    stacks = [m for m in model.modules() if isinstance(m, Transformer)]
    left_out = {id(t.weight) for m in stacks for t in (m.tokens, m.places, m.head) if t is not None and not tables}
    return sum(p.numel() for p in model.parameters() if id(p) not in left_out)


def flops_per_token(cfg: Config, length: int, *, causal: bool = False) -> int:
    """Floating-point operations of training on one token, forward and backward ([Chowdhery22] appendix B).

    6 for each weight that multiplies a token (the output matrix counts, tied or not; looking up a table does not) and
    12 layers heads width length for attention, of which a causal model needs half: `causal` counts that half.
    """
    mlp = (3 if cfg.mlp == "swiglu" else 2) * cfg.dim * cfg.hidden
    maps = 2 * cfg.dim * cfg.heads * cfg.width + 2 * cfg.dim * cfg.kv * cfg.width
    seen = sum(min(length, cfg.sees(layer) or length) for layer in range(cfg.layers))
    scores = 12 * cfg.heads * cfg.width * seen // (2 if causal else 1)
    return 6 * (cfg.layers * (mlp + maps) + cfg.vocab * cfg.dim) + scores
