"""Trained models, opened: `load(run)` for a run of any kind.

    model = load("runs/vae-digits")
    x = model.sample(16, labels=torch.zeros(16).long(), seed=0)
    z = model.encode(x)

A kind of run is a subclass of `Trained`: the network with averaged weights in evaluation mode, the run's
configuration and the facts of its model.json, and the methods that such a model has.
"""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gen_apps import data
from gen_apps.command import TrainCommand, TrainOnData
from gen_apps.identity import read
from gen_core.checkpoint import sound, step
from gen_core.data import Arrays
from gen_core.run import Run
from gen_core.runtime import select_device

Command = TypeVar("Command", bound=TrainCommand)

KINDS = {  # the class of a run's configuration: what opens the run
    "TrainDiffusion": "gen_apps.diffusion.trained:TrainedDiffusion",
    "TrainVAE": "gen_apps.vae.trained:TrainedVAE",
    "TrainGAN": "gen_apps.gan.trained:TrainedGAN",
    "TrainAutoEncoder": "gen_apps.autoencode.trained:TrainedAutoEncoder",
    "TrainLatentDiffusion": "gen_apps.latent_diffusion.trained:TrainedLatentDiffusion",
    "TrainTrajectory": "gen_apps.trajectory.trained:TrainedTrajectory",
    "Pretrain": "gen_apps.llm.trained:TrainedLM",
    "Tune": "gen_apps.llm.trained:TunedLM",
}


@dataclass(frozen=True, repr=False)
class Trained(Generic[Command]):
    """A run's network with the averaged weights of its newest checkpoint, and what it was trained on."""

    kind: ClassVar[type[TrainCommand]]
    """The class of the run's configuration."""
    open_network: ClassVar[Callable[..., nn.Module]]
    """The `load` of the package that the network is of."""

    run: Run
    config: Command
    facts: dict[str, Any]
    """Entries of model.json beside the network: shape, classes, ..."""
    network: Any
    step: int
    device: torch.device

    @classmethod
    def open(cls, path: str | Path, device: str = "auto") -> Self:
        """The run at `path`.

        Raises:
            FileNotFoundError: where there is no run, or no checkpoint in it.
            ValueError: for a run of another command, or weights that are not of its network.
        """
        run = Run.open(path)
        config: Any = read(run, cls.kind)
        newest = sound(run.path)
        if newest is None:
            raise FileNotFoundError(
                f"{run.path} has no checkpoint yet; train it first: gen {cls.kind.command} --resume {run.path}"
            )
        network = cls.open_network(newest, device=device)
        facts = json.loads((run.path / "model.json").read_text())
        return cls(run, config, facts, network, step(newest), select_device(device))

    def __repr__(self) -> str:
        facts = "".join(f", {name}={self.facts[name]}" for name in ("shape", "classes") if self.facts.get(name))
        return f"{type(self).__name__}({str(self.run.path)!r}, step={self.step}{facts})"

    def __getattr__(self, name: str) -> Any:
        public = ", ".join(n for n in dir(type(self)) if n[0] != "_" and callable(getattr(type(self), n)))
        raise AttributeError(f"{type(self).__name__} has no {name!r}; its methods are {public}", name=name, obj=self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width) in [-1, 1], or (2,)."""
        return tuple(self.facts["shape"])

    @property
    def classes(self) -> int:
        """Number of classes that the model knows; 0 without."""
        return self.facts.get("classes", 0)

    def data(self) -> tuple[Arrays, Arrays]:
        """The training half and the held-out half of the run's data.

        Raises:
            ValueError: if they are no longer of the shape and classes that were trained on.
        """
        halves = self._halves()
        shape, classes = tuple(halves[0][:1][0].shape[1:]), len(halves[0].classes)
        if (shape, classes) != (self.shape, self.facts["classes"]):
            raise ValueError(
                f"{self.run.path} was trained on samples of shape {self.shape} in {self.facts['classes']} classes, but "
                f"its data now have shape {shape} in {classes}; restore the data"
            )
        return halves

    def _halves(self) -> tuple[Arrays, Arrays]:
        if not isinstance(self.config, TrainOnData):
            raise TypeError(f"a run of gen {self.kind.command} has no DATA to load")
        return data.of(self.config)

    def groups(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Sets of points and their classes that `gen embed` draws together: held-out data, and the run's samples.

        Raises:
            FileNotFoundError: where training did not end, which draws the samples.
        """
        x, y = self.data()[1][:]
        return {"data": (x, y), "samples": self._samples()}

    def _samples(self) -> tuple[Tensor, Tensor | None]:
        """The samples of samples.npz and their classes; None for a model that knows no classes."""
        file = self.run.path / "samples.npz"
        if not file.is_file():
            raise FileNotFoundError(
                f"{self.run.path} has no samples.npz, which the end of training writes; continue it with: "
                f"gen {self.kind.command} --resume {self.run.path}"
            )
        with np.load(file) as arrays:
            return torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["label"]) if self.classes else None

    def conditions(self, labels: Tensor | None) -> dict[str, Tensor]:
        """Keyword arguments of the network for samples of these classes."""
        return {} if labels is None else {"label": labels.to(self.device)}


def load(run: str | Path, device: str = "auto") -> Any:
    """The trained model of a run directory of any kind; see the subclasses of `Trained` for their methods.

    Raises:
        FileNotFoundError: where there is no run, or no checkpoint in it.
        ValueError: for a run that no train command made.
    """
    tag = Run.open(run).config().get("$", "")
    if tag not in KINDS:
        raise ValueError(f"{run} is no run of a gen train command (its config.json is of {tag or 'no class'!r})")
    module, name = KINDS[tag].split(":")
    return getattr(importlib.import_module(module), name).open(run, device)
