"""One story from several senses: sound, picture and text fused by cross-attention, and learned by contrast.

    fusion = Fusion({"audio": 768, "video": 1024, "text": 2048}, dim=256)
    fused = fusion({"audio": a, "video": v, "text": t}, doc={"audio": a_doc})  # features (b, t, d) of encoders
    head(fused.pooled)                                     # (b, dim), for a classifier of one's own
    fusion.contrast(fused)                                 # the self-supervised loss between the senses

Encoders stay outside: any features will do. A sense may be missing, in all rows or in some.

[Liu24] FunnyNet-W, arXiv:2401.04210. [Oord18] Contrastive predictive coding, arXiv:1807.03748.
[Radford21] CLIP, arXiv:2103.00020. [Poole19] On variational bounds of mutual information, arXiv:1905.06922.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gen_core.description import describable
from gen_transformer.attention import attention, positions, sinusoids
from gen_transformer.config import Config
from gen_transformer.model import Transformer

Gather = Callable[[Float[Tensor, "b d"]], tuple[Float[Tensor, "n d"], int]]
"""The rows of all processes, and where those of this one begin; gradients have to flow back through it."""


def info_nce(scores: Float[Tensor, "b n"], first: int = 0) -> Float[Tensor, ""]:
    """-mean_i log(exp s_ii / sum_j exp s_ij): which of n belongs to each of b ([Oord18] eq. 4).

    log n minus this is a lower bound of the mutual information, and at most log n ([Poole19] eq. 10).

    Args:
        scores: of row i with candidate j; the one that belongs to row i is candidate `first + i`.
    """
    return F.cross_entropy(scores, torch.arange(first, first + len(scores), device=scores.device))


class Contrast(nn.Module):
    """The mean of `info_nce` both ways over cosines divided by a temperature that is learned ([Radford21] figure 3).

    The temperature is learned as the logarithm of its inverse and stays above `least`: beyond, the loss sees the bound
    while gradients go on, so that it can come back.

    Two equal things in a batch count as different; draw batches without repetitions.
    """

    def __init__(self, temperature: int | float = 0.07, least: int | float = 0.01):
        super().__init__()
        if not 0 < least <= temperature:
            raise ValueError(f"need 0 < least <= temperature, got {least} and {temperature}")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.most = -math.log(least)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """One over the temperature."""
        return (self.log_scale - (self.log_scale - self.most).clamp(min=0).detach()).exp()

    def forward(
        self, a: Float[Tensor, "b d"], b: Float[Tensor, "b d"], gather: Gather | None = None
    ) -> Float[Tensor, ""]:
        """Row i of `a` belongs to row i of `b`.

        Args:
            gather: fetches the rows of all processes as further candidates. The mean over processes of these losses
                is the loss of the whole batch, and so are its gradients if `gather` passes them back.
        """
        a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
        (all_a, first), (all_b, _) = ((a, 0), (b, 0)) if gather is None else (gather(a), gather(b))
        return (info_nce(self.scale * a @ all_b.mT, first) + info_nce(self.scale * b @ all_a.mT, first)) / 2


@dataclass(frozen=True)
class Fused:
    """What `Fusion` makes of a batch."""

    pooled: Float[Tensor, "b d"]
    """The mean of all fused tokens of a row; 0 when it has none."""
    tokens: Float[Tensor, "b t d"]
    """The fused tokens of all senses, in the order of `dims`."""
    real: Bool[Tensor, "b t"]
    """Which of them are not padding."""
    own: dict[str, Float[Tensor, "b d"]]
    """Each sense by itself, projected for the contrast; it has seen nothing of the others."""
    present: dict[str, Bool[Tensor, "b"]]
    """Which rows have the sense."""


@describable
class Fusion(nn.Module):
    """Tokens of every sense look at each sense in turn, then at one another ([Liu24]).

    Features are normalised, projected to `dim` and marked with their sense and their time. All tokens Z of a row ask
    each sense m by its own cross-attention, the answers are added, Z + sum_m attention(Z, m, m), and a transformer
    lets the sums look at one another. FunnyNet-W has one vector a sense and cuts it into 16 pieces; here tokens are
    moments, so that scenes of any length fit.

    Args:
        dims: width of the features of each sense.
        dim, heads, layers: of the transformer.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        dim: int = 256,
        *,
        heads: int = 4,
        layers: int = 1,
        dropout: int | float = 0.0,
    ):
        super().__init__()
        if not dims:
            raise ValueError("a fusion needs at least one sense, {name: width of its features}")
        self.dims, self.heads = dict(dims), heads
        cfg = Config(0, dim, layers, heads, pos="none", causal=False, mlp="gelu", dropout=dropout)
        self.enter = nn.ModuleDict({m: nn.Sequential(nn.LayerNorm(d), nn.Linear(d, dim)) for m, d in dims.items()})
        self.sense = nn.ParameterDict({m: nn.Parameter(0.02 * torch.randn(dim)) for m in dims})
        self.norm = nn.LayerNorm(dim)
        self.asks = nn.ModuleDict({m: nn.Linear(dim, dim, bias=False) for m in dims})
        self.gives = nn.ModuleDict({m: nn.Linear(dim, 2 * dim, bias=False) for m in dims})
        self.out = nn.ModuleDict({m: nn.Linear(dim, dim, bias=False) for m in dims})
        self.trunk = Transformer(cfg)
        self.own = nn.ModuleDict({m: nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim)) for m in dims})
        self.pairs = nn.ModuleDict({f"{a} {b}": Contrast() for a, b in combinations(dims, 2)})

    def forward(
        self, features: Mapping[str, Float[Tensor, "b _t _d"]], *, doc: Mapping[str, Int[Tensor, "b _t"]] | None = None
    ) -> Fused:
        """Fuse the senses that are there.

        Args:
            features: `(b, tokens, width)` of each sense, all of them or some.
            doc: of each token of a sense, 0 or negative for padding, wherever it lies; where none is given all count.

        Raises:
            ValueError: for a sense that is not in `dims`, and for none at all.
        """
        doc = doc or {}
        strange = [m for m in (*features, *doc) if m not in self.dims or m not in features]
        if strange or not features:
            raise ValueError(f"give features of some of {', '.join(self.dims)}, got {strange or 'none'}")
        real, tokens = {}, {}
        for m in (m for m in self.dims if m in features):
            own = doc.get(m, torch.zeros(features[m].shape[:2], dtype=torch.long, device=features[m].device))
            real[m] = own >= 0
            x = self.enter[m](features[m].masked_fill(~real[m][..., None], 0))  # padding may be anything, nan too
            tokens[m] = x + self.sense[m] + sinusoids(positions(own), x.shape[-1]).to(x.dtype)
        z, seen = torch.cat(list(tokens.values()), 1), torch.cat(list(real.values()), 1)
        asked = self.norm(z)
        z = z + sum(self._look(m, asked, self.norm(x), real[m]) for m, x in tokens.items())
        z = self.trunk(embeds=z, doc=seen.long() - 1)
        own = {m: self.own[m](_mean(x, real[m])) for m, x in tokens.items()}
        return Fused(_mean(z, seen), z, seen, own, {m: there.any(1) for m, there in real.items()})

    def contrast(self, fused: Fused, gather: Gather | None = None) -> Float[Tensor, ""]:
        """The mean over pairs of senses of their contrast, between the rows that have both.

        Args:
            gather: as in `Contrast`; every row then has to have all senses, since processes must agree on their rows.
        """
        losses = []
        for a, b in combinations(fused.own, 2):
            both = fused.present[a] & fused.present[b]
            if gather is not None and not both.all():
                raise ValueError(
                    f"some rows lack {a} or {b}, so processes would not gather as many rows; leave them out"
                )
            if both.sum() > 1:  # one row has nothing to be told from
                losses.append(self.pairs[f"{a} {b}"](fused.own[a][both], fused.own[b][both], gather))
        return torch.stack(losses).mean() if losses else fused.pooled.sum() * 0

    def _look(self, m: str, z: Tensor, x: Tensor, real: Bool[Tensor, "b t"]) -> Float[Tensor, "b z d"]:
        """What the tokens z find in sense m: 0 in rows that lack it."""
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in (self.asks[m](z), *self.gives[m](x).chunk(2, dim=-1))
        )
        there = real.any(1)[:, None]
        found = attention(q, k, v, (real | ~there)[:, None, None])  # a row without tokens is not 0 / 0
        return self.out[m](found.transpose(1, 2).flatten(2)) * there[..., None]


def _mean(x: Float[Tensor, "b t d"], real: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """Over the tokens that are not padding; 0 where there are none."""
    weight = real[..., None].to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)
