"""Prints the indices of test_resample.py. Run it where particles 0.4 is installed, which needs numpy < 2.

(pip install particles==0.4 into an environment of its own; this project never imports it.)
"""

import numpy as np

W = np.array([0.0, 1.0, 4.0, 0.5, 0.0, 9.0, 2.0, 0.25])
W /= W.sum()


def uniform(n: int) -> np.ndarray:
    return (0.618033988749895 * np.arange(1, n + 1)) % 1


if __name__ == "__main__":
    from particles import resampling  # pyright: ignore[reportMissingImports]

    resampling.random.rand = uniform
    for name in ("multinomial", "residual", "stratified", "systematic"):
        for m in (8, 13, 3):
            print(f'    ("{name}", {m}): {getattr(resampling, name)(W, m).tolist()},')
