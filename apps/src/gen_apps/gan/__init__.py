"""`gen gan ...`: train a generator against a discriminator, and sample it."""
