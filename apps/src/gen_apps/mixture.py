"""A mixture of Gaussians fitted to data by EM: what a network has to beat to be worth its training."""

import warnings
from typing import Any

from torch import Tensor

from gen_core.runtime import numpy_seed

FULL = 128  # dimensions up to which covariances are full; diagonal above


def fitted(x: Tensor, components: int, seed: int) -> Any:
    """scikit-learn's, of as many components as there are eight samples for, of data about 1 in size."""
    from sklearn.mixture import GaussianMixture

    flat = x.flatten(1).double().numpy()
    kind = "full" if flat.shape[1] <= FULL else "diag"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "not converged": a bar needs no optimum
        return GaussianMixture(
            min(components, len(flat) // 8), covariance_type=kind, reg_covar=4e-3, random_state=numpy_seed(seed)
        ).fit(flat)
