"""The place of auto-encoders, VAEs, GANs and other latent-variable models; exports nothing yet."""

__all__: list[str] = []
