"""Diffusion and score models: one denoiser, every sampler.

denoiser = Preconditioned(UNet(channels=1, num_classes=10), sigma_data=0.5)
sigmas = karras(18)
x = sigmas[0] * initial_noise(range(16), (1, 8, 8))
x0 = sample(cfg(denoiser, 1.5), x, sigmas, heun, label=torch.arange(16) % 10)
"""

from gen_core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # of what __init__.pyi lists
