"""`gen align ...`: methods of alignment on problems whose optimum is known in closed form."""
