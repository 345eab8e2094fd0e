"""Captions and trajectories in one space: its losses and measures against their definitions, and that it learns."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from gen_core import Arrays, Loader, Trainer
from gen_diffusion.clatr import CLaTr, CLaTrTask, Gaussian, clatr_score, compare, info_nce, kl, retrieval
from gen_diffusion.motion import draw_trajectories
from gen_diffusion.text import Words, tokenise


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small(vocabulary=20, **more):
    torch.manual_seed(0)
    return CLaTr(vocabulary, width=16, depth=1, heads=2, latent=8, **more)


@pytest.mark.parametrize("n", [1, 6])
def test_info_nce_is_the_cross_entropy_of_the_right_answer(n):
    """Written out with loops, in both directions; with 6 rows as many as axes."""
    a, b = randn(n, 6), randn(n, 6, seed=1)
    cosine = lambda u, v: (u @ v / u.norm() / v.norm()).item()
    for i, loss in enumerate(info_nce(a, b, 0.3).tolist()):
        right = math.exp(cosine(a[i], b[i]) / 0.3)
        texts = sum(math.exp(cosine(a[j], b[i]) / 0.3) for j in range(n))
        trajectories = sum(math.exp(cosine(a[i], b[j]) / 0.3) for j in range(n))
        assert loss == pytest.approx(-(math.log(right / texts) + math.log(right / trajectories)) / 2, abs=1e-12)
    torch.testing.assert_close(info_nce(a, b), info_nce(5 * b, a / 3))  # symmetric, and no matter of length


def test_equal_captions_are_no_wrong_answers():
    """A pair that occurs a second time does not make the first one harder."""
    a, b = randn(5, 4), randn(5, 4, seed=1)
    a2, b2 = torch.cat([a, a[:1]]), torch.cat([b, b[:1]])
    same = torch.eye(6, dtype=torch.bool)
    same[0, 5] = same[5, 0] = True
    torch.testing.assert_close(info_nce(a2, b2, same=same)[0], info_nce(a, b)[0])
    assert info_nce(a2, b2)[0] > info_nce(a, b)[0] + 0.1
    assert (info_nce(a, b, same=torch.ones(5, 5, dtype=torch.bool)) == 0).all()  # nothing to tell apart


def test_kl_is_torch_s():
    p, q = (Gaussian(randn(4, 4, seed=s), randn(4, 4, seed=s + 1)) for s in (0, 2))
    theirs = lambda g: Normal(g.mean, (g.log_variance / 2).exp())
    torch.testing.assert_close(kl(p, q), kl_divergence(theirs(p), theirs(q)).sum(1))
    torch.testing.assert_close(kl(p), kl_divergence(theirs(p), Normal(0.0, 1.0)).sum(1))
    assert kl(p, p).abs().max() < 1e-12
    drawn = Gaussian(p.mean[:1], p.log_variance[:1]).draw(randn(100_000, 4, seed=9))
    torch.testing.assert_close(drawn.mean(0), p.mean[0], rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.var(0), p.log_variance[0].exp(), rtol=0.02, atol=0)


def test_retrieval_counts_ranks():
    """Against a sort; an encoder that says the same of everything finds nothing."""
    a, b = randn(40, 5), randn(40, 5) + 0.8 * randn(40, 5, seed=1)
    cosine = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    order = cosine.argsort(1, descending=True)
    for k in (1, 3, 40):
        by_hand = np.mean([i in order[i, :k].tolist() for i in range(40)])
        assert retrieval(a, b, k) == pytest.approx(by_hand)
    assert 0.1 < retrieval(a, b) < 0.9 and retrieval(a, b, 40) == 1
    assert retrieval(torch.ones(9, 3), torch.ones(9, 3)) == 0
    torch.testing.assert_close(clatr_score(a, b), 100 * cosine.diagonal())


def test_frechet_clatr_distance_is_that_by_eigenvalues():
    """|m - m'|^2 + tr S + tr S' - 2 sum sqrt eigenvalues of S S'; and a sample is at no distance from itself."""
    text, drawn, real = randn(300, 8), randn(300, 8, seed=1) @ randn(8, 8, seed=2), randn(250, 8, seed=3) + 1
    scores = compare(text, drawn, real)
    a, b = real.numpy(), drawn.numpy()
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(s_a @ s_b).astype(complex)).real.sum()
    by_hand = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s_a) + np.trace(s_b) - 2 * root
    assert scores["frechet_clatr"] == pytest.approx(by_hand, abs=1e-6)
    itself = compare(real, real, real)
    assert itself["frechet_clatr"] == pytest.approx(0, abs=1e-9) and itself["R@1"] == 1
    assert itself["precision"] == itself["recall"] == itself["coverage"] == 1 and itself["clatr_score"] > 99.999
    assert set(scores) == {
        "clatr_score", "frechet_clatr", "precision", "recall", "density", "coverage", "R@1", "R@5",
    }  # fmt: skip


