"""The choices of a diffusion model, network, objective and sampler, and the flags of each choice; no torch."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from gen_apps.options import Count, Number, Table, choice, completed, flag, given

NETWORKS: Table = {
    "unet": {"width": 32, "multipliers": (1, 2), "blocks": 2, "attention": (1,), "dropout": 0.1},
    "dit": {"width": 64, "patch": 2, "depth": 6, "heads": 4},
    "mlp": {"width": 32, "blocks": 2},
}
VIEWS = ("x0", "eps", "v", "score", "velocity", "F")
LEVELS: Table = {
    "log-normal": {"level_mean": -1.2, "level_std": 1.2},
    "flow": {},
    "linear-betas": {},
    "cosine-betas": {},
}
WEIGHTS: Table = {
    "edm": {},
    **{view: {} for view in VIEWS if view not in ("F", "score")},
    "min-snr": {"gamma": 5.0},
    "variational": {},
}
OBJECTIVES: dict[str, Table] = {
    "view": {view: {} for view in VIEWS},
    "levels": LEVELS,
    "weight": WEIGHTS,
    "pairing": {"independent": {}, "ot": {}},
}
METHODS: Table = {
    "heun": {"churn": 0.0},
    "euler": {"churn": 0.0},
    "churn": {"churn": 5.0},
    "flow-heun": {},
    "dpmpp-2m": {},
    "dpmpp-2m-sde": {"eta": 1.0},
    "ddim": {"eta": 0.0},
    "ancestral": {"variance": "small"},
    "langevin": {"snr": 0.16, "corrections": 1},
}
SCHEDULES: Table = {
    "karras": {"steps": 30, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0},
    "exponential": {"steps": 30, "sigma_min": 0.002, "sigma_max": 80.0},
    "vp": {"steps": 30},
    "flow": {"steps": 30, "shift": 1.0, "sigma_max": 80.0},
}
GUIDANCE: Table = {
    "constant": {"guidance": 1.0},
    "linear": {"guidance": 1.0},
    "cosine": {"guidance": 1.0},
    "clamp-linear": {"guidance": 1.0, "guidance_low": 1.0},
    "interval": {"guidance": 1.0, "guidance_low": 0.2, "guidance_high": 5.0},
}
SAMPLERS: dict[str, Table] = {"method": METHODS, "schedule": SCHEDULES, "guidance_schedule": GUIDANCE}


@dataclass(frozen=True)
class Network:
    """The denoiser; an option that its kind does not use is refused."""

    kind: Annotated[str | None, choice(NETWORKS)] = None
    """For pictures unet (default) or dit; for points mlp, a residual one."""
    width: Count = None
    """Features, of the U-Net at full resolution (32; 64 for dit)."""
    multipliers: tuple[int, ...] | None = None
    """For unet: features at each resolution, in units of the width; each one more halves the size (1 2)."""
    blocks: Count = None
    """For unet: residual blocks per resolution; for mlp: in all (2)."""
    attention: tuple[int, ...] | None = None
    """For unet: resolutions with self-attention, 0 being the full one (1)."""
    dropout: Number = None
    """For unet: share of features dropped in training (0.1)."""
    patch: Count = None
    """For dit: pixels on a side of a patch; a quarter of the tokens for each doubling (2)."""
    depth: Count = None
    """For dit: blocks (6)."""
    heads: Count = None
    """For dit: heads of the attention, which divide the width (4)."""

    def __post_init__(self):
        if self.width is not None and (self.width < 1 or self.width % 4):
            raise ValueError(f"--network.width must be a multiple of 4, got {self.width}")
        for name in ("blocks", "multipliers", "patch", "depth", "heads"):
            if (value := getattr(self, name)) is not None and min(value if name == "multipliers" else [value]) < 1:
                raise ValueError(f"--network.{name} must be at least 1, got {value}")
        if not 0 <= (self.dropout or 0) < 1:
            raise ValueError(f"--network.dropout must lie in [0, 1), got {self.dropout}")

    def completed(self, points: bool) -> "Network":
        """With the defaults of its kind, which the data decide."""
        kind = self.kind or ("mlp" if points else "unet")
        if points != (kind == "mlp"):
            raise ValueError(f"--network.kind {kind} is not for {'points' if points else 'pictures'}; leave it out")
        return completed(replace(self, kind=kind), "network", "kind", NETWORKS)


@dataclass(frozen=True)
class Objective:
    """The network's output, the noise levels of training, and how much each counts."""

    view: Annotated[str | None, choice(OBJECTIVES["view"])] = None
    """The network's output: EDM's F (default), the clean data, the noise, v, the score or the velocity."""
    levels: Annotated[str | None, choice(LEVELS)] = None
    """Noise levels in training: log-normal (default), those of times uniform on the straight path, or of DDPM."""
    level_mean: Number = None
    """For log-normal: mean of ln(sigma) for data of standard deviation 0.5, and in proportion for others (-1.2)."""
    level_std: Number = None
    """For log-normal: standard deviation of ln(sigma) (1.2)."""
    weight: Annotated[str | None, choice(WEIGHTS)] = None
    """Weight of the squared error of the clean data: edm (default), that of a view, min-snr, or the likelihood's."""
    gamma: Number = None
    """For min-snr: the largest weight (5)."""
    uncertainty: bool = False
    """Learn to give all noise levels the same weight in the gradient, whatever the weight."""
    pairing: Annotated[str | None, choice(OBJECTIVES["pairing"])] = None
    """Pairing of noise and samples: independent (default), or ot, the nearest in the batch."""

    def __post_init__(self):
        for name in ("level_std", "gamma"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"--objective.{name.replace('_', '-')} must be positive, got {value}")

    def completed(self) -> "Objective":
        """With the defaults of its choices.

        Raises:
            ValueError: naming the flag, for an option that would be ignored.
        """
        usual = {"view": "F", "levels": "log-normal", "weight": "edm", "pairing": "independent"}
        whole = replace(self, **{name: getattr(self, name) or value for name, value in usual.items()})
        for name, table in OBJECTIVES.items():
            whole = completed(whole, "objective", name, table)
        if whole.weight == "variational" and whole.levels != "log-normal":
            raise ValueError(f"--objective.weight variational is for log-normal levels, got {whole.levels}")
        return whole


