"""Discrete codes: vectors replaced by the nearest of a learned set, or rounded coordinate by coordinate.

    quantizer = VectorQuantizer(codes=512, dim=64)
    z, index, loss = quantizer(encoder(x))              # "b n d": any number of vectors per sample

`loss` is one number per sample, averaged over its vectors, the same in training and evaluation; gradients reach the
encoder through `z`. A codebook that learns by moving averages counts what it sees in training mode while gradients are
recorded, and moves by it in `update`, which the training task calls once after each step: so evaluation does not move
it, and micro-batches or several processes move it as one batch would.

[Oord17] Neural discrete representation learning, arXiv:1711.00937.
[Razavi19] Generating diverse high-fidelity images with VQ-VAE-2, arXiv:1906.00446.
[Dhariwal20] Jukebox: a generative model for music, arXiv:2005.00341.
[Fifty24] Restructuring vector quantization with the rotation trick, arXiv:2410.06424.
[Mentzer24] Finite scalar quantization: VQ-VAE made simple, arXiv:2309.15505.
[Zeghidour21] SoundStream: an end-to-end neural audio codec, arXiv:2107.03312.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from gen_core.description import describable
from gen_core.runtime import numpy_seed
from gen_latent.distributions import wide


class Quantized(NamedTuple):
    """The quantised vectors, which codes they are, and what the commitment costs each sample."""

    z: Float[Tensor, "b n d"]
    index: Int[Tensor, "b ..."]  # pyright: ignore[reportIncompatibleMethodOverride]  # tuple.index, which nobody needs
    loss: Float[Tensor, "b"]


def nearest(z: Float[Tensor, "... d"], codes: Float[Tensor, "k d"]) -> Int[Tensor, "..."]:
    """Index of the code at the least Euclidean distance; in at least single precision, ties to the first.

    By |z - c|^2 / 2 without |z|^2 / 2, which is alike for all codes; both about the codes' mean, lest large squares
    cancel.
    """
    with torch.autocast(z.device.type, enabled=False):
        dtype = torch.promote_types(wide(z).dtype, codes.dtype)
        z, codes = z.detach().to(dtype), codes.detach().to(dtype)
        middle = codes.mean(0)
        centred = codes - middle
        distance = torch.addmm(centred.square().sum(1) / 2, (z - middle).flatten(0, -2), centred.T, alpha=-1)
        return distance.argmin(1).unflatten(0, z.shape[:-1])


def straight_through(z: Float[Tensor, "... d"], q: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """`q` with the gradient of `z` ([Oord17] section 3.2)."""
    return z + (q - z).detach()


def rotation(z: Float[Tensor, "... d"], q: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """`q`, as z turned and scaled onto it by a constant map: a gradient keeps its angle to them ([Fifty24] eq. 4).

    It also grows by |q| / |z|; where that is above 100, z has no direction to speak of (at 0 none at all), and its
    gradient passes straight through instead.
    """
    with torch.no_grad():
        size_z, size_q = (v.norm(dim=-1, keepdim=True).clamp_min(1e-6) for v in (z, q))
        e, e_q = z / size_z, q / size_q
        r = F.normalize(e + e_q, dim=-1)
        scale = size_q / size_z
    turned = z - 2 * (z * r).sum(-1, keepdim=True) * r + 2 * (z * e).sum(-1, keepdim=True) * e_q
    return straight_through(torch.where(scale > 100, z, scale * turned), q)


_GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"straight_through": straight_through, "rotation": rotation}


def _crossing(gradient: str) -> Callable[[Tensor, Tensor], Tensor]:
    if gradient not in _GRADIENTS:
        raise ValueError(f"gradient is 'straight_through' or 'rotation', got {gradient!r}")
    return _GRADIENTS[gradient]


def perplexity(index: Int[Tensor, "*n"], codes: int) -> Float[Tensor, ""]:
    """e to the entropy of how often each code is used: as many as that, were they used equally."""
    share = index.flatten().bincount(minlength=codes) / index.numel()
    return torch.special.entr(share).sum().exp()


@describable
class VectorQuantizer(nn.Module):
    """The nearest of `codes` vectors ([Oord17] eq. 1, 2).

    Args:
        codes, dim: of the codebook.
        decay: of the moving averages that make each code the mean of what it stands for ([Oord17] appendix A.1); None
            learns the codes by gradient, with the second term of eq. 3 in the loss.
        beta: weight of the commitment, |z - sg q|^2 averaged over vectors and dimensions.
        gradient: how the encoder's gradient crosses the quantisation.
        revive_below: codes with a moving count below this are replaced by vectors just seen; 0 never.
    """

    def __init__(
        self,
        codes: int,
        dim: int,
        *,
        decay: float | None = 0.99,
        beta: float = 0.25,
        gradient: Literal["straight_through", "rotation"] = "straight_through",
        revive_below: float = 0.0,
    ):
        super().__init__()
        if codes < 1 or dim < 1:
            raise ValueError(f"a codebook has at least one code of at least one dimension, got {codes} of {dim}")
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay is the share of the old averages that is kept, in [0, 1), got {decay}")
        if decay is None and revive_below:
            raise ValueError(f"revive_below={revive_below} needs moving counts; give a decay, or leave it at 0")
        self.decay, self.beta, self.revive_below, self.cross = decay, beta, revive_below, _crossing(gradient)
        table = torch.randn(codes, dim) / math.sqrt(dim)
        self.table = nn.Parameter(table) if decay is None else nn.Buffer(table)
        if decay is not None:
            often = max(1.0, revive_below)
            self.counts = nn.Buffer(torch.full((codes,), often))  # moving averages, begun as if each code had been seen
            self.sums = nn.Buffer(often * table)
            self.seen_counts = nn.Buffer(torch.zeros(codes), persistent=False)  # since the last update
            self.seen_sums = nn.Buffer(torch.zeros(codes, dim), persistent=False)
        self._pool: list[Tensor] = []  # the vectors themselves, to revive codes with

    def forward(self, z: Float[Tensor, "b n d"]) -> Quantized:
        if z.shape[-1] != self.table.shape[1]:
            raise ValueError(
                f"the codes have {self.table.shape[1]} dimensions but the vectors {z.shape[-1]}; use as many"
            )
        z = wide(z)
        index = nearest(z, self.table)
        q = F.embedding(index, self.table)
        loss = self.beta * (z - q.detach()).square().flatten(1).mean(1)
        if self.decay is None:
            loss = loss + (z.detach() - q).square().flatten(1).mean(1)
        elif self.training and torch.is_grad_enabled():
            self._count(z.detach().flatten(0, -2), index.flatten())
        return Quantized(self.cross(z, q.detach()), index, loss)

    def lookup(self, index: Int[Tensor, "..."]) -> Float[Tensor, "... d"]:
        """The codes themselves."""
        return F.embedding(index, self.table)

    @torch.no_grad()
    def _count(self, z: Float[Tensor, "m d"], index: Int[Tensor, "m"]) -> None:
        finite = z.isfinite().all(1, keepdim=True)  # nan would stay in the averages
        self.seen_counts.index_add_(0, index, finite[:, 0].to(self.seen_counts))
        self.seen_sums.index_add_(0, index, torch.where(finite, z, 0).to(self.seen_sums))
        if self.revive_below:
            self._pool.append(torch.where(finite, z, self.lookup(index).to(z)))

    @torch.no_grad()
    def update(
        self,
        reduce: Callable[[Tensor], Tensor] = lambda x: x,
        rank: int = 0,
        generator: Generator | None = None,
    ) -> None:
        """Move the codes by what was counted since the last update; after each training step, on every process.

        Args:
            reduce: sums a tensor over processes, each of which saw as many vectors.
            rank: of this process.
            generator: chooses the vectors that revive dead codes, alike on all processes.
        """
        if self.decay is None:
            return
        self.counts.lerp_(reduce(self.seen_counts), 1 - self.decay)
        self.sums.lerp_(reduce(self.seen_sums), 1 - self.decay)
        alive = self.counts > 1e-5  # below, both averages run out of digits: the code stays where it is
        self.table.copy_(torch.where(alive[:, None], self.sums / self.counts[:, None], self.table))
        if self.revive_below:
            self._revive((self.counts < self.revive_below).nonzero().flatten(), reduce, rank, generator)
        self.seen_counts.zero_()
        self.seen_sums.zero_()
        self._pool = []

    def _revive(
        self, dead: Int[Tensor, "m"], reduce: Callable[[Tensor], Tensor], rank: int, generator: Generator | None
    ) -> None:
        """Put different vectors of the step in the place of dead codes; their averages begin anew ([Dhariwal20])."""
        if not len(dead):
            return
        mine = torch.cat(self._pool) if self._pool else self.table[:0]
        everyone = int(reduce(torch.tensor(len(mine), device=dead.device)))
        chosen = torch.randperm(everyone, generator=generator)[: len(dead)].to(dead.device) - rank * len(mine)
        dead, owned = dead[: len(chosen)], (chosen >= 0) & (chosen < len(mine))
        fresh = torch.zeros_like(self.table[dead])
        fresh[owned] = mine[chosen[owned]].to(fresh)
        self.table[dead] = reduce(fresh)
        self.counts[dead] = max(1.0, self.revive_below)
        self.sums[dead] = self.counts[dead][:, None] * self.table[dead]

    @torch.no_grad()
    def start(self, z: Float[Tensor, "m d"], seed: int = 0) -> None:
        """Codes from k-means of vectors of the data, before training."""
        from sklearn.cluster import KMeans

        if len(z) < len(self.table):
            raise ValueError(f"{len(self.table)} codes cannot start from {len(z)} vectors; give at least as many")
        means = KMeans(len(self.table), n_init=1, random_state=numpy_seed(seed))  # pyright: ignore[reportArgumentType]
        found = means.fit(z.double().cpu().numpy()).cluster_centers_
        self.table.copy_(torch.from_numpy(found))
        if self.decay is not None:
            self.counts.fill_(max(1.0, self.revive_below))
            self.sums.copy_(self.counts[:, None] * self.table)


@describable
class FSQ(nn.Module):
    """Each coordinate bounded and rounded to one of its levels; no codebook, nothing to collapse ([Mentzer24]).

    The bound of L levels is (L - 1) (1 + eps) / 2 tanh(z + shift) - offset with eps = .001, an offset of 1/2 for even L
    and 0 for odd, and the shift that keeps 0 at 0: as in vector-quantize-pytorch. The paper's own code has 1 - eps, and
    tan for atanh, which moves the borders of even levels.

    Args:
        levels: of each coordinate, at least 2; the number of codes is their product.
    """

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"each coordinate needs at least 2 levels, got {list(levels)}")
        self.levels = tuple(levels)
        self.count = nn.Buffer(torch.tensor(self.levels), persistent=False)
        self.basis = nn.Buffer(torch.tensor([math.prod(self.levels[:i]) for i in range(len(levels))]), persistent=False)

    @property
    def codes(self) -> int:
        return math.prod(self.levels)

    def bound(self, z: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """z within its levels, before rounding."""
        half = (self.count - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.count % 2 == 0, 0.5, 0.0).to(z)
        shift = (offset / half).atanh()
        return (z + shift).tanh() * half - offset

    def forward(self, z: Float[Tensor, "b n d"]) -> Quantized:
        if z.shape[-1] != len(self.levels):
            raise ValueError(
                f"{len(self.levels)} levels were given for vectors of {z.shape[-1]} dimensions; give one each"
            )
        bounded = self.bound(wide(z))
        rounded = straight_through(bounded, bounded.round())
        q = rounded / (self.count // 2)
        return Quantized(q, self.index(q.detach()), q.new_zeros(len(z)))

    def index(self, q: Float[Tensor, "... d"]) -> Int[Tensor, "..."]:
        """The code of quantised coordinates."""
        return ((q * (self.count // 2)).round().long() + self.count // 2).mul(self.basis).sum(-1)

    def lookup(self, index: Int[Tensor, "..."]) -> Float[Tensor, "... d"]:
        """The coordinates of a code, in [-1, 1]."""
        each = index[..., None] // self.basis % self.count
        return (each - self.count // 2) / (self.count // 2)


@describable
class Residual(nn.Module):
    """Quantisers one after the other, each of what the ones before left over ([Zeghidour21] algorithm 1).

    Args:
        quantizers: their codes are the last dimension of `index`.
        gradient: how the encoder's gradient crosses all of them at once; their own way is not used.
    """

    def __init__(
        self,
        quantizers: Sequence[nn.Module],
        *,
        gradient: Literal["straight_through", "rotation"] = "straight_through",
    ):
        super().__init__()
        if not quantizers:
            raise ValueError("a residual quantiser is at least one quantiser")
        self.quantizers, self.cross = nn.ModuleList(quantizers), _crossing(gradient)

    def forward(self, z: Float[Tensor, "b n d"]) -> Quantized:
        z = wide(z)
        rest, total, indices, loss = z, torch.zeros_like(z), [], z.new_zeros(len(z))
        for quantizer in self.quantizers:
            q, index, cost = quantizer(rest)
            rest, total = rest - q.detach(), total + q.detach()
            indices.append(index)
            loss = loss + cost
        return Quantized(self.cross(z, total), torch.stack(indices, -1), loss)

    def lookup(self, index: Int[Tensor, "... m"]) -> Float[Tensor, "... d"]:
        """The sum of the codes."""
        return sum(q.lookup(i) for q, i in zip(self.quantizers, index.unbind(-1), strict=True))  # pyright: ignore

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Update each codebook."""
        for quantizer in self.quantizers:
            if isinstance(quantizer, VectorQuantizer):
                quantizer.update(*args, **kwargs)
