"""TRL's own losses on log-probabilities, without a trainer, beside ours: `python trl_losses.py` prints TRL's figures.

Written for trl 1.16.0. The trainers' methods are called unbound, on stubs that hold what they read.
"""

import math
from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from gen_transformer import alignment as al

BETA, LENGTHS = 0.3, torch.tensor([7, 4, 1, 5, 6, 2])
Loss = tuple[float, Tensor]  # mean loss, its gradient in the log-probabilities of each token


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of policy and reference, and the mask: three chosen completions, then the three rejected."""
    n = torch.arange(6 * 7, dtype=torch.float64).reshape(6, 7)
    mask = torch.arange(7) < LENGTHS[:, None]
    return -(1.5 + torch.sin(3 * n)) * mask, -(1.4 + torch.cos(2 * n)) * mask, mask


def ours() -> dict[str, Loss]:
    """Each loss by this package."""
    lp, ref, mask = inputs()
    lp.requires_grad_()
    total = (lp * mask).sum(1)  # of each completion
    (c, r), (rc, rr), (nc, nr) = total.chunk(2), ref.sum(1).chunk(2), LENGTHS.chunk(2)
    h, a, b = al.margin(c, r, rc, rr), c - rc, r - rr
    per_token = al.margin(c, r, rc, rr, lengths=(nc + 0.0, nr + 0.0))
    forward, js = (al.margin(c, r, rc, rr, divergence=name) for name in ("forward_kl", "js"))
    desirable = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    losses = {
        "sigmoid": al.gpo(h, BETA),
        "hinge": al.gpo(h, BETA, "hinge"),
        "ipo": al.ipo(per_token, BETA),
        "robust": al.robust(h, BETA, 0.1),
        "sppo_hard": al.sppo(a, 1.0, BETA) + al.sppo(b, 0.0, BETA),
        "sigmoid_norm": al.gpo(per_token, BETA),
        "nca_pair": al.gpo(a, BETA) + al.gpo(a, BETA, p=0.0) / 2 + al.gpo(b, BETA, p=0.0) / 2,
        "bco_pair": al.gpo(a, BETA) + al.gpo(b, BETA, p=0.0),
        "apo_zero": al.kto(a, 1.0, 0.0, BETA) + al.kto(b, 0.0, 0.0, BETA),
        "forward_kl": al.gpo(forward, BETA),
        "js_divergence": al.gpo(js, BETA),
        "kto": al.kto(total - ref.sum(1), desirable, 0.25, BETA),
        "simpo": al.simpo(c / nc, r / nr, BETA, 0.5),
        "orpo": al.orpo(c / nc, r / nr, BETA),
        "reward": al.bradley_terry(c, r, margin=0.4, centring=0.01),
    }
    return {name: _with_gradient(loss.mean(), lp) for name, loss in losses.items()}


def theirs() -> dict[str, Loss]:
    """Each loss by TRL."""
    import trl.trainer.dpo_trainer as dpo
    import trl.trainer.kto_trainer as kto
    from trl import RewardTrainer
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    for module in (dpo, kto):
        module.is_peft_model = lambda model: False
        module.disable_gradient_checkpointing = lambda *args: nullcontext()
    lp, ref, mask = inputs()
    lp.requires_grad_()
    mask = torch.cat([mask.new_zeros(6, 1), mask], 1).long()  # a prompt of one token
    batch = {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}
    losses = {}
    for name in ("sigmoid", "hinge", "ipo", "robust", "sppo_hard", "sigmoid_norm", "nca_pair", "bco_pair", "apo_zero"):
        trainer = _trainer(ref, loss_types=[name], label_smoothing=0.1 if name == "robust" else 0.0)
        losses[name] = dpo.DPOTrainer._compute_loss(trainer, _Model(lp), batch, False)
    for name in ("forward_kl", "js_divergence"):
        losses[name] = dpo.DPOTrainer._compute_loss(_trainer(ref, f_divergence_type=name), _Model(lp), batch, False)
    labelled = batch | {"label": torch.tensor([1, 1, 1, 0, 0, 0])}
    shift = iter([torch.full((6,), 0.25, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)])
    trainer = _trainer(ref, loss_type="kto", calculate_KL=True, desirable_weight=1.0, undesirable_weight=1.0)
    trainer._compute_kl_logps = lambda model, batch: next(shift)
    losses["kto"] = kto.KTOTrainer._compute_loss(trainer, _Model(lp), labelled, False)
    c, r = (lp * mask[:, 1:]).sum(1).chunk(2)
    nc, nr = LENGTHS.chunk(2)
    trainer = _trainer(ref, loss_type="simpo", simpo_gamma=0.5, alpha=0.0)
    losses["simpo"] = CPOTrainer.cpo_loss(trainer, c / nc, r / nr)[0].mean()
    losses["orpo"] = -ORPOTrainer.odds_ratio_loss(trainer, c / nc, r / nr)[0].mean()
    rewards = lambda **kwargs: SimpleNamespace(logits=torch.cat([c, r])[:, None])
    pair = {"attention_mask": torch.ones(6, 1), "margin": torch.full((3,), 0.4, dtype=torch.float64)}
    trainer.args.center_rewards_coefficient = 0.01
    losses["reward"] = RewardTrainer.compute_loss(trainer, rewards, pair)
    return {name: _with_gradient(loss, lp) for name, loss in losses.items()}


def checksum(gradient: Tensor) -> float:
    """One number in which each entry of the gradient counts."""
    weight = torch.cos(torch.arange(gradient.numel(), dtype=torch.float64))
    return (gradient.double().flatten() @ weight).item()


class _Model(nn.Module):
    """What TRL's fused head gives, for fixed log-probabilities."""

    def __init__(self, lp: Tensor):
        super().__init__()
        self.lp = lp

    def forward(self, input_ids, labels=None, **kwargs):
        zero = torch.zeros_like(self.lp)
        return SimpleNamespace(
            log_probs=self.lp * (labels[:, 1:] != -100),
            entropy=zero,
            mean_logits=zero,
            is_top1=zero.bool(),
            log_sum_sq_probs=zero,
        )


def _trainer(ref: Tensor, **options) -> SimpleNamespace:
    same = lambda x, *args, **kwargs: x
    accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        gather=same,
        gather_for_metrics=same,
        reduce=same,
        num_processes=1,
        sync_gradients=True,
    )
    defaults = {
        "model": SimpleNamespace(training=True),
        "accelerator": accelerator,
        "aux_loss_enabled": False,
        "ld_alpha": None,
        "precompute_ref_logps": False,
        "ref_model": _Model(ref),
        "args": SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=0.05),
        "f_divergence_type": "reverse_kl",
        "loss_types": ["sigmoid"],
        "loss_weights": [1.0],
        "beta": BETA,
        "label_smoothing": 0.0,
        "use_weighting": False,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return SimpleNamespace(**defaults | options)


def _with_gradient(loss: Tensor, lp: Tensor) -> Loss:
    return loss.item(), torch.autograd.grad(loss, lp, retain_graph=True)[0]


if __name__ == "__main__":
    mine = ours()
    for name, (loss, gradient) in theirs().items():
        gap = max(abs(loss - mine[name][0]), (gradient - mine[name][1]).abs().max().item())
        assert math.isfinite(loss)
        print(f'    "{name}": ({loss:.12f}, {checksum(gradient):.12f}),  # ours differs by {gap:.1e}')
