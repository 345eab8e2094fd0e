"""Operators of tomography and geophysics: sums along straight rays, seismic traces, sparse stations.

    A = radon(angles, (1, 32, 32))                    # parallel beams: computed tomography
    A = rays(sources, receivers, (1, 32, 32))         # any straight rays: travel times through slowness
    A = seismic(ricker(0.1), (1, 64, 64))             # each column of reflectivity, convolved with a wavelet
    A = stations(positions, (1, 37, 49))              # a field where it was measured

Positions are (row, column) in pixels; the centre of the first pixel is (0, 0) and its corner (-1/2, -1/2). Lengths are
in pixels: travel times are these sums times the width of a pixel.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gen_diffusion.imaging import convolution_matrix, separable
from gen_diffusion.operators import Linear, Shape, matrix


def rays(starts: Float[Tensor, "m 2"], ends: Float[Tensor, "m 2"], shape: Shape) -> Linear:
    """Integrals of a picture (1, h, w) along straight rays, exact for one that is constant in each pixel (Siddon 1985).

    A ray is cut where it crosses a line of the grid; each piece belongs to the pixel of its middle. Pieces outside of
    the picture count 0.
    """
    starts, ends = starts.double(), ends.double()
    height, width = shape[1:]
    step = ends - starts
    grid = [torch.arange(n + 1, dtype=torch.float64) - 0.5 for n in (height, width)]
    cuts = [(lines - starts[:, i : i + 1]) / step[:, i : i + 1] for i, lines in enumerate(grid)]
    borders = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(len(starts), 2)
    t = torch.cat([*cuts, borders], 1).nan_to_num(0.0).clamp(0, 1).sort(1).values
    lengths = t.diff(dim=1) * step.norm(dim=1, keepdim=True)
    middles = starts[:, None] + ((t[:, 1:] + t[:, :-1]) / 2)[..., None] * step[:, None]
    pixel = (middles + 0.5).floor().long()
    inside = ((pixel >= 0) & (pixel < torch.tensor([height, width]))).all(-1) & (lengths > 0)
    ray = torch.arange(len(starts))[:, None].expand_as(lengths)
    entry = torch.stack([ray, pixel[..., 0] * width + pixel[..., 1]])[:, inside]
    return _sparse(entry, lengths[inside], shape, (len(starts),))


def radon(angles: Float[Tensor, "a"], shape: Shape, detectors: int | None = None) -> Linear:
    """Parallel projections (angles, detectors), the detectors one pixel apart and centred, of a picture (1, h, w).

    Args:
        angles: of the rays, in radians: 0 sums along columns (downwards), pi / 2 along rows.
        detectors: by default enough for the diagonal of the picture.
    """
    height, width = shape[1:]
    reach = math.hypot(height, width)
    detectors = detectors or 2 * math.ceil(reach / 2) + 1 - height % 2
    offset = torch.arange(detectors, dtype=torch.float64) - (detectors - 1) / 2
    along = torch.stack([angles.double().cos(), angles.double().sin()], -1)[:, None]  # (row, column)
    across = torch.stack([-along[..., 1], along[..., 0]], -1)
    middle = torch.tensor([(height - 1) / 2, (width - 1) / 2], dtype=torch.float64) + offset[:, None] * across
    flat = rays((middle - reach * along).flatten(0, 1), (middle + reach * along).flatten(0, 1), shape)
    out = (len(angles), detectors)
    return Linear(lambda x: flat.forward(x).unflatten(1, out), lambda y: flat.adjoint(y.flatten(1)), shape, out)


def crosswell(sources: int, receivers: int, shape: Shape) -> Linear:
    """Travel times from each source, evenly spaced down the left edge, to each receiver down the right edge."""
    height, width = shape[1:]
    depth = lambda n: (torch.arange(n, dtype=torch.float64) + 0.5) * height / n - 0.5
    pairs = torch.cartesian_prod(depth(sources), depth(receivers))
    edge = torch.full((len(pairs),), width - 0.5, dtype=torch.float64)
    return rays(torch.stack([pairs[:, 0], -0.5 + 0 * edge], 1), torch.stack([pairs[:, 1], edge], 1), shape)


def ricker(frequency: float, length: int | None = None) -> Float[Tensor, "k"]:
    """The wavelet (1 - 2 u) exp(-u), u = (pi frequency t)^2, of a peak frequency in cycles per sample (Ricker 1953).

    >>> ricker(0.1, 3).round(decimals=3).tolist()
    [0.727, 1.0, 0.727]
    """
    if not 0 < frequency < 0.5:
        raise ValueError(f"the frequency is in cycles per sample, between 0 and 1/2, got {frequency}")
    half = math.ceil(1.2 / frequency) if length is None else length // 2
    u = (math.pi * frequency * torch.arange(-half, half + 1, dtype=torch.float64)) ** 2
    return (1 - 2 * u) * torch.exp(-u)


def seismic(wavelet: Float[Tensor, "k"], shape: Shape) -> Linear:
    """Traces: each column of a section of reflectivity (channels, depth, position), convolved with the wavelet."""
    return separable(convolution_matrix(wavelet, shape[1]), torch.eye(shape[2], dtype=torch.float64), shape[0])


def stations(positions: Float[Tensor, "m 2"], shape: Shape) -> Linear:
    """The values of a field (1, h, w) at (row, column) positions, by bilinear interpolation between pixel centres."""
    size = torch.tensor(shape[1:])
    if not ((positions >= 0) & (positions <= size - 1)).all():
        raise ValueError(f"stations lie between pixel centres, from (0, 0) to {tuple((size - 1).tolist())}")
    first = positions.double().floor().long().minimum(size - 2).clamp_min(0)
    part = positions.double() - first
    A = torch.zeros(len(positions), *shape[1:], dtype=torch.float64)
    m = torch.arange(len(positions))
    for i in (0, 1):
        for j in (0, 1):
            weight = (part[:, 0] if i else 1 - part[:, 0]) * (part[:, 1] if j else 1 - part[:, 1])
            row, column = (first[:, 0] + i).clamp_max(size[0] - 1), (first[:, 1] + j).clamp_max(size[1] - 1)
            A.index_put_((m, row, column), weight, accumulate=True)
    return matrix(A.flatten(1), shape)


def _sparse(entry: Tensor, values: Tensor, shape_in: Shape, shape_out: Shape) -> Linear:
    """The operator whose matrix has these entries, (2, k) rows and columns; without singular values."""
    size = (math.prod(shape_out), math.prod(shape_in))
    A = torch.sparse_coo_tensor(entry, values, size, check_invariants=True).coalesce()
    At = A.t().coalesce()
    return Linear(
        lambda x: (A.to(x) @ x.flatten(1).T).T.reshape(-1, *shape_out),
        lambda y: (At.to(y) @ y.flatten(1).T).T.reshape(-1, *shape_in),
        shape_in,
        shape_out,
    )
