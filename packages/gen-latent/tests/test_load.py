"""Every network of the package is saved and opened as it was, and trained runs open with their averaged weights."""

from functools import partial

import pytest
import torch
from torch import nn

import gen_latent
from gen_core import EMA, Arrays, Loader, Run, Task, Trainer
from gen_core.checkpoint import save_tensors
from gen_core.networks import describe, rebuild, save
from gen_latent import (
    FSQ,
    MLP,
    VAE,
    Apply,
    Augment,
    AutoEncoder,
    AutoEncoderTask,
    Bernoulli,
    Categorical,
    Concat,
    ConvDecoder,
    ConvEncoder,
    DCDiscriminator,
    DCGenerator,
    Flow,
    GANTask,
    Gaussian,
    Graph,
    HierarchicalVAE,
    ItakuraSaito,
    KLAutoEncoder,
    Level,
    LogisticMixture,
    Mixture,
    MLPDiscriminator,
    PatchDiscriminator,
    QuantizedAutoEncoder,
    Residual,
    ResidualDiscriminator,
    ResidualGenerator,
    Standard,
    VAETask,
    Vamp,
    VectorQuantizer,
    diag_gaussian,
    load,
    relativistic,
)
from gen_latent.networks import NETWORKS

X, Z, LABEL = torch.rand(3, 1, 8, 8), torch.rand(3, 2), torch.tensor([0, 1, 1])
VECTORS = torch.rand(3, 4, 2)
MAPS = {"width": 8, "spatial": 1}


def vae(prior=None, likelihood=Bernoulli, numbers: int = 1) -> VAE:
    encoder = MLP((1, 8, 8), 16, 4, dropout=0.1)
    prior = Vamp(encoder, torch.rand(5, 1, 8, 8)) if prior is Vamp else prior
    return VAE(encoder, MLP(2, 16, (numbers, 8, 8)), latents=2, prior=prior, likelihood=likelihood)


def bound(model) -> torch.Tensor:
    noise = torch.ones(2, len(X), model.latents)
    return model.log_weights((X > 0.5).float(), noise=noise, k=2)


def levels() -> list[Level]:
    return [Level(2, MLP(64, 8), MLP(8 + 3, 4), MLP(3, 4)), Level(3, MLP(8, 5), MLP(5, 6))]


EXAMPLES = {  # a network, and what is computed by it
    "VAE": (vae, bound),
    "VAE, learned deviation": (lambda: vae(likelihood=Gaussian(0.3)), bound),
    "VAE, logistic mixture": (
        lambda: vae(likelihood=partial(LogisticMixture, levels=3, components=2), numbers=6),
        bound,
    ),
    "VAE, categorical": (lambda: vae(likelihood=partial(Categorical, levels=2, low=0.0), numbers=2), bound),
    "VAE, Itakura-Saito": (lambda: vae(likelihood=ItakuraSaito), bound),
    "VAE, mixture prior": (lambda: vae(Mixture(2, 3)), bound),
    "VAE, flow prior": (lambda: vae(Flow(2, 2, width=8)), bound),
    "VAE, VampPrior": (lambda: vae(Vamp), bound),
    "HierarchicalVAE": (lambda: HierarchicalVAE(levels(), MLP(2, 8, (1, 8, 8))), bound),
    "AutoEncoder": (
        lambda: AutoEncoder(ConvEncoder(1, 8, 2, 8), ConvDecoder(1, 8, 2, 8), 2),
        lambda net: net.encode(X),
    ),
    "KLAutoEncoder": (
        lambda: KLAutoEncoder(ConvEncoder(1, 8, 4, **MAPS), ConvDecoder(1, 8, 2, **MAPS), 2),
        lambda net: net.decode(net.encode(X)),
    ),
    "QuantizedAutoEncoder": (
        lambda: QuantizedAutoEncoder(
            ConvEncoder(1, 8, 2, **MAPS), ConvDecoder(1, 8, 2, **MAPS), VectorQuantizer(6, 2, revive_below=0.01), 2
        ),
        lambda net: net(X),
    ),
    "VectorQuantizer": (lambda: VectorQuantizer(6, 2, decay=None, gradient="rotation"), lambda net: net(VECTORS).z),
    "FSQ": (lambda: FSQ([3, 4]), lambda net: net(VECTORS).z),
    "Residual": (
        lambda: Residual([VectorQuantizer(6, 2), VectorQuantizer(3, 2)], gradient="rotation"),
        lambda net: net(VECTORS).z,
    ),
    "MLP": (
        lambda: MLP(2, 8, (1, 8, 8), activation=partial(nn.LeakyReLU, 0.2), last=nn.Tanh(), classes=2),
        lambda net: net(Z, LABEL),
    ),
    "ConvEncoder": (lambda: ConvEncoder(1, 8, 3, 8, classes=2), lambda net: net(X, LABEL)),
    "ConvDecoder": (lambda: ConvDecoder(1, 8, 2, 8, classes=2), lambda net: net(Z, LABEL)),
    "DCGenerator": (lambda: DCGenerator(1, 8, 2, 8, classes=2), lambda net: net(Z, LABEL)),
    "ResidualGenerator": (lambda: ResidualGenerator(1, 8, 2, 8, 1), lambda net: net(Z)),
    "DCDiscriminator": (lambda: DCDiscriminator(1, 8, 8, classes=2), lambda net: net(X, LABEL)),
    "ResidualDiscriminator": (lambda: ResidualDiscriminator(1, 8, 8, blocks=1), lambda net: net(X)),
    "MLPDiscriminator": (lambda: MLPDiscriminator((1, 8, 8), 8, 8, classes=2), lambda net: net(X, LABEL)),
    "PatchDiscriminator": (lambda: PatchDiscriminator(1, 8), lambda net: net(X)),
    "Gaussian": (lambda: Gaussian(0.3, learn=False, floor=0.01), lambda net: net(Z).std),
    "Standard": (lambda: Standard(2), lambda net: net.log_prob(Z)),
    "Mixture": (lambda: Mixture(2, 3), lambda net: net.log_prob(Z)),
    "Flow": (lambda: Flow(2, 2, width=8), lambda net: net.log_prob(Z)),
    "Vamp": (lambda: vae(Vamp).prior, lambda net: net.logits),  # its encoder belongs to the VAE
    "Level": (lambda: levels()[0], lambda net: net.given(torch.ones(2, 3)).mean),
    "Graph": (
        lambda: Graph({"h": (nn.Linear(2, 3), "x"), "both": (Concat(), "h", "x"), "y": (nn.GELU(), "both")}, ["y"]),
        lambda net: net(x=Z)["y"],
    ),
    "Concat": (lambda: Concat(0), lambda net: net(Z, Z)),
    "Apply": (lambda: Apply(diag_gaussian), lambda net: net.function(Z).std),
    "Augment": (lambda: Augment(["flip", "shift"], 0.5), lambda net: net(X, torch.full((3, net.numbers), 0.3))),
}


