"""Opening what was trained: a network from model.json and safetensors.

    denoiser = load("runs/diffusion-digits")  # denoiser(x, sigma, label=label) -> E[x0 | x]

Whoever builds one of classes of their own gives them too: `gen_core.networks.load(path, [*NETWORKS, Mine])`.
"""

from pathlib import Path

from torch import nn

from gen_core import networks
from gen_diffusion.clatr import CLaTr
from gen_diffusion.condition import Condition
from gen_diffusion.denoise import Preconditioned
from gen_diffusion.director import Director
from gen_diffusion.dit import DiT
from gen_diffusion.loss import Uncertainty
from gen_diffusion.mixture import GaussianMixture
from gen_diffusion.mlp import MLP
from gen_diffusion.text import Texted, TextEncoder
from gen_diffusion.unet import UNet

NETWORKS = (
    CLaTr,
    Condition,
    DiT,
    Director,
    GaussianMixture,
    MLP,
    Preconditioned,
    TextEncoder,
    Texted,
    UNet,
    Uncertainty,
)
"""Classes that a description may name."""


def load(path: str | Path, device: str = "auto") -> nn.Module:
    """The trained network in a directory, in evaluation mode, with averaged weights where the run has them.

    Args:
        path: directory of a run, for its newest checkpoint; or one `.../checkpoints/step-000100`; or what
            `gen_core.networks.save` wrote.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        FileNotFoundError: for a directory that holds no network, or a run without a checkpoint.
        ValueError: for a network of another package, or weights that are not of this network.
    """
    return networks.load(path, NETWORKS, device)
