"""Real data by name: a table of sets, what each holds, and the package that carries it."""
