"""Kernel regression: exact on copies, the regression curve in the limit, and nothing visible is changed."""

import torch

from gen_latent.kernel import kernel_regression
from gen_latent.linear import fill_in

MASK = torch.tensor([True, False])


def test_a_copy_of_a_training_sample_gets_its_hidden_values():
    train = torch.eye(8).repeat(1, 2) * 10
    mask = torch.arange(16) < 8
    torch.testing.assert_close(kernel_regression(train, train * mask, mask), train, atol=1.0, rtol=0)


def test_a_curve_is_followed_where_a_line_cannot():
    """y = x^2 with little noise: the mean squared error is far below that of the best line."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(600, generator=generator) * 4 - 2
    data = torch.stack([x, x**2 + 0.05 * torch.randn(600, generator=generator)], 1)
    train, test = data[:500], data[500:]
    hidden = test * MASK
    kernel, line = (f(train, hidden, MASK)[:, 1] for f in (kernel_regression, fill_in))
    assert (kernel - test[:, 1]).square().mean() < 0.02 < 0.5 < (line - test[:, 1]).square().mean()


def test_visible_values_stay():
    x = torch.randn(5, 1, 4, 4)
    mask = torch.rand(4, 4) < 0.5
    filled = kernel_regression(torch.randn(20, 1, 4, 4), x, mask)
    assert filled.shape == x.shape and torch.equal(filled[..., mask], x[..., mask])
