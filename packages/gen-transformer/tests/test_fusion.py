"""Fusion: the contrastive loss against CLIP's and a mutual information that is known; senses that are missing."""

import math

import pytest
import torch

from gen_transformer.fusion import Contrast, Fusion, info_nce

DIMS = {"audio": 6, "video": 5, "text": 3}


def rows(n: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {m: torch.randn(n, t, d, generator=g) for (m, d), t in zip(DIMS.items(), (4, 3, 5), strict=True)}


def made(**options) -> Fusion:
    torch.manual_seed(0)
    return Fusion(DIMS, 16, **options).eval()


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    """Two tables of eight vectors, the same on every machine."""
    a, b = torch.sin(torch.arange(1, 65).double() ** 2 * 0.37), torch.cos(torch.arange(1, 65).double() ** 2 * 0.21)
    return a.reshape(8, 8), b.reshape(8, 8) + a.reshape(8, 8)


# ---------------------------------------------------------------------- the loss

CLIP = 0.249243955  # transformers 5.23.0


def test_the_symmetric_loss_is_clips():
    a, b = embeddings()
    assert Contrast().double()(a, b).item() == pytest.approx(CLIP, abs=1e-6)


@pytest.mark.peers
def test_clip_of_transformers_has_that_loss():
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss  # pyright: ignore[reportMissingImports]

    a, b = (torch.nn.functional.normalize(x, dim=-1) for x in embeddings())
    assert image_text_contrastive_loss(b @ a.T / 0.07).item() == pytest.approx(CLIP, abs=1e-6)


def test_with_the_true_critic_it_bounds_the_mutual_information_of_gaussians():
    """Correlation rho in d dimensions has -d/2 log(1 - rho^2); the best critic is log p(b | a) - log p(b)."""
    d, rho, n, g = 8, 0.6, 512, torch.Generator().manual_seed(0)
    bounds = []
    for _ in range(40):
        a, noise = torch.randn(2, n, d, generator=g, dtype=torch.float64)
        b = rho * a + (1 - rho**2) ** 0.5 * noise
        off = (b[None] - rho * a[:, None]).square().sum(-1) / (1 - rho**2)
        critic = (b.square().sum(-1) - off - d * math.log(1 - rho**2)) / 2
        bounds.append(math.log(n) - info_nce(critic).item())
    bound, information = sum(bounds) / 40, -d / 2 * math.log(1 - rho**2)
    assert information == pytest.approx(1.785, abs=1e-3)
    assert bound == pytest.approx(1.756, abs=0.02) and bound < information
    assert math.log(n) - info_nce(1e6 * torch.eye(n)).item() == pytest.approx(math.log(n))  # and never more than that


def test_two_processes_have_the_loss_and_the_gradients_of_one():
    """Each with half of the rows and all candidates; the mean over processes, as DDP takes it."""
    whole = [x.clone().requires_grad_() for x in embeddings()]
    contrast = Contrast().double()
    contrast(*whole).backward()
    want, slope = [x.grad for x in whole], contrast.log_scale.grad.clone()
    contrast.log_scale.grad = None
    halves = [x.clone().requires_grad_() for x in embeddings()]
    normal = [torch.nn.functional.normalize(x, dim=-1) for x in halves]
    losses = []
    for rank in (0, 1):
        fetched = iter(normal)
        own = [x[4 * rank : 4 * rank + 4] for x in halves]
        losses.append(contrast(*own, gather=lambda x, rank=rank, fetched=fetched: (next(fetched), 4 * rank)))
    loss = sum(losses) / 2
    assert loss.item() == pytest.approx(contrast(*embeddings()).item(), abs=1e-12)
    loss.backward()
    torch.testing.assert_close([x.grad for x in halves], want)
    torch.testing.assert_close(contrast.log_scale.grad, slope)


def test_the_temperature_stops_at_its_bound_and_can_come_back():
    contrast = Contrast()
    assert contrast.scale.item() == pytest.approx(1 / 0.07)
    contrast.log_scale.data.fill_(9.0)
    assert contrast.scale.item() == pytest.approx(100)
    contrast.scale.backward()
    assert contrast.log_scale.grad.item() == pytest.approx(100)


# ---------------------------------------------------------------------- the network


def test_padding_is_as_if_it_were_not_there_on_either_side_and_whatever_it_holds():
    fusion, senses = made(), rows()
    want = fusion(senses)
    doc = {"audio": torch.tensor([[-1, -1, 0, 0, 0, 0]] * 4), "text": torch.tensor([[0] * 5 + [-1]] * 4)}
    padded = {
        "audio": torch.cat((torch.full((4, 2, 6), torch.nan), senses["audio"]), 1),
        "video": senses["video"],
        "text": torch.cat((senses["text"], torch.full((4, 1, 3), 1e9)), 1),
    }
    got = fusion(padded, doc=doc)
    torch.testing.assert_close(got.pooled, want.pooled, rtol=0, atol=1e-6)
    torch.testing.assert_close(got.tokens[got.real], want.tokens[want.real], rtol=0, atol=1e-6)
    torch.testing.assert_close(got.own, want.own, rtol=0, atol=1e-6)


def test_a_missing_sense_adds_nothing_in_all_rows_or_in_one():
    """All padding is as leaving it out; no nan, in the loss or in a gradient."""
    fusion, senses = made(), rows()
    without = {m: x for m, x in senses.items() if m != "video"}
    doc = {"video": torch.full((4, 3), -1)}
    doc["video"][:2] = 0
    got = fusion(senses, doc=doc)
    torch.testing.assert_close(got.pooled[:2], fusion(senses).pooled[:2], rtol=0, atol=1e-6)
    torch.testing.assert_close(got.pooled[2:], fusion(without).pooled[2:], rtol=0, atol=1e-6)
    assert got.present["video"].tolist() == [True, True, False, False]
    nothing = fusion(senses, doc={m: torch.full(x.shape[:2], -1) for m, x in senses.items()})
    assert (nothing.pooled == 0).all() and fusion.contrast(nothing) == 0
    loss = fusion.contrast(got) + got.pooled.square().sum()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


def test_the_contrast_is_over_the_rows_that_have_both_senses():
    fusion, senses = made(), rows()
    doc = {"video": torch.tensor([[0] * 3, [0] * 3, [0] * 3, [-1] * 3])}
    three = fusion({m: x[:3] for m, x in senses.items()})
    own, pairs = three.own, fusion.pairs
    whole = fusion(senses, doc=doc)
    want = (
        pairs["audio video"](own["audio"], own["video"])
        + pairs["video text"](own["video"], own["text"])
        + pairs["audio text"](whole.own["audio"], whole.own["text"])
    ) / 3
    torch.testing.assert_close(fusion.contrast(whole), want)


def test_what_a_sense_is_and_when_it_was_matter_and_the_order_of_naming_does_not():
    """Tokens carry their sense and their time; shuffling rows shuffles answers."""
    fusion, senses = made(), rows()
    want = fusion(senses).pooled
    torch.testing.assert_close(fusion(dict(reversed(senses.items()))).pooled, want)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(fusion({m: x[order] for m, x in senses.items()}).pooled, want[order])
    assert not torch.allclose(fusion({m: x.flip(1) for m, x in senses.items()}).pooled, want, atol=1e-3)
    torch.manual_seed(0)
    twins = Fusion({"left": 4, "right": 4}, 16).eval()
    a, b = torch.randn(2, 3, 2, 4)
    assert not torch.allclose(twins({"left": a, "right": b}).pooled, twins({"left": b, "right": a}).pooled, atol=1e-3)


def test_no_sense_sees_another_before_the_contrast():
    """Otherwise a sense could carry the answer over, and the loss would teach nothing."""
    fusion, senses = made(), rows()
    other = {**senses, "video": senses["video"] + 1}
    assert torch.equal(fusion(senses).own["audio"], fusion(other).own["audio"])
    assert not torch.equal(fusion(senses).pooled, fusion(other).pooled)


def bits(n: int, generator: torch.Generator) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Sound and picture of a bit each, in all of their noisy moments; the label is whether the bits differ."""
    senses, each = {}, torch.randint(2, (2, n), generator=generator)
    for name, bit in zip(("audio", "video"), each, strict=True):
        x = 0.6 * torch.randn(n, 3, 4, generator=generator)
        senses[name] = x + torch.tensor([2.0, 0, 0, 0]) * (2 * bit - 1)[:, None, None]
    return senses, each[0] ^ each[1]


def accuracy(heads: list[tuple[Fusion, torch.nn.Linear]], names: list[list[str]], steps: int = 150) -> float:
    """Of the summed logits of fusions that see some senses each, after training them together."""
    g = torch.Generator().manual_seed(1)
    parameters = [p for pair in heads for module in pair for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)

    def logit(senses):
        parts = [
            head(fusion({m: senses[m] for m in own}).pooled) for (fusion, head), own in zip(heads, names, strict=True)
        ]
        return torch.stack(parts).sum(0)[:, 0]

    for _ in range(steps):
        senses, label = bits(64, g)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit(senses), label.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    senses, label = bits(2000, g)
    with torch.no_grad():
        return ((logit(senses) > 0) == label).double().mean().item()


def test_only_fused_senses_tell_whether_two_bits_differ():
    """Neither bit says anything about their exclusive or, and no sum of two functions of one bit each is it."""

    def head():
        return Fusion({"audio": 4, "video": 4}, 16, heads=2), torch.nn.Linear(16, 1)

    torch.manual_seed(0)
    assert accuracy([head()], [["audio", "video"]]) >= 0.99
    assert accuracy([head()], [["audio"]], 60) == pytest.approx(0.5, abs=0.06)
    late = accuracy([head(), head()], [["audio"], ["video"]], 60)
    assert late < 0.78  # and three in four at most, in the longest run


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"some of audio, video, text, got \['smell'\]"):
        made()({"smell": torch.zeros(1, 1, 1)})
    with pytest.raises(ValueError, match="got none"):
        made()({})
    with pytest.raises(ValueError, match="0 < least <= temperature"):
        Contrast(0.005)
