"""`gen diffusion ...`: train a denoiser, sample it, measure it, see how it works."""
