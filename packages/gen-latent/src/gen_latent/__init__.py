"""Latent-variable models: auto-encoders, the VAE family, GANs, discrete codes, exact models by EM, and named tensors.

    vae = VAE(MLP(64, 128, 16), MLP(8, 128, 64), latents=8, likelihood=Gaussian())
    log_w = vae.log_weights(x, 50)
    elbo(log_w) <= iwae(log_w) <= ln p(x)

A model is a module with `encode`, `decode` and, if it has latents, `log_weights`; objectives are functions of
log-weights, logits or codes; a `Task` joins a model, an objective and an optimiser for gen-core's Trainer.
"""

from gen_core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # of what __init__.pyi lists
