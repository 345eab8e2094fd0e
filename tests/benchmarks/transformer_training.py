"""One training step of the same model in several packages, from the same weights.

    PYTHONPATH=LITGPT uv run --group peers python tests/benchmarks/transformer_training.py NANOGPT [S M L]

LITGPT: a folder into which the wheel of litgpt 0.5.13 is unpacked; NANOGPT: nanoGPT's folder (commit 3adf61e).

A step is zero_grad, forward, loss, backward, clip at 1.0, fused AdamW; float32, one thread of a CPU, CPU time. A model
of GPT-2's shape stands beside nanoGPT's and transformers', one of Llama's shape beside litgpt's and transformers'. The
first losses have to agree to 1e-4. The packages take turns, a step of each at a time; printed are the medians over the
steps of (peer's time / ours): above 1, ours is faster.

With torch 2.15 and transformers 5.23, on a machine with other work (100, 4 and 5 steps; in brackets the quartiles):

| | ours | transformers | nanoGPT or litgpt |
|---|---|---|---|
| S, GPT-2 | 56 ms | 0.995 (0.98 to 1.01) | 0.983 (0.96 to 0.99) |
| S, Llama | 61 ms | 1.012 (0.99 to 1.03) | 1.022 (1.01 to 1.05) |
| M, GPT-2 | 1,499 ms | 1.000 (0.99 to 1.02) | 1.000 (0.98 to 1.02) |
| M, Llama | 1,555 ms | 0.993 (0.96 to 1.03) | 1.009 (0.99 to 1.02) |
| L, GPT-2 | 2,285 ms | 1.083 (1.03 to 1.10) | 1.076 (1.04 to 1.10) |
| L, Llama | 2,290 ms | 1.039 (1.03 to 1.06) | 1.042 (1.02 to 1.05) |

Matrix products take 70 % of the step even of S, so nobody can be much faster than another there. gen-core's loop adds
0.5 % to a bare one on S.
"""

import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from gen_core import Arrays, Loader, Trainer
from gen_transformer import hf
from gen_transformer.config import Config
from gen_transformer.loss import lm_loss
from gen_transformer.model import Transformer
from gen_transformer.task import LMTask

SIZES = {  # layers, dim, heads, T, rows, vocabulary, steps
    "S": (4, 128, 4, 64, 12, 84, 100),
    "M": (6, 384, 6, 256, 8, 84, 30),
    "L": (12, 768, 12, 256, 1, 50304, 12),
}
WARM_UP = 5
Loss = Callable[[Tensor, Tensor], Tensor]


def ours(shape: str, size: str) -> Transformer:
    layers, dim, heads, T, _, vocab, _ = SIZES[size]
    torch.manual_seed(0)
    if shape == "llama":
        return Transformer(Config(vocab=vocab, dim=dim, layers=layers, heads=heads, context=T))
    gpt2 = {"norm": "layer", "mlp": "gelu", "pos": "learned", "bias": "all", "tie": True}
    return Transformer(Config(vocab=vocab, dim=dim, layers=layers, heads=heads, context=T, **gpt2))


def our_loss(model: Transformer) -> Loss:
    return lambda ids, targets: lm_loss(model(ids), model.output, targets)


def transformers(model: Transformer) -> tuple[nn.Module, Loss]:
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        hf.save(model, folder)
        peer = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").train()
    peer.config.use_cache = False
    for module in peer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return peer, lambda ids, targets: peer(input_ids=ids, labels=targets, shift_labels=targets).loss


def nanogpt(model: Transformer, folder: Path) -> tuple[nn.Module, Loss]:
    spec = importlib.util.spec_from_file_location("nanogpt", folder / "model.py")
    code: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    cfg = model.config
    peer = code.GPT(
        code.GPTConfig(
            block_size=cfg.context, vocab_size=cfg.vocab, n_layer=cfg.layers, n_head=cfg.heads, n_embd=cfg.dim
        )
    )
    state = {"transformer.wte": model.tokens, "transformer.wpe": model.places, "transformer.ln_f": model.norm}
    for i, block in enumerate(model.blocks):
        at = f"transformer.h.{i}."
        state |= {at + "ln_1": block.norm1, at + "ln_2": block.norm2, at + "attn.c_attn": qkv(block.attention)}
        state |= {
            at + "attn.c_proj": block.attention.o,
            at + "mlp.c_fc": block.mlp.up,
            at + "mlp.c_proj": block.mlp.down,
        }
    copy(state, peer)
    return peer, lambda ids, targets: peer(ids, targets)[1]


