"""What every network of the package promises, whatever is inside."""

import itertools

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gen_diffusion import MLP, Preconditioned, UNet
from gen_diffusion.condition import Condition
from gen_diffusion.dit import DiT

TINY = {"width": 8, "depth": 2, "heads": 2}
NETWORKS = {
    "mlp": (lambda: MLP(dim=2, num_classes=3), (2,)),
    "mlp without classes": (lambda: MLP(dim=5), (5,)),
    "unet 8x8": (lambda: UNet(1, 8, num_classes=3), (1, 8, 8)),
    "unet 16x24, three channels": (lambda: UNet(3, 8, (1, 2, 3), attention=(1, 2), num_classes=3), (3, 16, 24)),
    "unet 64x64, deep": (lambda: UNet(1, 4, (1, 2, 2, 4), blocks=1, attention=(3,), num_classes=3), (1, 64, 64)),
    "unet without classes": (lambda: UNet(1, 8, (1,), attention=(0,)), (1, 3, 5)),
    "unet, all conditions": (
        lambda: UNet(2, 8, blocks=1, attention=(0, 1), num_classes=3, context_dim=6, dense_channels=3),
        (2, 8, 8),
    ),
    "dit 8x8": (lambda: DiT(1, **TINY, num_classes=3), (1, 8, 8)),
    "dit 8x12, patches of 4": (lambda: DiT(3, patch=4, **TINY), (3, 8, 12)),
    "dit, all conditions": (lambda: DiT(2, **TINY, num_classes=3, context_dim=6, dense_channels=3), (2, 8, 8)),
}
each = pytest.mark.parametrize("name", NETWORKS)
told = pytest.mark.parametrize("name", ["unet, all conditions", "dit, all conditions"])