@dataclass(frozen=True)
class Sampler:
    """Sampling; an option that its method, schedule or guidance does not use is refused."""

    method: Annotated[str | None, choice(METHODS)] = None
    """The step from one noise level to the next; dpmpp-2m-sde by default."""
    steps: Count = None
    """Noise levels, 30 by default; heun costs two network evaluations at each, guidance doubles them."""
    schedule: Annotated[str | None, choice(SCHEDULES)] = None
    """Spacing of the noise levels: karras by default; vp and flow are even in the time of their process."""
    sigma_min: Number = None
    """Of karras and exponential: lowest level but 0 (0.002)."""
    sigma_max: Number = None
    """For all but vp: highest level, which has to dwarf the data (80); inf for a network trained on flow levels."""
    rho: Number = None
    """For karras: 1 spaces the levels evenly; larger values put more of them at low noise (7)."""
    shift: Number = None
    """For flow: above 1 more of the levels are at high noise (1)."""
    guidance: Number = None
    """Classifier-free guidance: 0 ignores the label, 1 is the conditional model, more exaggerates the class (1)."""
    guidance_schedule: Annotated[str | None, choice(GUIDANCE)] = None
    """Guidance as a function of the noise level; constant by default."""
    guidance_low: Number = None
    """For interval: the noise level up to which there is no guidance (0.2). For clamp-linear: its least weight (1)."""
    guidance_high: Number = None
    """For interval: the noise level above which there is none (5)."""
    churn: Number = None
    """For heun, euler and churn: noise added back on the way (0, and 5 for churn)."""
    eta: Number = None
    """For ddim and dpmpp-2m-sde: share of fresh noise, 0 being the ordinary differential equation (0 and 1)."""
    variance: Annotated[str | None, tyro.conf.arg(metavar="{small,large}", help_behavior_hint="")] = None
    """For ancestral: which of DDPM's two fixed variances (small)."""
    snr: Number = None
    """For langevin, which is Euler with corrections at each level: size of a correction (0.16)."""
    corrections: Count = None
    """For langevin: corrections at each level, a network evaluation each (1)."""

    def completed(self, group: str = "sampler", requested: Collection[str] = ()) -> "Sampler":
        """With the defaults of its choices.

        Args:
            group: of flags, in messages.
            requested: options that messages may blame; by default all that are given.

        Raises:
            ValueError: naming the flag, for a value out of range or an option that would be ignored.
        """
        from gen_apps.diffusion.build import sampler_part  # needs torch, which the flags alone do not

        usual = {"method": "dpmpp-2m-sde", "schedule": "karras", "guidance_schedule": "constant"}
        blamable = requested or given(self)
        whole = replace(self, **{name: getattr(self, name) or value for name, value in usual.items()})
        for name, table in SAMPLERS.items():
            whole = completed(whole, group, name, table)
            if whole.rho is not None and not whole.rho > 0:
                raise ValueError(f"{flag(group, 'rho')} must be positive, got {whole.rho}")
            try:
                sampler_part(whole, name)
            except ValueError as error:
                own = table[getattr(whole, name)]
                blamed = [flag(group, option) for option in own if option in blamable] or [flag(group, name)]
                raise ValueError(f"{', '.join(blamed)}: {error}") from None
        return whole

    def over(self, trained: "Sampler") -> "Sampler":
        """What is given here, else what was trained with.

        An option is not taken over to a choice that lacks it, or by default gives it another value.
        """
        kept = given(trained)
        for name, table in SAMPLERS.items():
            old, new = getattr(trained, name), getattr(self, name)
            if new in table and new != old:
                now = table[new]
                for option in (option for option, usual in table[old].items() if now.get(option) != usual):
                    kept.pop(option)
        return replace(Sampler(**kept), **given(self))

    def check(self, classes: int, group: str = "sampler") -> None:
        """Refuse guidance where there are no classes to be guided by."""
        if not classes and self.guidance != 1:
            raise ValueError(f"{flag(group, 'guidance')} is for data with classes; drop it, got {self.guidance}")
