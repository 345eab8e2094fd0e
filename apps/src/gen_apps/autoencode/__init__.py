"""`gen autoencode ...`: train an auto-encoder, and denoise, fill in, find anomalies and compress with it."""
