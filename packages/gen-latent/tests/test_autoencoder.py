from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gen_core import seed_all
from gen_core.testing import launch, load
from gen_latent import (
    MLP,
    AutoEncoder,
    AutoEncoderTask,
    ConvDecoder,
    ConvEncoder,
    QuantizedAutoEncoder,
    VectorQuantizer,
    corrupt,
    inpaint,
    layerwise,
)

linear = load(Path(__file__).parent / "linear.py")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def angles(a, b):
    """Principal angles between the spans of the columns of a and b, in radians, largest last."""
    from scipy.linalg import subspace_angles

    return np.sort(subspace_angles(a.detach().numpy(), b.detach().numpy()))


def test_a_linear_auto_encoder_reaches_pcas_error_and_not_below():
    """1.22294 per image at 10 dimensions: the sum of the trailing eigenvalues; and it spans the principal axes."""
    train, _, _, _ = linear.digits()
    _, values, vectors = linear.spectrum(train)
    few = linear.alike(train)
    seed_all(0)
    ae = AutoEncoder(nn.Linear(64, 10), nn.Linear(10, 64), 10).double()
    task = AutoEncoderTask(ae)
    options = {"max_iter": 400, "history_size": 100, "tolerance_change": 1e-12, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS(ae.parameters(), **options)

    def closure():
        optimizer.zero_grad()
        loss = 64 * task.loss(few, few)
        loss.backward()
        return loss

    optimizer.step(closure)
    error = (ae(train) - train).square().sum(1).mean().item()
    assert values[10:].sum().item() == pytest.approx(1.22294, abs=1e-5)
    assert -1e-12 < error - values[10:].sum().item() < 1e-3
    assert angles(ae.decoder.weight, vectors[:, :10])[-1] < 0.1


def test_greedy_linear_layers_span_the_principal_subspace():
    train, _, _, _ = linear.digits()
    _, values, vectors = linear.spectrum(train)
    weight = torch.eye(64, dtype=torch.float64)
    for layer in layerwise(train, [40, 20, 10]):
        weight = layer.weight @ weight
    assert angles(weight.mT, vectors[:, :10])[-1] < 1e-3
    z = nn.Sequential(*layerwise(train, [40, 20, 10]))(train)
    back = z @ torch.linalg.pinv(weight).mT + train.mean(0)
    assert (back - train).square().sum(1).mean().item() == pytest.approx(values[10:].sum().item(), rel=1e-6)


@torch.no_grad()
def test_layers_before_an_activation_answer_in_its_range():
    """Unit deviation in the leading direction, the others in proportion to what they have in the data."""
    train, _, _, _ = linear.digits()
    _, values, _ = linear.spectrum(train)
    first, second = layerwise(train, [20, 10], nn.Tanh)
    proportion = (values[:20] / values[0]).sqrt().numpy()
    assert first(train).std(0, correction=0).numpy() == pytest.approx(proportion, rel=1e-6)
    assert second(first(train).tanh()).std(0, correction=0)[0].item() == pytest.approx(1, rel=1e-6)
    with pytest.raises(ValueError, match="a layer of 65 units cannot be started on data of shape"):
        layerwise(train, [65])


def started(sizes, start):
    """An MLP classifier of digits, its first layers begun as `start` says."""
    net = MLP(64, *sizes, 10, activation=nn.Tanh)
    with torch.no_grad():
        for mine, layer in zip([m for m in net if isinstance(m, nn.Linear)], start, strict=False):
            mine.weight.copy_(layer.weight)
            mine.bias.copy_(layer.bias)
    return net


def accuracy(net, x, y, test, test_y):
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return (net(test).argmax(1) == test_y).float().mean().item()


def test_with_five_labels_a_class_a_deep_net_started_layer_by_layer_beats_one_from_scratch():
    """Six layers of 32, as deep nets were: .78 against .66 when trained to the end."""
    train, test, y, test_y = linear.digits(torch.float32)
    sizes = [32] * 6
    start, scores = layerwise(train, sizes, nn.Tanh), []
    for draw in range(4):
        order = torch.randperm(len(y), generator=generator(draw))
        rows = torch.cat([order[y[order] == c][:5] for c in range(10)])
        seed_all(draw)
        scores.append([accuracy(started(sizes, s), train[rows], y[rows], test, test_y) for s in ([], start)])
    scratch, pretrained = np.mean(scores, 0)
    print(f"scratch {scratch:.3f}, pretrained {pretrained:.3f}")
    assert pretrained > scratch + 0.05


@pytest.mark.parametrize("spatial", [None, 1])
def test_latents_have_unit_deviation_and_decoding_undoes_the_scale(spatial):
    """Whatever batches the scale is measured in; a map has one scale per channel."""
    seed_all(0)
    ae = AutoEncoder(ConvEncoder(1, 8, 6, 8, spatial=spatial), ConvDecoder(1, 8, 6, 8, spatial=spatial), 6).double()
    with torch.no_grad():  # latents far from their scale
        ae.encoder.head.weight.mul_(30)
        ae.encoder.head.bias.add_(5)
    x = torch.randn(50, 1, 8, 8, generator=generator(), dtype=torch.float64)
    ae.fit_scale(x.split(16))
    z = ae.encode(x).movedim(1, 0).flatten(1)
    assert z.mean(1).abs().max() < 1e-6 and (z.std(1, correction=0) - 1).abs().max() < 1e-6
    torch.testing.assert_close(ae.decode(ae.encode(x)), ae(x), rtol=1e-9, atol=1e-9)
    before = ae.mean.clone()
    ae.fit_scale(x)
    torch.testing.assert_close(ae.mean, before)
    assert ae.training


def small():
    """An auto-encoder without weights of its own in this process yet."""
    return AutoEncoder(MLP(64, 16, 3), MLP(3, 16, 64), 3).double()


def encode_elsewhere(path):
    from safetensors.torch import load_file

    ae = small()
    ae.load_state_dict(load_file(path))
    x = linear.digits()[0]
    return ae.encode(x), ae.decode(ae.encode(x))


def test_the_scale_travels_with_the_weights(tmp_path):
    from safetensors.torch import save_file

    seed_all(0)
    ae, x = small(), linear.digits()[0]
    ae.fit_scale(x)
    save_file(ae.state_dict(), tmp_path / "ae.safetensors")
    z, y = launch(1, encode_elsewhere, str(tmp_path / "ae.safetensors"))[0]
    assert z.std(0) == pytest.approx(np.ones(3), abs=1e-6)
    assert y == pytest.approx(ae(x).detach().numpy(), abs=1e-6)


def test_a_quantised_auto_encoder_keeps_its_scale_too():
    seed_all(0)
    coder = VectorQuantizer(8, 4)
    ae = QuantizedAutoEncoder(ConvEncoder(1, 8, 4, 8, spatial=1), ConvDecoder(1, 8, 4, 8, spatial=1), coder, 4).eval()
    x = torch.randn(20, 1, 8, 8, generator=generator())
    y, codes = ae.parts(x)
    assert y.shape == x.shape and codes.index.shape == (20, 16)
    torch.testing.assert_close(ae(x), y)
    ae.fit_scale(x)
    torch.testing.assert_close(ae.decode(ae.encode(x)), y, rtol=1e-4, atol=1e-5)


def test_a_latent_without_scale_is_named():
    ae = AutoEncoder(nn.Linear(4, 2), nn.Linear(2, 4), 2)
    nn.init.zeros_(ae.encoder.weight[1])
    with pytest.raises(ValueError, match=r"latents \[1\] are the same for all data"):
        ae.fit_scale(torch.randn(9, 4))
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        ae.fit_scale(torch.randn(1, 4))
    with pytest.raises(ValueError, match="latents=0"):
        AutoEncoder(nn.Linear(4, 2), nn.Linear(2, 4), 0)


def test_corruption_is_noise_on_what_is_seen():
    x = torch.ones(2000, 5)
    mask = torch.tensor([True, True, False, True, False])
    y = corrupt(x, noise=0.3, mask=mask, fill=-7.0, generator=generator())
    assert (y[:, ~mask] == -7).all()
    assert (y - x)[:, mask].std().item() == pytest.approx(0.3, rel=0.05)
    assert torch.equal(y, corrupt(x, noise=0.3, mask=mask, fill=-7.0, generator=generator()))
    assert torch.equal(corrupt(x), x)
    with pytest.raises(ValueError, match="cannot be negative, got -1"):
        corrupt(x, noise=-1.0)


def test_what_is_seen_comes_back_bit_for_bit_and_nothing_else_reaches_the_model():
    x, mask = torch.randn(6, 4, generator=generator()), torch.tensor([True, False, True, False])
    model = lambda seen: seen.cumsum(1) / 3
    y = inpaint(model, x, mask)
    assert torch.equal(y[:, mask], x[:, mask])
    hidden = torch.where(mask, x, torch.randn(6, 4))
    assert torch.equal(inpaint(model, hidden, mask), y)


@pytest.mark.slow
def test_a_denoising_auto_encoder_approaches_the_posterior_mean_and_not_below():
    """8 Gaussians on a circle of radius 2, noise .7: the mean squared error of E[x | y] is known by its closed form."""
    benchmark = load(Path(__file__).parents[3] / "tests" / "benchmarks" / "autoencoders.py")
    found, bar = benchmark.denoise_mixture(steps=1200)
    print(f"{found:.5f}, by the posterior mean {bar:.5f}")
    assert 0.5595 < found < 1.01 * bar
