"""Latent-variable models: auto-encoders, the VAE family, GANs, discrete codes, and networks with named tensors.

    vae = VAE(MLP(64, 128, 16), MLP(8, 128, 64), latents=8, likelihood=Gaussian())
    log_w = vae.log_weights(x, 50)
    elbo(log_w) <= iwae(log_w) <= ln p(x)

A model is a module with `encode`, `decode` and, if it has latents, `log_weights`; objectives are functions of
log-weights, logits or codes; a `Task` joins a model, an objective and an optimiser for gen-core's Trainer.
"""

from gen_latent.anomaly import likelihood_score, manifold_score, neighbour_score, reconstruction_score, threshold
from gen_latent.augment import Augment
from gen_latent.autoencoder import AutoEncoder, QuantizedAutoEncoder, corrupt, inpaint, layerwise
from gen_latent.bounds import KLTerms, active_units, beta_elbo, dreg, effective_sample_size, elbo, iwae, kl_terms, nll
from gen_latent.discrete import Categorical, LogisticMixture
from gen_latent.distributions import Bernoulli, Distribution, Gaussian, ItakuraSaito, Normal, diag_gaussian, kl
from gen_latent.first_stage import FirstStageTask, KLAutoEncoder, PatchDiscriminator
from gen_latent.gan import (
    GANLoss,
    gradient_penalty,
    hinge,
    least_squares,
    minimax,
    non_saturating,
    pack,
    relativistic,
    squared_gradient,
    wasserstein,
)
from gen_latent.gan_nets import DCDiscriminator, DCGenerator, ResidualDiscriminator, ResidualGenerator
from gen_latent.gan_task import GANTask
from gen_latent.graph import Apply, Concat, Graph
from gen_latent.latents import largest_jump, lerp, slerp, traverse
from gen_latent.modes import Modes, count_modes, good_share, nearest_mode, too_narrow
from gen_latent.nets import MLP, ConvDecoder, ConvEncoder
from gen_latent.priors import Flow, Mixture, Standard, Vamp
from gen_latent.quantize import FSQ, Quantized, Residual, VectorQuantizer, perplexity
from gen_latent.task import AutoEncoderTask, VAETask, frozen
from gen_latent.vae import VAE, HierarchicalVAE, Level

__all__ = [
    "FSQ",
    "MLP",
    "VAE",
    "Apply",
    "Augment",
    "AutoEncoder",
    "AutoEncoderTask",
    "Bernoulli",
    "Categorical",
    "Concat",
    "ConvDecoder",
    "ConvEncoder",
    "DCDiscriminator",
    "DCGenerator",
    "Distribution",
    "FirstStageTask",
    "Flow",
    "GANLoss",
    "GANTask",
    "Gaussian",
    "Graph",
    "HierarchicalVAE",
    "ItakuraSaito",
    "KLAutoEncoder",
    "KLTerms",
    "Level",
    "LogisticMixture",
    "Mixture",
    "Modes",
    "Normal",
    "PatchDiscriminator",
    "Quantized",
    "QuantizedAutoEncoder",
    "Residual",
    "ResidualDiscriminator",
    "ResidualGenerator",
    "Standard",
    "VAETask",
    "Vamp",
    "VectorQuantizer",
    "active_units",
    "beta_elbo",
    "corrupt",
    "count_modes",
    "diag_gaussian",
    "dreg",
    "effective_sample_size",
    "elbo",
    "frozen",
    "good_share",
    "gradient_penalty",
    "hinge",
    "inpaint",
    "iwae",
    "kl",
    "kl_terms",
    "largest_jump",
    "layerwise",
    "least_squares",
    "lerp",
    "likelihood_score",
    "manifold_score",
    "minimax",
    "nearest_mode",
    "neighbour_score",
    "nll",
    "non_saturating",
    "pack",
    "perplexity",
    "reconstruction_score",
    "relativistic",
    "slerp",
    "squared_gradient",
    "threshold",
    "too_narrow",
    "traverse",
    "wasserstein",
]
