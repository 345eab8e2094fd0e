"""One small task of each kind that a trainer has to serve, for the tests beside this file."""

from itertools import pairwise

import torch
from torch import nn

from gen_core import Arrays, Loader, Task, decay_groups
from gen_core.runtime import generator


def mlp(*sizes: int, dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


class Noise(Task):
    """A noise-loss (diffusion): noise and level are drawn for the global batch and are arguments of the loss."""

    def __init__(self, dropout: float = 0.0, d: int = 8):
        super().__init__()
        self.net = mlp(d + 1, 16, d, dropout=dropout)

    def optimizers(self):
        return {"net": torch.optim.AdamW(decay_groups(self.net, 0.01), lr=1e-2)}

    def loss(self, x, sigma, noise):
        s = sigma[:, None]
        return (self.net(torch.cat([x + s * noise, s], 1)) - x).square().mean()

    def step(self, batch, t):
        (x,) = batch
        return {"loss": t.minimize("net", self.loss, x, t.rand(len(x), dtype=x.dtype), t.randn_like(x))}

    def evaluate(self, batch):
        (x,) = batch
        level = torch.full_like(x[:, :1], 0.5)
        return {"mse": (self.net(torch.cat([x + torch.randn_like(x) * 0.5, level], 1)) - x).square().mean(1)}


class Gan(Task):
    """Two optimisers, two updates a step."""

    def __init__(self):
        super().__init__()
        self.g, self.d = mlp(4, 16, 8), mlp(8, 16, 1)

    def optimizers(self):
        return {
            "d": torch.optim.Adam(self.d.parameters(), lr=1e-2),
            "g": torch.optim.RMSprop(self.g.parameters(), lr=1e-3),
        }

    def d_loss(self, x, z):
        return (nn.functional.softplus(-self.d(x)) + nn.functional.softplus(self.d(self.g(z)))).mean()

    def g_loss(self, z):
        return nn.functional.softplus(-self.d(self.g(z))).mean()

    def step(self, batch, t):
        (x,) = batch
        z, z2 = t.randn(len(x), 4, dtype=x.dtype), t.randn(len(x), 4, dtype=x.dtype)
        return {"d": t.minimize("d", self.d_loss, x, z), "g": t.minimize("g", self.g_loss, z2)}


class Pinn(Task):
    """u'' = -sin x with u(0) = u(pi) = 0 by L-BFGS: second derivatives and several closure calls an update."""

    def __init__(self):
        super().__init__()
        self.net = mlp(1, 8, 1)

    def optimizers(self):
        return {"net": torch.optim.LBFGS(self.net.parameters(), max_iter=3, line_search_fn="strong_wolfe")}

    def loss(self, x):
        x = x.requires_grad_()
        u = self.net(x) * torch.sin(x)
        (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True)
        return (ddu + torch.sin(x)).square().mean()

    def step(self, batch, t):
        (x,) = batch
        return {"loss": t.minimize("net", self.loss, x[:, :1])}


class Em(Task):
    """A mixture of two Gaussians by expectation-maximisation: no optimiser, no gradient, one reduction."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([-1.0, 1.0]))
        self.register_buffer("weight", torch.tensor([0.5, 0.5]))

    def step(self, batch, t):
        x = batch[0][:, :1]
        log = self.weight.log() - (x - self.mean).square() / 2
        share = log.softmax(1)
        stats = t.reduce({"n": share.sum(0), "x": (share * x).sum(0), "ll": log.logsumexp(1).sum()}, "sum")
        self.mean.copy_(stats["x"] / stats["n"])
        self.weight.copy_(stats["n"] / stats["n"].sum())
        return {"ll": stats["ll"] / stats["n"].sum()}


class Rl(Task):
    """Policy gradient on a continuous bandit: rolls out its own data, then makes several updates a step."""

    def __init__(self, n: int = 12):
        super().__init__()
        self.n = n
        self.pi, self.value = mlp(2, 8, 1), mlp(2, 8, 1)

    def optimizers(self):
        return {
            "pi": torch.optim.Adam(self.pi.parameters(), lr=1e-2),
            "value": torch.optim.Adam(self.value.parameters(), lr=1e-2),
        }

    def pi_loss(self, s, a, old, advantage):
        ratio = (-(a - self.pi(s)).square() / 2 - old).exp()
        return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()

    def value_loss(self, s, reward):
        return (self.value(s) - reward).square().mean()

    def step(self, batch, t):
        assert batch is None
        s = t.randn(self.n // t.world, 2, dtype=next(self.parameters()).dtype)
        with torch.no_grad():
            mean = self.pi(s)
            a = mean + t.randn_like(mean)
            reward = -(a - s.sum(1, keepdim=True)).square()
            old, advantage = -(a - mean).square() / 2, reward - self.value(s)
        for _ in range(3):
            loss = t.minimize("pi", self.pi_loss, s, a, old, advantage)
        return {"loss": loss, "value": t.minimize("value", self.value_loss, s, reward), "reward": reward.mean()}


def data(n: int = 64, batch: int = 12, d: int = 8) -> Loader:
    return Loader(Arrays(torch.randn(n, d, generator=generator("data"), dtype=torch.float64)), batch)


def noise():
    return Noise(), data()


def noise_dropout():
    return Noise(dropout=0.2), data()


def gan():
    return Gan(), data()


def pinn():
    return Pinn(), data()


def em():
    return Em(), data()


def rl():
    return Rl(), None


KINDS = {"noise": noise, "gan": gan, "pinn": pinn, "em": em, "rl": rl}
OPTIONS = {"noise": {"clip": 1.0, "schedule": lambda step: 1 / (1 + step)}, "gan": {"clip": 0.5}}
STEPS = {"pinn": 3}  # a line search amplifies rounding: 1e-8 after 3 outer steps

__all__ = ["KINDS", "OPTIONS", "STEPS", "data", "noise_dropout"]
