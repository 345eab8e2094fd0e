"""Maps of representations: many features to two coordinates, and how far to believe the map.

    z = tsne(features)                                         # or umap(features), or pca(features).z
    print(trustworthiness(features, z))                        # 1: all neighbours on the map are neighbours in truth
    scatter(z, labels, groups=["data"] * n + ["samples"] * m, path="map.png")

Only PCA maps points that it was not fitted on; to see samples among data with t-SNE or UMAP, map both together.

[Maaten08] Visualizing data using t-SNE, JMLR 9:2579.
[McInnes18] UMAP: uniform manifold approximation and projection for dimension reduction, arXiv:1802.03426.
[Venna01] Neighborhood preservation in nonlinear projection methods, ICANN 2001.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gen_core.runtime import numpy_seed

if TYPE_CHECKING:
    import matplotlib.axes

Labels = Tensor | np.ndarray | Sequence  # one number or string per point

MARKERS = "ox^s+Dv*"  # of the groups in a scatter


@dataclass(frozen=True)
class PCA:
    """x = mean + z @ components, up to the directions left out."""

    z: Float[Tensor, "n d"]  # coordinates of the points, centred and uncorrelated
    components: Float[Tensor, "d p"]  # orthonormal rows, by falling variance
    mean: Float[Tensor, "p"]
    variance_ratio: Float[Tensor, "d"]  # share of the total variance along each component

    def __call__(self, x: Float[Tensor, "m p"]) -> Float[Tensor, "m d"]:
        """Coordinates of other points on the same map."""
        return (x - self.mean) @ self.components.T


def pca(x: Float[Tensor, "n p"], d: int = 2) -> PCA:
    """Principal components from the SVD of the centred points, in the dtype of `x`.

    The sign, which the SVD leaves open, is such that the largest entry of each component is positive.

    >>> map = pca(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), d=1)
    >>> map.z.flatten().tolist(), map.variance_ratio.item()
    ([-2.5, 2.5], 1.0)
    """
    if not 1 <= d <= min(x.shape):
        raise ValueError(f"{len(x)} points with {x.shape[1]} features have no {d} components; lower d")
    mean = x.mean(0)
    _, s, vt = torch.linalg.svd(x - mean, full_matrices=False)
    largest = vt.gather(1, vt.abs().argmax(1, keepdim=True))
    components = (vt * largest.sign())[:d]
    return PCA((x - mean) @ components.T, components, mean, (s**2 / (s**2).sum())[:d])


def tsne(x: Float[Tensor, "n p"], d: int = 2, *, seed: int = 0, perplexity: int | float = 30) -> Float[Tensor, "n d"]:
    """t-SNE started from PCA ([Maaten08]); `perplexity` is the number of neighbours that count, below n.

    Raises:
        ValueError: for too few points, for a value that is not finite, or when all points are equal.
    """
    from sklearn import manifold

    if not perplexity < len(x):
        raise ValueError(f"perplexity={perplexity} needs more points than that, got {len(x)}; lower perplexity")
    x = (x - x[0]).detach()  # exactly 0 for equal points
    spread = x.abs().max()  # squares of very small or large numbers would be 0 or infinite
    if not 0 < spread < torch.inf:
        raise ValueError(
            f"t-SNE needs finite points that differ, got {len(x)} whose largest difference is {spread:g}; "
            "remove nan and infinite rows, and do not map points that are all equal"
        )
    x = x / spread
    method = "barnes_hut" if d < 4 else "exact"
    model = manifold.TSNE(d, perplexity=perplexity, init="pca", random_state=numpy_seed(seed), method=method)
    return torch.as_tensor(model.fit_transform(_numpy(x)))


def umap(x: Float[Tensor, "n p"], d: int = 2, *, seed: int = 0) -> Float[Tensor, "n d"]:
    """UMAP ([McInnes18]) of umap-learn, with its defaults; on one thread, so that `seed` decides the result."""
    try:
        from umap import UMAP  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("UMAP needs umap-learn: pip install 'gen-core[umap]'") from error
    return torch.as_tensor(UMAP(n_components=d, random_state=numpy_seed(seed), n_jobs=1).fit_transform(_numpy(x)))


def trustworthiness(x: Float[Tensor, "n p"], z: Float[Tensor, "n d"], k: int = 12) -> float:
    """1 minus a penalty for each of the k neighbours on the map that is none in `x`, by its rank there ([Venna01]).

    1 is a faithful map, about .5 a random one; k must be below n/2.
    """
    from sklearn import manifold

    if not 1 <= k < len(x) / 2:
        raise ValueError(f"k={k} neighbours need more than {2 * k} points, got {len(x)}; lower k")
    return float(manifold.trustworthiness(_numpy(x), _numpy(z), n_neighbors=k))


def scatter(
    z: Float[Tensor, "n 2"],
    labels: Labels | None = None,
    *,
    groups: Labels | None = None,
    path: str | Path | None = None,
    ax: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":
    """Draw a map with one colour per label, one marker per group (data against samples, say), and a legend.

    Args:
        labels: colours; None colours by group.
        groups: markers.
        path: where to save the figure; the suffix says the format.
        ax: what to draw into; None makes a figure outside pyplot's state, which needs no display and no closing.
    """
    import matplotlib
    from matplotlib.figure import Figure

    ax = ax or Figure(figsize=(7, 6), layout="constrained").subplots()
    points = _numpy(z)
    group_names, group = _categories("groups", groups, len(z))
    label_names, label = _categories("labels", groups if labels is None else labels, len(z))
    if len(group_names) > len(MARKERS):
        raise ValueError(f"{len(group_names)} groups but only {len(MARKERS)} markers; pass them as labels")
    tab10, turbo, n = matplotlib.colormaps["tab10"], matplotlib.colormaps["turbo"], len(label_names)
    colours = tab10(range(10)) if n <= 10 else turbo(np.linspace(0, 1, n))
    for j, marker in enumerate(MARKERS[: len(group_names)]):
        ax.scatter(*points[group == j].T, c=colours[label[group == j]], marker=marker, s=12, linewidths=0.8)

    key = [] if labels is None else list(zip(label_names, "o" * len(label_names), colours, strict=False))
    if groups is not None:
        key += zip(group_names, MARKERS, colours if labels is None else ["0.4"] * len(MARKERS), strict=False)
    for name, marker, colour in key:
        ax.scatter([], [], color=colour, marker=marker, label=name)
    if key:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    ax.set(xticks=[], yticks=[])  # the coordinates of a map have no meaning of their own
    if path is not None and (figure := ax.get_figure(root=True)):
        figure.savefig(path)
    return ax


def _categories(name: str, values: Labels | None, n: int) -> tuple[list[str], np.ndarray]:
    """Sorted names of the distinct values, and the position in them of each of the n points."""
    array = np.zeros(n) if values is None else _numpy(values) if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"{name} of shape {array.shape} for {n} points; pass one per point")
    names, index = np.unique(array, return_inverse=True)
    return [str(x) for x in names], index


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()
