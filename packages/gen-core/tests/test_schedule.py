"""Schedules against torch's own at the steps where they bend."""

import pytest
import torch

from gen_core.schedule import constant, inverse_sqrt, linear, warmup_cosine, wsd


def torch_series(make, steps):
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(opt)
    series = []
    for _ in range(steps):
        series.append(opt.param_groups[0]["lr"])
        opt.step()
        scheduler.step()
    return series


def test_cosine_is_torchs_after_the_warm_up():
    ours = warmup_cosine(3, 13, floor=0.1)
    peer = torch_series(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10, eta_min=0.1), 11)
    assert [ours(3 + s) for s in range(11)] == pytest.approx(peer, rel=1e-12)
    assert [ours(s) for s in (0, 1, 2, 13, 14, 99)] == pytest.approx([1 / 3, 2 / 3, 1, 0.1, 0.1, 0.1])


def test_linear_is_torchs_after_the_warm_up():
    ours = linear(2, 12)
    peer = torch_series(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 10), 11)
    assert [ours(2 + s) for s in range(11)] == pytest.approx(peer, abs=1e-12)
    assert ours(13) == 0


def test_no_warm_up_starts_at_the_full_rate():
    assert [f(0) for f in (constant(), warmup_cosine(0, 5), wsd(0, 5, 2), linear(0, 5))] == [1, 1, 1, 1]


def test_shapes_that_cannot_be_are_refused():
    for make in (lambda: warmup_cosine(5, 5), lambda: wsd(3, 5, 3), lambda: inverse_sqrt(0)):
        with pytest.raises(ValueError, match="got"):
            make()
