"""What attention is for: reversing 5 to 20 digits with and without it.

    uv run python tests/benchmarks/transformer_seq2seq.py

900 steps on 64 fresh sequences each, AdamW, rate 1.5e-3 with a one-cycle schedule, 192 units, one thread.
Exact: the share of 2,000 new sequences that are reversed without a mistake; at 20: of 2,000 sequences of that length;
alignment: the share of steps whose largest weight is on the word that has to be said. Measured: without attention .356,
.000 (.341 with 128 units and a rate of 2e-3); general .988, .968, alignment .992.
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from gen_transformer.seq2seq import Score, Seq2Seq

START, END, STEPS, RATE = 10, 11, 900, 1.5e-3


def sequences(n: int, low: int, high: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Digits, their numbers, and the reverse with its end token; padding is 0 in sources and END in targets."""
    lengths = torch.randint(low, high + 1, (n,), generator=generator)
    source = torch.randint(10, (n, high), generator=generator)
    place = torch.arange(high + 1)
    source = source.where(place[:-1] < lengths[:, None], 0)
    back = (lengths[:, None] - 1 - place).clamp(min=0, max=high - 1)
    return source, lengths, source.gather(1, back).where(place < lengths[:, None], END)


def train(attention: Score | None, **local: bool | int) -> Seq2Seq:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = Seq2Seq(10, 12, 192, attention, **local)  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        source, lengths, target = sequences(64, 5, 20, generator)
        given = F.pad(target[:, :-1], (1, 0), value=START)
        logits, _ = model(source, given, lengths)
        spoken = torch.arange(target.shape[1]) <= lengths[:, None]  # the end token too
        loss = F.cross_entropy(logits[spoken], target[spoken])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def score(model: Seq2Seq, low: int) -> tuple[float, float]:
    """Shares of exact reversals and of steps that look at the right word."""
    source, lengths, target = sequences(2000, low, 20, torch.Generator().manual_seed(2))
    said, alignment = model.greedy(source, lengths, start=START, end=END, limit=21)
    said = F.pad(said, (0, 21 - said.shape[1]), value=END)
    exact = (said == target).all(1).double().mean().item()
    if alignment is None:
        return exact, float("nan")
    place = torch.arange(alignment.shape[1])
    right = alignment.argmax(-1) == lengths[:, None] - 1 - place
    return exact, right[place < lengths[:, None]].double().mean().item()


def main() -> None:
    torch.set_num_threads(1)
    kinds: list[tuple[Score | None, dict]] = [(None, {}), ("general", {}), ("dot", {}), ("concat", {})]
    kinds += [("additive", {}), ("general", {"window": 5, "predictive": True})]
    print(f"{'attention':32s} exact  at 20  alignment")
    for attention, local in kinds[: int(sys.argv[1])] if len(sys.argv) > 1 else kinds:
        model = train(attention, **local)
        (exact, alignment), (longest, _) = score(model, 5), score(model, 20)
        print(f"{attention or 'none':10s} {local or ''!s:30s} {exact:.3f}  {longest:.3f}  {alignment:.3f}", flush=True)


if __name__ == "__main__":
    main()
