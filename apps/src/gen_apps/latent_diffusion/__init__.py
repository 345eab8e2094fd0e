"""`gen latent-diffusion ...`: diffusion of the codes of an auto-encoder; gen-latent and gen-diffusion meet here."""
