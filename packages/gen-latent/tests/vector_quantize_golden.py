"""Prints the values of vector-quantize-pytorch 1.32.0 in test_quantize.py.

uv run --group peers python packages/gen-latent/tests/vector_quantize_golden.py
"""

import torch

LEVELS = [(7, 5, 3), (3, 4), (8, 5, 5, 5)]  # it refuses 2


def vectors(levels: tuple[int, ...]) -> torch.Tensor:
    """Twelve vectors all over the range, the same on every machine."""
    d = len(levels)
    return 3 * torch.sin(torch.arange(1, 12 * d + 1, dtype=torch.float64) * 1.3717).reshape(1, 12, d).float()


def rounded(levels: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The peer's codes and their indices."""
    from vector_quantize_pytorch import FSQ  # pyright: ignore[reportMissingImports]

    return FSQ(list(levels))(vectors(levels))


if __name__ == "__main__":
    for levels in LEVELS:
        codes, index = rounded(levels)
        print(levels, index[0].tolist(), codes.sum().item())
