"""Diffusion and score models: one denoiser, every sampler.

denoiser = Preconditioned(UNet(channels=1, num_classes=10), sigma_data=0.5)
sigmas = karras(18)
x = sigmas[0] * initial_noise(range(16), (1, 8, 8))
x0 = sample(cfg(denoiser, 1.5), x, sigmas, heun, label=torch.arange(16) % 10)
"""

from gen_diffusion.condition import Condition
from gen_diffusion.denoise import Denoiser, Preconditioned
from gen_diffusion.draw import draw
from gen_diffusion.guide import cfg, drop, interval
from gen_diffusion.loss import denoising_loss, edm_weight, log_normal
from gen_diffusion.mixture import GaussianMixture
from gen_diffusion.mlp import MLP
from gen_diffusion.noise import initial_noise, keyed
from gen_diffusion.points import grid, grid_mixture, moons, rings, swiss_roll
from gen_diffusion.sample import Snapshot, Step, churn, euler, heun, sample
from gen_diffusion.schedule import karras
from gen_diffusion.task import DiffusionTask
from gen_diffusion.unet import UNet

__all__ = [
    "MLP",
    "Condition",
    "Denoiser",
    "DiffusionTask",
    "GaussianMixture",
    "Preconditioned",
    "Snapshot",
    "Step",
    "UNet",
    "cfg",
    "churn",
    "denoising_loss",
    "draw",
    "drop",
    "edm_weight",
    "euler",
    "grid",
    "grid_mixture",
    "heun",
    "initial_noise",
    "interval",
    "karras",
    "keyed",
    "log_normal",
    "moons",
    "rings",
    "sample",
    "swiss_roll",
]
