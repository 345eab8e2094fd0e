"""Log-probs of four completions, and the losses that trl 1.16.0's own trainers compute from them.

uv run --group peers --with trl==1.16.0 python packages/gen-transformer/tests/alignment_golden.py      # prints GOLDEN
"""

import types
from collections import defaultdict
from pprint import pprint

import torch
from torch import Tensor

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()
ADVANTAGES = torch.tensor([1.0, -1.5, 0.5, -0.25], dtype=torch.float64)
CLIP, HIGH, BETA = (0.2, 0.28), 1.3, 0.04
CASES = [(kind, level) for kind in ("grpo", "bnpo", "dr_grpo", "dapo", "luspo") for level in ("token", "sequence")]
CASES += [("cispo", "token"), ("rloo", "sum")]


GATHER = ("gather", "gather_for_metrics", "reduce")


def numbers(start: int) -> Tensor:
    """As good as random, and the same on every machine: in [-1, 1]."""
    n = torch.arange(start, start + 20, dtype=torch.float64)
    return torch.sin(n**2 * 1.3717 + 0.2 * n).reshape(4, 5)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """logp, old_logp, ref_logp; ratios lie on both sides of the clip for advantages of both signs."""
    logp = -1.5 - numbers(0)
    return logp, logp + 0.5 * numbers(20), logp + 0.6 * numbers(40)


def trl_loss(kind: str, level: str, beta: float) -> tuple[float, float]:
    """The loss and the norm of its gradient."""
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

    NS = types.SimpleNamespace
    same = lambda x, *_, **__: x
    logp, old, ref = inputs()
    logp.requires_grad_()
    trainer = NS(
        model=NS(training=True), aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        accelerator=NS(num_processes=1, sync_gradients=True, device="cpu", **dict.fromkeys(GATHER, same)),
        args=NS(use_bias_correction_kl=False, delta=None, steps_per_generation=1), beta=beta, loss_type=kind,
        importance_sampling_level=level, epsilon_low=CLIP[0], epsilon_high=HIGH if kind == "cispo" else CLIP[1],
        use_vllm=False, current_gradient_accumulation_steps=1, max_completion_length=5, _entropy_bonus_enabled=False,
        use_adaptive_entropy=False, _metrics={"train": defaultdict(list)}, _tp_size=1,
        _get_per_token_logps_and_entropies=lambda *a, **k: (logp, torch.zeros_like(logp), None),
    )  # fmt: skip
    ids = torch.zeros(4, 5, dtype=torch.long)
    batch = {
        "prompt_ids": ids,
        "prompt_mask": torch.ones_like(ids),
        "completion_ids": ids,
        "completion_mask": MASK.long(),
    }
    batch |= {"advantages": ADVANTAGES, "old_per_token_logps": old, "ref_per_token_logps": ref}
    batch |= {"num_items_in_batch": MASK.sum(), "old_logps": (old * MASK).sum(1)}
    loss = (RLOOTrainer if kind == "rloo" else GRPOTrainer)._compute_loss(trainer, None, batch)
    (gradient,) = torch.autograd.grad(loss, logp)
    return loss.item(), gradient.norm().item()


GOLDEN = {
    ("bnpo", "sequence", 0.0): (-0.030105741455738497, 0.16142074383652094),
    ("bnpo", "sequence", 0.04): (-0.02670929325931918, 0.16255650516806153),
    ("bnpo", "token", 0.0): (-0.02182977575111201, 0.20448568958905794),
    ("bnpo", "token", 0.04): (-0.018433327554692677, 0.20634742668768863),
    ("cispo", "token", 0.0): (0.20678012082126723, 0.2337108327433571),
    ("cispo", "token", 0.04): (0.21017656901768655, 0.234907382387976),
    ("dapo", "sequence", 0.0): (-0.030105741455738497, 0.16142074383652094),
    ("dapo", "sequence", 0.04): (-0.02670929325931918, 0.16255650516806153),
    ("dapo", "token", 0.0): (-0.02182977575111201, 0.20448568958905794),
    ("dapo", "token", 0.04): (-0.018433327554692677, 0.20634742668768863),
    ("dr_grpo", "sequence", 0.0): (-0.019568731946230024, 0.10492348349373862),
    ("dr_grpo", "sequence", 0.04): (-0.017361040618557467, 0.10566172835924),
    ("dr_grpo", "token", 0.0): (-0.014189354238222807, 0.13291569823288768),
    ("dr_grpo", "token", 0.04): (-0.01198166291055024, 0.13412582734699763),
    ("grpo", "sequence", 0.0): (0.029440365983428418, 0.14652314320704754),
    ("grpo", "sequence", 0.04): (0.03301827473469767, 0.15051368688060765),
    ("grpo", "token", 0.0): (0.04351637319853413, 0.19366717445092146),
    ("grpo", "token", 0.04): (0.04709428194980341, 0.1977381325464936),
    ("luspo", "sequence", 0.0): (-0.09784365973115022, 0.5246174174686931),
    ("luspo", "sequence", 0.04): (-0.08680520309278741, 0.5283086417962),
    ("luspo", "token", 0.0): (-0.07094677119111387, 0.6645784911644383),
    ("luspo", "token", 0.04): (-0.05990831455275106, 0.670629136734988),
    ("rloo", "sum", 0.0): (0.10145339857625363, 0.341495700012821),
    ("rloo", "sum", 0.04): (0.10145339857625363, 0.341495700012821),
}

if __name__ == "__main__":
    pprint({(*case, beta): trl_loss(*case, beta) for case in CASES for beta in (0.0, BETA)})
