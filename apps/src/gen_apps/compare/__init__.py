"""`gen compare`: VAE, GAN and diffusion on the same data at the same budget, beside bars, controls and the floor."""
