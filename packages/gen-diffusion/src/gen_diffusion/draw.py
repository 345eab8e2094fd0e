"""Many samples in batches that fit memory: sample i is the same picture whatever the batches and the processes.

x = draw(cfg(denoiser, 1.5), range(1000), (1, 8, 8), karras(18), batch=256, label=labels)
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gen_diffusion.denoise import Denoiser, noised
from gen_diffusion.noise import initial_noise, keyed
from gen_diffusion.sample import Step, heun, sample


def draw(
    denoiser: Denoiser,
    indices: Sequence[int],
    shape: Sequence[int],
    sigmas: Float[Tensor, "levels"],
    step: Step = heun,
    *,
    seed: int = 0,
    batch: int = 256,
    device: str | torch.device = "cpu",
    progress: Callable[[int], object] | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
    **cond: Tensor,
) -> Float[Tensor, "n ..."]:
    """Samples on the CPU, one per index; everything random in sample i is keyed by (seed, i).

    Args:
        indices: which samples; `range(n)`, or one process's part of it.
        shape: of one sample, as the denoiser knows it.
        sigmas, step: as for `sample`.
        batch: samples at a time.
        progress: called with the number of samples done after each batch.
        decode: latents -> samples, a batch at a time: the door to latent diffusion.
        cond: conditions, one row per index.

    Raises:
        ValueError: unless `batch` is at least 1 and each condition has a row per index, none of them nan.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1 sample, got {batch}")
    for name, value in cond.items():
        if len(value) != len(indices):
            raise ValueError(f"got {len(value)} rows of {name} for {len(indices)} samples; pass one row per sample")
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"the condition {name} has values that are not finite; leave those samples out")
    done = []
    for i in range(0, len(indices), batch):
        part = indices[i : i + batch]
        noise = initial_noise(part, shape, seed)
        x = noised(torch.zeros_like(noise), sigmas[0], noise).to(device)
        conditions: dict[str, Any] = {name: value[i : i + batch].to(device) for name, value in cond.items()}
        x = sample(denoiser, x, sigmas, step, generator=keyed(seed, part), **conditions)
        if decode is not None:
            with torch.no_grad():
                x = decode(x)
        done.append(x.cpu())
        if progress is not None:
            progress(min(i + batch, len(indices)))
    return torch.cat(done) if done else torch.empty(0, *shape)
