"""A training step of gen-latent's tasks under gen-core's Trainer beside the same work written by hand, and in pythae.

    uv run python tests/benchmarks/latent_speed.py [row ...]
    pip install --no-deps --target DIR pythae==0.1.2      # a peer of the VAE's rows, where PYTHONPATH has DIR

The contestants of a row take turns, a block of steps of each at a time, on the CPU with one thread. Times are the
process's own CPU seconds, which a busy machine does not stretch as it does the clock's; a ratio is the median over
rounds of ours / the other's. A row is a function that returns blocks of steps by name, ours first. The contestants of
a VAE's row begin with the same weights, and their first losses are checked to be equal. "The task, bare" has the same
losses and optimisers as ours, so ours / it is what the Trainer adds; with a DataLoader, what its peers' loader costs.

On two busy cores, ours / by hand 1.06 (gan_points), 1.01 (gan_pictures), 1.09 (vae_bits), 1.03 (vae_pictures); ours /
pythae 0.1.2's .82 and .99.
"""

import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gen_core import Arrays, Loader, Step, Trainer
from gen_core.runtime import seed_all
from gen_latent import (
    MLP,
    VAE,
    Bernoulli,
    ConvDecoder,
    ConvEncoder,
    DCDiscriminator,
    DCGenerator,
    GANTask,
    Gaussian,
    VAETask,
)
from gen_latent.distributions import LOG_2PI

Block = Callable[[int], object]  # of so many steps
Blocks = dict[str, Block]


def trained(task, data: Loader) -> Block:
    """A block of steps of the task."""
    trainer = Trainer(task, device="cpu")
    return lambda steps: trainer.fit(data, trainer.step + steps)


# ---------------------------------------------------------------------- GANs


def by_hand(g: nn.Module, d: nn.Module, x: torch.Tensor, batch: int, latents: int) -> Block:
    """The relativistic game with R1 and R2, its equations written into the loop."""
    adam = lambda net: torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.0, 0.99), fused=True)
    opt_g, opt_d = adam(g), adam(d)

    def squared_gradient(logits, at):
        return torch.autograd.grad(logits.sum(), at, create_graph=True)[0].square().flatten(1).sum(1)

    def block(steps: int) -> None:
        for _ in range(steps):
            real = x[torch.randint(len(x), (batch,))].requires_grad_()
            with torch.no_grad():
                fake = g(torch.randn(batch, latents))
            fake.requires_grad_()
            on_real, on_fake = d(real), d(fake)
            penalty = (squared_gradient(on_real, real) + squared_gradient(on_fake, fake)) / 2
            opt_d.zero_grad()
            (F.softplus(on_fake - on_real) + penalty).mean().backward()
            opt_d.step()

            d.requires_grad_(False)
            fake = g(torch.randn(batch, latents))
            with torch.no_grad():
                on_real = d(real)
            opt_g.zero_grad()
            F.softplus(on_real - d(fake)).mean().backward()
            opt_g.step()
            d.requires_grad_(True)

    return block


def game(players: Callable[[], tuple[nn.Module, nn.Module]], x: torch.Tensor, batch: int, latents: int) -> Blocks:
    """The same networks and the same work, ours and by hand."""
    seed_all(0)
    g, d = players()
    ours = trained(GANTask(*players(), latents=latents, r1=1.0, r2=1.0), Loader(Arrays(x), batch))
    alone = lambda batches: task_alone(GANTask(*players(), latents=latents, r1=1.0, r2=1.0), batches(x, batch))
    blocks = {"GANTask": ours, "by hand": by_hand(g, d, x, batch, latents)}
    return blocks | {"the task, bare": alone(drawn), "the task, bare + DataLoader": alone(loaded)}


def gan_pictures() -> Blocks:
    """DCGAN on pictures of 32 x 32."""
    players = lambda: (DCGenerator(3, 32, 64, width=16), DCDiscriminator(3, 32, width=16))
    return game(players, torch.randn(320, 3, 32, 32), 32, 64)


def gan_points() -> Blocks:
    """MLPs on points in the plane, where the loop weighs the most."""
    players = lambda: (MLP(2, 128, 128, 2), nn.Sequential(MLP(2, 128, 128, 1), nn.Flatten(0)))
    return game(players, torch.randn(6400, 2), 128, 2)


