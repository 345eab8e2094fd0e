"""Small classifiers of samples: features for a distance, and a test that tells two sets apart.

    features = hidden_units(x_train, y_train)
    frechet(features(a), features(b))
    c2st(a, b)                                # .5 for one distribution, 1 for two that are told apart at sight

[Lopez17] Revisiting classifier two-sample tests, arXiv:1610.06545.
"""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gen_core.intervals import Estimate, proportion
from gen_core.runtime import numpy_seed


def hidden_units(
    x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], *, units: int = 64, epochs: int = 60, seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """The hidden units of a perceptron that was trained to tell the classes, as a function of samples."""
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier((units,), learning_rate_init=3e-3, max_iter=epochs, random_state=numpy_seed(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "not converged": features need no optimum
        net.fit(x.flatten(1).double().numpy(), y.numpy())
    w, b = (torch.as_tensor(v[0]) for v in (net.coefs_, net.intercepts_))
    return lambda x: (x.flatten(1).double() @ w + b).relu()


def c2st(
    a: Float[Tensor, "n ..."], b: Float[Tensor, "m ..."], *, units: int = 64, folds: int = 5, seed: int = 0
) -> Estimate:
    """Accuracy on held-out folds of a perceptron that tells `a` from `b` ([Lopez17] section 3).

    As many samples of both sets: one that always says `a` is right in half of the cases, and no errors cancel.
    The interval is that of independent predictions; folds share their training data, so it is a little narrow.

    Raises:
        ValueError: for sets of different size, where a constant answer beats a half, or fewer than two samples a fold.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neural_network import MLPClassifier

    if len(a) != len(b) or len(a) < 2 * folds:
        raise ValueError(f"c2st takes as many samples of both sets, {2 * folds} at least; got {len(a)}, {len(b)}")
    x = torch.cat([a, b]).flatten(1).double().numpy()
    y = (torch.arange(len(x)) >= len(a)).long().numpy()
    parts = StratifiedKFold(folds, shuffle=True, random_state=numpy_seed(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = cross_val_predict(MLPClassifier((units,), random_state=numpy_seed(seed)), x, y, cv=parts)
    return proportion(float((predicted == y).mean()), len(y))
