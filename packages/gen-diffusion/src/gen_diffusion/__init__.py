"""Diffusion and score models: one denoiser, every sampler.

denoiser = Preconditioned(UNet(channels=1, num_classes=10), sigma_data=0.5)
sigmas = karras(18)
x = sigmas[0] * initial_noise(range(16), (1, 8, 8))
x0 = sample(cfg(denoiser, 1.5), x, sigmas, heun, label=torch.arange(16) % 10)
"""

from gen_diffusion.adapt import discrete, from_eps, from_score, from_v, from_velocity, from_x0
from gen_diffusion.bound import elbo, optimal_variance, posterior_error
from gen_diffusion.clatr import CLaTr, CLaTrTask
from gen_diffusion.condition import Condition
from gen_diffusion.denoise import Denoiser, Preconditioned, noised
from gen_diffusion.director import Director
from gen_diffusion.dit import DiT
from gen_diffusion.draw import draw
from gen_diffusion.guide import (
    autoguide,
    cfg,
    clamp_linear,
    classifier,
    constant,
    cosine,
    drop,
    interval,
    linear,
)
from gen_diffusion.likelihood import LogLikelihood, bits_per_dim, dequantise, log_likelihood
from gen_diffusion.loss import (
    Uncertainty,
    denoising_loss,
    edm_weight,
    log_normal,
    masked_loss,
    min_snr_weight,
    ot_pairing,
    uniform_discrete,
    uniform_flow,
    variational_weight,
    view_weight,
)
from gen_diffusion.mixture import GaussianMixture
from gen_diffusion.mlp import MLP
from gen_diffusion.motion import Trajectories, draw_trajectories, motion_score
from gen_diffusion.noise import initial_noise, keyed
from gen_diffusion.points import grid, grid_mixture, moons, rings, swiss_roll
from gen_diffusion.sample import (
    Snapshot,
    Step,
    ancestral,
    annealed_langevin,
    churn,
    corrected,
    ddim,
    dpmpp_2m,
    dpmpp_2m_sde,
    euler,
    flow_heun,
    heun,
    sample,
)
from gen_diffusion.scenes import Scene, draw_scenes
from gen_diffusion.schedule import (
    cosine_betas,
    ddpm,
    exponential,
    flow,
    karras,
    linear_betas,
    vp,
    vp_time,
    zero_terminal_snr,
)
from gen_diffusion.task import DiffusionTask
from gen_diffusion.text import BytePairs, Characters, Texted, TextEncoder, Words, embed_captions, tokenise
from gen_diffusion.trajectory import to_features, to_poses
from gen_diffusion.unet import UNet
from gen_diffusion.view import View, convert

__all__ = [
    "MLP",
    "BytePairs",
    "CLaTr",
    "CLaTrTask",
    "Characters",
    "Condition",
    "Denoiser",
    "DiT",
    "DiffusionTask",
    "Director",
    "GaussianMixture",
    "LogLikelihood",
    "Preconditioned",
    "Scene",
    "Snapshot",
    "Step",
    "TextEncoder",
    "Texted",
    "Trajectories",
    "UNet",
    "Uncertainty",
    "View",
    "Words",
    "ancestral",
    "annealed_langevin",
    "autoguide",
    "bits_per_dim",
    "cfg",
    "churn",
    "clamp_linear",
    "classifier",
    "constant",
    "convert",
    "corrected",
    "cosine",
    "cosine_betas",
    "ddim",
    "ddpm",
    "denoising_loss",
    "dequantise",
    "discrete",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "draw",
    "draw_scenes",
    "draw_trajectories",
    "drop",
    "edm_weight",
    "elbo",
    "embed_captions",
    "euler",
    "exponential",
    "flow",
    "flow_heun",
    "from_eps",
    "from_score",
    "from_v",
    "from_velocity",
    "from_x0",
    "grid",
    "grid_mixture",
    "heun",
    "initial_noise",
    "interval",
    "karras",
    "keyed",
    "linear",
    "linear_betas",
    "log_likelihood",
    "log_normal",
    "masked_loss",
    "min_snr_weight",
    "moons",
    "motion_score",
    "noised",
    "optimal_variance",
    "ot_pairing",
    "posterior_error",
    "rings",
    "sample",
    "swiss_roll",
    "to_features",
    "to_poses",
    "tokenise",
    "uniform_discrete",
    "uniform_flow",
    "variational_weight",
    "view_weight",
    "vp",
    "vp_time",
    "zero_terminal_snr",
]