# ---------------------------------------------------------------------- VAEs


def bound_by_hand(encoder: nn.Module, decoder: nn.Module, x: Tensor, batch: int, latents: int, binary: bool):
    """Minus the ELBO and the loop, written out; and the loss of given noise."""
    optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=1e-3, weight_decay=0.0, fused=True)

    def loss(x: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = encoder(x).chunk(2, 1)
        y = decoder(mean + log_std.exp() * noise)
        error = F.binary_cross_entropy_with_logits(y, x, reduction="none") if binary else (y - x).square() / 2
        kl = ((2 * log_std).exp() + mean.square() - 1) / 2 - log_std
        return (error.flatten(1).sum(1) + kl.sum(1)).mean()

    def block(steps: int) -> None:
        for _ in range(steps):
            rows = x[torch.randint(len(x), (batch,))]
            optimizer.zero_grad()
            loss(rows, torch.randn(batch, latents)).backward()
            optimizer.step()

    return block, loss


def in_pythae(encoder: nn.Module, decoder: nn.Module, x: Tensor, batch: int, latents: int, binary: bool):
    """The same networks in its VAE and its trainer, without its progress bar; and the loss of seeded noise."""
    from pythae.data.datasets import BaseDataset  # pyright: ignore[reportMissingImports]
    from pythae.models import VAE as Peer  # pyright: ignore[reportMissingImports]
    from pythae.models import VAEConfig  # pyright: ignore[reportMissingImports]
    from pythae.models.base.base_utils import ModelOutput  # pyright: ignore[reportMissingImports]
    from pythae.models.nn import BaseDecoder, BaseEncoder  # pyright: ignore[reportMissingImports]
    from pythae.trainers import BaseTrainer, BaseTrainerConfig  # pyright: ignore[reportMissingImports]
    from pythae.trainers.training_callbacks import CallbackHandler  # pyright: ignore[reportMissingImports]

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = encoder

        def forward(self, x: Tensor) -> Any:
            mean, log_std = self.net(x).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=2 * log_std)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.net(z).sigmoid() if binary else self.net(z))

    kind = "bce" if binary else "mse"
    config = VAEConfig(input_dim=tuple(x.shape[1:]), latent_dim=latents, reconstruction_loss=kind)
    model = Peer(config, encoder=Encoder(), decoder=Decoder())
    options = {
        "learning_rate": 1e-3,
        "optimizer_cls": "AdamW",
        "optimizer_params": {"weight_decay": 0.0, "fused": True},
    }
    with tempfile.TemporaryDirectory() as folder:
        how = BaseTrainerConfig(output_dir=folder, no_cuda=True, per_device_train_batch_size=batch, **options)
        trainer = BaseTrainer(model, BaseDataset(x, torch.zeros(len(x))), training_config=how)
    trainer.set_optimizer()
    trainer.callback_handler = CallbackHandler([], model)
    assert len(trainer.train_loader) * batch == len(x)
    epochs = lambda steps: [trainer.train_step(1) for _ in range(steps * batch // len(x))]
    return epochs, lambda x: model({"data": x}).loss


def bound(networks: Callable[[], tuple[nn.Module, nn.Module]], x: Tensor, batch: int, latents: int, binary: bool):
    """Minus the ELBO of one draw: ours, by hand and in pythae."""
    seed_all(0)
    encoder, decoder = networks()
    likelihood = lambda: Bernoulli if binary else Gaussian(1.0, learn=False)
    again = lambda: (deepcopy(encoder), deepcopy(decoder))
    hand, loss = bound_by_hand(*again(), x, batch, latents, binary)
    others: dict[str, tuple[Block, Callable[[Tensor], Tensor]]] = {}
    noise = torch.randn(batch, latents, generator=torch.Generator().manual_seed(5))
    others["by hand"] = hand, lambda x: loss(x, noise)
    if importlib.util.find_spec("pythae"):
        others["pythae"] = in_pythae(*again(), x, batch, latents, binary)
    task = VAETask(VAE(encoder, decoder, latents=latents, likelihood=likelihood()), lr=1e-3)
    ours = task.loss(x[:batch], noise[:, None]).item()
    constant = 0.0 if binary else x[0].numel() / 2 * LOG_2PI  # of the Gaussian, which the others leave out
    for name, (_, first) in others.items():
        torch.manual_seed(5)
        apart = abs(first(x[:batch]).item() + constant - ours) / abs(ours)
        assert apart < 1e-5, f"the first loss of {name} differs from ours by {apart:.1e}"
    blocks = {"VAETask": trained(task, Loader(Arrays(x), batch))} | {name: block for name, (block, _) in others.items()}
    fresh = lambda: VAETask(VAE(*again(), latents=latents, likelihood=likelihood()), lr=1e-3)
    alone = lambda batches: task_alone(fresh(), batches(x, batch))
    return blocks | {"the task, bare": alone(drawn), "the task, bare + DataLoader": alone(loaded)}


def vae_bits() -> Blocks:
    """MLPs of 784 - 400 - 2 x 20 and back, Bernoulli."""
    networks = lambda: (MLP(784, 400, 40), MLP(20, 400, 784))
    return bound(networks, (torch.rand(1000, 784) < 0.5).float(), 100, 20, binary=True)


def vae_pictures() -> Blocks:
    """Convolutions on pictures of 32 x 32, Gaussian of deviation 1."""
    networks = lambda: (ConvEncoder(3, 32, 64, 16), ConvDecoder(3, 32, 32, 16))
    return bound(networks, torch.rand(320, 3, 32, 32), 32, 32, binary=False)


def drawn(x: Tensor, batch: int) -> Iterator[tuple[Tensor, ...]]:
    """Batches as the loops by hand take them."""
    while True:
        yield (x[torch.randint(len(x), (batch,))],)


def loaded(x: Tensor, batch: int) -> Iterator[tuple[Tensor, ...]]:
    """Batches of PyTorch's DataLoader."""
    loader = DataLoader(TensorDataset(x), batch, shuffle=True, drop_last=True)
    while True:
        yield from loader


def task_alone(task: Any, batches: Iterator[tuple[Tensor, ...]]) -> Block:
    """The task's own step and optimisers in a bare loop: ours / it is what the Trainer adds."""
    optimizers = task.optimizers()

    class Alone(Step):
        step, rank, world, micro_batch, device = 0, 0, 1, None, torch.device("cpu")
        randn, rand, randn_like = staticmethod(torch.randn), staticmethod(torch.rand), staticmethod(torch.randn_like)

        def minimize(self, optimizer: str, loss: Any, *batch: Any, weight: Any = None) -> Tensor:
            optimizers[optimizer].zero_grad()
            value = loss(*batch)
            value.backward()
            optimizers[optimizer].step()
            return value

    def block(steps: int) -> None:
        t = Alone()
        for t.step in range(steps):
            task.step(next(batches), t)

    return block


# row -> (its contestants, steps of a block): many, so that what `fit` does once a call weighs nothing
ROWS: dict[str, tuple[Callable[[], Blocks], int]] = {
    "gan_points": (gan_points, 50),
    "gan_pictures": (gan_pictures, 10),
    "vae_bits": (vae_bits, 50),
    "vae_pictures": (vae_pictures, 10),
}


def cpu_seconds(block: Block, steps: int) -> float:
    start = time.process_time()
    block(steps)
    return time.process_time() - start


def main(*names: str, rounds: int = 12) -> None:
    torch.set_num_threads(1)
    for name in names or ROWS:
        make, steps = ROWS[name]
        blocks = make()
        for block in blocks.values():
            block(steps)
        times: dict[str, list[float]] = {contestant: [] for contestant in blocks}
        for _ in range(rounds):
            for contestant, block in blocks.items():
                times[contestant].append(cpu_seconds(block, steps))
        ours, *others = times
        print(f"{name}: {ours} {statistics.median(times[ours]) / steps * 1e3:.2f} ms a step")
        for other in others:
            ratios = [a / b for a, b in zip(times[ours], times[other], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            each = statistics.median(times[other]) / steps * 1e3
            print(f"  {other} {each:.2f} ms; ours / it {middle:.3f} (quartiles {low:.3f} to {high:.3f})", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
