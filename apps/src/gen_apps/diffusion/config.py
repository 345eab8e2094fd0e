"""The flags of the `gen diffusion` commands."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import tyro

from gen_apps.command import Averaged, Measures, RunPath, SampleClasses, TrainOnData
from gen_apps.diffusion.flags import METHODS, Network, Objective, Sampler
from gen_apps.energy import Place

Points = Literal["grid", "moons", "rings", "swiss-roll"]
View = Literal["x0", "eps", "v", "velocity", "score", "F"]


@dataclass(frozen=True)
class DiffusionOptim(Averaged):
    """Optimisation."""

    steps: int = 1500
    """Updates."""
    lr: float = 4e-3
    """Peak learning rate of AdamW: linear warm-up over a twentieth of the steps, then half a cosine to 0."""
    p_drop: float = 0.1
    """Share of labels dropped, which teaches the unconditional denoiser that guidance needs."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.p_drop <= 1:
            raise ValueError(f"--optim.p-drop is a share, from 0 to 1, got {self.p_drop}")


@dataclass(frozen=True)
class TrainDiffusion(TrainOnData):
    """Train a diffusion model: sample it, measure the samples against held-out data, write a report."""

    command: ClassVar[str] = "diffusion train"

    network: Network = field(default_factory=Network)
    objective: Objective = field(default_factory=Objective)
    optim: DiffusionOptim = field(default_factory=DiffusionOptim)
    sampler: Sampler = field(default_factory=Sampler)

    def __post_init__(self):
        super().__post_init__()
        self._choices()

    def completed(self) -> Self:
        return replace(self, **self._choices())

    def _choices(self) -> dict[str, Any]:
        network = self.network.completed(points=self.data.startswith("points:"))
        return {"network": network, "objective": self.objective.completed(), "sampler": self.sampler.completed()}


@dataclass(frozen=True)
class SampleDiffusion(SampleClasses):
    """Draw samples of a trained run: a picture, and an .npz file with the arrays x and label.

    They are drawn as in the run, but for the options that are given.
    """

    sampler: Annotated[Sampler, tyro.conf.arg(name="")] = field(default_factory=Sampler)
    batch: int = 256
    """Samples at a time, to fit memory."""

    def __post_init__(self):
        super().__post_init__()
        if self.batch < 1:
            raise ValueError(f"--batch must be at least 1 sample, got {self.batch}")


