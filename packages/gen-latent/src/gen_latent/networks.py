"""Opening what was trained: a network from model.json and safetensors.

    vae = load("runs/vae-digits")  # vae.encode(x), vae.decode(z), vae.sample(16)

Whoever builds one of classes of their own gives them too: `gen_core.networks.load(path, [*NETWORKS, Mine])`.
"""

from pathlib import Path

from torch import nn

from gen_core import networks
from gen_latent.augment import Augment
from gen_latent.autoencoder import AutoEncoder, QuantizedAutoEncoder
from gen_latent.discrete import Categorical, LogisticMixture
from gen_latent.distributions import Bernoulli, Gaussian, ItakuraSaito, diag_gaussian
from gen_latent.first_stage import KLAutoEncoder, PatchDiscriminator
from gen_latent.gan_nets import (
    DCDiscriminator,
    DCGenerator,
    MLPDiscriminator,
    ResidualDiscriminator,
    ResidualGenerator,
)
from gen_latent.graph import Apply, Concat, Graph
from gen_latent.nets import MLP, ConvDecoder, ConvEncoder
from gen_latent.priors import Flow, Mixture, Standard, Vamp
from gen_latent.quantize import FSQ, Residual, VectorQuantizer
from gen_latent.vae import VAE, HierarchicalVAE, Level

NETWORKS = (
    *(VAE, HierarchicalVAE, Level, AutoEncoder, KLAutoEncoder, QuantizedAutoEncoder, Graph),
    *(MLP, ConvEncoder, ConvDecoder, VectorQuantizer, FSQ, Residual, Apply, Concat, Augment),
    *(DCGenerator, DCDiscriminator, MLPDiscriminator, PatchDiscriminator, ResidualGenerator, ResidualDiscriminator),
    *(Standard, Mixture, Vamp, Flow),
    *(diag_gaussian, Bernoulli, Gaussian, ItakuraSaito, Categorical, LogisticMixture),
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
