"""Optimisers of language models: Muon for the matrices of the blocks, AdamW for everything else.

[Jordan24] Muon: an optimizer for hidden layers in neural networks, kellerjordan.github.io/posts/muon.
[Loshchilov19] Decoupled weight decay regularization, arXiv:1711.05101.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # steepest at 0, and within .68 .. 1.13 for nearly all of (0, 1] ([Jordan24])


def orthogonalised(g: Float[Tensor, "n rows cols"], steps: int = 5) -> Float[Tensor, "n rows cols"]:
    """About U V' of every matrix U S V', by x <- a x + b (x x') x + c (x x')^2 x ([Jordan24]).

    In bf16 on a GPU, whose speed it is for; in float32 elsewhere. Singular values end between .68 and 1.2.
    """
    a, b, c = COEFFICIENTS
    x = g.to(torch.bfloat16 if g.is_cuda else torch.float32)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(g.dtype)


class Muon(Optimizer):
    """Steps of fixed spectral norm for matrices, AdamW's for the groups without `muon`.

    A matrix W (m, n) moves by -lr sqrt(max(1, m / n)) U V', where U S V' is its gradient with Nesterov momentum: the
    rate is in units of spectral norm per update. It is for matrices that map hidden states; tables, heads, gains and
    biases belong to AdamW. Matrices of one shape are orthogonalised together.

    Args:
        groups: parameter groups; `{"params": ..., "muon": True}` holds matrices.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float = 0.02,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        defaults = {
            "lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay, "muon": False,
        }  # fmt: skip
        super().__init__(groups, defaults)
        for group in self.param_groups:
            for p in group["params"] if group["muon"] else ():
                if p.ndim != 2:
                    raise ValueError(
                        f"Muon moves matrices, got a parameter of shape {tuple(p.shape)}; give it to AdamW"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            (self._muon if group["muon"] else self._adamw)(group)
        return loss

    def _muon(self, group: dict[str, Any]) -> None:
        shapes: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
        for p in group["params"]:
            if p.grad is not None:
                shapes.setdefault(p.shape, []).append((p, self._looking_ahead(p, group["momentum"])))
        for (rows, cols), same in shapes.items():
            updates = orthogonalised(torch.stack([ahead for _, ahead in same]))
            for (p, _), update in zip(same, updates, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1, rows / cols) ** 0.5)

    def _looking_ahead(self, p: nn.Parameter, beta: float) -> Tensor:
        """Nesterov's momentum: the average of gradients, moved once more towards this one."""
        if not self.state[p]:
            self.state[p]["momentum"] = torch.zeros_like(p)
        average, grad = self.state[p]["momentum"], cast(Tensor, p.grad)
        average.lerp_(grad, 1 - beta)
        return grad.lerp(average, beta)

    def _adamw(self, group: dict[str, Any]) -> None:
        same = [p for p in group["params"] if p.grad is not None]
        for p in same:
            if not self.state[p]:
                step = torch.zeros((), dtype=torch.float32, device=p.device)
                self.state[p] |= {"step": step, "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
        means, squares, steps = ([self.state[p][name] for p in same] for name in ("mean", "square", "step"))
        beta1, beta2 = group["betas"]
        adamw(
            same, [p.grad for p in same], means, squares, [], steps, fused=True, amsgrad=False, beta1=beta1,
            beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip


def groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that learn: matrices of the blocks, tables and heads, vectors; each in exactly one.

    A table that is also the head is one parameter.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    tables |= {id(p) for name, p in model.named_parameters() if name.rpartition(".")[0].endswith("head")}
    learning = [p for p in model.parameters() if p.requires_grad]
    return (
        [p for p in learning if p.ndim == 2 and id(p) not in tables],
        [p for p in learning if id(p) in tables],
        [p for p in learning if p.ndim != 2 and id(p) not in tables],
    )


def optimizer(
    model: nn.Module,
    lr: float = 1e-3,
    *,
    muon: float | None = None,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
) -> Optimizer:
    """AdamW ([Loshchilov19]) on all parameters, or with `muon` on what are no matrices of blocks.

    Args:
        lr: of AdamW.
        muon: rate of Muon for the matrices, about .02; None: AdamW for them too.
        weight_decay: of matrices; tables, gains and biases have none.

    Raises:
        ValueError: for weights of less than float32, where most updates are smaller than half of the last digit.
    """
    if narrow := {str(p.dtype) for p in model.parameters() if p.requires_grad and p.dtype.itemsize < 4}:
        raise ValueError(
            f"weights of {', '.join(sorted(narrow))} lose small updates; train model.float(), with which Trainer's "
            "precision='bf16' still computes in bf16"
        )
    matrices, tables, vectors = groups(model)
    free = [{"params": tables, "weight_decay": 0.0}, {"params": vectors, "weight_decay": 0.0}]
    free = [group for group in free if group["params"]]
    decayed = {"params": matrices, "weight_decay": weight_decay}
    if muon is None:
        return AdamW([decayed, *free], lr=lr, betas=betas, fused=True)
    return Muon([decayed | {"muon": True, "lr": muon}, *free], lr=lr, betas=betas)
