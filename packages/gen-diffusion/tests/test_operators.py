"""Operators are what their matrices are: adjoint, singular values, pseudo-inverse; observations have their density."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d
from torch.distributions import Normal
from torch.distributions import Poisson as TorchPoisson

from gen_diffusion import (
    Gaussian,
    Observation,
    Poisson,
    bicubic,
    block_mean,
    blur,
    channel_mean,
    clipping,
    compressed_sensing,
    crosswell,
    decomposed,
    gaussian_kernel,
    inpaint,
    kspace_lines,
    matrix,
    motion_kernel,
    mri,
    observe,
    phase_retrieval,
    radon,
    rays,
    rec601,
    ricker,
    seismic,
    stations,
)


def every_operator():
    """One small operator of every kind."""
    g = torch.Generator().manual_seed(0)
    uneven = torch.rand(3, 4, generator=g, dtype=torch.float64)
    low_rank = torch.randn(5, 2, generator=g, dtype=torch.float64) @ torch.randn(2, 6, generator=g, dtype=torch.float64)
    return {
        "inpaint": inpaint(torch.rand(3, 6, 5, generator=g) > 0.5),
        "nothing seen": inpaint(torch.zeros(1, 3, 3, dtype=torch.bool)),
        "channel mean": channel_mean((3, 6, 5)),
        "rec601": rec601((3, 6, 5)),
        "block mean": block_mean((2, 6, 4), 2),
        "bicubic": bicubic((2, 8, 6), 2),
        "circular blur": blur(uneven, (2, 6, 5)),
        "zero blur": blur(uneven, (2, 6, 5), "zero"),
        "Gaussian blur": blur(gaussian_kernel(0.8, 2), (2, 6, 5), "zero"),
        "motion blur": blur(motion_kernel(3.0, 0.5), (1, 8, 8)),
        "mean of all": blur(torch.full((4, 4), 1 / 16), (1, 4, 4)),  # of rank one
        "mri": mri(torch.rand(6, 5, generator=g) > 0.5, (1, 6, 5)),
        "complex mri": mri(torch.rand(6, 6, generator=g) > 0.5, (2, 6, 6)),
        "compressed sensing": compressed_sensing((1, 4, 4), 7, g),
        "radon": radon(torch.linspace(0, 3, 5), (1, 6, 5)),
        "cross-well": crosswell(4, 3, (1, 6, 5)),
        "seismic": seismic(ricker(0.2), (1, 12, 3)),
        "stations": stations(torch.rand(5, 2, generator=g) * 4, (1, 6, 5)),
        "low rank": matrix(low_rank),
    }


OPERATORS = every_operator()


def normal(n, shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dot(u, v):
    return (u * v).flatten(1).sum(1)


every = pytest.mark.parametrize("A", OPERATORS.values(), ids=OPERATORS)
with_svd = pytest.mark.parametrize(
    "A", [A for A in OPERATORS.values() if A.svd], ids=[name for name, A in OPERATORS.items() if A.svd]
)


@every
def test_the_adjoint_is_the_transpose(A):
    """<A x, y> = <x, A^T y>."""
    x, y = normal(3, A.shape_in), normal(3, A.shape_out, 1)
    torch.testing.assert_close(dot(A(x), y), dot(x, A.T(y)), rtol=1e-10, atol=1e-10)


@with_svd
def test_singular_values_are_those_of_the_matrix(A):
    """Only the positive ones, also where the rank is deficient."""
    exact = torch.linalg.svdvals(A.dense()) if A.dense().numel() else torch.zeros(0)
    exact = exact[exact > 1e-8]
    torch.testing.assert_close(A.svd.s.double().sort(descending=True).values, exact.double(), rtol=1e-8, atol=1e-8)


@with_svd
def test_singular_vectors_are_orthonormal_and_make_the_operator(A):
    """U diag(s) V^T x = A x; U^T U = V^T V = I; Ut and Vt are the transposes."""
    svd, x, y = A.svd, normal(3, A.shape_in), normal(3, A.shape_out, 1)
    z = normal(3, (len(svd.s),), 2)
    torch.testing.assert_close(svd.U(svd.s * svd.Vt(x)), A(x))
    torch.testing.assert_close(svd.Vt(svd.V(z)), z)
    torch.testing.assert_close(svd.Ut(svd.U(z)), z)
    torch.testing.assert_close(dot(svd.Vt(x), z), dot(x, svd.V(z)))
    torch.testing.assert_close(dot(svd.Ut(y), z), dot(y, svd.U(z)))


@every
def test_gain_and_pseudo_inverse_are_those_of_the_matrix(A):
    """By singular values and by conjugate gradients; one ratio for each sample."""
    M, y = A.dense(), normal(3, A.shape_out)
    flat = y.flatten(1)
    for B in (A, replace(A, svd=None)):
        pinv = A(torch.linalg.pinv(M, rtol=1e-8).matmul(flat.T).T.reshape(3, *A.shape_in)) if M.numel() else y
        torch.testing.assert_close(A(B.pinv(y)), pinv, rtol=1e-6, atol=1e-6)
        ratio = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
        gained = [
            torch.linalg.solve(M @ M.T + r * torch.eye(len(M), dtype=torch.float64), v) @ M
            for r, v in zip(ratio, flat, strict=True)
        ]
        torch.testing.assert_close(B.gain(y, ratio).flatten(1), torch.stack(gained), rtol=1e-8, atol=1e-8)


@every
def test_norm_is_the_largest_singular_value(A):
    exact = float(torch.linalg.matrix_norm(A.dense(), 2)) if A.dense().numel() else 0.0
    assert A.norm() == pytest.approx(exact, rel=1e-6)
    assert replace(A, svd=None).norm(2000) == pytest.approx(exact, rel=1e-3, abs=1e-12)


def test_conjugate_gradients_solve_each_sample_by_itself():
    """A sample of a hard batch is what it is alone, to the last bit."""
    A = replace(OPERATORS["circular blur"], svd=None)
    y = normal(4, A.shape_out) * torch.tensor([1.0, 1e-6, 1e6, 0.0], dtype=torch.float64)[:, None, None, None]
    together = A.gain(y, 0.01)
    assert all(torch.equal(together[i : i + 1], A.gain(y[i : i + 1], 0.01)) for i in range(4))


def test_operators_compose():
    A, B = block_mean((1, 6, 4), 2), blur(gaussian_kernel(0.7, 1), (1, 6, 4), "zero")
    both, x = decomposed(A @ B), normal(2, (1, 6, 4))
    torch.testing.assert_close(both(x), A(B(x)))
    torch.testing.assert_close(both.dense(), A.dense() @ B.dense())
    torch.testing.assert_close(both.svd.U(both.svd.s * both.svd.Vt(x)), both(x))
    with pytest.raises(ValueError, match="B has to map to"):
        B @ A


def test_two_greys_have_different_weights():
    red = torch.zeros(1, 3, 1, 1, dtype=torch.float64).index_fill(1, torch.tensor(0), 1.0)
    assert channel_mean((3, 1, 1))(red).item() == pytest.approx(1 / 3)
    assert rec601((3, 1, 1))(red).item() == pytest.approx(0.299)
    assert rec601((3, 1, 1))(torch.ones(1, 3, 1, 1)).item() == pytest.approx(1)  # white stays white


def test_two_reductions_are_those_of_their_papers():
    x = normal(2, (3, 12, 8))
    torch.testing.assert_close(block_mean((3, 12, 8), 4)(x), F.avg_pool2d(x, 4))
    torch.testing.assert_close(
        bicubic((3, 12, 8), 4)(x), F.interpolate(x, scale_factor=0.25, mode="bicubic", antialias=True)
    )
    with pytest.raises(ValueError, match="no whole number of blocks of 5 pixels"):
        bicubic((3, 12, 8), 5)


@pytest.mark.parametrize("size", [(3, 5), (4, 3), (2, 2)])
def test_blurs_are_convolutions_with_their_boundary(size):
    """Beside scipy: an uneven kernel, so that a correlation is not taken for a convolution."""
    kernel, x = normal(1, size)[0], normal(1, (1, 7, 6))
    for boundary, name in (("circular", "wrap"), ("zero", "fill")):
        full = convolve2d(np.tile(x[0, 0], (3, 3)) if name == "wrap" else np.pad(x[0, 0], ((7, 7), (6, 6))), kernel)
        first = 7 + size[0] // 2, 6 + size[1] // 2
        exact = full[first[0] : first[0] + 7, first[1] : first[1] + 6]
        torch.testing.assert_close(blur(kernel, (1, 7, 6), boundary)(x)[0, 0], torch.from_numpy(exact))


def test_kernels_keep_the_mean():
    kernels = [gaussian_kernel(1.5), motion_kernel(7.0, 0.6), motion_kernel(4.0)]
    assert all(k.sum().item() == pytest.approx(1) and k.shape[0] % 2 == 1 for k in kernels)
    assert motion_kernel(4.0)[[0, 1, 3, 4]].abs().max() == 0  # horizontal


def test_mri_is_the_centred_orthonormal_fourier_transform():
    x, mask = normal(1, (2, 5, 6)), kspace_lines((5, 6), 2)
    k = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x[0, 0] + 1j * x[0, 1]), norm="ortho"))[mask]
    torch.testing.assert_close(mri(mask, (2, 5, 6))(x)[0], torch.from_numpy(np.stack([k.real, k.imag])))
    real = mri(mask, (1, 5, 6))(x[:, :1])
    torch.testing.assert_close(real, mri(mask, (2, 5, 6))(torch.cat([x[:, :1], 0 * x[:, :1]], 1)))
    everything = mri(torch.ones(5, 6, dtype=torch.bool), (1, 5, 6))
    torch.testing.assert_close(everything.T(everything(x[:, :1])), x[:, :1])


def test_noise_of_complex_data_has_sigma_in_each_real_part():
    A = mri(torch.ones(64, 64, dtype=torch.bool), (2, 64, 64))
    obs = observe(A, torch.zeros(2, 64, 64), Gaussian(0.3), torch.Generator().manual_seed(0))
    assert obs.y.std(1).tolist() == pytest.approx([0.3, 0.3], rel=0.05)


def test_lines_are_a_share_of_k_space_with_its_middle():
    mask = kspace_lines((64, 48), 4)
    assert mask.float().mean() == pytest.approx(1 / 4)
    assert mask[32].all() and mask[30:34].all()
    assert (mask.all(1) | ~mask.any(1)).all()


def test_rays_are_as_long_as_they_are():
    """In a picture of ones, the length inside of it: also along edges, through corners, and outside."""
    starts = torch.tensor([[-0.5, -0.5], [1.0, -3.0], [0.0, 0.0], [-2.0, 0.0], [9.0, 0.0], [2.0, 1.0]])
    ends = torch.tensor([[3.5, 2.5], [1.0, 9.0], [3.0, 2.0], [9.0, 0.0], [9.0, 5.0], [2.0, 1.0]])
    A = rays(starts, ends, (1, 4, 3))
    exact = [5.0, 3.0, math.hypot(3, 2), 4.0, 0.0, 0.0]
    assert A(torch.ones(1, 1, 4, 3, dtype=torch.float64))[0].tolist() == pytest.approx(exact)


def test_radon_sums_columns_and_rows():
    x = normal(1, (1, 5, 5))
    y = radon(torch.tensor([0.0, math.pi / 2]), (1, 5, 5), detectors=5)(x)[0]
    torch.testing.assert_close(y[0], x[0, 0].sum(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(y[1].flip(0), x[0, 0].sum(1), rtol=0, atol=1e-6)


def test_radon_of_a_disc_is_its_chords():
    size, r = 101, 40.0
    row, column = torch.meshgrid(*[torch.arange(size, dtype=torch.float64) - 50] * 2, indexing="ij")
    disc = ((row**2 + column**2) <= r**2).double()[None, None]
    y = radon(torch.tensor([0.0, 0.7, 2.0]), (1, size, size), detectors=61)(disc)[0]
    offset = torch.arange(61, dtype=torch.float64) - 30
    chord = 2 * (r**2 - offset**2).sqrt()
    torch.testing.assert_close(y, chord.expand(3, 61), rtol=0.03, atol=0)


def test_travel_times_through_equal_slowness_are_distances():
    A = crosswell(3, 2, (1, 6, 4))
    depths = torch.tensor([0.5, 2.5, 4.5]), torch.tensor([1.0, 4.0])
    exact = [math.hypot(4, a - b) for a in depths[0].tolist() for b in depths[1].tolist()]
    assert A(torch.ones(1, 1, 6, 4, dtype=torch.float64))[0].tolist() == pytest.approx(exact)


def test_traces_are_columns_convolved_with_the_wavelet():
    w, x = ricker(0.15), normal(1, (1, 20, 2))
    assert w.argmax() == len(w) // 2 and w.sum().abs() < 1e-3  # a wavelet has no mean
    exact = np.stack([np.convolve(x[0, 0, :, j], w, "full")[len(w) // 2 :][:20] for j in range(2)], 1)
    torch.testing.assert_close(seismic(w, (1, 20, 2))(x)[0, 0], torch.from_numpy(exact))
    with pytest.raises(ValueError, match="cycles per sample"):
        ricker(0.6)


def test_stations_interpolate_linear_fields_exactly():
    row, column = torch.meshgrid(torch.arange(5.0), torch.arange(4.0), indexing="ij")
    at = torch.tensor([[0.0, 0.0], [4.0, 3.0], [1.25, 2.5], [3.0, 0.1]])
    y = stations(at, (1, 5, 4))((2 + 3 * row - column)[None, None].double())
    torch.testing.assert_close(y[0], (2 + 3 * at[:, 0] - at[:, 1]).double())
    with pytest.raises(ValueError, match="between pixel centres"):
        stations(torch.tensor([[0.0, 3.5]]), (1, 5, 4))


def test_phase_retrieval_knows_neither_sign_nor_place():
    A, x = phase_retrieval(), normal(2, (1, 6, 6))
    torch.testing.assert_close(A(-x), A(x))
    torch.testing.assert_close(A(x.roll((2, 1), (2, 3))), A(x))
    assert phase_retrieval(3)(x).shape == (2, 1, 12, 12)
    torch.testing.assert_close(clipping(-1.0, 1.0)(torch.tensor([[-3.0, 0.5]])), torch.tensor([[-1.0, 0.5]]))


def test_log_prob_is_torch_distributions():
    A, x = OPERATORS["low rank"], normal(3, (6,))
    y = normal(1, (5,), 4)[0]
    torch.testing.assert_close(Observation(A, y, Gaussian(0.7)).log_prob(x), Normal(A(x), 0.7).log_prob(y).sum(1))
    counts = torch.tensor([0.0, 3.0, 200.0, 40.0, 1.0], dtype=torch.float64)
    poisson = TorchPoisson(5 * (A(x) + 9)).log_prob(counts).sum(1)
    torch.testing.assert_close(Observation(A, counts, Poisson(5.0, background=9.0)).log_prob(x), poisson)
    each = normal(3, (5,), 5)  # one observation for each sample
    torch.testing.assert_close(Observation(A, each, Gaussian(0.7)).log_prob(x), Normal(A(x), 0.7).log_prob(each).sum(1))


def test_counts_have_the_mean_and_the_variance_of_poisson():
    A = matrix(torch.ones(1, 1).expand(4000, 1).double())
    obs = observe(A, torch.tensor([2.0], dtype=torch.float64), Poisson(3.0), torch.Generator().manual_seed(0))
    assert obs.y.mean() == pytest.approx(6, rel=0.03) and obs.y.var() == pytest.approx(6, rel=0.1)
    assert Poisson(1.0).log_prob(torch.tensor([1.0]), torch.tensor([[-1.0]])).item() == -math.inf
    with pytest.raises(ValueError, match="raise the background"):
        observe(A, torch.tensor([-2.0]), Poisson(3.0))


def test_noise_is_drawn_by_its_generator():
    x, state = torch.ones(1, 3, 3), torch.get_rng_state()
    twice = [observe(OPERATORS["nothing seen"].T.T, x, Gaussian(1.0), torch.Generator().manual_seed(0)).y for _ in "ab"]
    assert torch.equal(*twice) and torch.equal(state, torch.get_rng_state())


def test_bad_input_is_one_sentence():
    A = inpaint(torch.ones(1, 2, 2, dtype=torch.bool))
    for call, words in (
        (lambda: A(torch.ones(1, 2, 3)), r"takes a batch \(n, 1, 2, 2\)"),
        (lambda: A(torch.ones(1, 1, 2, 3)), r"takes a batch \(n, 1, 2, 2\)"),
        (lambda: Observation(A, torch.ones(3), Gaussian(1.0)), r"y of shape \(4,\), got \(3,\)"),
        (lambda: Observation(A, torch.tensor([1.0, 2.0, math.nan, 0.0]), Gaussian(1.0)), "not finite"),
        (lambda: Observation(A, torch.ones(4), Gaussian(0.0)).log_prob(torch.ones(1, 1, 2, 2)), "no density"),
        (lambda: Gaussian(-1.0), "standard deviation"),
        (lambda: Poisson(0.0), "above 0"),
        (lambda: blur(torch.ones(3, 3), (1, 2, 2)), "does not fit"),
        (lambda: mri(torch.ones(2, 2, dtype=torch.bool), (3, 2, 2)), "1 or 2"),
        (lambda: matrix(torch.ones(2, 3), (4,)), "does not map"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
