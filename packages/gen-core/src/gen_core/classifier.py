"""Small classifiers of samples: features for a distance, and a test that tells two sets apart.

    features = hidden_units(x_train, y_train)   # of a perceptron
    frechet(features(a), features(b))
    net = convolutions(training)                # net.features(x), net.classify(x) of pictures
    c2st(a, b)                                # .5 for one distribution, 1 for two that are told apart at sight

[Lopez17] Revisiting classifier two-sample tests, arXiv:1610.06545.
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gen_core.cache import stored_tensors
from gen_core.data import Arrays, Loader
from gen_core.intervals import Estimate, proportion
from gen_core.runtime import key, numpy_seed
from gen_core.schedule import warmup_cosine


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


class Convolutions(nn.Module):
    """A classifier of pictures: two convolutions and `units` hidden units, on pictures averaged down to 32 pixels."""

    def __init__(self, shape: Sequence[int], classes: int, units: int = 64):
        super().__init__()
        (channels, *size), c = shape, (16, 32)
        h, w = (min(side, 32) for side in size)
        self.hidden = nn.Sequential(
            nn.AdaptiveAvgPool2d((h, w)),
            *(nn.Conv2d(channels, c[0], 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(c[0], c[1], 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(c[1] * (h // 4) * (w // 4), units), nn.ReLU()),
        )
        self.head = nn.Linear(units, classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.hidden(x))

    @torch.no_grad()
    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n units"]:
        """The hidden units, in float64."""
        return torch.cat([self.hidden(part.float()) for part in x.split(500)]).double()

    @torch.no_grad()
    def classify(self, x: Float[Tensor, "n c h w"]) -> Int[Tensor, "n"]:
        """The most probable class."""
        return self.head(self.features(x).float()).argmax(1)


def convolutions(
    data: Arrays, *, steps: int = 2000, epochs: int = 100, batch_size: int = 128, lr: float = 4e-3
) -> Convolutions:
    """`Convolutions` trained on all labelled pictures of `data`, on the CPU, or what the cache holds of that.

    The same data have the same features in every command, whatever its seed. Fashion-MNIST takes 45 s of one core, and
    0.91 of its test part are classified correctly.

    Args:
        steps, epochs: updates, whichever are fewer.
    """
    batch_size = min(batch_size, len(data))
    steps = min(steps, epochs * (len(data) // batch_size))
    with torch.random.fork_rng([]):
        torch.manual_seed(key("classifier"))
        net = Convolutions(tuple(data[:1][0].shape[1:]), int(data.tensors[-1].max()) + 1)

    @torch.enable_grad()
    def train() -> dict[str, Tensor]:
        adam = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.01)
        rate = torch.optim.lr_scheduler.LambdaLR(adam, warmup_cosine(steps // 10, steps))
        for x, y in islice(Loader(data, batch_size).batches(), steps):
            loss = F.cross_entropy(net(x), y)
            adam.zero_grad()
            loss.backward()
            adam.step()
            rate.step()
        return net.state_dict()

    settings = f"{steps} {batch_size} {lr} {torch.__version__}"
    net.load_state_dict(stored_tensors(f"classifier-{_digest(data, settings)}", train, "a classifier is trained"))
    return net.eval()


def _digest(data: Arrays, settings: str) -> str:
    """A hash of the data, the settings and this file."""
    digest = hashlib.blake2b(settings.encode() + Path(__file__).read_bytes(), digest_size=16)
    for tensor in data.tensors:
        for start in range(0, len(tensor), 1000):
            digest.update(tensor[start : start + 1000].contiguous().numpy().tobytes())
    return digest.hexdigest()


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
