"""Every network of the package is saved and opened as it was, and a trained run opens with its averaged weights."""

import pytest
import torch
from torch import nn

import gen_diffusion
from gen_core import EMA, Arrays, Loader, Run, Task, Trainer
from gen_core.networks import describe, save
from gen_diffusion import (
    MLP,
    CLaTr,
    Condition,
    DiffusionTask,
    Director,
    DiT,
    GaussianMixture,
    Preconditioned,
    Texted,
    TextEncoder,
    Uncertainty,
    UNet,
    load,
)
from gen_diffusion.networks import NETWORKS

IMAGE, FRAMES, LEVEL, LABEL = torch.randn(2, 1, 4, 4), torch.randn(2, 6, 9), torch.rand(2), torch.tensor([0, 3])
IDS, WORDS = torch.tensor([[1, 2, 0], [3, 1, 2]]), torch.randn(2, 3, 8)

EXAMPLES = {  # a network, and what is computed by it
    "UNet": (
        lambda: UNet(1, 8, [1, 2], blocks=1, attention=[1], num_classes=3, context_dim=8, dense_channels=2),
        lambda net: net(IMAGE, LEVEL, label=LABEL, context=WORDS, dense=torch.ones(2, 2, 4, 4)),
    ),
    "DiT": (
        lambda: DiT(1, width=8, depth=1, heads=2, num_classes=3, context_dim=8),
        lambda net: net(IMAGE, LEVEL, label=LABEL, context=WORDS),
    ),
    "MLP": (lambda: MLP(3, 8, 2, num_classes=3), lambda net: net(torch.ones(2, 3), LEVEL, LABEL)),
    "Director": (
        lambda: Director(width=8, depth=1, heads=2, patch=2, conditioning="adaln", context_dim=8),
        lambda net: net(FRAMES, LEVEL, context=WORDS),
    ),
    "TextEncoder": (lambda: TextEncoder(4, 8, 1, heads=2, length=3), lambda net: net(IDS)[0]),
    "Texted": (
        lambda: Texted(Director(width=8, depth=1, heads=2, context_dim=8), TextEncoder(4, 8, heads=2)),
        lambda net: net(FRAMES, LEVEL, text=IDS),
    ),
    "Preconditioned": (
        lambda: Preconditioned(UNet(1, 8, blocks=1), 0.3, "v"),
        lambda net: net(IMAGE, LEVEL),
    ),
    "CLaTr": (
        lambda: CLaTr(4, width=8, depth=1, heads=2, latent=5, patch=3),
        lambda net: torch.cat([net.text(IDS).mean, net.trajectory(FRAMES).mean]),
    ),
    "Condition": (lambda: Condition(8, 3, 8), lambda net: net(LEVEL, LABEL, WORDS.mean(1))),
    "Uncertainty": (lambda: Uncertainty(6), lambda net: net(torch.ones(2), LEVEL)),
    "GaussianMixture": (
        lambda: GaussianMixture(torch.tensor([1.0, 2.0]), torch.randn(2, 3), torch.eye(3).expand(2, 3, 3)),
        lambda net: net(torch.ones(2, 3), 0.5),
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_network_is_saved_and_opened_as_it_was(name, tmp_path):
    torch.manual_seed(0)
    build, compute = EXAMPLES[name]
    network = build().eval()
    for parameter in network.parameters():  # heads begin at 0, which would hide everything
        nn.init.normal_(parameter, std=0.3)
    save(network, tmp_path)
    again = load(tmp_path, "cpu")
    assert type(again) is type(network) and describe(again) == describe(network)
    assert compute(network).abs().max() > 0.01 and torch.equal(compute(again), compute(network))


def test_every_network_of_the_package_can_be_opened():
    exported = [getattr(gen_diffusion, name) for name in gen_diffusion.__all__]
    networks = {x for x in exported if isinstance(x, type) and issubclass(x, nn.Module) and not issubclass(x, Task)}
    assert networks <= set(NETWORKS), "describable, and in gen_diffusion.networks"
    assert {cls.__name__ for cls in NETWORKS} == EXAMPLES.keys(), "with an example above"


def test_a_run_opens_with_its_averaged_weights(tmp_path):
    denoiser, ema = Preconditioned(MLP(2, 8, num_classes=3), 0.7), EMA("denoiser", 0.5)
    Run.create(tmp_path).write("model.json", {"module": "denoiser", "network": describe(denoiser)})
    data = Loader(Arrays(torch.randn(24, 2), torch.arange(24) % 3), 8)
    task = DiffusionTask(denoiser, conditions={"label": 3}, uncertainty=Uncertainty(8))
    Trainer(task, tmp_path, device="cpu", callbacks=[ema]).fit(data, 5)
    net = load(tmp_path, "cpu")
    assert all(torch.equal(value, ema.average[name]) for name, value in net.state_dict().items())
    x = torch.randn(2, 2)
    with ema.swapped():
        assert torch.equal(net(x, LEVEL, label=LABEL), denoiser(x, LEVEL, label=LABEL))


def test_a_network_of_another_package_is_named(tmp_path):
    Run(tmp_path).write("model.json", {"network": {"$": "VAE", "latents": 2}})
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match=r"the network is \$ 'VAE', which is none of CLaTr, .*UNet"):
        load(tmp_path, "cpu")
