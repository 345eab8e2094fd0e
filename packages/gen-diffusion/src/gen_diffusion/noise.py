"""Normal draws that belong to a sample rather than to its batch.

With one generator per sample, keyed by a seed and the sample's index, sample 17 is the same picture whether it is drawn
alone, in a batch of 64 or on another process:

    x = sigmas[0] * initial_noise(range(64), (3, 32, 32), seed=0)
    x0 = sample(denoiser, x, sigmas, churn(40.0), generator=keyed(0, range(64)))
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gen_core.runtime import generator


def keyed(seed: int, indices: Iterable[int], purpose: str = "steps") -> list[Generator]:
    """One CPU generator per index, a function of `(seed, purpose, index)` only.

    >>> a, b = keyed(0, [3, 4]), keyed(0, [4])
    >>> torch.equal(torch.randn(5, generator=a[1]), torch.randn(5, generator=b[0]))
    True
    """
    return [generator(seed, purpose, int(index)) for index in indices]


def randn(
    shape: Sequence[int], generators: Sequence[Generator], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "b ..."]:
    """Standard normal `(len(generators), *shape)`, row i drawn by generator i, on the generators' device."""
    return torch.stack([torch.randn(tuple(shape), generator=g, device=g.device, dtype=dtype) for g in generators])


def initial_noise(indices: Iterable[int], shape: Sequence[int], seed: int = 0) -> Float[Tensor, "b ..."]:
    """Standard normal `(len(indices), *shape)` whose rows depend on `(seed, index)` only; multiply by `sigmas[0]`.

    It is independent of what `keyed(seed, indices)` goes on to draw in the steps.
    """
    return randn(shape, keyed(seed, indices, "initial"))


def randn_like(
    x: Float[Tensor, "b *shape"], generators: Generator | Sequence[Generator] | None = None
) -> Float[Tensor, "b *shape"]:
    """Standard normal of the shape, type and device of `x`, drawn by one generator or by one per sample.

    The draw happens on the generator's own device: a CPU generator gives the same numbers for any device of `x`.

    Raises:
        ValueError: if there are several generators, but not one per sample.
    """
    if generators is None:
        return torch.randn_like(x)
    if isinstance(generators, Generator):
        return torch.randn(x.shape, generator=generators, device=generators.device, dtype=x.dtype).to(x)
    if len(generators) != len(x):
        raise ValueError(f"got {len(generators)} generators for {len(x)} samples; pass one per sample, or a single one")
    return randn(x.shape[1:], generators, x.dtype).to(x)
