"""`gen report`, `gen summary` and `gen embed`: a run, looked at."""
