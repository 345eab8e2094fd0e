"""`gen align ...`: methods of alignment on problems whose optimum or answer is known."""
