"""`gen em ...`: fit a mixture, a hidden Markov or a Kalman model by EM, and show every step."""
