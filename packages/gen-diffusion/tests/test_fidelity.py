"""Figures of restored pictures beside closed forms and torchmetrics, and total variation beside its optimum."""

import math

import pytest
import torch

from gen_diffusion import covered, gaussian_kernel, inpaint, psnr, spread_over_error, ssim, total_variation
from gen_diffusion.imaging import blur
from gen_diffusion.variation import _divergence, _gradient

SSIM_OF_TORCHMETRICS = [0.721584, 0.770582]  # 1.9.0, as computed under -m peers below


def pictures():
    g = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 24, 20, generator=g, dtype=torch.float64) * 2 - 1
    return truth, truth + 0.2 * torch.randn(truth.shape, generator=g, dtype=torch.float64)


def test_psnr_is_that_of_its_definition():
    x = torch.zeros(2, 1, 4, 4)
    truth = x + torch.tensor([0.2, 2.0])[:, None, None, None]
    torch.testing.assert_close(psnr(x, truth), torch.tensor([20.0, 0.0]))
    assert psnr(x, x).tolist() == [math.inf] * 2


def test_ssim_is_that_of_torchmetrics():
    truth, x = pictures()
    torch.testing.assert_close(ssim(x, truth), torch.tensor(SSIM_OF_TORCHMETRICS).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(ssim(truth, truth), torch.ones(2).double())
    assert ssim(x[..., :8, :5], truth[..., :8, :5]).isfinite().all()  # smaller than the window


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_ssim_is_that_of_torchmetrics_here():
    from torchmetrics.functional.image import structural_similarity_index_measure as peer

    truth, x = pictures()
    _, full = peer(x, truth, sigma=1.5, data_range=2.0, reduction="none", return_full_image=True)
    value = full[..., 5:-5, 5:-5].flatten(1).mean(1)  # it reflects the picture at its borders
    torch.testing.assert_close(ssim(x, truth), value, rtol=0, atol=1e-5)


def test_exchangeable_draws_cover_the_truth_as_they_should():
    """m draws and the truth of one distribution: covered (m - 1) / (m + 1), spread over error 1."""
    x = torch.randn(40, 8, 50, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws, truth = x[:, :7], x[:, 7]
    assert covered(draws, truth).mean().item() == pytest.approx(6 / 8, abs=0.01)
    assert spread_over_error(draws, truth).mean().item() == pytest.approx(1, abs=0.02)
    assert spread_over_error(0.5 * draws, truth).mean().item() < 0.6  # too sure


def test_divergence_is_minus_the_transpose_of_the_gradient():
    g = torch.Generator().manual_seed(0)
    x, p = torch.randn(2, 3, 5, 4, generator=g).double(), torch.randn(2, 2, 3, 5, 4, generator=g).double()
    torch.testing.assert_close((_gradient(x) * p).sum(), -(x * _divergence(p)).sum())


@pytest.mark.parametrize(("weight", "exact"), [(0.3, [0.3, 1.7]), (5.0, [1.0, 1.0])])
def test_total_variation_moves_two_pixels_together(weight, exact):
    """min ((x0 - 0)^2 + (x1 - 2)^2) / 2 + weight |x1 - x0|: each moves by the weight, until they meet."""
    see = inpaint(torch.ones(1, 1, 2, dtype=torch.bool))
    x = total_variation(see, torch.tensor([[0.0, 2.0]]).double(), weight, iterations=2000)
    torch.testing.assert_close(x.flatten(), torch.tensor(exact).double(), atol=1e-4, rtol=0)


def test_total_variation_is_an_optimum():
    """No small change of its picture has a smaller objective."""
    A, g = blur(gaussian_kernel(0.7, 2), (1, 6, 6)), torch.Generator().manual_seed(0)
    y = torch.randn(1, 1, 6, 6, generator=g, dtype=torch.float64)
    objective = lambda x: ((A(x) - y) ** 2).sum() / 2 + 0.1 * _gradient(x).square().sum((1, 2)).sqrt().sum()
    x = total_variation(A, y, 0.1, iterations=5000)
    changed = [objective(x + 0.01 * torch.randn(x.shape, generator=g, dtype=x.dtype)) for _ in range(50)]
    assert min(changed) > objective(x) and objective(x) < 0.9 * objective(A.pinv(y))
