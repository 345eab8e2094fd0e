"""Muon's update against the singular value decomposition and torch's own Muon, AdamW's part against torch's AdamW."""

import pytest
import torch

from gen_transformer.config import Config
from gen_transformer.model import EncoderDecoder, Transformer
from gen_transformer.optim import Muon, groups, optimizer, orthogonalised

SMALL = Config(vocab=17, dim=16, layers=2, heads=2, context=8)


def gradients(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 24, 64), (2, 64, 24)])
def test_orthogonalised_is_nearly_the_polar_factor(shape):
    g = gradients(*shape)
    g += 3 * torch.eye(*shape[1:])  # no singular value near 0, where five steps are too few
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    x = orthogonalised(g)
    s = torch.linalg.svdvals(x)
    assert 0.6 < s.min() and s.max() < 1.25
    cosine = torch.cosine_similarity(x.flatten(1), (u @ v).flatten(1))
    assert cosine.min() > 0.97
    assert torch.equal(orthogonalised(100 * g[:1]).sign(), x[:1].sign()), "it does not depend on the gradient's size"


@pytest.mark.parametrize("shape", [(24, 24), (24, 64), (64, 24)])
def test_muon_is_torchs_within_the_precision_of_its_bf16(shape):
    ours, theirs = (torch.nn.Parameter(gradients(*shape, seed=1)) for _ in range(2))
    a = Muon([{"params": [ours], "muon": True}], lr=0.02, weight_decay=0.1)
    b = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1)
    start = ours.detach().clone()
    for step in range(4):
        ours.grad = gradients(*shape, seed=step)
        theirs.grad = ours.grad.clone()
        a.step(), b.step()
    difference = (ours - theirs).norm() / (theirs - start).norm()
    assert difference < 0.02


def test_the_rest_moves_as_adamw():
    ours, theirs = Transformer(SMALL), Transformer(SMALL)
    theirs.load_state_dict(ours.state_dict())
    a = Muon([{"params": list(ours.parameters())}], lr=1e-2, weight_decay=0.1)
    b = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    ids = torch.arange(8)[None]
    for _ in range(3):
        for model, opt in ((ours, a), (theirs, b)):
            opt.zero_grad()
            model.logits(model(ids)).square().mean().backward()
            opt.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_that_lose_updates_are_refused(dtype):
    """1 + 1e-3 is 1 in bf16: a thousand such steps would end where they began. Frozen weights may be narrow."""
    assert (torch.ones(1, dtype=torch.bfloat16) + 1e-3 == 1).all()
    model = Transformer(SMALL).to(dtype)
    with pytest.raises(ValueError, match=rf"weights of {dtype} lose small updates; train model.float\(\)"):
        optimizer(model)
    model.requires_grad_(False)
    model.head.float().requires_grad_()
    optimizer(model)


@pytest.mark.parametrize("tie", [True, False])
def test_every_parameter_is_in_exactly_one_group(tie):
    cfg = Config(vocab=17, dim=16, layers=2, heads=2, pos="learned", norm="layer", bias="all", qk_norm=True, tie=tie)
    encoder = Config(vocab=17, dim=16, layers=1, heads=2, causal=False, pos="sinusoidal")
    for model in (Transformer(cfg), EncoderDecoder(encoder, Config(vocab=17, dim=16, layers=1, heads=2))):
        matrices, tables, vectors = groups(model)
        names = {id(p): name for name, p in model.named_parameters()}
        assert sorted(map(id, [*matrices, *tables, *vectors])) == sorted(names)
        assert all(".blocks." in f".{names[id(p)]}" for p in matrices), "no table, no head"
        assert all(p.ndim == 1 for p in vectors)
    with pytest.raises(ValueError, match="moves matrices"):
        Muon([{"params": vectors, "muon": True}])


def test_only_matrices_decay():
    model = Transformer(SMALL)
    for opt in (optimizer(model, weight_decay=0.1), optimizer(model, muon=0.02, weight_decay=0.1)):
        decay = {id(p): g["weight_decay"] for g in opt.param_groups for p in g["params"]}
        for name, p in model.named_parameters():
            inside = "blocks" in name and p.ndim == 2
            assert decay[id(p)] == (0.1 if inside else 0.0), name
