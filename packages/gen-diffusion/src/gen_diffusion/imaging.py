"""Operators on pictures (channels, height, width): hide, mix channels, shrink, blur, measure frequencies.

    A = inpaint(mask)                                    # measure the pixels where the mask is True
    A = channel_mean((3, 32, 32)), rec601((3, 32, 32))   # two greys: papers mean either by "colourisation"
    A = block_mean((3, 32, 32), 4), bicubic(...)         # two ways to shrink, both called "super-resolution"
    A = blur(gaussian_kernel(1.5), (3, 32, 32))          # or motion_kernel, or any kernel
    A = mri(kspace_lines((32, 32), 4), (1, 32, 32))                   # some frequencies of a real or a complex picture
    A = compressed_sensing((1, 8, 8), 20)                # random projections

Those that are not linear, `phase_retrieval` and `clipping`, are plain functions of a batch.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from gen_diffusion.operators import SVD, Linear, Map, Shape, matrix


def inpaint(mask: Bool[Tensor, "*shape"]) -> Linear:
    """The entries where the mask is True, in one row (m,), of samples of the shape of the mask."""
    shape, where = tuple(mask.shape), mask.flatten().nonzero()[:, 0]
    pick: Map = lambda x: x.flatten(1)[:, where.to(x.device)]
    put: Map = lambda y: y.new_zeros(len(y), mask.numel()).index_copy(1, where.to(y.device), y).reshape(-1, *shape)
    same: Map = lambda y: y
    return Linear(
        pick, put, shape, (len(where),), SVD(torch.ones(len(where), dtype=torch.float64), same, same, put, pick)
    )


def weighted_channels(weights: Float[Tensor, "c"], shape: Shape) -> Linear:
    """One channel, sum_c weights_c x_c."""
    if len(weights) != shape[0]:
        raise ValueError(f"got {len(weights)} weights for the {shape[0]} channels of a picture of shape {shape}")
    size = float(weights.norm())
    mix: Map = lambda x: einsum(x, weights.to(x), "n c h w, c -> n h w")[:, None]
    spread: Map = lambda y: y * weights.to(y)[:, None, None]
    grey = (1, *shape[1:])
    svd = SVD(
        torch.full((math.prod(grey),), size, dtype=torch.float64),
        lambda z: z.reshape(-1, *grey),
        lambda y: y.flatten(1),
        lambda z: spread(z.reshape(-1, *grey)) / size,
        lambda x: mix(x).flatten(1) / size,
    )
    return Linear(mix, spread, shape, grey, svd)


def channel_mean(shape: Shape) -> Linear:
    """Grey as the mean of the channels, as in DDRM and DDNM."""
    return weighted_channels(torch.full((shape[0],), 1 / shape[0], dtype=torch.float64), shape)


def rec601(shape: Shape) -> Linear:
    """Grey as the luma of red, green and blue of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B."""
    return weighted_channels(torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64), shape)


def separable(rows: Float[Tensor, "a h"], columns: Float[Tensor, "b w"], channels: int = 1) -> Linear:
    """rows X columns^T for each channel X: the Kronecker product, whose singular values are products of theirs."""
    (U, s, Vt), (P, t, Qt) = (torch.linalg.svd(M.double(), full_matrices=False) for M in (rows, columns))
    values = torch.outer(s, t).flatten()
    seen = (values > 1e-10 * values.max()).nonzero()[:, 0]

    def apply(left: Tensor, right: Tensor) -> Map:
        return lambda x: left.to(x) @ x @ right.T.to(x)

    def synthesis(left: Tensor, right: Tensor) -> Map:
        def expand(z: Tensor) -> Tensor:
            z = rearrange(z, "n (c r) -> n c r", c=channels)
            full = z.new_zeros(*z.shape[:2], len(values)).index_copy(2, seen.to(z.device), z)
            return left.to(z) @ full.unflatten(2, (len(s), len(t))) @ right.T.to(z)

        return expand

    def analysis(left: Tensor, right: Tensor) -> Map:
        return lambda x: (left.T.to(x) @ x @ right.to(x)).flatten(2)[..., seen.to(x.device)].flatten(1)

    svd = SVD(
        values[seen].repeat(channels), synthesis(U, P), analysis(U, P), synthesis(Vt.T, Qt.T), analysis(Vt.T, Qt.T)
    )
    shape_in, shape_out = (channels, rows.shape[1], columns.shape[1]), (channels, rows.shape[0], columns.shape[0])
    return Linear(apply(rows, columns), apply(rows.T, columns.T), shape_in, shape_out, svd)


def block_mean(shape: Shape, factor: int) -> Linear:
    """Super-resolution's other direction as the mean of blocks of factor x factor pixels, as in DDRM and DDNM."""
    channels, height, width = _divisible(shape, factor)
    block = torch.full((1, factor), 1 / factor, dtype=torch.float64)
    rows, columns = (torch.kron(torch.eye(n // factor, dtype=torch.float64), block) for n in (height, width))
    return separable(rows, columns, channels)


def bicubic(shape: Shape, factor: int) -> Linear:
    """Super-resolution's other direction as antialiased bicubic reduction (a = -1/2, as in MATLAB, Pillow and DPS)."""
    channels, height, width = _divisible(shape, factor)

    def reduction(n: int) -> Tensor:
        units = torch.eye(n, dtype=torch.float64)[None, None]
        return F.interpolate(units, (n // factor, n), mode="bicubic", antialias=True)[0, 0]

    return separable(reduction(height), reduction(width), channels)


def blur(kernel: Float[Tensor, "a b"], shape: Shape, boundary: Literal["circular", "zero"] = "circular") -> Linear:
    """Convolution of each channel with a kernel whose centre is its middle entry, of the same shape as before.

    Args:
        kernel: not larger than the picture.
        boundary: of what lies outside: the picture repeated, or 0. Circular blurs, and those of a kernel of rank one,
            have singular values.
    """
    a, b = kernel.shape
    if a > shape[1] or b > shape[2]:
        raise ValueError(f"a kernel of {a} x {b} does not fit into a picture of {shape[1]} x {shape[2]}")
    if boundary == "circular":
        return _circular(kernel, shape)
    if boundary != "zero":
        raise ValueError(f"the boundary of a blur is 'circular' or 'zero', got {boundary!r}")
    U, s, Vt = torch.linalg.svd(kernel.double())
    if (s[1:] < 1e-9 * s[0]).all():
        return separable(convolution_matrix(s[0] * U[:, 0], shape[1]), convolution_matrix(Vt[0], shape[2]), shape[0])
    before, after = (a - 1 - a // 2, b - 1 - b // 2), (a // 2, b // 2)

    def correlate(x: Tensor, weight: Tensor, before: Shape, after: Shape) -> Tensor:
        padded = F.pad(x.flatten(0, 1)[:, None], (before[1], after[1], before[0], after[0]))
        return F.conv2d(padded, weight[None, None].to(x)).reshape(x.shape)

    return Linear(
        lambda x: correlate(x, kernel.flip(0, 1), before, after),
        lambda y: correlate(y, kernel, after, before),
        shape,
        shape,
    )


def gaussian_kernel(sigma: float, radius: int | None = None) -> Float[Tensor, "k k"]:
    """Of standard deviation sigma in pixels and sum 1, cut at `radius`, by default 3 sigma."""
    radius = math.ceil(3 * sigma) if radius is None else radius
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return torch.outer(line, line) / line.sum() ** 2


def motion_kernel(length: float, angle: float = 0.0, oversampling: int = 16) -> Float[Tensor, "k k"]:
    """A straight line of `length` pixels at `angle` radians from the horizontal, counter-clockwise, of sum 1."""
    radius = math.ceil(length / 2)
    t = torch.linspace(-length / 2, length / 2, oversampling * (2 * radius + 1), dtype=torch.float64)
    rows, columns = radius - t * math.sin(angle), radius + t * math.cos(angle)
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    i, j = rows.round().long(), columns.round().long()
    return kernel.index_put((i, j), torch.ones_like(t), accumulate=True) / len(t)


def mri(mask: Bool[Tensor, "h w"], shape: Shape) -> Linear:
    """The frequencies where the mask is True, (2, m) real and imaginary parts, of an orthonormal Fourier transform.

    Args:
        mask: of frequencies, with frequency 0 in the middle, at (h // 2, w // 2); `kspace_lines` makes one.
        shape: (1, h, w) for a real picture or (2, h, w) for the real and the imaginary part of a complex one.
    """
    if shape not in ((1, *mask.shape), (2, *mask.shape)):
        raise ValueError(f"the mask has {tuple(mask.shape)} frequencies: the picture is (1 or 2, ...), got {shape}")
    where = mask.flatten().nonzero()[:, 0]
    m, grid = len(where), tuple(mask.shape)

    def pick(k: Tensor) -> Tensor:
        return torch.view_as_real(k.flatten(1)[:, where.to(k.device)]).movedim(-1, 1)

    def put(y: Tensor) -> Tensor:
        k = torch.complex(y[:, 0], y[:, 1])
        return k.new_zeros(len(y), mask.numel()).index_copy(1, where.to(y.device), k).reshape(-1, *grid)

    if shape[0] == 2:
        forward: Map = lambda x: pick(_fft(torch.complex(x[:, 0], x[:, 1])))
        adjoint: Map = lambda y: torch.view_as_real(_ifft(put(y))).movedim(-1, 1)
        flat, pair = (lambda y: y.flatten(1)), (lambda z: z.reshape(-1, 2, m))
        svd = SVD(
            torch.ones(2 * m, dtype=torch.float64), pair, flat, lambda z: adjoint(pair(z)), lambda x: flat(forward(x))
        )
        return Linear(forward, adjoint, shape, (2, m), svd)
    forward = lambda x: pick(_fft(x[:, 0]))
    adjoint = lambda y: _ifft(put(y)).real[:, None]
    seen = torch.fft.ifftshift(mask.double())
    s = ((seen + seen.flip(0, 1).roll((1, 1), (0, 1))) / 2).sqrt()[None]  # a real picture has k and -k alike
    keep, place = _spectrum(s)
    V: Map = lambda z: torch.fft.fftshift(_hartley(place(z)), (-2, -1))
    Vt: Map = lambda x: keep(_hartley(torch.fft.ifftshift(x, (-2, -1))))
    r = keep(s[None])[0]
    svd = SVD(r, lambda z: forward(V(z / r.to(z))), lambda y: Vt(adjoint(y)) / r.to(y), V, Vt)
    return Linear(forward, adjoint, shape, (2, m), svd)


def kspace_lines(size: tuple[int, int], acceleration: int, centre: float = 0.08, seed: int = 0) -> Bool[Tensor, "h w"]:
    """A mask (h, w) of whole rows of frequencies: those in the middle and random others, a share of 1 / acceleration.

    Args:
        centre: share of the rows that is seen in the middle.
    """
    height = size[0]
    middle = max(1, round(centre * height))
    first = height // 2 - middle // 2
    others = torch.cat([torch.arange(first), torch.arange(first + middle, height)])
    random = others[torch.randperm(len(others), generator=Generator().manual_seed(seed))]
    mask = torch.zeros(size, dtype=torch.bool)
    mask[first : first + middle] = True
    mask[random[: max(0, round(height / acceleration) - middle)]] = True
    return mask


def compressed_sensing(shape: Shape, measurements: int, generator: Generator | None = None) -> Linear:
    """Projections on random vectors with entries N(0, 1 / measurements)."""
    A = torch.randn(measurements, math.prod(shape), generator=generator, dtype=torch.float64)
    return matrix(A / math.sqrt(measurements), shape)


def phase_retrieval(padding: int = 0) -> Map:
    """Magnitudes of the Fourier transform of each channel, with `padding` zeros on each side; not linear."""
    return lambda x: torch.fft.fft2(F.pad(x, (padding,) * 4), norm="ortho").abs()


def clipping(low: float, high: float) -> Map:
    """Values cut at `low` and `high`, as by a sensor that saturates; not linear."""
    return lambda x: x.clamp(low, high)


def convolution_matrix(kernel: Float[Tensor, "k"], n: int) -> Float[Tensor, "n n"]:
    """The matrix of a convolution of n numbers with a kernel centred at k // 2, and 0 outside."""
    lag = torch.arange(n)[:, None] - torch.arange(n) + len(kernel) // 2
    inside = (lag >= 0) & (lag < len(kernel))
    return torch.where(inside, kernel.double()[lag.clamp(0, len(kernel) - 1)], 0.0)


def _circular(kernel: Tensor, shape: Shape) -> Linear:
    """Multiplication by the transfer function h(k): A = (phase) |h| in the real Fourier basis."""
    a, b = kernel.shape
    placed = F.pad(kernel.double(), (0, shape[2] - b, 0, shape[1] - a)).roll((-(a // 2), -(b // 2)), (0, 1))
    h = torch.fft.fft2(placed)
    phase = h / h.abs().clamp_min(1e-300)

    def times(h: Tensor) -> Map:
        return lambda x: torch.fft.ifft2(torch.fft.fft2(x) * h.to(x.device, x.dtype.to_complex())).real

    turn, back, s = times(phase), times(phase.conj()), h.abs().expand(shape)
    keep, place = _spectrum(s)
    svd = SVD(
        keep(s[None])[0],
        lambda z: turn(_hartley(place(z))),
        lambda y: keep(_hartley(back(y))),
        lambda z: _hartley(place(z)),
        lambda x: keep(_hartley(x)),
    )
    return Linear(times(h), times(h.conj()), shape, shape, svd)


def _spectrum(s: Float[Tensor, "c h w"]) -> tuple[Map, Map]:
    """(n, c, h, w) to the r entries where s > 0, and back with 0 elsewhere."""
    where = (s.flatten() > 1e-10 * s.max()).nonzero()[:, 0]
    put: Map = lambda z: z.new_zeros(len(z), s.numel()).index_copy(1, where.to(z.device), z).reshape(-1, *s.shape)
    return lambda x: x.flatten(1)[:, where.to(x.device)], put


def _hartley(x: Tensor) -> Tensor:
    """The real Fourier transform by cos + sin, orthonormal and its own inverse."""
    f = torch.fft.fft2(x, norm="ortho")
    return f.real - f.imag


def _fft(x: Tensor) -> Tensor:
    """Orthonormal Fourier transform with position 0 and frequency 0 in the middle."""
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, (-2, -1)), norm="ortho"), (-2, -1))


def _ifft(k: Tensor) -> Tensor:
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(k, (-2, -1)), norm="ortho"), (-2, -1))


def _divisible(shape: Shape, factor: int) -> Shape:
    if factor < 1 or shape[1] % factor or shape[2] % factor:
        raise ValueError(
            f"a picture of {shape[1]} x {shape[2]} has no whole number of blocks of {factor} pixels a side"
        )
    return shape
