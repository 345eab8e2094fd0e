"""On Gaussian data the bars reach the errors that theory says none can beat."""

import pytest
import torch

from gen_latent.linear import fill_in, project, wiener


def gaussian(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=g, dtype=torch.float64)
    x = torch.randn(2 * n, 6, generator=g, dtype=torch.float64) @ root + 1
    return x.reshape(2 * n, 1, 2, 3), root.T @ root


def test_wiener_reaches_the_least_error_of_a_gaussian():
    x, c = gaussian(20_000)
    noisy = x + 0.7 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    least = (c - c @ torch.linalg.inv(c + 0.49 * torch.eye(6).double()) @ c).trace() / 6
    error = (wiener(x[:20_000], noisy[20_000:], 0.7) - x[20_000:]).square().mean()
    assert error == pytest.approx(least.item(), rel=0.02)
    with pytest.raises(ValueError, match="positive"):
        wiener(x, noisy, 0.0)


def test_fill_in_reaches_the_conditional_variance_and_keeps_what_is_seen():
    x, c = gaussian(20_000)
    mask = torch.tensor([[True, True, False], [True, False, True]])
    y = fill_in(x[:20_000], x[20_000:], mask, ridge=1e-9)
    assert (y[..., mask] == x[20_000:][..., mask]).all()
    s = mask.flatten()
    least = (c[~s][:, ~s] - c[~s][:, s] @ torch.linalg.inv(c[s][:, s]) @ c[s][:, ~s]).trace() / 2
    assert (y - x[20_000:])[..., ~mask].square().mean() == pytest.approx(least.item(), rel=0.02)
    assert torch.equal(fill_in(x, x, torch.ones(2, 3).bool()), x)
    assert torch.allclose(fill_in(x, x, torch.zeros(2, 3).bool()), x.mean(0).expand_as(x))


def test_projection_loses_the_smallest_eigenvalues():
    x, _ = gaussian(500)
    eigenvalues = torch.linalg.eigvalsh(x.flatten(1).T.cov())
    error = (project(x, x, 4) - x).square().flatten(1).sum(1).mean() * len(x) / (len(x) - 1)
    assert error == pytest.approx(eigenvalues[:2].sum().item(), rel=1e-9)
    assert torch.allclose(project(x, x, 6), x)
    with pytest.raises(ValueError, match=r"1\.\.6"):
        project(x, x, 7)
