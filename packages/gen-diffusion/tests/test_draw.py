"""Many samples, in batches."""

import pytest
import torch

from gen_diffusion import churn, draw, flow, initial_noise, karras

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


def test_infinite_levels_begin_with_the_noise_itself():
    seen = []
    draw(lambda x, sigma: seen.append(x) or x, range(3), (3,), flow(2), seed=1)
    assert torch.equal(seen[0], initial_noise(range(3), (3,), seed=1))


def test_latents_are_decoded_batch_by_batch():
    label = torch.zeros(5)
    plain = draw(shrink, range(5), (2,), karras(4), label=label)
    decoded = draw(shrink, range(5), (2,), karras(4), batch=2, decode=lambda z: torch.cat([z, -z], 1), label=label)
    torch.testing.assert_close(decoded, torch.cat([plain, -plain], 1))


@pytest.mark.parametrize(
    ("label", "said"), [(torch.zeros(4), "one row per sample"), (torch.full((3,), torch.nan), "not finite")]
)
def test_bad_conditions_are_refused_before_any_work(label, said):
    with pytest.raises(ValueError, match=said):
        draw(lambda *_, **__: pytest.fail("worked"), range(3), (2,), karras(8), label=label)
