"""How a run is sampled: the tables of methods, noise levels and guidance, and the flags that choose from them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
import tyro
from jaxtyping import Float, Int
from torch import Tensor

from gen_apps.options import Count, Number, Table, choice, completed, flag, given, made
from gen_diffusion import (
    Denoiser,
    Step,
    ancestral,
    cfg,
    churn,
    clamp_linear,
    constant,
    corrected,
    cosine,
    ddim,
    dpmpp_2m,
    dpmpp_2m_sde,
    draw,
    euler,
    exponential,
    flow,
    flow_heun,
    heun,
    interval,
    karras,
    linear,
    vp,
)
from gen_diffusion.explain import evaluations, most_steps
from gen_diffusion.guide import Weight


def _with_churn(amount: float, step: Step) -> Step:
    """Noise added back before each step, unless its amount is 0."""
    return churn(amount, step=step) if amount else step


METHODS: Table = {  # what makes the step; its options, with their defaults
    "heun": (lambda *, churn: _with_churn(churn, heun), {"churn": 0.0}),
    "euler": (lambda *, churn: _with_churn(churn, euler), {"churn": 0.0}),
    "churn": (lambda *, churn: _with_churn(churn, heun), {"churn": 5.0}),
    "flow-heun": (lambda: flow_heun, {}),
    "dpmpp-2m": (lambda: dpmpp_2m, {}),
    "dpmpp-2m-sde": (dpmpp_2m_sde, {"eta": 1.0}),
    "ddim": (ddim, {"eta": 0.0}),
    "ancestral": (ancestral, {"variance": "small"}),
    "langevin": (lambda *, snr, corrections: corrected(euler, snr, corrections), {"snr": 0.16, "corrections": 1}),
}
SCHEDULES: Table = {  # what makes the noise levels
    "karras": (
        lambda *, steps, **levels: karras(steps, **levels),
        {"steps": 30, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0},
    ),
    "exponential": (
        lambda *, steps, **levels: exponential(steps, **levels),
        {"steps": 30, "sigma_min": 0.002, "sigma_max": 80.0},
    ),
    "vp": (lambda *, steps: vp(steps), {"steps": 30}),
    "flow": (
        lambda *, steps, **levels: flow(steps, **levels),
        {"steps": 30, "shift": 1.0, "sigma_max": 80.0},
    ),
}
GUIDANCE: Table = {  # what makes the weight: a number, or a function of the noise level
    "constant": (lambda *, guidance: constant(guidance), {"guidance": 1.0}),
    "linear": (lambda *, guidance: linear(guidance), {"guidance": 1.0}),
    "cosine": (lambda *, guidance: cosine(guidance), {"guidance": 1.0}),
    "clamp-linear": (
        lambda *, guidance, guidance_low: clamp_linear(guidance, guidance_low),
        {"guidance": 1.0, "guidance_low": 1.0},
    ),
    "interval": (
        lambda *, guidance, guidance_low, guidance_high: interval(guidance, guidance_low, guidance_high),
        {"guidance": 1.0, "guidance_low": 0.2, "guidance_high": 5.0},
    ),
}
CHOICES: dict[str, Table] = {"method": METHODS, "schedule": SCHEDULES, "guidance_schedule": GUIDANCE}
DEFAULT = {"method": "dpmpp-2m-sde", "schedule": "karras", "guidance_schedule": "constant"}


@dataclass(frozen=True)
class Sampler:
    """How samples are drawn; an option that its method, schedule or guidance does not use is refused."""

    method: Annotated[str | None, choice(METHODS)] = None
    """The step from one noise level to the next; dpmpp-2m-sde by default."""
    steps: Count = None
    """Noise levels, 30 by default; heun costs two network evaluations at each, guidance doubles them."""
    schedule: Annotated[str | None, choice(SCHEDULES)] = None
    """How the noise levels are spaced: karras by default; vp and flow are even in the time of their process."""
    sigma_min: Number = None
    """Of karras and exponential: lowest level but 0 (0.002)."""
    sigma_max: Number = None
    """Of all but vp: highest level, which has to dwarf the data (80); inf for a network trained on flow levels."""
    rho: Number = None
    """Of karras: 1 spaces the levels evenly; larger values put more of them at low noise (7)."""
    shift: Number = None
    """Of flow: above 1 more of the levels are at high noise (1)."""
    guidance: Number = None
    """Classifier-free guidance: 0 ignores the label, 1 is the conditional model, more exaggerates the class (1)."""
    guidance_schedule: Annotated[str | None, choice(GUIDANCE)] = None
    """How the guidance depends on the noise level; constant by default."""
    guidance_low: Number = None
    """Of interval: the noise level up to which there is no guidance (0.2). Of clamp-linear: its least weight (1)."""
    guidance_high: Number = None
    """Of interval: the noise level above which there is none (5)."""
    churn: Number = None
    """Of heun, euler and churn: noise added back on the way (0, and 5 for churn)."""
    eta: Number = None
    """Of ddim and dpmpp-2m-sde: share of fresh noise, 0 being the ordinary differential equation (0 and 1)."""
    variance: Annotated[str | None, tyro.conf.arg(metavar="{small,large}", help_behavior_hint="")] = None
    """Of ancestral: which of DDPM's two fixed variances (small)."""
    snr: Number = None
    """Of langevin, which is Euler with corrections at each level: size of a correction (0.16)."""
    corrections: Count = None
    """Of langevin: corrections at each level, a network evaluation each (1)."""

    def completed(self, group: str = "sampler", asked: Collection[str] = ()) -> "Sampler":
        """With the defaults of its choices.

        Args:
            group: of flags, in messages.
            asked: options that messages may blame; by default all that are given.

        Raises:
            ValueError: naming the flag, for a value out of range or an option that would be ignored.
        """
        asked, whole = asked or given(self), replace(self, **{k: getattr(self, k) or v for k, v in DEFAULT.items()})
        for name, table in CHOICES.items():
            whole = completed(whole, group, name, table)
            if whole.rho is not None and not whole.rho > 0:
                raise ValueError(f"{flag(group, 'rho')} must be positive, got {whole.rho}")
            try:
                made(whole, name, table)
            except ValueError as error:
                own = table[getattr(whole, name)][1]
                blamed = [flag(group, option) for option in own if option in asked] or [flag(group, name)]
                raise ValueError(f"{', '.join(blamed)}: {error}") from None
        return whole

    def over(self, trained: "Sampler") -> "Sampler":
        """What is given here, else what was trained with.

        An option is not taken over to a choice that lacks it, or by default gives it another value.
        """
        kept = given(trained)
        for name, table in CHOICES.items():
            old, new = getattr(trained, name), getattr(self, name)
            if new in table and new != old:
                now = table[new][1]
                for option in (option for option, usual in table[old][1].items() if now.get(option) != usual):
                    kept.pop(option)
        return replace(Sampler(**kept), **given(self))

    def parts(self) -> tuple[Step, Float[Tensor, "levels"], Weight]:
        """The step, the noise levels and the guidance weight of a completed configuration."""
        step, sigmas, weight = (made(self, name, table) for name, table in CHOICES.items())
        return step, sigmas, weight

    def within(self, budget: int) -> "Sampler | None":
        """With as many steps as the budget of network evaluations pays for; None if it is too small for two."""
        steps = most_steps(budget, lambda n: evaluations(*replace(self, steps=n).parts()))
        return None if steps is None else replace(self, steps=steps)

    def check(self, classes: int, group: str = "sampler") -> None:
        """Refuse guidance where there are no classes to be guided by."""
        if not classes and self.guidance != 1:
            raise ValueError(f"{flag(group, 'guidance')} is for data with classes; drop it, got {self.guidance}")

    def draw(
        self, denoiser: Denoiser, indices: range, shape: Sequence[int], labels: Int[Tensor, "n"] | None, **where: Any
    ) -> Float[Tensor, "n ..."]:
        """Samples `indices`, each of its label, of a completed configuration.

        Args:
            labels: label i belongs to sample i, modulo their number; None for a denoiser without classes.
            where: seed, batch, device and progress, as `gen_diffusion.draw` takes them.
        """
        step, sigmas, weight = self.parts()
        condition = {} if labels is None else {"label": labels[torch.tensor(indices) % len(labels)]}
        x = draw(cfg(denoiser, weight), indices, shape, sigmas, step, **condition, **where)
        if broken := len(x) - int(x.isfinite().flatten(1).all(1).sum()):
            raise ValueError(f"{broken} of {len(x)} samples are not finite; lower the guidance or take more steps")
        return x
