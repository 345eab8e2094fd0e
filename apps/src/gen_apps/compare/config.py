"""The flags of `gen compare`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gen_apps.command import Machine, Measures, Source
from gen_apps.energy import Place
from gen_apps.identity import slug

Family = Literal["vae", "gan", "diffusion"]


@dataclass(frozen=True)
class Compare(Source, Measures):
    """Compare a VAE, a GAN and a diffusion model: same data, of which each sees as many samples, and one table.

    None is given the classes. Beside them: training data, a mixture of Gaussians, a memoriser and a collapsed sampler.
    """

    out: Path | None = None
    """Directory to write; by default runs/compare-DATA. The same command again trains only what is not yet trained."""
    steps: int = 4000
    """Updates of each family."""
    batch_size: int = 64
    """Samples per update."""
    families: tuple[Family, ...] = ("vae", "gan", "diffusion")
    """Families to train."""
    seed: int = 0
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        super().__post_init__()
        if not self.families:
            raise ValueError("--families needs one of vae, gan, diffusion at least")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")

    def directory(self) -> Path:
        return self.out or Path("runs") / f"compare-{slug(self.data)}"
