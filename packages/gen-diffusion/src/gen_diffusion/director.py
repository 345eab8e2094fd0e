"""DIRECTOR: a transformer over the frames of a camera trajectory, told by a caption what to do ([Courant24] section 4).

    net = Texted(Director(context_dim=64), TextEncoder(words.size, width=64))
    denoiser = Preconditioned(net, sigma_data=0.5)
    x0 = denoiser(x, sigma, text=tokenise(captions, words))

A caption enters in one of three ways, those of the paper and, before it, of [Peebles23]: its tokens go before the
frames ("in-context"), their mean modulates every block ("adaln"), or every block looks at them ("cross-attention"). The
noise level modulates every block in all three; in the paper it goes where the caption goes.

[Courant24] E.T. the exceptional trajectories, arXiv:2407.01516.
[Peebles23] Scalable diffusion models with transformers, arXiv:2212.09748.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gen_core.description import describable
from gen_diffusion.condition import Condition, Context
from gen_diffusion.dit import Block, linear, positions, zero

Conditioning = Literal["in-context", "adaln", "cross-attention"]


@describable
class Director(nn.Module):
    """`net(x, c_noise, context=, context_mask=, mask=)` over frames; its first output is exactly 0.

    The defaults are those of [Courant24]. It is trained there by the EDM loss with ln(sigma) ~ N(-1.2, 1.2^2) on data
    scaled to sigma_data = 0.5, captions dropped for a tenth of the samples, and sampled by 10 Heun steps with guidance
    1.4 (weight 1.4 of `cfg`) from an average of weights that decays by 0.9999; batches are of 64. A motion that holds
    for n frames, though, shows through noise of sqrt(n) times the level that hides one frame: what a caption decides is
    decided at levels of several sigma_data, and trajectories of long even motions need most of their training there,
    such as ln(sigma) ~ N(0.8, 1.6^2).

    Args:
        features: numbers a frame.
        width: features of a token, a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: of the attention.
        patch: frames to a token. The paper has 1; larger ones cost less.
        conditioning: how a caption enters.
        context_dim: size of the tokens of a caption; 0 for a network without captions.

    Raises:
        ValueError: unless `width` is a multiple of 4 and of `heads`, and `conditioning` one of the three; at the call,
            if the patches do not cover the frames, and on a caption that the network was not built for.
    """

    def __init__(
        self,
        features: int = 9,
        *,
        width: int = 512,
        depth: int = 8,
        heads: int = 16,
        patch: int = 1,
        conditioning: Conditioning = "cross-attention",
        context_dim: int = 0,
    ):
        super().__init__()
        if width % 4 or width % heads:
            raise ValueError(f"width must be a multiple of 4 and of heads={heads}, got {width}")
        if conditioning not in ("in-context", "adaln", "cross-attention"):
            raise ValueError(f"conditioning is in-context, adaln or cross-attention, got {conditioning!r}")
        dims = {way: context_dim if way == conditioning else 0 for way in ("in-context", "adaln", "cross-attention")}
        self.patch = patch
        self.context = Context(context_dim)
        self.condition = Condition(width, context_dim=dims["adaln"])
        self.before = linear(context_dim, width) if dims["in-context"] else None
        self.stem = linear(patch * features, width)
        self.blocks = nn.ModuleList(Block(width, heads, dims["cross-attention"]) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation, self.head = zero(nn.Linear(width, 2 * width)), zero(nn.Linear(width, patch * features))

    def forward(
        self,
        x: Float[Tensor, "b f features"],
        c_noise: Float[Tensor, "b"],
        *,
        context: Float[Tensor, "b l e"] | None = None,
        context_mask: Bool[Tensor, "b l"] | None = None,
        mask: Bool[Tensor, "b f"] | None = None,
    ) -> Float[Tensor, "b f features"]:
        """The network's answer.

        Args:
            context: tokens of the captions, of which `context_mask` tells the real ones; none is unconditional.
            mask: frames that are real, at least one in each trajectory. What the others hold changes nothing (under
                `cfg` give it to both branches: `cfg(denoiser, 1.4, keep=("mask",))`); their answer is 0.
        """
        if x.shape[1] % self.patch:
            raise ValueError(f"patches of {self.patch} do not cover {x.shape[1]} frames; pad them, and say so by mask")
        tokens, real, pooled = self.context(len(x), context, context_mask)
        condition = F.silu(self.condition(c_noise, pooled=pooled if self.condition.pooled is not None else None))
        seen = None
        if mask is not None:
            x = x.masked_fill(~mask[:, :, None], 0)  # not a product: padding may hold anything
            seen = reduce(mask, "b (l p) -> b 1 1 l", "max", p=self.patch)
        h = self.stem(rearrange(x, "b (l p) c -> b l (p c)", p=self.patch))
        frames, width = h.shape[1:]
        h = h + positions(frames, 1, 2 * width, h.device)[:, :width].to(h.dtype)
        if self.before is not None and tokens is not None:
            h = torch.cat([self.before(tokens), h], 1)
            whole = torch.ones(len(x), 1, 1, h.shape[1], dtype=torch.bool, device=h.device)
            real_, seen_ = (
                whole[..., :-frames] if real is None else real,
                whole[..., -frames:] if seen is None else seen,
            )
            seen = torch.cat([real_, seen_], -1)
        for block in self.blocks:
            h = block(h, condition, tokens, real, seen)
        shift, scale = self.modulation(condition)[:, None].chunk(2, 2)
        y = self.head(shift + (1 + scale) * self.norm(h[:, -frames:]))
        y = rearrange(y, "b l (p c) -> b (l p) c", p=self.patch)
        return y if mask is None else y.masked_fill(~mask[:, :, None], 0)
