"""Moving averages of weights, as a callback: constant, warmed up, power-function and, afterwards, any of those.

    ema = EMA("net", power(0.10))                       # of task.net
    trainer = Trainer(task, callbacks=[ema, ...])
    with ema.swapped():                                 # task.net holds the average inside
        samples = ...

[Karras24] Analyzing and improving the training dynamics of diffusion models, arXiv:2312.02696.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gen_core.callbacks import Callback
from gen_core.checkpoint import shard_like, state_of, uncompiled
from gen_core.hooks import Training
from gen_core.task import evaluating

Decay = Callable[[int], float]
_UPDATES = ".updates"  # in a checkpoint; no tensor of a module has a name that begins with a dot


def constant(decay: float) -> Decay:
    """The same decay at every update."""
    return lambda n: decay


def warmup(decay: float, inv_gamma: float = 1.0, exponent: float = 2 / 3) -> Decay:
    """1 - (1 + (n - 1) / inv_gamma)^-exponent, at most `decay`; exponent 1 is the plain average of what was seen.

    >>> [warmup(1.0, exponent=1.0)(n) for n in (1, 2, 4)]
    [0.0, 0.5, 0.75]
    """
    return lambda n: min(decay, 1 - (1 + (n - 1) / inv_gamma) ** -exponent)


def power(sigma_rel: float) -> Decay:
    """The power-function average (1 - 1/n)^(gamma + 1), whose profile is t^gamma ([Karras24] eq. 1-2).

    Args:
        sigma_rel: width of the profile relative to the length of training, in (0, 0.28).
    """
    exponent = gamma(sigma_rel) + 1
    return lambda n: (1 - 1 / n) ** exponent


def gamma(sigma_rel: float) -> float:
    """The exponent of a profile t^gamma on [0, 1] with standard deviation `sigma_rel` ([Karras24] eq. 126).

    sigma^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), solved for its largest root.

    >>> round(gamma(0.05), 4), round(gamma(0.10), 4)
    (16.9722, 6.9372)
    """
    if not 0 < sigma_rel < 12**-0.5:
        raise ValueError(f"sigma_rel must lie between 0 and 0.2887 (a flat profile), got {sigma_rel}")
    s = sigma_rel**-2
    return float(np.roots([1, 7, 16 - s, 12 - s]).real.max())


def posthoc(snapshots: Sequence[tuple[int, float]], step: int, sigma_rel: float) -> np.ndarray:
    """Weights with which stored power-function averages add up to one that was not kept ([Karras24] section 3.2).

    Least squares between profiles: with p_i(t) = (g_i + 1) t^g_i / t_i^(g_i + 1) on [0, t_i], solve A w = b,
    A_ij = integral of p_i p_j, b_i = integral of p_i and the target's profile.

    Args:
        snapshots: (step, sigma_rel) of each stored average.
        step, sigma_rel: of the wanted one.

    Returns:
        one weight per snapshot; multiply and add the stored tensors.
    """
    t = np.array([s for s, _ in snapshots], dtype=np.float64)
    g = np.array([gamma(s) for _, s in snapshots])

    def inner(t1, g1, t2, g2):
        """(g1 + 1)(g2 + 1) / (g1 + g2 + 1) * min^(g1 + g2 + 1) / (t1^(g1 + 1) t2^(g2 + 1)), without overflow."""
        small = np.minimum(t1, t2)
        scale = (small / t1) ** g1 * (small / t2) ** g2 / np.maximum(t1, t2)
        return (g1 + 1) * (g2 + 1) / (g1 + g2 + 1) * scale

    a = inner(t[:, None], g[:, None], t[None], g[None])
    return np.linalg.lstsq(a, inner(t, g, float(step), gamma(sigma_rel)), rcond=None)[0]


class EMA(Callback):
    """Average of a module's parameters in float32 (or wider), updated after every step and checkpointed.

    bf16 parameters are averaged in float32, where a decay of .9999 still moves. Buffers are copied: masks hold
    infinities, and the mean of two unit vectors or of two codebooks is none.

    Args:
        module: a module of the task, or its dotted name; "" is the whole task.
        decay: a number, or a function of the update's number 1, 2, ...: `constant`, `warmup`, `power`.
        name: of its file in a checkpoint, `{name}.safetensors`, whose keys are the module's own.
    """

    order = -20  # before whoever samples from it

    def __init__(self, module: nn.Module | str, decay: float | Decay, name: str = "ema"):
        self.module, self.name = module, name
        self.decay = constant(decay) if isinstance(decay, float | int) else decay
        self.updates = 0
        self.average: dict[str, Tensor] = {}
        self._modules: list[nn.Module] = []
        self._tree: list[int] | None = None
        self._slots: list[dict[str, tuple[dict[str, Any], str]]] = []

    def on_train_begin(self, t: Training) -> None:
        if isinstance(self.module, str):
            self.module = t.task.get_submodule(self.module)
        own = self._own()
        if not self.average:
            weights = self._weights(own)
            self.average = {k: (_wide(v) if k in weights else v).detach().clone() for k, v in own.items()}
        else:
            self.average = {k: shard_like(v, own[k]).to(own[k].device) for k, v in self.average.items()}

    @torch.no_grad()
    def on_step_end(self, t: Training, metrics: dict[str, Any]) -> None:
        self.updates += 1
        weights, buffers = self._live()
        averages = [self.average[name] for name in weights]
        torch._foreach_lerp_(averages, [*map(_wide, weights.values())], 1 - self.decay(self.updates))  # pyright: ignore[reportPrivateImportUsage]
        for name, value in buffers.items():
            self.average[name].copy_(value)

    @contextmanager
    def swapped(self):
        """Inside, the module holds the average and is in evaluation mode; its own weights come back after."""
        own = self._own()
        kept = {k: v.detach().clone() for k, v in own.items()}
        assert isinstance(self.module, nn.Module)
        self._fill(self.average)
        try:
            with evaluating(self.module):
                yield self.module
        finally:
            self._fill(kept)

    def state_dict(self) -> dict[str, Any]:
        return {_UPDATES: self.updates, **self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state.pop(_UPDATES, 0)
        self.average = state

    def _own(self) -> dict[str, Tensor]:
        assert isinstance(self.module, nn.Module), "EMA is used before training began"
        return {k: v for k, v in state_of(self.module).items() if isinstance(v, Tensor)}

    def _weights(self, own: dict[str, Tensor]) -> list[str]:
        """Names of what is averaged: parameters of real or complex numbers, tied ones by each of their names."""
        assert isinstance(self.module, nn.Module)
        names = {uncompiled(name) for name, _ in self.module.named_parameters(remove_duplicate=False)}
        return [k for k, v in own.items() if k in names and (v.is_floating_point() or v.is_complex())]

    def _live(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights to average and buffers to copy, by name, as the module holds them now.

        `state_dict` costs 0.1 ms for a small network; so the places of its tensors are kept while the tree of modules
        stays the same. Only a module that invents entries of its own (by a hook) is asked each time.
        """
        assert isinstance(self.module, nn.Module)
        if self._tree is None or self._tree != _tree(self._modules):
            own = self._own()
            weights = set(self._weights(own))
            self._modules = list(self.module.modules())
            self._tree = _tree(self._modules)
            slots = {name: slot for name, slot in _slots(self.module).items() if name in own}
            self._slots = [{k: v for k, v in slots.items() if (k in weights) == averaged} for averaged in (True, False)]
            if slots.keys() != own.keys():
                self._tree = None
                return {k: own[k] for k in weights}, {k: v for k, v in own.items() if k not in weights}
        weights, buffers = ({name: held[key] for name, (held, key) in slots.items()} for slots in self._slots)
        return weights, buffers

    @torch.no_grad()
    def _fill(self, values: dict[str, Tensor]) -> None:
        for k, v in self._own().items():
            v.copy_(values[k])


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _tree(modules: list[nn.Module]) -> list[int]:
    """Identity of a tree of modules and the names of their tensors."""
    return [number for m in modules for number in (len(m._parameters), len(m._buffers), *map(id, m._modules.values()))]


def _slots(module: nn.Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Places of parameters and buffers by name: a dict and the key in it."""
    return {
        uncompiled(f"{prefix}.{key}" if prefix else key): (held, key)
        for prefix, m in module.named_modules(remove_duplicate=False)
        for held in (m._parameters, m._buffers)
        for key, value in held.items()
        if value is not None
    }