def litgpt(model: Transformer) -> tuple[nn.Module, Loss]:
    from litgpt.config import Config as TheirConfig
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    cfg = model.config
    sizes = {"n_layer": cfg.layers, "n_embd": cfg.dim, "n_head": cfg.heads, "intermediate_size": cfg.hidden}
    llama = {"norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP", "parallel_residual": False, "bias": False}
    peer = GPT(
        TheirConfig(
            block_size=cfg.context, vocab_size=cfg.vocab, padded_vocab_size=cfg.vocab, rotary_percentage=1.0,
            **sizes, **llama,
        )
    )  # fmt: skip
    state = {"transformer.wte": model.tokens, "transformer.ln_f": model.norm, "lm_head": model.head}
    for i, block in enumerate(model.blocks):
        at = f"transformer.h.{i}."
        state |= {at + "norm_1": block.norm1, at + "norm_2": block.norm2, at + "attn.qkv": qkv(block.attention)}
        state |= {at + "attn.proj": block.attention.o, at + "mlp.proj": block.mlp.down}
        state |= {at + "mlp.fc_1": block.mlp.gate, at + "mlp.fc_2": block.mlp.up}
    copy(state, peer)
    return peer, lambda ids, targets: chunked_cross_entropy(peer(ids), targets, chunk_size=0)


def qkv(attention: nn.Module) -> dict[str, Tensor]:
    """One map of queries, keys and values."""
    parts = [dict(part.named_parameters()) for part in (attention.q, attention.k, attention.v)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@torch.no_grad()
def copy(state: dict[str, nn.Module | dict[str, Tensor]], peer: nn.Module) -> None:
    """Our values into the peer's parameters; all of them are named."""
    left = dict(peer.named_parameters())
    for module, own in state.items():
        for name, value in own.items() if isinstance(own, dict) else own.named_parameters():
            left.pop(f"{module}.{name}").copy_(value)
    assert not left, f"not given to the peer: {list(left)}"


def stepper(model: nn.Module, loss: Loss) -> Callable[[Tensor, Tensor], float]:
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def step(ids: Tensor, targets: Tensor) -> float:
        optimizer.zero_grad()
        value = loss(ids, targets)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return value.item()

    return step


def timed(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(shape: str, size: str, nano: Path) -> None:
    *_, T, rows, vocab, steps = SIZES[size]
    model = ours(shape, size)
    peers = {"transformers": transformers(model)}
    peers |= {"nanoGPT": nanogpt(model, nano)} if shape == "gpt2" else {"litgpt": litgpt(model)}
    run = {"ours": stepper(model, our_loss(model))} | {name: stepper(*peer) for name, peer in peers.items()}
    text = torch.randint(vocab, (1 + WARM_UP + steps, rows, T + 1), generator=torch.Generator().manual_seed(1))
    ids, targets = text[..., :-1].contiguous(), text[..., 1:].contiguous()
    first = {name: step(ids[0], targets[0]) for name, step in run.items()}
    if max(first.values()) - min(first.values()) > 1e-4:
        raise ValueError(f"these are not the same model: first losses {first}")
    times: dict[str, list[float]] = {name: [] for name in run}
    order = list(run)
    for i in range(1, 1 + WARM_UP + steps):
        order.append(order.pop(0))  # nobody always comes after the same one
        for name in order:
            times[name].append(timed(lambda name=name, i=i: run[name](ids[i], targets[i])))
    own = times["ours"][WARM_UP:]
    print(f"{shape} {size}: ours {statistics.median(own) * 1e3:.1f} ms", end="", flush=True)
    for name in peers:
        ratios = [b / a for a, b in zip(own, times[name][WARM_UP:], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"; {name} {middle:.3f}x ({low:.2f} to {high:.2f})", end="")
    print(flush=True)


def loop(rounds: int = 10, steps: int = 40) -> None:
    """What gen-core's loop adds to the bare step of S."""
    *_, T, rows, vocab, _ = SIZES["S"]
    ids = torch.randint(vocab, (rows * 64, T + 1))
    ones, doc = torch.ones(rows * 64, T), torch.zeros(rows * 64, T, dtype=torch.int64)
    data = Arrays(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), ones, doc)
    ratios = []
    for _ in range(rounds):
        bare = ours("llama", "S")
        optimizer = torch.optim.AdamW(bare.parameters(), lr=1e-4, fused=True)

        def plain(model=bare, optimizer=optimizer):
            for x, y, w, d in islice(Loader(data, rows).batches(), steps):
                optimizer.zero_grad()
                lm_loss(model(x, doc=d), model.output, y, w).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()

        trainer = Trainer(LMTask(ours("llama", "S"), lr=1e-4), clip=1.0, device="cpu", precision="fp32")
        whole = timed(lambda trainer=trainer: trainer.fit(Loader(data, rows), steps))
        ratios.append(whole / timed(plain))
    print(f"gen-core's loop on S: {(statistics.median(ratios) - 1) * 100:+.1f} % to a bare loop")


def main(nano: str, *sizes: str) -> None:
    torch.set_num_threads(1)
    for size in sizes or SIZES:
        for shape in ("gpt2", "llama"):
            measure(shape, size, Path(nano))
    loop()


if __name__ == "__main__":
    main(*sys.argv[1:])
