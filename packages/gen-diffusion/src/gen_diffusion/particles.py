"""Particle methods with the signature of all posterior samplers: `(denoiser, obs, x, sigmas, *, generator) -> x0`.

    x0 = twisted_sample(denoiser, obs, x, sigmas, generator=generator)      # draws of equal weight
    particles = moments_sample.particles(denoiser, obs, x, sigmas)          # with weights and ln Z
    ParticleSampler(twisted, {"twist": likelihood}, ess=0.3)                # one of your own

Unlike those of other samplers, the draws of a batch depend on each other: they are the particles of one run. Draws that
were resampled from the same particle are equal.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from gen_diffusion.denoise import Denoiser
from gen_diffusion.mcgdiff import mcgdiff
from gen_diffusion.operators import Observation
from gen_diffusion.resample import Resample, systematic
from gen_diffusion.smc import FeynmanKac, Particles, smc
from gen_diffusion.twisted import moments, twisted


@dataclass(frozen=True)
class ParticleSampler:
    """`smc` of a model that is built from a denoiser, an observation and levels.

    Args:
        model: such as `twisted` or `mcgdiff`.
        options: of the model.
        ess, resample: as in `smc`.
    """

    model: Callable[..., FeynmanKac]
    options: Mapping[str, Any] = field(default_factory=dict)
    ess: float = 0.5
    resample: Resample = systematic

    def __call__(
        self,
        denoiser: Denoiser,
        obs: Observation,
        x: Float[Tensor, "n *shape"],
        sigmas: Float[Tensor, "levels"],
        *,
        generator: Generator | None = None,
        **options: Any,
    ) -> Float[Tensor, "n *shape"]:
        """As many draws as rows of noise `x`, of equal weight; `options` go before those of the sampler."""
        return self.particles(denoiser, obs, x, sigmas, generator=generator, **options).draw(generator)

    def particles(
        self,
        denoiser: Denoiser,
        obs: Observation,
        x: Float[Tensor, "n *shape"],
        sigmas: Float[Tensor, "levels"],
        *,
        generator: Generator | None = None,
        **options: Any,
    ) -> Particles:
        """The weighted particles that start from `x`."""
        obs = replace(obs, y=obs.y.to(x))
        model = self.model(denoiser, obs, sigmas.to("cpu", x.dtype), **{**self.options, **options})
        return smc(model, x, ess=self.ess, resample=self.resample, generator=generator)


twisted_sample = ParticleSampler(twisted)
mcgdiff_sample = ParticleSampler(mcgdiff, {"order": 2})
moments_sample = ParticleSampler(twisted, {"twist": moments, "order": 2}, ess=0.2)