def test_padding_changes_nothing():
    clatr, x = small(), randn(4, 30, 9, dtype=torch.float32)
    mask = torch.arange(30) < torch.tensor([30, 25, 10, 3])[:, None]
    z = clatr.trajectory(x, mask)
    other = clatr.trajectory(torch.where(mask[:, :, None], x, torch.nan), mask)
    assert torch.equal(z.mean, other.mean) and torch.equal(z.log_variance, other.log_variance)
    torch.testing.assert_close(clatr.trajectory(x[2:3, :10]).mean, z.mean[2:3], atol=1e-5, rtol=1e-4)
    ids = torch.tensor([[3, 4, 5], [6, 0, 0]])
    torch.testing.assert_close(clatr.text(ids).mean[1:], clatr.text(ids[1:, :1]).mean, atol=1e-5, rtol=1e-4)


def test_padding_is_not_trained_on():
    """The loss of trajectories and padding is that of the trajectories alone, and so is what a decoder is taught."""
    x, mask = randn(9, 30, 9, dtype=torch.float32), torch.arange(30) < torch.full((9, 1), 20)
    text, noise = torch.arange(1, 10)[:, None], randn(9, 2, 8, seed=1, dtype=torch.float32)
    losses, gradients = [], []
    for batch in ((x[:, :20], text, noise), (torch.where(mask[:, :, None], x, torch.nan), text, noise, mask)):
        task = CLaTrTask(small())
        losses.append(task.loss(*batch))
        losses[-1].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None]))
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-3)
    scores = task.evaluate((x, text, mask))["clatr_score"]
    torch.testing.assert_close(scores, task.evaluate((x[:, :20], text))["clatr_score"], atol=1e-3, rtol=1e-4)


def test_a_batch_of_wrong_answers_is_not_split():
    """Pieces of 4 would have 3 wrong answers each instead of 7; a piece that holds the batch is none."""
    data = Arrays(randn(8, 30, 9, dtype=torch.float32), torch.arange(1, 9)[:, None], torch.ones(8, 30) > 0)
    with pytest.raises(ValueError, match="without micro_batch"):
        Trainer(CLaTrTask(small()), device="cpu", micro_batch=4).fit(Loader(data, 8), 1)
    Trainer(CLaTrTask(small()), device="cpu", micro_batch=8).fit(Loader(data, 8), 1)
    trainer = Trainer(CLaTrTask(small()), device="cpu")
    trainer.world = 2
    with pytest.raises(ValueError, match="train on one process"):
        trainer.task.step(data[:8], trainer)


def test_what_is_said_and_done_is_in_order():
    """Encoders that average tokens without their places could not tell then from before."""
    clatr, x = small(), randn(1, 30, 9, dtype=torch.float32)
    ids = torch.tensor([[3, 4, 5]])
    assert (clatr.text(ids).mean - clatr.text(ids.flip(1)).mean).abs().max() > 1e-3
    swapped = torch.cat([x[:, 15:], x[:, :15]], 1)
    assert (clatr.trajectory(x).mean - clatr.trajectory(swapped).mean).abs().max() > 1e-3
    assert clatr.decode(torch.randn(2, 8), 40).shape == (2, 40, 9)
    with pytest.raises(ValueError, match="patches of 5 do not cover 31 frames"):
        clatr.decode(torch.randn(2, 8), 31)
    with pytest.raises(ValueError, match="multiple of 4"):
        CLaTr(20, width=30)


def test_it_learns_to_find_its_own():
    """40 updates on single motions: the loss falls, and each of the 27 captions finds its own."""
    data = draw_trajectories(512, 60, generator=torch.Generator().manual_seed(0))
    words = Words.fit(data.captions)
    text = tokenise(data.captions, words)
    torch.manual_seed(0)
    clatr = CLaTr(words.size, width=16, depth=1, heads=2, latent=16)
    task = CLaTrTask(clatr, lr=1e-2, nce_weight=1.0)
    noise = torch.randn(64, 2, 16, generator=torch.Generator().manual_seed(1))
    first = task.loss(data.features[:64], text[:64], noise).item()
    Trainer(task, device="cpu", clip=1.0).fit(Loader(Arrays(data.features, text), 32), 40)
    assert task.loss(data.features[:64], text[:64], noise).item() < 0.6 * first
    _, rows = np.unique(np.array(data.captions), return_index=True)  # each of the 27 motions once
    with torch.no_grad():
        z_text, z = clatr.text(text[rows]).mean, clatr.trajectory(data.features[rows]).mean
        values = task.evaluate((data.features[:64], text[:64]))
    assert len(rows) == 27 and retrieval(z_text, z) > 0.8 and values["info_nce"].shape == (64,)
