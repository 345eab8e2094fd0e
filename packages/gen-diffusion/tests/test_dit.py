"""The diffusion transformer beside PyTorch's own encoder layer and beside the paper's tables."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gen_diffusion.dit import SIZES, Block, DiT, positions


def test_a_block_is_a_pre_norm_encoder_layer():
    """With gates at 1, shifts and scales at 0 and the same weights: the same answer as TransformerEncoderLayer."""
    torch.manual_seed(0)
    width, heads = 16, 4
    gelu = partial(F.gelu, approximate="tanh")
    peer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, gelu, 1e-6, batch_first=True, norm_first=True)
    ours = Block(width, heads, context_dim=0)
    pairs = {"qkv": peer.self_attn.in_proj_weight, "out": peer.self_attn.out_proj.weight}
    pairs |= {"mlp.0": peer.linear1.weight, "mlp.2": peer.linear2.weight}
    biases = {"qkv": peer.self_attn.in_proj_bias, "out": peer.self_attn.out_proj.bias}
    biases |= {"mlp.0": peer.linear1.bias, "mlp.2": peer.linear2.bias}
    with torch.no_grad():
        for name in pairs:
            biases[name].normal_()
            ours.get_submodule(name).weight.copy_(pairs[name])
            ours.get_submodule(name).bias.copy_(biases[name])
        ours.modulation.bias.view(6, width)[[0, 3]] = 1  # the gates
    x, condition = torch.randn(3, 5, width), torch.randn(3, width)
    torch.testing.assert_close(ours(x, condition), peer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("context_dim", [0, 6])
def test_a_block_begins_as_the_identity(context_dim):
    block, x = Block(8, 2, context_dim), torch.randn(2, 3, 8)
    tokens = torch.randn(2, 4, 6) if context_dim else None
    assert torch.equal(block(x, torch.randn(2, 8), tokens), x)


@pytest.mark.parametrize(
    ("size", "patch", "parameters", "gflops"),
    [("S", 2, 33, 6.06), ("S", 8, 33, 0.36), ("B", 4, 130, 5.56), ("L", 2, 458, 80.71), ("XL", 2, 675, 118.64)],
)
def test_sizes_are_the_papers(size, patch, parameters, gflops):
    """Millions of parameters (at patch 2) and 10^9 multiply-adds for a 32 x 32 x 4 latent: [Peebles23] tables 1 and 4.

    The paper's network has 1000 classes, and tells the level by 256 waves where ours takes 32.
    """
    with torch.device("meta"):
        net = DiT(4, patch=patch, **SIZES[size], num_classes=1000)
        with FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, 4, 32, 32), torch.zeros(1))
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(parameters, rel=0.01)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gflops, rel=0.02)


def test_patches_go_back_where_they_came_from():
    """With an identity for a stem and for a head, and no positions, the picture is only cut and put together."""
    net = DiT(3, patch=2, width=12, depth=0, heads=1)
    nn.init.eye_(net.stem.weight)
    nn.init.eye_(net.head.weight)
    net.norm = nn.Identity()
    x = torch.randn(2, 3, 4, 6)
    places = torch.zeros(1, 3, 4, 6)
    torch.testing.assert_close(net(x, torch.zeros(2)) - net(places, torch.zeros(1)), x, atol=1e-6, rtol=0)


def test_positions_tell_every_place_apart_and_know_their_neighbours():
    """The inner product of two places depends on their distance in rows and in columns alone, and falls with it."""
    h, w = 6, 9
    code = positions(h, w, 32).reshape(h, w, 32)
    gram = torch.einsum("ijc,klc->ijkl", code, code)
    torch.testing.assert_close(gram[1:, 2:, 1:, 2:], gram[:-1, :-2, :-1, :-2], atol=1e-4, rtol=0)
    there = gram[0, 0].flatten()
    assert there[0] == pytest.approx(16) and there[1:].max() < 15.6
    assert gram[0, 0, 0, 1] == pytest.approx(gram[0, 0, 1, 0].item()) and gram[0, 0, 1, 1] < gram[0, 0, 0, 1]


def test_the_place_of_a_patch_matters():
    """A transformer sees a set: without positions, exchanging two patches would only exchange the answers."""
    torch.manual_seed(0)
    net = DiT(1, patch=2, width=16, depth=1, heads=2)
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    x = torch.randn(1, 1, 4, 4)
    y, flipped = net(x, torch.zeros(1)), net(x.roll(2, 3), torch.zeros(1)).roll(-2, 3)
    assert (y - flipped).abs().max() > 1e-3