def stirred(network: nn.Module) -> nn.Module:
    """With other values of everything that it saves, since some begins at 0."""
    for value in network.state_dict().values():
        value += 0.1 * torch.randn_like(value)
    return network.eval()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_network_is_saved_and_opened_as_it_was(name, tmp_path):
    torch.manual_seed(0)
    build, compute = EXAMPLES[name]
    network = stirred(build())
    save(network, tmp_path)
    again = load(tmp_path, "cpu")
    assert type(again) is type(network) and describe(again) == describe(network)
    assert compute(network).abs().max() > 0.01 and torch.equal(compute(again), compute(network))


def test_every_network_of_the_package_can_be_opened():
    exported = [getattr(gen_latent, name) for name in gen_latent.__all__]
    networks = {x for x in exported if isinstance(x, type) and issubclass(x, nn.Module) and not issubclass(x, Task)}
    assert networks <= set(NETWORKS), "describable, and in gen_latent.networks"
    missing = {thing.__name__ for thing in NETWORKS} - EXAMPLES.keys()
    assert missing == {"diag_gaussian", "Bernoulli", "ItakuraSaito", "Categorical", "LogisticMixture"}


def test_a_vamp_prior_looks_through_the_encoder_of_its_vae_again():
    again = rebuild(describe(vae(Vamp)), NETWORKS)
    assert isinstance(again, VAE) and again.prior._encoder[0] is again.encoder  # pyright: ignore


def test_a_prior_that_was_fitted_after_training_is_saved_too(tmp_path):
    model = vae()
    model.prior = Mixture.fitted(torch.randn(50, 2), 3)
    save(model, tmp_path)
    again = load(tmp_path, "cpu")
    assert torch.equal(again.prior.log_prob(Z), model.prior.log_prob(Z))


def train(run, task: Task, module: str, **facts) -> EMA:
    """A few steps on pictures, averaged."""
    ema = EMA(module, 0.5)
    Run.create(run).write("model.json", {"module": module, "network": describe(task.get_submodule(module)), **facts})
    Trainer(task, run, device="cpu", callbacks=[ema]).fit(Loader(Arrays(torch.rand(24, 1, 8, 8)), 8), 3)
    return ema


@pytest.mark.parametrize(
    ("module", "task"),
    [
        ("model", lambda: VAETask(vae(Vamp, Gaussian(0.3)))),
        ("model", lambda: AutoEncoderTask(EXAMPLES["QuantizedAutoEncoder"][0]())),
        ("generator", lambda: GANTask(DCGenerator(1, 8, 2, 8), DCDiscriminator(1, 8, 8), relativistic, latents=2)),
    ],
)
def test_a_run_opens_with_its_averaged_weights(module, task, tmp_path):
    ema = train(tmp_path, task(), module)
    again = load(tmp_path, "cpu")
    assert again.state_dict().keys() == ema.average.keys()
    assert all(torch.equal(value, ema.average[name]) for name, value in again.state_dict().items())


def test_the_scale_that_was_measured_after_training_comes_back(tmp_path):
    model = AutoEncoder(MLP((1, 8, 8), 8, 2), MLP(2, 8, (1, 8, 8)), 2)
    ema = train(tmp_path, AutoEncoderTask(model), "model", fitted="scale.safetensors")
    with ema.swapped():
        model.fit_scale(X)
        save_tensors(tmp_path / "scale.safetensors", {"mean": model.mean, "std": model.std})
        codes = model.encode(X)
        assert torch.equal(load(tmp_path, "cpu").encode(X), codes)
        assert codes.mean(0).abs().max() < 1e-5
