"""What a denoiser is trained for: the tables of levels, weights and pairings, and the flags that choose from them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

from gen_apps.options import Number, Table, choice, completed, made
from gen_diffusion import (
    DiffusionTask,
    Preconditioned,
    Uncertainty,
    cosine_betas,
    edm_weight,
    linear_betas,
    log_normal,
    min_snr_weight,
    ot_pairing,
    uniform_discrete,
    uniform_flow,
    variational_weight,
    view_weight,
)
from gen_diffusion.view import VIEWS, View


def _centre(level_mean: float, sigma_data: float) -> float:
    """The mean of ln(sigma) for data of this size, where `level_mean` is for 0.5."""
    return level_mean + math.log(sigma_data / 0.5)


def _view_weight(view: View) -> Callable[..., Any]:
    return lambda objective, sigma_data: partial(view_weight, view, sigma_data=sigma_data)


LEVELS: Table = {  # what makes the function from normal draws to noise levels, for data of a standard deviation
    "log-normal": (
        lambda sigma_data, *, level_mean, level_std: partial(
            log_normal, mean=_centre(level_mean, sigma_data), std=level_std
        ),
        {"level_mean": -1.2, "level_std": 1.2},
    ),
    "flow": (lambda sigma_data: uniform_flow, {}),
    "linear-betas": (lambda _: partial(uniform_discrete, alphas_cumprod=(1 - linear_betas()).cumprod(0)), {}),
    "cosine-betas": (lambda _: partial(uniform_discrete, alphas_cumprod=(1 - cosine_betas()).cumprod(0)), {}),
}
WEIGHTS: Table = {  # what makes the weight of |D - x0|^2, a function of the noise level
    "edm": (lambda objective, sigma_data: partial(edm_weight, sigma_data=sigma_data), {}),
    **{view: (_view_weight(view), {}) for view in VIEWS if view not in ("F", "score")},
    "min-snr": (lambda objective, sigma_data, *, gamma: partial(min_snr_weight, gamma=gamma), {"gamma": 5.0}),
    "variational": (lambda objective, sigma_data: objective.variational(sigma_data), {}),
}
PAIRINGS: Table = {"independent": (lambda: None, {}), "ot": (lambda: ot_pairing, {})}
DEFAULT = {"view": "F", "levels": "log-normal", "weight": "edm", "pairing": "independent"}
CHOICES: dict[str, Table] = {
    "view": dict.fromkeys(VIEWS, (str, {})),
    "levels": LEVELS,
    "weight": WEIGHTS,
    "pairing": PAIRINGS,
}


@dataclass(frozen=True)
class Objective:
    """What the network answers, at which noise levels it is trained, and how much each counts."""

    view: Annotated[str | None, choice(CHOICES["view"])] = None
    """What the network is asked for: EDM's F (default), the clean data, the noise, v, the score or the velocity."""
    levels: Annotated[str | None, choice(LEVELS)] = None
    """Noise levels in training: log-normal (default), those of times uniform on the straight path, or of DDPM."""
    level_mean: Number = None
    """Of log-normal: mean of ln(sigma) for data of standard deviation 0.5, and in proportion for others (-1.2)."""
    level_std: Number = None
    """Of log-normal: standard deviation of ln(sigma) (1.2)."""
    weight: Annotated[str | None, choice(WEIGHTS)] = None
    """Of the squared error of the clean data: edm (default), that of a view, min-snr, or the likelihood's."""
    gamma: Number = None
    """Of min-snr: the largest weight (5)."""
    uncertainty: bool = False
    """Learn to give all noise levels the same say in the gradient, whatever the weight."""
    pairing: Annotated[str | None, choice(PAIRINGS)] = None
    """Which noise goes with which sample: independent (default), or ot, the nearest in the batch."""

    def __post_init__(self):
        for name in ("level_std", "gamma"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"--objective.{name.replace('_', '-')} must be positive, got {value}")

    def completed(self) -> "Objective":
        """With the defaults of its choices.

        Raises:
            ValueError: naming the flag, for an option that would be ignored.
        """
        whole = replace(self, **{name: getattr(self, name) or value for name, value in DEFAULT.items()})
        for name, table in CHOICES.items():
            whole = completed(whole, "objective", name, table)
        if whole.weight == "variational" and whole.levels != "log-normal":
            raise ValueError(f"--objective.weight variational is for log-normal levels, got {whole.levels}")
        return whole

    def variational(self, sigma_data: float) -> Any:
        """The weight that divides by the density of the levels, whose parameters are here."""
        assert self.level_mean is not None and self.level_std is not None, "completed"
        return partial(variational_weight, mean=_centre(self.level_mean, sigma_data), std=self.level_std)

    def task(self, denoiser: Preconditioned, classes: int, **how: Any) -> DiffusionTask:
        """The training task of a completed objective."""
        sigma_data = denoiser.sigma_data
        return DiffusionTask(
            denoiser,
            conditions={"label": classes} if classes else {},
            levels=made(self, "levels", LEVELS, sigma_data),
            weight=made(self, "weight", WEIGHTS, self, sigma_data),
            uncertainty=Uncertainty() if self.uncertainty else None,
            pairing=made(self, "pairing", PAIRINGS),
            **how,
        )