def build(name, scramble=True):
    """The network and a batch for it; scrambled, for at its beginning a network answers 0 whatever it is given."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    net, cond = make(), {}
    if scramble:
        for p in net.parameters():
            nn.init.normal_(p, std=0.1)
    if net.condition.num_classes:
        cond["label"] = torch.tensor([0, 1, 2, 1])
    if "all conditions" in name:
        cond["context"], cond["dense"] = torch.randn(4, 5, 6), torch.randn(4, 3, *shape[1:])
        cond["context_mask"] = torch.arange(5) < torch.tensor([5, 2, 0, 1])[:, None]
    return net, torch.randn(4, *shape), torch.tensor([-1.5, -0.2, 0.1, 1.1]), cond


def rows(cond, index):
    return {name: value[index] for name, value in cond.items()}


@each
def test_the_first_answer_is_zero(name):
    net, x, c_noise, cond = build(name, scramble=False)
    y = net(x, c_noise, **cond)
    assert y.shape == x.shape and torch.equal(y, torch.zeros_like(x))


@each
def test_permuting_the_batch_permutes_the_answer(name):
    """No statistics across the batch: sample, level and conditions belong together."""
    net, x, c_noise, cond = build(name)
    order = torch.tensor([2, 0, 3, 1])
    permuted = net(x[order], c_noise[order], **rows(cond, order))
    torch.testing.assert_close(permuted, net(x, c_noise, **cond)[order], atol=1e-5, rtol=1e-4)
    for i in range(4):
        alone = net(x[i : i + 1], c_noise[i : i + 1], **rows(cond, slice(i, i + 1)))
        torch.testing.assert_close(alone, net(x, c_noise, **cond)[i : i + 1], atol=1e-5, rtol=1e-4)


@each
def test_the_gradient_reaches_every_parameter(name):
    net, x, c_noise, cond = build(name)
    if "label" in cond:
        net(x[:1], c_noise[:1]).square().sum().backward()  # the null class has a row of its own
    net(x, c_noise, **cond).square().sum().backward()
    for key, p in net.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, key
    if "label" in cond:
        assert (net.condition.label.weight.grad.abs().amax(1) > 0).all()


@each
def test_level_and_conditions_matter(name):
    net, x, c_noise, cond = build(name)
    y = net(x, c_noise, **cond)
    assert (net(x, c_noise + 0.1, **cond) - y).abs().max() > 1e-4
    others = {"label": lambda l: (l + 1) % 3, "context": lambda c: c.flip(2), "dense": lambda d: d.flip(1)}
    for key in cond.keys() & others.keys():
        changed = (net(x, c_noise, **(cond | {key: others[key](cond[key])})) - y).abs().flatten(1).amax(1)
        needed = cond["context_mask"].any(1) if key == "context" else torch.ones(4, dtype=torch.bool)
        assert torch.equal(changed > 1e-4, needed), key


@told
def test_rows_without_tokens_are_rows_without_context(name):
    """A mask that is False all over is a missing context, to the rounding of sums, whoever else is in the batch."""
    net, x, c_noise, cond = build(name)
    net, x, c_noise = net.double(), x.double(), c_noise.double()
    context, mask = cond["context"].double(), cond["context_mask"]
    without = net(x, c_noise)
    torch.testing.assert_close(net(x, c_noise, context=context, context_mask=mask)[2], without[2], atol=1e-12, rtol=0)
    none = net(x, c_noise, context=context, context_mask=torch.zeros_like(mask))
    torch.testing.assert_close(none, without, atol=1e-12, rtol=0)
    empty = net(x, c_noise, context=context[:, :0], context_mask=mask[:, :0])
    torch.testing.assert_close(empty, without, atol=1e-12, rtol=0)


@told
def test_padding_is_not_read(name):
    """Neither its content nor its length matters; the order of the tokens is for the encoder to mark."""
    net, x, c_noise, cond = build(name)
    y, mask = net(x, c_noise, **cond), cond["context_mask"]
    filled = cond["context"].masked_fill(~mask[:, :, None], torch.nan)
    assert torch.equal(net(x, c_noise, **(cond | {"context": filled})), y)
    longer = {"context": F.pad(filled, (0, 0, 0, 3), value=7.0), "context_mask": F.pad(mask, (0, 3))}
    torch.testing.assert_close(net(x, c_noise, **(cond | longer)), y, atol=1e-5, rtol=1e-4)
    whole = {"context": cond["context"], "context_mask": torch.ones_like(mask)}
    y = net(x, c_noise, **(cond | whole))
    torch.testing.assert_close(net(x, c_noise, **(cond | whole | {"context_mask": None})), y, atol=1e-5, rtol=1e-4)


@told
def test_no_dense_picture_is_a_black_one(name):
    net, x, c_noise, cond = build(name)
    dense = cond.pop("dense")
    assert torch.equal(net(x, c_noise, **cond), net(x, c_noise, **cond, dense=torch.zeros_like(dense)))


@told
def test_half_precision(name):
    """Under autocast the answer is that of full precision, to the eight bits of bfloat16."""
    net, x, c_noise, cond = build(name)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, c_noise, **cond)
    y = net(x, c_noise, **cond)
    assert (half - y).norm() < 0.03 * y.norm()


@each
def test_finite_at_the_ends_of_the_axis(name):
    net, x, _, cond = build(name)
    for sigma in (0.0, 1e-30, 1e10):
        assert Preconditioned(net)(x * max(1.0, sigma), torch.tensor(sigma), **cond).isfinite().all()


@pytest.mark.parametrize("name", ["mlp", "unet, all conditions", "dit, all conditions"])
def test_compiles_in_one_graph(name):
    """Without the run-time checks of shapes, which are no part of a network and break its graph."""
    net, x, c_noise, cond = build(name)
    compiled = torch.compile(Preconditioned(net), fullgraph=True, backend="eager")
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        y = compiled(x, c_noise.exp(), **cond)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    torch.testing.assert_close(y, Preconditioned(net)(x, c_noise.exp(), **cond))


def test_no_label_is_the_null_class_and_not_class_0():
    net, x, c_noise, _ = build("unet 8x8")
    null = torch.full((4,), 3)
    assert torch.equal(net(x, c_noise), net(x, c_noise, label=null))
    assert not torch.allclose(net(x, c_noise), net(x, c_noise, label=torch.zeros_like(null)))


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


@pytest.mark.parametrize(
    ("size", "multipliers"), [(8, (1, 2)), (64, (1, 2, 2, 2)), (256, (1, 1, 2, 2, 4, 4))], ids=["8", "64", "256"]
)
def test_features_keep_their_size_through_the_resolutions(size, multipliers):
    """Unit variance in, and within a third of a unit all the way down and up; blocks that answer, not 0, add theirs."""
    torch.manual_seed(0)
    net, stds = UNet(3, 16, multipliers, attention=(len(multipliers) - 1,)), {}
    stages = (net.encoders, net.shrink, [net.middle], net.grow, net.decoders)
    for module in itertools.chain([net.stem], *stages):
        module.register_forward_hook(lambda module, _, y: stds.update({module: y.square().mean().sqrt().item()}))
    x, c_noise = torch.randn(2, 3, size, size), torch.zeros(2)
    with torch.no_grad():
        net(x, c_noise)
        assert len(stds) == 4 * len(multipliers) - 2
        assert all(0.75 < std < 1.33 for std in stds.values())
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.any():
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        net(x, c_noise)
        assert all(0.75 < std < 6 for std in stds.values())


@pytest.mark.slow
def test_one_network_from_8_to_256():
    """Six resolutions at 256 x 256 learn a gradient of grey: a step's gradients are finite and no layer's is lost."""
    torch.manual_seed(0)
    net = UNet(3, 16, (1, 1, 2, 2, 4, 4), blocks=1, attention=(4, 5), num_classes=3, context_dim=6, dense_channels=3)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    ramp = torch.linspace(-1, 1, 256).expand(2, 3, 256, 256)
    cond = {"label": torch.tensor([0, 2]), "context": torch.randn(2, 4, 6), "dense": ramp}
    losses = []
    for _ in range(12):
        loss = (net(torch.randn(2, 3, 256, 256), torch.zeros(2), **cond) - ramp).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range_are_refused(label):
    """3 classes and the null class, 3; not the row of somebody else, and not an IndexError."""
    net, labels = Condition(8, 3), torch.tensor([0, label])
    with pytest.raises(ValueError, match=r"classes 0 to 2 and the null class 3"):
        net(torch.zeros(2), labels)
    assert net(torch.zeros(0), torch.zeros(0, dtype=torch.long)).shape == (0, 8)


@told
def test_conditions_that_do_not_fit_are_refused(name):
    net, x, c_noise, cond = build(name)
    call = lambda **wrong: net(x, c_noise, **(cond | wrong))
    with pytest.raises(ValueError, match="size 7, but this network was built with context_dim=6"):
        call(context=torch.zeros(4, 5, 7))
    with pytest.raises(ValueError, match="without a context"):
        call(context=None)
    with pytest.raises(ValueError, match="needs 3 channels of 8 x 8"):
        call(dense=torch.zeros(4, 2, 8, 8))
    with pytest.raises(ValueError, match="needs 3 channels of 8 x 8"):
        call(dense=torch.zeros(4, 3, 16, 16))
    with pytest.raises(ValueError, match="x has 5 channels, but this network was built with channels=2"):
        net(torch.zeros(4, 5, 8, 8), c_noise)


@pytest.mark.parametrize("make", [lambda: UNet(1, 8), lambda: DiT(1, **TINY)], ids=["unet", "dit"])
def test_conditions_that_were_not_asked_for_are_refused(make):
    x, c_noise = torch.zeros(2, 1, 8, 8), torch.zeros(2)
    for wrong in ({"label": torch.zeros(2, dtype=torch.long)}, {"context": torch.zeros(2, 3, 4)}, {"dense": x}):
        with pytest.raises(ValueError, match=f"takes no {next(iter(wrong))}"):
            make()(x, c_noise, **wrong)


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="use fewer multipliers"):
        UNet(1, 8, (1, 2, 2))(torch.zeros(1, 1, 10, 8), torch.zeros(1))
    with pytest.raises(ValueError, match=r"attention at resolutions \[2\]"):
        UNet(1, 8, attention=(2,))
    with pytest.raises(ValueError, match="needs attention to read it"):
        UNet(1, 8, context_dim=4)
    with pytest.raises(ValueError, match="pad them to multiples of 4"):
        DiT(1, patch=4, **TINY)(torch.zeros(1, 1, 8, 10), torch.zeros(1))
    with pytest.raises(ValueError, match="multiple of 4 and of heads=3"):
        DiT(1, width=8, heads=3)
