"""What every network of the package promises, whatever is inside."""

import jaxtyping
import pytest
import torch
from torch import nn

from gen_diffusion import MLP, Preconditioned, UNet
from gen_diffusion.condition import Condition

NETWORKS = {
    "mlp": (lambda: MLP(dim=2, num_classes=3), (2,)),
    "mlp without classes": (lambda: MLP(dim=5), (5,)),
    "unet 8x8": (lambda: UNet(1, 8, num_classes=3), (1, 8, 8)),
    "unet 16x24, three channels": (lambda: UNet(3, 8, (1, 2, 3), attention=(1, 2), num_classes=3), (3, 16, 24)),
    "unet 64x64, deep": (lambda: UNet(1, 4, (1, 2, 2, 4), blocks=1, attention=(3,), num_classes=3), (1, 64, 64)),
    "unet without classes": (lambda: UNet(1, 8, (1,), attention=(0,)), (1, 3, 5)),
}
each = pytest.mark.parametrize("name", NETWORKS)


def build(name, scramble=True):
    """The network and a batch for it; scrambled, for at its beginning a network answers 0 whatever it is given."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    net = make()
    if scramble:
        for p in net.parameters():
            nn.init.normal_(p, std=0.1)
    label = {"label": torch.tensor([0, 1, 2, 1])} if net.condition.num_classes else {}
    return net, torch.randn(4, *shape), torch.tensor([-1.5, -0.2, 0.1, 1.1]), label


@each
def test_the_first_answer_is_zero(name):
    net, x, c_noise, label = build(name, scramble=False)
    y = net(x, c_noise, **label)
    assert y.shape == x.shape and torch.equal(y, torch.zeros_like(x))


@each
def test_permuting_the_batch_permutes_the_answer(name):
    """No statistics across the batch: sample, level and label belong together."""
    net, x, c_noise, label = build(name)
    order = torch.tensor([2, 0, 3, 1])
    permuted = net(x[order], c_noise[order], **{k: v[order] for k, v in label.items()})
    torch.testing.assert_close(permuted, net(x, c_noise, **label)[order], atol=1e-5, rtol=1e-4)
    alone = net(x[:1], c_noise[:1], **{k: v[:1] for k, v in label.items()})
    torch.testing.assert_close(alone, net(x, c_noise, **label)[:1], atol=1e-5, rtol=1e-4)


@each
def test_the_gradient_reaches_every_parameter(name):
    net, x, c_noise, label = build(name)
    if label:
        net(x[:1], c_noise[:1]).square().sum().backward()  # the null class has a row of its own
    net(x, c_noise, **label).square().sum().backward()
    for key, p in net.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, key
    if label:
        assert (net.condition.label.weight.grad.abs().amax(1) > 0).all()


@each
def test_level_and_class_matter(name):
    net, x, c_noise, label = build(name)
    y = net(x, c_noise, **label)
    assert (net(x, c_noise + 0.1, **label) - y).abs().max() > 1e-4
    if label:
        assert (net(x, c_noise, (label["label"] + 1) % 3) - y).abs().max() > 1e-4


@each
def test_finite_at_the_ends_of_the_axis(name):
    net, x, _, label = build(name)
    for sigma in (0.0, 1e-30, 1e10):
        assert Preconditioned(net)(x * max(1.0, sigma), torch.tensor(sigma), **label).isfinite().all()


@pytest.mark.parametrize("name", ["mlp", "unet 8x8"])
def test_compiles_in_one_graph(name):
    """Without the run-time checks of shapes, which are no part of a network and break its graph."""
    net, x, c_noise, label = build(name)
    compiled = torch.compile(Preconditioned(net), fullgraph=True, backend="eager")
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        y = compiled(x, c_noise.exp(), **label)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    torch.testing.assert_close(y, Preconditioned(net)(x, c_noise.exp(), **label))


def test_no_label_is_the_null_class_and_not_class_0():
    net, x, c_noise, _ = build("unet 8x8")
    null = torch.full((4,), 3)
    assert torch.equal(net(x, c_noise), net(x, c_noise, null))
    assert not torch.allclose(net(x, c_noise), net(x, c_noise, torch.zeros_like(null)))


def test_dropout_only_while_training():
    net, x, c_noise = UNet(1, 8, dropout=0.5), torch.randn(2, 1, 8, 8), torch.zeros(2)
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    assert not torch.equal(net(x, c_noise), net(x, c_noise))
    net.eval()
    assert torch.equal(net(x, c_noise), net(x, c_noise))


def test_memory_format_of_the_input_is_irrelevant():
    net, x, c_noise, label = build("unet 16x24, three channels")
    y = net(x.to(memory_format=torch.channels_last), c_noise, **label)
    torch.testing.assert_close(y, net(x, c_noise, **label), atol=1e-5, rtol=1e-4)


def test_the_embedding_tells_levels_apart():
    """Neighbouring levels get near, distant ones different vectors, over the whole range of sigma."""
    c = torch.linspace(0.002, 80, 2).log() / 4
    condition = Condition(8)
    phase = torch.linspace(c[0], c[1], 200)[:, None] * condition.frequencies
    code = torch.cat([phase.cos(), phase.sin()], 1)
    distance = torch.cdist(code, code)
    assert distance.diagonal(1).max() < 0.6
    far = (torch.arange(200)[:, None] - torch.arange(200)).abs() > 20
    assert distance[far].min() > 1.0


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="use fewer multipliers"):
        UNet(1, 8, (1, 2, 2))(torch.zeros(1, 1, 10, 8), torch.zeros(1))
    with pytest.raises(ValueError, match="takes no label"):
        UNet(1, 8)(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"attention at resolutions \[2\]"):
        UNet(1, 8, attention=(2,))
