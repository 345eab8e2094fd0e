"""CLaTr: captions and camera trajectories in one space, to measure how well they go together ([Courant24] section 5).

    clatr = CLaTr(words.size)                                   # trained by CLaTrTask
    z, z_real = clatr.trajectory(x).mean, clatr.trajectory(x_real).mean
    compare(clatr.text(ids).mean, z, z_real)                    # CLaTr score, R@k, Frechet distance, PRDC

Two encoders give a Gaussian each, of a caption and of a trajectory, and one decoder makes a trajectory of a draw of
either. Training pulls the pairs together and all else apart. It is TMR, a model of text and human motion, on cameras.

[Courant24] E.T. the exceptional trajectories, arXiv:2407.01516.
[Petrovich23] TMR: text-to-motion retrieval using contrastive 3D human motion synthesis, arXiv:2305.00976.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gen_core.description import describable
from gen_core.step import Step
from gen_core.task import Task, decay_groups
from gen_diffusion.dit import positions
from gen_diffusion.text import TextEncoder


class Gaussian(NamedTuple):
    """N(mean, exp(log_variance)), one for each row, its axes independent."""

    mean: Float[Tensor, "b z"]
    log_variance: Float[Tensor, "b z"]

    def draw(self, noise: Float[Tensor, "b z"]) -> Float[Tensor, "b z"]:
        return self.mean + (self.log_variance / 2).exp() * noise


@describable
class CLaTr(nn.Module):
    """The encoders `text` and `trajectory`, and the decoder of what they give.

    Each encoder is a transformer whose real tokens are averaged and mapped to a Gaussian (TMR reads it off two tokens
    of their own). The decoder is a transformer on the places of a trajectory, to each of which the latent is added.

    Args:
        vocabulary: number of the ids of captions, padding counted: the tokeniser's `size`.
        features: numbers a frame.
        width: of the transformers, a multiple of 4 and of `heads`.
        depth: layers of each of the three; [Courant24] has 6 of width 256.
        latent: size of the common space.
        patch: frames to a token.
    """

    def __init__(
        self,
        vocabulary: int,
        features: int = 9,
        *,
        width: int = 256,
        depth: int = 6,
        heads: int = 4,
        latent: int = 256,
        patch: int = 5,
    ):
        super().__init__()
        if width % 4 or width % heads:
            raise ValueError(f"width must be a multiple of 4 and of heads={heads}, got {width}")

        def layers() -> nn.ModuleList:
            layer = lambda: nn.TransformerEncoderLayer(
                width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            return nn.ModuleList(layer() for _ in range(depth))

        self.features, self.width, self.latent, self.patch = features, width, latent, patch
        self.words = TextEncoder(vocabulary, width, depth, heads)
        self.stem, self.frames, self.norm = nn.Linear(patch * features, width), layers(), nn.LayerNorm(width)
        self.of_text, self.of_trajectory = nn.Linear(width, 2 * latent), nn.Linear(width, 2 * latent)
        self.seed, self.decoder, self.last = nn.Linear(latent, width), layers(), nn.LayerNorm(width)
        self.head = nn.Linear(width, patch * features)

    def text(self, ids: Int[Tensor, "b l"]) -> Gaussian:
        """Of captions; each needs a word."""
        tokens, real = self.words(ids)
        return Gaussian(*self.of_text(_mean(tokens, real)).chunk(2, 1))

    def trajectory(self, x: Float[Tensor, "b f features"], mask: Bool[Tensor, "b f"] | None = None) -> Gaussian:
        """Of trajectories, each with at least one real frame; frames outside `mask` may hold anything."""
        self._covered(x.shape[1])
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        real = self._real(mask)
        x = x.masked_fill(~mask[:, :, None], 0)
        h = self._placed(self.stem(rearrange(x, "b (l p) c -> b l (p c)", p=self.patch)))
        for layer in self.frames:
            h = layer(h, src_key_padding_mask=~real)
        return Gaussian(*self.of_trajectory(_mean(self.norm(h), real)).chunk(2, 1))

    def decode(
        self, z: Float[Tensor, "b z"], frames: int = 300, mask: Bool[Tensor, "b {frames}"] | None = None
    ) -> Float[Tensor, "b {frames} features"]:
        """Trajectories; those inside `mask` are as if there were no others."""
        self._covered(frames)
        h = self._placed(self.seed(z)[:, None].expand(-1, frames // self.patch, -1))
        for layer in self.decoder:
            h = layer(h, src_key_padding_mask=None if mask is None else ~self._real(mask))
        return rearrange(self.head(self.last(h)), "b l (p c) -> b (l p) c", p=self.patch)

    def _placed(self, h: Float[Tensor, "b l c"]) -> Float[Tensor, "b l c"]:
        return h + positions(h.shape[1], 1, 2 * self.width, h.device)[:, : self.width].to(h.dtype)

    def _real(self, mask: Bool[Tensor, "b f"]) -> Bool[Tensor, "b l"]:
        """The tokens with a real frame."""
        return reduce(mask, "b (l p) -> b l", "max", p=self.patch)

    def _covered(self, frames: int) -> None:
        if frames % self.patch:
            raise ValueError(f"patches of {self.patch} do not cover {frames} frames; pad them, and say so by mask")


# ------------------------------------------------------------------ losses, one number per pair


def info_nce(
    a: Float[Tensor, "b z"], b: Float[Tensor, "b z"], temperature: float = 0.1, same: Bool[Tensor, "b b"] | None = None
) -> Float[Tensor, "b"]:
    """-log softmax of the right one, by cosine over temperature, mean of both directions ([Petrovich23] eq. 2).

    Args:
        same: pairs that say the same thing, such as equal captions: they are no wrong answers, and left out.
    """
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    if same is not None:
        own = torch.eye(len(a), dtype=torch.bool, device=a.device)
        similarity = similarity.masked_fill(same & ~own, -torch.inf)
    right = similarity.diagonal()
    return (similarity.logsumexp(1) + similarity.logsumexp(0)) / 2 - right


def kl(p: Gaussian, q: Gaussian | None = None) -> Float[Tensor, "b"]:
    """KL(p | q) in nats; None is the standard normal."""
    mean, log_variance = (torch.zeros_like(p.mean), torch.zeros_like(p.mean)) if q is None else q
    ratio = p.log_variance - log_variance
    return (ratio.exp() - ratio - 1 + (p.mean - mean).square() * (-log_variance).exp()).sum(1) / 2


class CLaTrTask(Task):
    """Training on `(x, text)` or `(x, text, mask)`: both reconstructions + kl_weight (four KLs) + nce_weight InfoNCE.

    The KLs are those of each Gaussian to the standard normal and to the other. Wrong answers are the other rows of the
    batch, so a batch is not split. `mask` tells the real frames, at least one in each trajectory. By AdamW.

    Args:
        kl_weight: [Petrovich23] has 1e-5.
        nce_weight: [Petrovich23] has 0.1.
    """

    def __init__(
        self,
        clatr: CLaTr,
        *,
        lr: float = 1e-3,
        kl_weight: float = 1e-5,
        nce_weight: float = 0.1,
        weight_decay: float = 0.0,
    ):
        super().__init__()
        self.clatr, self.lr, self.weight_decay = clatr, lr, weight_decay
        self.kl_weight, self.nce_weight = kl_weight, nce_weight

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        groups = decay_groups(self.clatr, self.weight_decay)
        return {"net": torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.99), fused=True)}

    def step(self, batch: Any, t: Step) -> dict[str, Tensor]:
        x, text, *mask = batch
        if t.world > 1 or (t.micro_batch or len(x)) < len(x):
            raise ValueError("wrong answers are the rest of a whole batch; train on one process without micro_batch")
        noise = t.randn_like(x.new_empty(len(x), 2, self.clatr.latent))
        return {"loss": t.minimize("net", self.loss, x, text, noise, *mask)}

    def loss(
        self,
        x: Float[Tensor, "b f c"],
        text: Int[Tensor, "b l"],
        noise: Float[Tensor, "b 2 z"],
        mask: Bool[Tensor, "b f"] | None = None,
    ) -> Float[Tensor, ""]:
        said, done = self.clatr.text(text), self.clatr.trajectory(x, mask)
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask

        def error(z: Tensor) -> Tensor:
            missed = (self.clatr.decode(z, x.shape[1], mask) - x).masked_fill(~real[:, :, None], 0)
            return missed.square().mean(2).sum(1) / real.sum(1)

        errors = error(said.draw(noise[:, 0])) + error(done.draw(noise[:, 1]))
        # TMR's L_E, a smooth L1 distance of weight 1e-5 between the latents, is left out: the KLs pull them together
        divergence = kl(said) + kl(done) + kl(said, done) + kl(done, said)
        same = (text[:, None] == text).all(2)
        contrast = info_nce(said.mean, done.mean, same=same)
        return (errors + self.kl_weight * divergence + self.nce_weight * contrast).mean()

    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        """`info_nce` and the cosine of each pair, among the rows of the batch."""
        x, text, *mask = batch
        said, done = self.clatr.text(text).mean, self.clatr.trajectory(x, *mask).mean
        contrast = info_nce(said, done, same=(text[:, None] == text).all(2))
        return {"info_nce": contrast, "clatr_score": clatr_score(said, done)}


# ------------------------------------------------------------------ measures, of means of encoders


def clatr_score(text: Float[Tensor, "n z"], trajectory: Float[Tensor, "n z"]) -> Float[Tensor, "n"]:
    """100 times the cosine of each pair."""
    return 100 * F.cosine_similarity(text, trajectory, dim=1)


def retrieval(query: Float[Tensor, "n z"], answers: Float[Tensor, "n z"], k: int = 1) -> float:
    """R@k: the share of queries whose own answer is among the k nearest by cosine; of equal ones, it comes last."""
    similarity = F.normalize(query, dim=1) @ F.normalize(answers, dim=1).T
    rank = (similarity >= similarity.diagonal()[:, None]).sum(1)  # itself counted
    return (rank <= k).double().mean().item()


def compare(
    text: Float[Tensor, "n z"], drawn: Float[Tensor, "n z"], real: Float[Tensor, "m z"], k: int = 5
) -> dict[str, float]:
    """The measures of [Courant24] for trajectories `drawn` for captions `text`, beside `real` ones.

    Args:
        k: neighbours of precision, recall, density and coverage.
    """
    from gen_core.metrics import frechet, prdc

    scores = {"clatr_score": clatr_score(text, drawn).mean().item(), "frechet_clatr": frechet(real, drawn)}
    scores |= prdc(real, drawn, k)._asdict()
    return scores | {f"R@{n}": retrieval(text, drawn, n) for n in (1, 5)}


def _mean(tokens: Float[Tensor, "b l c"], real: Bool[Tensor, "b l"]) -> Float[Tensor, "b c"]:
    return (tokens * real[:, :, None]).sum(1) / real.sum(1, keepdim=True).clamp_min(1)
