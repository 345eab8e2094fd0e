"""A run that was trained: its configuration, its weights, its data."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gen_apps.diffusion.config import Train, read
from gen_apps.diffusion.model import Model
from gen_core import Arrays, Run, select_device
from gen_core.checkpoint import load_tensors, sound, step
from gen_diffusion import Preconditioned


def load_averaged(net: nn.Module, checkpoint: Path) -> None:
    """Give a network the averaged weights of a checkpoint.

    Raises:
        ValueError: for weights that are not of this network.
    """
    weights = load_tensors(checkpoint / "ema.safetensors")
    wanted, found = ({k: tuple(v.shape) for k, v in w.items()} for w in (net.state_dict(), weights))
    if wrong := [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]:
        raise ValueError(
            f"the weights in {checkpoint} do not fit the run's config.json and model.json: {wrong[0]} has shape "
            f"{found.get(wrong[0])}, not {wanted.get(wrong[0])} ({len(wrong)} such); restore those files"
        )
    net.load_state_dict(weights)


@dataclass(frozen=True)
class Trained:
    """The averaged weights of a run's newest checkpoint, ready to denoise."""

    run: Run
    config: Train
    model: Model
    denoiser: Preconditioned
    step: int
    device: torch.device

    @classmethod
    def open(cls, path: Path, device: str = "auto") -> "Trained":
        """The run at `path`.

        Raises:
            FileNotFoundError: without a checkpoint.
            ValueError: for a run of another command, or weights that are not of its network.
        """
        run = Run.open(path)
        config, model, where = read(run), Model.load(run), select_device(device)
        newest = sound(run.path, "ema.safetensors")
        if newest is None:
            raise FileNotFoundError(
                f"{run.path} has no checkpoint yet; train it first: gen diffusion train --resume {run.path}"
            )
        denoiser = model.denoiser(config.network, str(config.objective.view))
        load_averaged(denoiser, newest)
        return cls(run, config, model, denoiser.to(where).eval(), step(newest), where)

    def data(self) -> tuple[Arrays, Arrays]:
        """The training half and the held-out half.

        Raises:
            ValueError: if they are no longer of the shape and classes that were trained on.
        """
        halves = self.config.load()
        now = Model.of(halves[0])
        if (now.shape, now.classes) != (self.model.shape, self.model.classes):
            raise ValueError(
                f"{self.config.data} has samples of shape {now.shape} in {now.classes} classes, but {self.run.path} "
                f"was trained on {self.model.shape} in {self.model.classes}; restore the data"
            )
        return halves
