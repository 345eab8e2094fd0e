"""Augmentations of what a discriminator judges: differentiable, each sample with its own random numbers.

    augment = Augment(("flip", "rotate", "shift", "colour"), p=0.2)
    logits = discriminator(augment(x, torch.rand(len(x), augment.numbers)))

The random numbers are an argument: sample i is augmented by row i of `u`, whatever the batch. With probability p each
transformation is applied, and at p = 0 nothing is changed, bit for bit. `target` lets p follow how much the
discriminator overfits.

[Karras20a] Training generative adversarial networks with limited data, arXiv:2006.06676.
[Zhao20] Differentiable augmentation for data-efficient GAN training, arXiv:2006.10738.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gen_core.description import describable
from gen_core.step import Step

Pictures = Float[Tensor, "b c h w"]
Numbers = Float[Tensor, "b n"]


def flip(x: Pictures, u: Numbers) -> Pictures:
    """Left and right exchanged, for half of the samples that are augmented."""
    return torch.where(u[:, 0, None, None, None] < 0.5, x.flip(3), x)


def rotate(x: Pictures, u: Numbers) -> Pictures:
    """By up to 20 degrees either way, bilinear, edges continued."""
    angle = (u[:, 0] - 0.5) * 2 * math.radians(20)
    zero, (h, w) = torch.zeros_like(angle), x.shape[2:]
    cos, sin = angle.cos(), angle.sin()
    return _affine(x, torch.stack([cos, -sin * h / w, zero, sin * w / h, cos, zero], 1))


def shift(x: Pictures, u: Numbers) -> Pictures:
    """By up to an eighth of the size in each direction, in whole pixels, zeros coming in ([Zhao20])."""
    h, w = x.shape[2:]
    reach_y, reach_x = max(1, round(h / 8)), max(1, round(w / 8))
    dy = (u[:, 0] * (2 * reach_y + 1)).long() - reach_y
    dx = (u[:, 1] * (2 * reach_x + 1)).long() - reach_x
    padded = F.pad(x, (reach_x, reach_x, reach_y, reach_y))
    rows = torch.arange(h, device=x.device)[None] + reach_y + dy[:, None]
    columns = torch.arange(w, device=x.device)[None] + reach_x + dx[:, None]
    b = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[b, :, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def scale(x: Pictures, u: Numbers) -> Pictures:
    """Larger or smaller by up to a fifth, bilinear, edges continued."""
    size = (2 * u[:, 0] - 1).mul(math.log(1.2)).exp()
    zero = torch.zeros_like(size)
    return _affine(x, torch.stack([size, zero, zero, zero, size, zero], 1))


def colour(x: Pictures, u: Numbers) -> Pictures:
    """Brightness by up to a half, saturation from 0 to twice, contrast from a half to three halves ([Zhao20])."""
    a, b, c = (u[:, i, None, None, None] for i in range(3))
    x = x + (a - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + 2 * b * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (c + 0.5) * (x - mean)


def cutout(x: Pictures, u: Numbers) -> Pictures:
    """A rectangle of half the size set to zero, anywhere, its part outside lost ([Zhao20])."""
    h, w = x.shape[2:]
    rows, columns = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
    inside_y = (rows[None] + 0.5 - u[:, 0, None] * h).abs() < h / 4
    inside_x = (columns[None] + 0.5 - u[:, 1, None] * w).abs() < w / 4
    return x * ~(inside_y[:, None, :, None] & inside_x[:, None, None, :])


def _affine(x: Tensor, theta: Float[Tensor, "b six"]) -> Tensor:
    grid = F.affine_grid(theta.unflatten(1, (2, 3)).to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


TRANSFORMS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {  # and the random numbers that each takes
    "flip": (flip, 1),
    "rotate": (rotate, 1),
    "shift": (shift, 2),
    "scale": (scale, 1),
    "colour": (colour, 3),
    "cutout": (cutout, 2),
}


@describable
class Augment(nn.Module):
    """The named transformations in order, each with probability `p` for each sample.

    Args:
        names: of the transformations; flips only where a picture and its mirror image are both data.
        p: probability of each.
        target: of r_t = E sign(D(real)), towards which p is moved ([Karras20a] section 3.1); None keeps p.
        length: samples of training over which p could go from 0 to 1.
        every: steps between two adjustments.
    """

    def __init__(
        self,
        names: Sequence[str] = ("shift", "colour", "cutout"),
        p: float = 0.0,
        *,
        target: float | None = 0.6,
        length: int = 500_000,
        every: int = 4,
    ):
        super().__init__()
        if unknown := [name for name in names if name not in TRANSFORMS]:
            raise ValueError(f"there is no augmentation {unknown[0]!r}; there are {', '.join(TRANSFORMS)}")
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability, got {p}")
        self.names, self.target, self.length, self.every = tuple(names), target, length, every
        self.numbers = sum(1 + TRANSFORMS[name][1] for name in names)
        self.p = nn.Buffer(torch.tensor(float(p)))
        self.heard = nn.Buffer(torch.zeros(2))  # sum of the signs and number, of all processes since the last change
        self.noted = nn.Buffer(torch.zeros(2), persistent=False)  # the same of this process, in this step

    def forward(self, x: Pictures, u: Float[Tensor, "b numbers"]) -> Pictures:
        parts = u.split([1 + TRANSFORMS[name][1] for name in self.names], 1)
        for name, part in zip(self.names, parts, strict=True):
            changed = TRANSFORMS[name][0](x, part[:, 1:])
            x = torch.where((part[:, 0] < self.p)[:, None, None, None], changed, x)
        return x

    @torch.no_grad()
    def watch(self, real_logits: Float[Tensor, "b"]) -> None:
        """Note what the discriminator says of real samples."""
        self.noted[0] += real_logits.sign().nansum()  # a nan would stay in p
        self.noted[1] += len(real_logits)

    @torch.no_grad()
    def adapt(self, t: Step, batch: int) -> dict[str, Tensor]:
        """After a step on `batch` samples a process: p moves by (samples since the last change) / `length`."""
        if self.target is not None:
            self.heard += t.gather(self.noted[None]).sum(0)
            self.noted.zero_()
            if (t.step + 1) % self.every == 0:
                direction = (self.heard[0] / self.heard[1] - self.target).sign()
                self.p.add_(direction * (batch * t.world * self.every / self.length)).clamp_(0, 1)
                self.heard.zero_()
        return {"augment/p": self.p.clone()}
