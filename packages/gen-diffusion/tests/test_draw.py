"""Many samples, in batches."""

import pytest
import torch

from gen_diffusion import churn, draw, karras

shrink = lambda x, sigma, label: (x + sigma**2 * label[:, None]) / (1 + sigma**2)  # data N(label, 1)


@pytest.mark.parametrize("step", [{}, {"step": churn(5.0)}])
def test_batches_and_processes_do_not_matter(step):
    """10 samples at once, in batches of 4, and as the odd ones alone; the last batch is a partial one."""
    label, seen = torch.arange(10.0), []
    some = lambda indices, **kwargs: draw(shrink, indices, (2,), karras(8), seed=3, **kwargs, **step)
    whole = some(range(10), label=label)
    torch.testing.assert_close(some(range(10), batch=4, label=label, progress=seen.append), whole)
    torch.testing.assert_close(some(range(1, 10, 2), label=label[1::2]), whole[1::2])
    assert seen == [4, 8, 10] and not torch.equal(whole, draw(shrink, range(10), (2,), karras(8), label=label))


def test_no_samples_are_an_empty_tensor():
    assert draw(shrink, [], (2,), karras(8)).shape == (0, 2)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least 1 sample"):
        draw(shrink, [0], (2,), karras(8), batch=0)
