"""`gen vae ...`: train a variational auto-encoder, sample it, walk through its latents, bound its likelihood."""
