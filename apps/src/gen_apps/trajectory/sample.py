"""`gen trajectory sample`."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from gen_apps.diffusion.trained import load_averaged
from gen_apps.energy import Place, metered
from gen_apps.options import Count, Number
from gen_apps.trajectory.config import Model, Sampler, in_range, read
from gen_apps.trajectory.train import samples
from gen_core import Run, select_device
from gen_core.callbacks import bar
from gen_core.checkpoint import sound
from gen_diffusion.motion import caption, describe, parse, spread, tag
from gen_diffusion.trajectory import plot, to_poses


@dataclass(frozen=True)
class Sample:
    """Draw trajectories that do what a prompt says: a picture, and an .npz file with the arrays features and poses."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    prompt: str = "the camera pushes in, then trucks left"
    """Motions, joined by "and" within a segment and by "then" between segments."""
    n: int = 3
    """Samples."""
    steps: Count = None
    """Noise levels, as in the run by default; each costs four network evaluations."""
    guidance: Number = None
    """Classifier-free guidance, as in the run by default: 0 ignores the prompt, more keeps closer to it."""
    seed: int = 0
    """Sample i is a function of the seed and i alone, whatever n."""
    device: str = "auto"
    place: Place = field(default_factory=Place)
    out: Path | None = None
    """Where to write, without suffix; by default sample-seed-SEED in the run."""

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"--n must be at least 1 sample, got {self.n}")
        in_range("", self.steps, self.guidance)
        parse(self.prompt)

    def sampler(self, trained: Sampler) -> Sampler:
        """The run's own, but for what is given."""
        asked = {"steps": self.steps, "guidance": self.guidance}
        return replace(trained, **{name: value for name, value in asked.items() if value is not None})


def sample(config: Sample) -> None:
    run = Run.open(config.run)
    trained, newest = read(run), sound(run.path, "ema.safetensors")
    if newest is None or not (run.path / "model.json").is_file():
        raise FileNotFoundError(f"{run.path} has no checkpoint of gen trajectory train; train it first")
    model, device = Model.load(run), select_device(config.device)
    denoiser = model.denoiser(trained.network)
    load_averaged(denoiser, newest)
    asked = parse(config.prompt)
    with bar("sampling", config.n) as advance, metered(config.place, config.n) as cost:
        x = samples(
            denoiser.to(device).eval(), model.words, config.sampler(trained.sampler), [caption(asked)] * config.n,
            trained.frames, seed=config.seed, device=device, progress=advance,
        )  # fmt: skip
    tags, wanted = tag(x), spread(asked, trained.frames)
    out = config.out or run.path / f"sample-seed-{config.seed}"
    picture, arrays, energy = (out.with_name(out.name + end) for end in (".png", ".npz", ".energy.json"))
    plot(x, picture, [describe(t) for t in tags])
    np.savez(arrays, features=x.numpy(), poses=to_poses(x.double()).numpy())
    energy.write_text(json.dumps(cost.facts, indent=1) + "\n")
    for i, t in enumerate(tags):
        agree = (t == wanted).double().mean()
        print(f"{i}: {describe(t)} ({agree:.0%} of the frames as asked)")
    print(f"{picture} and .npz: {config.n} samples for {caption(asked)!r}")
    print("; ".join(f"{name} {cost.facts[name]}" for name in ("energy", "carbon", "per sample")))
