"""The transformer over frames: three ways for a caption, and padding that changes nothing."""

import pytest
import torch
from torch import nn

from gen_diffusion.denoise import Preconditioned
from gen_diffusion.director import Director
from gen_diffusion.dit import Block
from gen_diffusion.loss import denoising_loss, edm_weight, masked_loss
from gen_diffusion.text import Texted, TextEncoder, Words, tokenise

WAYS = ("in-context", "adaln", "cross-attention")
each = pytest.mark.parametrize("way", WAYS)


def build(way, scramble=True, **more):
    torch.manual_seed(0)
    net = Director(width=16, depth=2, heads=2, patch=5, conditioning=way, context_dim=6, **more)
    for p in net.parameters() if scramble else ():
        nn.init.normal_(p, std=0.2)
    return net


def batch(b=9, frames=20):
    g = torch.Generator().manual_seed(1)
    x, c_noise = torch.randn(b, frames, 9, generator=g), torch.randn(b, generator=g)
    context, mask = torch.randn(b, 4, 6, generator=g), torch.rand(b, 4, generator=g) < 0.6
    mask[:, 0] = True
    return x, c_noise, {"context": context, "context_mask": mask}


@each
def test_the_first_answer_is_zero(way):
    x, c_noise, caption = batch()
    assert torch.equal(build(way, scramble=False)(x, c_noise, **caption), torch.zeros_like(x))
    denoiser = Preconditioned(build(way, scramble=False), 0.5)
    loss = denoising_loss(denoiser, 0.5 * x, c_noise.exp(), torch.randn_like(x), **caption)
    assert (edm_weight(c_noise.exp(), 0.5) * loss).mean().item() == pytest.approx(1, abs=0.1)  # data of the right size


@each
def test_a_trajectory_is_denoised_alone(way):
    """With a batch as large as the features (9), and another of 4: rows do not see one another."""
    net, (x, c_noise, caption) = build(way), batch()
    y = net(x, c_noise, **caption)
    for i in range(0, 9, 4):
        part = {name: value[i : i + 4] for name, value in caption.items()}
        torch.testing.assert_close(net(x[i : i + 4], c_noise[i : i + 4], **part), y[i : i + 4], atol=1e-5, rtol=1e-4)


@each
def test_padding_changes_nothing(way):
    """Neither the answer on real frames nor the loss, whatever the padding holds, and as if it were not there."""
    net, (x, c_noise, caption) = build(way), batch()
    lengths = torch.tensor([20, 17, 15, 10, 8, 5, 3, 1, 20])
    mask = torch.arange(20) < lengths[:, None]
    other = torch.where(mask[:, :, None], x, torch.full_like(x, torch.nan))
    assert all(isinstance(block, Block) for block in net.blocks)
    y, y_other = net(x, c_noise, mask=mask, **caption), net(other, c_noise, mask=mask, **caption)
    assert torch.equal(y, y_other) and (y[~mask] == 0).all() and (y[mask] != 0).all()
    torch.testing.assert_close(
        net(x[3:4, :10], c_noise[3:4], **{k: v[3:4] for k, v in caption.items()}), y[3:4, :10], atol=1e-5, rtol=1e-4
    )
    denoiser, sigma, noise = Preconditioned(net, 0.5), c_noise.exp(), torch.randn(x.shape)
    noise_other = torch.where(mask[:, :, None], noise, 1e3)
    loss = masked_loss(denoiser, x, sigma, noise, mask, mask=mask, **caption)
    assert torch.equal(loss, masked_loss(denoiser, other, sigma, noise_other, mask, mask=mask, **caption))
    full = denoising_loss(denoiser, x, sigma, noise, **caption)
    torch.testing.assert_close(masked_loss(denoiser, x, sigma, noise, mask | True, **caption), full)
    by_hand = (denoiser(x + sigma[:, None, None] * noise, sigma, mask=mask, **caption) - x)[4, :8].square().mean()
    torch.testing.assert_close(loss[4], by_hand)


@each
def test_captions_matter_and_their_padding_does_not(way):
    net, (x, c_noise, caption) = build(way), batch()
    y, nothing = net(x, c_noise, **caption), net(x, c_noise)
    assert (y - nothing).abs().amax((1, 2)).min() > 1e-3
    shuffled = {name: value.roll(1, 0) for name, value in caption.items()}
    assert (net(x, c_noise, **shuffled) - y).abs().amax((1, 2)).min() > 1e-3
    padding = caption["context"].masked_fill(~caption["context_mask"][:, :, None], torch.nan)
    torch.testing.assert_close(net(x, c_noise, context=padding, context_mask=caption["context_mask"]), y)
    none = caption | {"context_mask": torch.zeros(9, 4, dtype=torch.bool)}
    torch.testing.assert_close(net(x, c_noise, **none), nothing, atol=1e-5, rtol=1e-4)
    unmasked = net(x, c_noise, context=caption["context"])
    everything = net(x, c_noise, context=caption["context"], context_mask=torch.ones(9, 4, dtype=torch.bool))
    torch.testing.assert_close(unmasked, everything, atol=1e-5, rtol=1e-4)


@each
def test_text_reaches_the_network_and_every_parameter_learns(way):
    words = Words.fit(["the camera pushes in, then trucks left"])
    net = Texted(build(way), TextEncoder(words.size, width=6, depth=1, heads=2))
    x, c_noise, _ = batch(2)
    text = tokenise(["the camera pushes in", ""], words)
    y = net(x, c_noise, text=text)
    torch.testing.assert_close(y[1], net(x, c_noise)[1], atol=1e-5, rtol=1e-4)  # "" is unconditional
    y.square().sum().backward()
    used = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    unused = {name for name, _ in net.named_parameters()} - used
    assert unused <= {"net.context.null"} and (way == "adaln") == bool(unused)


def test_frames_are_told_apart():
    """Without places, frames with the same content would get the same answer."""
    net, c_noise = build("adaln"), torch.zeros(1)
    patches = net(torch.ones(1, 40, 9), c_noise).view(8, -1)
    assert torch.cdist(patches, patches)[~torch.eye(8, dtype=torch.bool)].min() > 1e-2


def test_the_paper_s_size():
    """8 layers x 512 x 16 heads on 300 x 9 are the defaults."""
    net = Director(context_dim=64)
    assert len(net.blocks) == 8 and net.stem.out_features == 512 and net.blocks[0].heads == 16 and net.patch == 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Director(width=30, heads=4), "multiple of 4 and of heads=4"),
        (lambda: build("adaln")(torch.zeros(1, 11, 9), torch.zeros(1)), "patches of 5 do not cover 11 frames"),
        (
            lambda: Director(width=16, heads=2)(torch.zeros(1, 5, 9), torch.zeros(1), context=torch.zeros(1, 2, 6)),
            "takes no context",
        ),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
