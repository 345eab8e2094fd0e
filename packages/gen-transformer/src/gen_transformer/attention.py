"""Attention, who may see whom, rotary and sinusoidal positions, and the cache of keys and values.

One tensor says who may see whom: `doc (b, t)` holds the document of each token. A token sees tokens of its own
document; positions count from the start of it; negative ids are padding. Packed training, padded batches and
generation are the same rule:

    doc = [[0, 0, 0, 1, 1, -1]]      # two documents and a padding token in one row

[Vaswani17] Attention is all you need, arXiv:1706.03762. [Su21] RoFormer, arXiv:2104.09864.
[Ainslie23] GQA, arXiv:2305.13245. [Henry20] Query-key normalization, arXiv:2010.04245.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gen_transformer.config import Config

Rotary = tuple[Tensor, Tensor]  # cosines and sines (those of the first half negative), each (b or 1, 1, t, width)


def positions(doc: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """The place of every token in its document; documents lie one after another in a row.

    >>> positions(torch.tensor([[-1, 0, 0, 0, 4, 4]])).tolist()
    [[0, 0, 1, 2, 0, 1]]
    """
    place = torch.arange(doc.shape[1], device=doc.device).expand_as(doc)
    first = F.pad(doc[:, 1:] != doc[:, :-1], (1, 0), value=True)
    return place - torch.where(first, place, 0).cummax(1).values


def lengths(doc: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """How many tokens the document of every token has.

    >>> lengths(torch.tensor([[-1, 0, 0, 0, 4, 4]])).tolist()
    [[1, 3, 3, 3, 2, 2]]
    """
    return positions(doc) + positions(doc.flip(1)).flip(1) + 1


def visible(
    queries: int,
    keys: int,
    *,
    causal: bool,
    window: int = 0,
    doc: Int[Tensor, "b keys"] | None = None,
    device: torch.device | str = "cpu",
) -> Bool[Tensor, "b 1 queries keys"] | None:
    """What the last `queries` of `keys` tokens may see, or None when it is all or SDPA's own causal triangle.

    A query sees itself always, padding too: no row of the mask is empty, so no softmax is 0 / 0.
    """
    band = 0 < window < keys
    if doc is not None and _alone(doc):
        doc = None
    if doc is None and not band and (not causal or queries in (1, keys)):
        return None
    place = torch.arange(keys, device=device)
    behind = place[keys - queries :, None] - place  # how far a key lies behind a query
    mask = torch.ones_like(behind, dtype=torch.bool)
    if causal:
        mask = behind >= 0
    if window:
        mask = mask & (behind.abs() < window)
    if doc is None:
        return mask[None, None]
    return mask & (doc[:, None, keys - queries :, None] == doc[:, None, None, :])


def _alone(doc: Int[Tensor, "b t"]) -> bool:
    """Whether every row is one document without padding, where looking is free: on a GPU it would wait."""
    if doc.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return bool((doc == doc[:, :1].clamp(min=0)).all())


def attention(
    q: Float[Tensor, "b h t w"],
    k: Float[Tensor, "b g s w"],
    v: Float[Tensor, "b g s w"],
    mask: Bool[Tensor, "#b 1 #t s"] | None = None,
    *,
    causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "b h t w"]:
    """softmax(q k' / sqrt(w)) v ([Vaswani17] eq. 1); head i reads keys i g / h ([Ainslie23]).

    Step by step, which is what the fused kernel computes:

    >>> q, k, v = torch.randn(3, 1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    >>> scores = q @ k.mT / 4**0.5                                   # how well each query fits each key
    >>> seen = torch.ones(5, 5).tril().bool()                        # the past and itself
    >>> weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)  # of each query over the keys, summing to 1
    >>> torch.allclose(weights @ v, attention(q, k, v, causal=True), atol=1e-6)
    True

    Args:
        mask: True where a query may see a key; with it `causal` is not read.
        causal: the triangle, for as many queries as keys.
    """
    return F.scaled_dot_product_attention(
        q, k, v, mask, dropout, is_causal=causal and mask is None, enable_gqa=q.shape[1] != k.shape[1]
    )


def rotary(cfg: Config, place: Int[Tensor, "b t"], dtype: torch.dtype, length: int | Int[Tensor, "b t"] = 0) -> Rotary:
    """Cosine and sine of every angle, computed in float32: bf16 cannot tell position 257 from 256.

    The left halves have the sine of the negative angle, the sign that `rotate` needs there. `length` is that of the
    document so far, one for all or one for each token, on which the angles of `dynamic` depend.
    """
    with torch.autocast(place.device.type, enabled=False):
        inverse, scale = cfg.rope.frequencies(cfg.width, cfg.context, length, place.device)
        angle = (place[..., None].float() * inverse)[:, None]
        cos, sin = angle.cos() * scale, angle.sin() * scale
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


def rotate(x: Float[Tensor, "b h t w"], turn: Rotary) -> Float[Tensor, "b h t w"]:
    """Turn the plane (x_i, x_{i + w/2}) by its angle: halves, as in Hugging Face's Llama, not Meta's neighbours."""
    cos, sin = turn
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


def sinusoids(place: Int[Tensor, "b t"], dim: int, *, halves: bool = False) -> Float[Tensor, "b t {dim}"]:
    """sin and cos of place / 10000^(2i / dim) ([Vaswani17] section 3.5), interleaved or one after the other."""
    wide = torch.float32 if place.device.type == "mps" else torch.float64  # which Apple's GPU lacks
    angle = place[..., None] / 10_000 ** (torch.arange(0, dim, 2, device=place.device, dtype=wide) / dim)
    waves = (angle.sin(), angle.cos())
    x = torch.cat(waves, -1) if halves else rearrange(torch.stack(waves), "two b t i -> b t (i two)")
    return x.float()


class KVCache:
    """Keys and values of the tokens so far, for every layer.

    It takes `2 layers kv_heads width batch length` numbers (`bytes`). Rows may be padded and hold documents: the cache
    keeps their `doc`.
    """

    def __init__(self, cfg: Config, batch: int, length: int, *, device: torch.device | str, dtype: torch.dtype):
        self.used = 0
        self.doc: Tensor | None = None
        self.cross: dict[int, tuple[Tensor, Tensor]] = {}
        self._kv = torch.zeros(cfg.layers, 2, batch, cfg.kv, length, cfg.width, device=device, dtype=dtype)
        self._turns: Rotary | None = None
        if cfg.pos == "rope" and cfg.rope.scaling != "dynamic":
            self._turns = rotary(cfg, torch.arange(length, device=device)[None], dtype)

    @property
    def length(self) -> int:
        return self._kv.shape[4]

    @property
    def bytes(self) -> int:
        return self._kv.numel() * self._kv.itemsize

    def update(
        self, layer: int, k: Float[Tensor, "b g t w"], v: Float[Tensor, "b g t w"]
    ) -> tuple[Float[Tensor, "b g s w"], Float[Tensor, "b g s w"]]:
        """Write the new tokens of a layer; all of its tokens so far."""
        end = self.used + k.shape[2]
        self._kv[layer, 0, :, :, self.used : end] = k
        self._kv[layer, 1, :, :, self.used : end] = v
        return self._kv[layer, 0, :, :, :end], self._kv[layer, 1, :, :, :end]

    def documents(self, doc: Int[Tensor, "b t"] | None, batch: int, new: int) -> Int[Tensor, "b s"] | None:
        """The documents of all tokens with `new` ones, which go on in the last document unless `doc` says otherwise."""
        if self.used + new > self.length:
            raise ValueError(
                f"the cache holds {self.length} tokens and {self.used + new} are needed; make a longer one"
            )
        if doc is None and self.doc is None:
            return None
        past = self.doc
        if past is None:
            past = torch.zeros(batch, self.used, dtype=torch.long, device=self._kv.device)
        if doc is None:
            doc = past[:, -1:].expand(-1, new)
        self.doc = torch.cat((past, doc), dim=1)
        return self.doc

    def turn(self, place: Int[Tensor, "b t"]) -> Rotary | None:
        """Cosines and sines of these positions, if they do not depend on how long the text is."""
        if self._turns is None:
            return None
        cos, sin = (table[0, 0, place][:, None] for table in self._turns)
        return cos, sin

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.used = min(self.used, length)
        self.doc = None if self.doc is None else self.doc[:, :length]

    def reorder(self, rows: Int[Tensor, "b"]) -> None:
        """Row i becomes what row `rows[i]` was, as a beam search needs; there may be more or fewer rows than before."""
        self._kv = self._kv[:, :, rows]
        self.doc = None if self.doc is None else self.doc[rows]
        self.cross = {layer: (k[rows], v[rows]) for layer, (k, v) in self.cross.items()}


class Attention(nn.Module):
    """Self-attention of one layer, or cross-attention to `source` tokens of width `source_dim`."""

    def __init__(self, cfg: Config, layer: int, source_dim: int | None = None):
        super().__init__()
        bias = cfg.bias in ("attention", "all")
        seen = source_dim or cfg.dim
        self.q = nn.Linear(cfg.dim, cfg.heads * cfg.width, bias)
        self.k = nn.Linear(seen, cfg.kv * cfg.width, bias)
        self.v = nn.Linear(seen, cfg.kv * cfg.width, bias)
        self.o = nn.Linear(cfg.heads * cfg.width, cfg.dim, bias)
        if cfg.qk_norm:
            self.q_norm, self.k_norm = nn.RMSNorm(cfg.width, cfg.norm_eps), nn.RMSNorm(cfg.width, cfg.norm_eps)
        self.layer, self.width, self.qk_norm, self.dropout = layer, cfg.width, cfg.qk_norm, cfg.dropout

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        turn: Rotary | None = None,
        cache: KVCache | None = None,
        source: Float[Tensor, "b s e"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        q = self._heads(self.q(x))
        if self.qk_norm:
            q = self.q_norm(q)
        if turn is not None:
            q = rotate(q, turn)
        k, v = self._keys(x, turn, cache) if source is None else self._cross(source, cache)
        y = attention(q, k, v, mask, causal=causal, dropout=self.dropout if self.training else 0.0)
        return self.o(y.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.width)).transpose(1, 2)

    def _keys(self, x: Tensor, turn: Rotary | None, cache: KVCache | None) -> tuple[Tensor, Tensor]:
        k, v = self._heads(self.k(x)), self._heads(self.v(x))
        if self.qk_norm:
            k = self.k_norm(k)
        if turn is not None:
            k = rotate(k, turn)
        return (k, v) if cache is None else cache.update(self.layer, k, v)

    def _cross(self, source: Tensor, cache: KVCache | None) -> tuple[Tensor, Tensor]:
        """Keys and values of the source, computed once for a cache."""
        if cache is not None and self.layer in cache.cross:
            return cache.cross[self.layer]
        k, v = self._heads(self.k(source)), self._heads(self.v(source))
        if self.qk_norm:
            k = self.k_norm(k)
        if cache is not None:
            cache.cross[self.layer] = k, v
        return k, v
