"""Networks of GANs: resampling against scipy, independence of samples, labels, initial variance, sizes."""

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch import nn

from gen_core.runtime import generator, seed_all
from gen_latent import DCDiscriminator, DCGenerator, ResidualDiscriminator, ResidualGenerator
from gen_latent.gan_nets import Projection, ResidualBlock, downsample, upsample

TAP = np.array([1, 3, 3, 1]) / 8
GENERATORS = {
    "dc": lambda size=8, **o: DCGenerator(3, size, 6, width=8, **o),
    "residual": lambda size=8, **o: ResidualGenerator(3, size, 6, width=16, blocks=1, **o),
}
DISCRIMINATORS = {
    "dc": lambda size=8, **o: DCDiscriminator(3, size, width=8, **o),
    "residual": lambda size=8, **o: ResidualDiscriminator(3, size, width=16, blocks=1, **o),
}


def alive(net):
    """The network with every parameter drawn anew, so that nothing is hidden behind initial zeros."""
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    return net


# ---------------------------------------------------------------------- resampling


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (3, 3, 4, 6), (1, 1, 5, 7)])
def test_resampling_is_scipys_upfirdn(shape):
    x = torch.randn(shape, generator=generator("x"), dtype=torch.float64)
    up = upfirdn(2 * TAP, upfirdn(2 * TAP, x.numpy(), up=2, axis=2), up=2, axis=3)
    h, w = 2 * shape[2], 2 * shape[3]
    assert np.abs(upsample(x).numpy() - up[..., 1 : h + 1, 1 : w + 1]).max() < 1e-12
    smooth = upfirdn(TAP, upfirdn(TAP, x.numpy(), axis=2), axis=3)
    want = smooth[..., 2 : shape[2] + 2 : 2, 2 : shape[3] + 2 : 2]
    assert np.abs(downsample(x).numpy() - want[..., : shape[2] // 2, : shape[3] // 2]).max() < 1e-12
    single = x.float()
    assert np.abs(upsample(single).numpy() - up[..., 1 : h + 1, 1 : w + 1]).max() < 1e-6


def test_resampling_keeps_a_constant_away_from_the_border():
    x = torch.ones(1, 2, 8, 8, dtype=torch.float64)
    assert torch.allclose(upsample(x)[..., 2:-2, 2:-2], torch.ones(12, 12, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(downsample(x)[..., 1:-1, 1:-1], torch.ones(2, 2, dtype=torch.float64), atol=1e-12)


def test_downsampling_is_a_quarter_of_the_transpose_of_upsampling():
    x, y = (torch.randn(1, 2, s, s, generator=generator("t", s), dtype=torch.float64) for s in (4, 8))
    assert (upsample(x) * y).sum().item() == pytest.approx(4 * (x * downsample(y)).sum().item(), abs=1e-12)


# ---------------------------------------------------------------------- networks


@pytest.mark.parametrize("size", [4, 8, 32, 28, 5])
@pytest.mark.parametrize("name", GENERATORS)
def test_networks_answer_in_the_shapes_of_pictures_and_logits(name, size):
    seed_all(0)
    x = GENERATORS[name](size)(torch.randn(2, 6))
    assert x.shape == (2, 3, size, size)
    assert DISCRIMINATORS[name](size)(x).shape == (2,)


@pytest.mark.parametrize(("size", "near"), [(9, "8 or 10"), (30, "28 or 32"), (3, "4"), (65, "64 or 80")])
@pytest.mark.parametrize("make", [*GENERATORS.values(), *DISCRIMINATORS.values()])
def test_a_size_that_cannot_be_halved_is_refused(make, size, near):
    with pytest.raises(ValueError, match=f"{size} pixels cannot be halved down to 4 to 7; resize them, say to {near}$"):
        make(size)


@pytest.mark.parametrize("make", [*GENERATORS.values(), *DISCRIMINATORS.values()])
def test_no_sample_depends_on_its_batch(make):
    """In training mode too, for batches smaller than, as large as and larger than the width of a picture."""
    net = alive(make(classes=4)).double().train()
    is_generator = isinstance(net, DCGenerator | ResidualGenerator)
    for b in (3, 8, 9):
        g = generator("batch", b)
        x = torch.randn(b, *((6,) if is_generator else (3, 8, 8)), generator=g, dtype=torch.float64)
        label = torch.arange(b) % 4
        together = net(x, label)
        alone = torch.cat([net(x[i : i + 1], label[i : i + 1]) for i in range(b)])
        assert torch.allclose(together, alone, atol=1e-10 * together.abs().max().item())


@pytest.mark.parametrize("make", [*GENERATORS.values(), *DISCRIMINATORS.values()])
def test_labels_matter_and_are_asked_for(make):
    net = alive(make(classes=4))
    x = torch.randn(4, *((6,) if isinstance(net, DCGenerator | ResidualGenerator) else (3, 8, 8)))
    same = x[:1].expand_as(x)
    y = net(same, torch.arange(4)).flatten(1) if net(same, torch.arange(4)).ndim > 1 else net(same, torch.arange(4))
    assert len({tuple(row.flatten().tolist()) for row in y}) == 4
    with pytest.raises(ValueError, match="label"):
        net(x)


def test_projection_is_the_inner_product_with_the_classs_vector():
    """[Miyato18] eq. 3: f(x, y) = y' V phi(x) + psi(phi(x)); it begins as the unconditional discriminator."""
    head = Projection(5, classes=3)
    h, label = torch.randn(4, 5), torch.tensor([2, 0, 1, 2])
    assert torch.equal(head(h, label), head.linear(h)[:, 0])
    nn.init.normal_(head.embedding.weight)
    v = head.embedding.weight
    want = [head.linear.weight[0] @ r + head.linear.bias[0] + v[y] @ r for r, y in zip(h, label, strict=True)]
    assert torch.allclose(head(h, label), torch.stack(want), atol=1e-6)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_packed_discriminator_sees_all_of_its_pictures(name):
    net = alive(DISCRIMINATORS[name](packing=2))
    x = torch.randn(3, 6, 8, 8, requires_grad=True)
    net(x).sum().backward()
    assert x.grad is not None and (x.grad.abs().amax((0, 2, 3)) > 0).all()


def test_residual_blocks_begin_as_the_identity_and_learn_from_there():
    block = ResidualBlock(16)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.leave.weight.grad is not None and (block.leave.weight.grad != 0).any()


def test_a_residual_block_is_its_formula_and_deeper_networks_begin_smaller():
    """x + C3 a(C2 a(C1 x)), a leaky; each of 16 blocks begins with weights of half the size of a lone one's."""
    seed_all(0)
    block, x = alive(ResidualBlock(16)), torch.randn(2, 16, 4, 4)
    leaky = nn.LeakyReLU(0.2)
    assert torch.allclose(block(x), x + block.leave(leaky(block.spread(leaky(block.enter(x))))), atol=1e-5)
    alone, deep = ResidualBlock(256), ResidualBlock(256, depth=16)
    for name in ("enter", "spread"):
        sizes = [getattr(net, name).weight.std().item() for net in (alone, deep)]
        assert sizes[1] / sizes[0] == pytest.approx(0.5, rel=0.05)


def test_residual_networks_begin_with_unit_variance():
    """Blocks are identities, 1x1 convolutions keep the variance, the filter's is known: none explodes with depth."""
    seed_all(0)
    with torch.no_grad():
        for size in (8, 32):
            x = ResidualGenerator(3, size, 64, width=16)(torch.randn(64, 64))
            assert 0.05 < x.var() < 5
            logits = ResidualDiscriminator(3, size, width=16)(torch.randn(16, 3, size, size))
            assert logits.isfinite().all() and logits.var() < 5


def test_no_network_has_a_layer_that_mixes_samples_and_all_parameters_learn():
    for name in GENERATORS:
        g, d = alive(GENERATORS[name]()), alive(DISCRIMINATORS[name]())
        d(g(torch.randn(2, 6))).square().sum().backward()
        for net in (g, d):
            assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
            assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
