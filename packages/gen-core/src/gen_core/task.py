"""A task: networks, their losses, and what one step of training is.

    class Regression(Task):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(8, 1)

        def optimizers(self):
            return {"net": torch.optim.AdamW(decay_groups(self.net, 0.01), lr=1e-3)}

        def loss(self, x, y):
            return (self.net(x) - y).square().mean()

        def step(self, batch, t):
            return {"loss": t.minimize("net", self.loss, *batch)}

A GAN calls `minimize` twice, an RL task rolls out and calls it several times, EM calls `t.reduce` instead,
a PINN returns `torch.optim.LBFGS` from `optimizers`: the trainer has one code path for all of them.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from gen_core.step import Step

Metrics = Mapping[str, Tensor | tuple[Tensor, Tensor]]


class Task(nn.Module):
    """Networks and losses; everything in its `state_dict` is checkpointed."""

    def optimizers(self) -> dict[str, Optimizer]:
        """Named optimisers, made once the networks are on their device; none by default."""
        return {}

    def step(self, batch: Any, t: Step) -> dict[str, Any]:
        """One step of training. `batch` is this process's rows; `t.minimize` makes the updates.

        Draw noise by `t.randn_like(x)`, `t.randn(n)`, `t.rand(n)` and pass it to the loss as an argument: then it
        belongs to its sample, whatever the process count and the micro-batch.

        Returns:
            scalars by name, left on the device; they are averaged over processes when they are logged.
        """
        raise NotImplementedError

    def evaluate(self, batch: Any) -> Metrics:
        """Per-sample values by name, each of shape `(b,)`; `Trainer.evaluate` averages them over samples.

        A pair (values, weights) of that shape is averaged by its weights: a loss per token by the tokens of each row.
        """
        raise NotImplementedError(f"{type(self).__name__} has no evaluate(batch) -> {{name: values of shape (b,)}}")

    def forward(self, loss: Callable[..., Any], *args: Any) -> Any:
        """Run a loss inside the one wrapper that autocast, DDP and FSDP need; not overridden."""
        return loss(*args)

    def train(self, mode: bool = True) -> "Task":
        """Set training mode as in PyTorch, but a module whose parameters are all frozen stays in evaluation mode.

        So `task.backbone.requires_grad_(False)` also freezes running statistics and dropout of the backbone.
        """
        super().train(mode)
        for module in self.children() if mode else ():
            _rest(module)
        return self


def unpack(batch: Any, conditions: Collection[str] = ()) -> tuple[Tensor, ...]:
    """`(x, *conditions)` of a batch: as many as have names; a batch of one tensor is x. Other parts are ignored.

    Raises:
        ValueError: when the batch has fewer.
    """
    x, *rest = (batch,) if isinstance(batch, Tensor) else tuple(batch)
    if len(rest) < len(conditions):
        raise ValueError(
            f"a batch of {len(rest) + 1} tensors lacks conditions: the task takes {['x', *conditions]}; "
            "give the data these parts, in this order"
        )
    return x, *rest[: len(conditions)]


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, no gradient reaches these parameters."""
    trainable = [p for p in parameters if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in evaluation mode; after, every part of it in the mode it was in."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def _rest(module: nn.Module) -> None:
    frozen = [not p.requires_grad for p in module.parameters()]
    if frozen and all(frozen):
        module.eval()
    elif any(frozen):
        for child in module.children():
            _rest(child)


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups with `weight_decay` for matrices and kernels, none for biases, gains and other vectors."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
