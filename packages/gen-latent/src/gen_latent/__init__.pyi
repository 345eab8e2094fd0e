from .anomaly import likelihood_score, manifold_score, neighbour_score, reconstruction_score, threshold
from .augment import Augment
from .autoencoder import AutoEncoder, QuantizedAutoEncoder, corrupt, inpaint, layerwise
from .bounds import KLTerms, active_units, beta_elbo, dreg, effective_sample_size, elbo, iwae, kl_terms, nll
from .discrete import Categorical, LogisticMixture
from .distributions import Bernoulli, Distribution, Gaussian, ItakuraSaito, Normal, diag_gaussian, kl
from .first_stage import FirstStageTask, KLAutoEncoder, PatchDiscriminator
from .gan import (
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
from .gan_nets import (
    DCDiscriminator,
    DCGenerator,
    MLPDiscriminator,
    ResidualDiscriminator,
    ResidualGenerator,
)
from .gan_task import GANTask
from .graph import Apply, Concat, Graph
from .latents import largest_jump, lerp, slerp, traverse
from .modes import Modes, count_modes, good_share, nearest_mode, too_narrow
from .nets import MLP, ConvDecoder, ConvEncoder
from .networks import load
from .priors import Flow, Mixture, Standard, Vamp
from .quantize import FSQ, Quantized, Residual, VectorQuantizer, perplexity
from .task import AutoEncoderTask, VAETask, frozen
from .vae import VAE, HierarchicalVAE, Level

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
    "MLPDiscriminator",
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
    "load",
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