@dataclass(frozen=True)
class Likelihood(Measures):
    """Measure how probable held-out data are: nats per sample, and bits per dimension of pictures.

    Pictures are spread evenly over the bins of their grey levels first, which makes their bits an upper bound.
    """

    run: RunPath
    """Directory of the run; the table is also written there, as likelihood.json."""
    n: int = 100
    """Held-out samples."""
    probes: int = 4
    """Random vectors that estimate the divergence of each sample; 0 computes it exactly, one dimension at a time."""
    levels: int = 40
    """Noise levels of the ordinary differential equation; each costs two network evaluations and the gradients."""
    sigma_min: float | None = None
    """The figure is the density of the data at this noise level; by default half a bin of grey levels, or 0.002."""
    sigma_max: float = 80.0
    elbo: bool = False
    """Also the variational bound of the ancestral sampler with DDPM's 1000 steps, whose variances are fitted to the
    training data."""
    elbo_steps: int = 50
    """Steps of the 1000 that are drawn for each sample."""
    unconditional: bool = False
    """Ignore the labels of a run with classes; by default they are given."""
    seed: int = 0
    batch: int = 64
    """Samples at a time, to fit memory."""
    device: str = "auto"
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        for name, least in (("n", 2), ("probes", 0), ("levels", 3), ("elbo_steps", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}")
        if not 0 < (0.002 if self.sigma_min is None else self.sigma_min) < self.sigma_max < math.inf:
            raise ValueError(f"need 0 < --sigma-min < --sigma-max, got {self.sigma_min} and {self.sigma_max}")
        if self.elbo_steps > 999:
            raise ValueError(f"--elbo-steps must be below 1000, the steps of the chain, got {self.elbo_steps}")


@dataclass(frozen=True)
class CompareSamplers(Measures):
    """Compare samplers: quality against network evaluations and joules, on the samples of one run."""

    run: RunPath
    """Directory of the run, where compare.json and compare.html are written."""
    n: int = 500
    """Samples of each, beside as many held-out ones; at most those that there are."""
    budgets: tuple[int, ...] = (6, 12, 24, 48)
    """Network evaluations per sample, guidance included; a sampler takes the most steps that stay within."""
    methods: tuple[str, ...] = tuple(name for name in METHODS if name != "ddim")
    """Samplers, of those of gen diffusion sample."""
    sampler: Annotated[Sampler, tyro.conf.arg(name="")] = field(default_factory=Sampler)
    draws: int = 4
    """Half samples behind each interval."""
    seed: int = 0
    batch: int = 256
    """Samples at a time, to fit memory."""
    device: str = "auto"
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        if unknown := set(self.methods) - set(METHODS):
            raise ValueError(f"--methods must be of {', '.join(METHODS)}, got {', '.join(sorted(unknown))}")
        if not self.methods or not self.budgets or min(self.budgets) < 2:
            raise ValueError(f"--methods and --budgets need one entry at least, budgets 2 or more, got {self.budgets}")
        for name in ("method", "steps"):
            if getattr(self.sampler, name) is not None:
                raise ValueError(f"--{name} is what is compared; give --methods and --budgets")
        for name, least in (("n", 12), ("draws", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")


PosteriorSampler = Literal["moments", "twisted", "mcgdiff", "pigdm", "dps", "ddrm", "ddnm", "daps", "mgdm"]


@dataclass(frozen=True)
class Calibrate(Measures):
    """Measure posterior samplers where the posterior is known: 25 Gaussians seen through a random matrix."""

    methods: tuple[PosteriorSampler, ...] = ("moments", "twisted", "mcgdiff", "pigdm", "dps", "ddrm")
    """Samplers: see gen_diffusion.posterior and gen_diffusion.particles. moments: twisted by the moments of x0 given
    x. twisted: TDS. Each is compared with the first of them on the same problems."""
    dim: int = 8
    """Numbers in x, even."""
    observed: tuple[int, ...] = (2,)
    """Numbers in y: one set of problems for each."""
    problems: int = 20
    """Problems of each set."""
    levels: tuple[int, ...] = (100,)
    """Noise levels: most methods call the network once at each. Several make a curve."""
    particles: int = 1000
    """Draws of one call, of which two are made."""
    seed: int = 0
    out: Path = Path("runs/calibrate")
    """Directory to write calibrate.html in."""

    def __post_init__(self):
        for name, least in (("dim", 2), ("problems", 2), ("particles", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        if not self.methods or not self.observed or not self.levels or min(self.levels) < 2:
            raise ValueError(f"--methods, --observed and --levels need one entry each, levels 2 or more; {self.levels}")
        if self.dim % 2 or not 1 <= min(self.observed) <= max(self.observed) <= self.dim:
            raise ValueError(f"--dim is even and --observed at most that, got {self.dim} and {self.observed}")


@dataclass(frozen=True)
class Learn2d(Measures):
    """Show what diffusion is on 2-D points: noise, score, samplers, what they cost."""

    name: tyro.conf.Positional[Points] = "grid"
    """grid (25 Gaussians, whose exact denoiser is known), moons, rings or swiss-roll."""
    steps: int = 4000
    """Updates."""
    batch_size: int = 512
    """Points per update."""
    lr: float = 3e-3
    """Peak learning rate."""
    width: int = 64
    """Features of the network."""
    blocks: int = 3
    """Residual blocks of the network."""
    budget: int = 40
    """Network evaluations of each sampler, which decide its number of steps."""
    n: int = 4000
    """Samples of each sampler."""
    views: tuple[View, ...] = ()
    """Train once for each of these views as well, and list how far each is from the exact denoiser (or how well its
    loss does)."""
    seed: int = 0
    device: str = "auto"
    place: Place = field(default_factory=Place)
    out: Path | None = None
    """Page to write; by default learn2d-NAME.html."""

    def __post_init__(self):
        for name, least in (("steps", 1), ("batch_size", 1), ("blocks", 1), ("budget", 4), ("n", 2), ("width", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"--lr must be positive, got {self.lr}")


PICTURES = ("inpaint", "super-resolution", "blur", "colour")  # tasks in which a picture is seen
Task = Literal["inpaint", "super-resolution", "blur", "colour", "mri", "tomography", "seismic", "compressed"]
Restorer = Literal["dps", "pigdm", "ddrm", "ddnm", "daps", "mgdm"]


@dataclass(frozen=True)
class Restore(Measures):
    """Restore pictures from what is left of them: several draws of each, from what was seen and what the run learned.

    Held-out pictures of the run's data are damaged and restored, so that the truth is known.
    """

    run: RunPath
    """Directory of a run of gen diffusion train on pictures."""
    task: Task = "inpaint"
    """What is seen. inpaint: all but the middle. super-resolution: means of blocks. blur: a Gaussian blur. colour: the
    mean of the channels. mri: some lines of the Fourier transform. tomography: parallel projections. seismic: columns
    convolved with a Ricker wavelet. compressed: random projections."""
    image: Path | None = None
    """Restore this picture rather than held-out ones."""
    observed: bool = False
    """The --image is what was seen and its truth unknown: a small, blurred or grey picture, or with transparent pixels
    to fill in."""
    method: Restorer = "daps"
    """daps, pigdm, dps, ddrm, ddnm or mgdm: see gen_diffusion.posterior."""
    n: int = 8
    """Held-out pictures."""
    draws: int = 16
    """Draws of each picture."""
    factor: int | None = None
    """How little is seen. super-resolution: pixels a side of a block (2). mri: lines for each that is seen (4).
    compressed: numbers of the picture for each that is seen (4). tomography: rows for each angle (2)."""
    noise: float = 0.05
    """Standard deviation of the noise in what is seen; pictures lie in [-1, 1]."""
    steps: int | None = None
    """Noise levels: 100, of mgdm, which calls the network twenty times at each, 25."""
    label: int | None = None
    """Class that the pictures are known to be of; by default nothing is known."""
    seed: int = 0
    batch: int = 128
    """Draws at a time, to fit memory."""
    device: str = "auto"
    place: Place = field(default_factory=Place)
    out: Path | None = None
    """File names to write, without suffix; by default restore-TASK-METHOD in the run."""

    def __post_init__(self):
        for name, least in (("n", 1), ("draws", 2), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        if self.factor is not None and self.factor < 1:
            raise ValueError(f"--factor must be at least 1, got {self.factor}")
        if self.steps is not None and self.steps < 3:
            raise ValueError(f"--steps must be at least 3, got {self.steps}")
        if not 0 <= self.noise < math.inf or (self.noise == 0 and self.method == "mgdm"):
            raise ValueError(f"--noise is a standard deviation, 0 or above, for mgdm above 0; got {self.noise}")
        if self.observed and (self.image is None or self.task not in PICTURES):
            raise ValueError(f"--observed needs an --image and one of the tasks {', '.join(PICTURES)}")
