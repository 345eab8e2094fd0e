"""Greedy tokens per second with a cache, beside transformers and litgpt, from the same weights.

    pip install --no-deps --target /tmp/litgpt litgpt==0.5.13                # its hub client clashes with transformers'
    PYTHONPATH=/tmp/litgpt OMP_NUM_THREADS=1 python tests/benchmarks/transformer_generation.py             # S and M
    PYTHONPATH=/tmp/litgpt OMP_NUM_THREADS=1 python tests/benchmarks/transformer_generation.py L           # 124M

The sizes are GPT-2's and smaller; the network is a Llama, which all three have. A run counts only if all three write
the same tokens. After a warm-up the three take turns; printed are medians over the turns of tokens per second and of
the ratio within a turn of ours to each peer.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from torch import Tensor

from gen_transformer.config import Config
from gen_transformer.generate import complete
from gen_transformer.hf import save
from gen_transformer.model import Transformer
from gen_transformer.sampling import greedy

SIZES = {
    "S": (Config(vocab=84, dim=128, layers=4, heads=4, context=256), 64, 9),
    "M": (Config(vocab=84, dim=384, layers=6, heads=6, context=256), 64, 9),
    "L": (Config(vocab=50304, dim=768, layers=12, heads=12, ffn=3072, context=1024), 16, 5),
}  # configuration, new tokens, turns

Writer = Callable[[Tensor, int], Tensor]  # prompts (b, t) and n to tokens (b, n)


def ours(model: Transformer) -> Writer:
    return lambda ids, n: complete(model, ids, n, warp=greedy)


def transformers_writer(model: Transformer) -> Writer:
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        peer = AutoModelForCausalLM.from_pretrained(folder).eval()
    peer.generation_config.eos_token_id, peer.generation_config.pad_token_id = None, 0

    def write(ids: Tensor, n: int) -> Tensor:
        out = peer.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n)
        return out[:, ids.shape[1] :]

    return write


def litgpt_writer(model: Transformer) -> Writer:
    from litgpt.config import Config as LitConfig  # pyright: ignore[reportMissingImports]
    from litgpt.generate.base import batched_generate_fn, generate  # pyright: ignore[reportMissingImports]
    from litgpt.model import GPT  # pyright: ignore[reportMissingImports]

    c = model.config
    config = LitConfig(
        block_size=c.context,
        vocab_size=c.vocab,
        padded_vocab_size=c.vocab,
        n_layer=c.layers,
        n_head=c.heads,
        n_embd=c.dim,
        n_query_groups=c.kv,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=c.norm_eps,
        mlp_class_name="LLaMAMLP",
        intermediate_size=c.hidden,
    )
    peer = GPT(config).eval()
    state = {
        "transformer.wte.weight": model.tokens.weight,
        "transformer.ln_f.weight": model.norm.weight,
        "lm_head.weight": model.output,
    }
    for i, block in enumerate(model.blocks):
        a = block.attention
        state |= {
            f"transformer.h.{i}.norm_1.weight": block.norm1.weight,
            f"transformer.h.{i}.norm_2.weight": block.norm2.weight,
            f"transformer.h.{i}.attn.qkv.weight": torch.cat((a.q.weight, a.k.weight, a.v.weight)),
            f"transformer.h.{i}.attn.proj.weight": a.o.weight,
            f"transformer.h.{i}.mlp.fc_1.weight": block.mlp.gate.weight,
            f"transformer.h.{i}.mlp.fc_2.weight": block.mlp.up.weight,
            f"transformer.h.{i}.mlp.proj.weight": block.mlp.down.weight,
        }
    peer.load_state_dict(state)
    rows = 0

    def write(ids: Tensor, n: int) -> Tensor:
        nonlocal rows
        b, t = ids.shape
        if rows != b:
            peer.clear_kv_cache()
            peer.max_seq_length = t + n
            peer.set_kv_cache(batch_size=b)
            rows = b
        if b == 1:
            return generate(peer, ids[0], t + n, temperature=0.0, top_p=0.0, include_prompt=False)[None]
        options = {"sample_args": {"temperature": 0.0, "top_p": 0.0}, "include_prompt": False, "include_eos": True}
        return torch.stack([torch.cat(row) for row in batched_generate_fn(peer, ids, t + n, **options)], dim=1)

    return write


def measure(size: str, rows: int) -> None:
    cfg, n, turns = SIZES[size]
    torch.manual_seed(0)
    model = Transformer(cfg).eval()
    for p in model.parameters():
        p.data.mul_(3 if p.ndim == 2 else 1)  # livelier texts
    writers = {
        "gen-transformer": ours(model),
        "transformers": transformers_writer(model),
        "litgpt": litgpt_writer(model),
    }
    ids = torch.randint(cfg.vocab, (rows, 16), generator=torch.Generator().manual_seed(1))
    texts = [write(ids, n) for write in writers.values()]
    assert all(torch.equal(text, texts[0]) for text in texts), "they do not write the same text"
    seconds: dict[str, list[float]] = {name: [] for name in writers}
    for _ in range(turns):
        for name, write in writers.items():
            start = time.process_time()
            write(ids, n)
            seconds[name].append(time.process_time() - start)
    for name, each in seconds.items():
        speed = rows * n / statistics.median(each)
        ratio = statistics.median(b / a for a, b in zip(seconds["gen-transformer"], each, strict=True))
        print(f"{size} {rows} rows   {name:16s} {speed:8.1f} tokens/s   ours is {ratio:.2f} x", flush=True)


if __name__ == "__main__":
    for size in sys.argv[1:] or ["S", "M"]:
        for rows in (1, 8):
            measure(size, rows)
