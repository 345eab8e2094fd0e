"""What a network is told beside x: the noise level and, if it was built for classes, the class."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Condition(nn.Module):
    """(c_noise, label) -> one vector, for the network's blocks to scale and shift their features by.

    The level enters by sines and cosines of fixed frequencies, from well below one turn over the range of
    c_noise = ln(sigma) / 4 (about -1.5 to 1.1) to several turns. The class enters by a learned vector, the null class
    by one of its own: index `num_classes`.

    Args:
        width: size of the result.
        num_classes: 0 for a network without classes.

    Raises:
        ValueError: on a label for a network without classes.
    """

    def __init__(self, width: int, num_classes: int = 0, frequencies: int = 16):
        super().__init__()
        self.num_classes = num_classes
        self.frequencies = nn.Buffer(2 * math.pi * torch.logspace(-3, 1, frequencies, base=2), persistent=False)
        self.level = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_classes + 1, width) if num_classes else None

    def forward(self, c_noise: Float[Tensor, "b"], label: Int[Tensor, "b"] | None = None) -> Float[Tensor, "b width"]:
        phase = c_noise[:, None] * self.frequencies
        level = self.level(torch.cat([phase.cos(), phase.sin()], 1))
        if self.label is None:
            if label is not None:
                raise ValueError("this network was built with num_classes=0 and takes no label; drop the label")
            return level
        if label is None:
            label = torch.full(c_noise.shape, self.num_classes, device=c_noise.device)
        return level + self.label(label)
