"""A tiny Llama and what transformers 5.23.0 makes of it: warped probabilities, greedy text and beams.

uv run --group peers python packages/gen-transformer/tests/generation_golden.py      # prints GOLDEN
"""

from pprint import pprint

import torch
import torch.nn.functional as F
from torch import Tensor

from gen_transformer.config import Config
from gen_transformer.model import Transformer
from gen_transformer.prompt import left_pad

PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
WARPS = [
    {"t": 0.7},
    {"k": 3},
    {"k": 2, "t": 1.5},
    {"p": 0.9},
    {"p": 0.5, "t": 0.8},
    {"m": 0.2},
    {"r": 1.3},
    {"r": 1.2, "t": 0.9, "k": 6, "p": 0.8, "m": 0.15},
]
BEAMS = [(4, 0.0, None), (2, 0.0, 5), (4, 0.0, 5), (2, 1.0, 5), (4, 1.0, 5)]  # width, length penalty, eos
SEEN = torch.tensor([[0, 3, 3, 5], [1, 1, 6, 2]])


def numbers(*shape: int, start: int = 0) -> Tensor:
    """As good as random, and the same on every machine: in [-1, 1]."""
    n = torch.arange(start, start + torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(n**2 * 1.3717 + 0.2 * n).reshape(shape).float()


def logits() -> Tensor:
    """Two rows, the second with ties."""
    return torch.stack((3 * numbers(8), torch.tensor([2.0, 1.0, 1.0, 0.0, 1.0, -1.0, 2.0, -1.0])))


def llama() -> Transformer:
    model = Transformer(Config(vocab=11, dim=16, layers=2, heads=2, kv_heads=1, context=32, norm_eps=1e-6)).eval()
    for i, (name, p) in enumerate(model.named_parameters()):
        x = numbers(*p.shape, start=1000 * i + 77)
        p.data = 1 + 0.5 * x if p.ndim == 1 else {"tokens.weight": 1.0, "head.weight": 0.5}.get(name, 0.6) * x
    return model


def theirs(model: Transformer):
    """The same network of transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    c = model.config
    config = LlamaConfig(
        vocab_size=c.vocab,
        hidden_size=c.dim,
        intermediate_size=c.hidden,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv,
        max_position_embeddings=c.context,
        rms_norm_eps=c.norm_eps,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    peer = LlamaForCausalLM(config).eval()
    names = {
        "tokens.weight": "model.embed_tokens.weight",
        "head.weight": "lm_head.weight",
        "norm.weight": "model.norm.weight",
    }
    parts = {
        "norm1": "input_layernorm",
        "norm2": "post_attention_layernorm",
        "attention.q": "self_attn.q_proj",
        "attention.k": "self_attn.k_proj",
        "attention.v": "self_attn.v_proj",
        "attention.o": "self_attn.o_proj",
        "mlp.gate": "mlp.gate_proj",
        "mlp.up": "mlp.up_proj",
        "mlp.down": "mlp.down_proj",
    }
    for i in range(c.layers):
        names |= {f"blocks.{i}.{a}.weight": f"model.layers.{i}.{b}.weight" for a, b in parts.items()}
    peer.load_state_dict({names[name]: p for name, p in model.state_dict().items()})
    return peer


def warped(t: float = 1.0, k: int = 0, p: float = 1.0, m: float = 0.0, r: float = 1.0) -> Tensor:
    """Probabilities after the peer's processors, in its order."""
    from transformers.generation import logits_process as lp

    steps = [lp.RepetitionPenaltyLogitsProcessor(r)] if r != 1 else []
    steps += [lp.TemperatureLogitsWarper(t)] if t != 1 else []
    steps += [lp.TopKLogitsWarper(k)] if k else []
    steps += [lp.TopPLogitsWarper(p)] if p != 1 else []
    steps += [lp.MinPLogitsWarper(m)] if m else []
    return lp.LogitsProcessorList(steps)(SEEN, logits()).softmax(-1)


def greedy_text(peer, n: int = 20) -> Tensor:
    ids, doc = left_pad(PROMPTS)
    out = peer.generate(ids, attention_mask=(doc >= 0).long(), do_sample=False, max_new_tokens=n)
    return out[:, ids.shape[1] :]


def beams(peer, width: int, penalty: float, eos: int | None, n: int = 8) -> tuple[Tensor, Tensor]:
    """Its search stops once nothing can improve, which `early_stopping="never"` means."""
    ids, doc = left_pad(PROMPTS)
    out = peer.generate(
        ids,
        attention_mask=(doc >= 0).long(),
        do_sample=False,
        max_new_tokens=n,
        num_beams=width,
        num_return_sequences=width,
        length_penalty=penalty,
        early_stopping="never",
        eos_token_id=eos,
        return_dict_in_generate=True,
        output_scores=True,
    )
    tokens = F.pad(out.sequences[:, ids.shape[1] :], (0, n))[:, :n]
    if eos is not None:
        tokens[(tokens == eos).cumsum(1) - (tokens == eos).long() > 0] = -1  # what fills up after the end
    return tokens.reshape(len(ids), width, n), out.sequences_scores.reshape(len(ids), width)


def measure() -> dict:
    """What GOLDEN holds, of the installed version."""
    peer = theirs(llama())
    return {
        "warps": [[[round(x, 7) for x in row] for row in warped(**options).tolist()] for options in WARPS],
        "greedy": greedy_text(peer).tolist(),
        "beams": [
            (s.tolist(), [[round(x, 5) for x in row] for row in p.tolist()])
            for s, p in (beams(peer, *case) for case in BEAMS)
        ],
    }


# fmt: off
GOLDEN = {'beams': [([[[6, 10, 8, 10, 5, 6, 4, 5], [8, 10, 8, 10, 5, 8, 10, 5], [8, 10, 8, 10, 5, 10, 2, 5],
              [8, 10, 8, 10, 5, 8, 10, 8]],
             [[2, 2, 2, 2, 2, 2, 2, 2], [2, 2, 2, 2, 2, 2, 2, 3], [2, 2, 2, 2, 2, 2, 6, 0], [2, 2, 2, 2, 2, 2, 2, 6]],
             [[4, 10, 8, 5, 8, 10, 5, 10], [4, 10, 8, 5, 6, 4, 5, 5], [4, 10, 8, 5, 8, 10, 5, 5],
              [4, 10, 8, 5, 1, 5, 8, 10]]],
            [[-7.85906, -8.06854, -8.18738, -8.21668], [-5.87194, -7.03797, -7.95717, -7.97888],
             [-7.31738, -7.36883, -7.42184, -7.63445]]),
           ([[[8, 10, 8, 10, 5, -1, -1, -1], [8, 10, 8, 10, 10, 5, -1, -1]],
             [[2, 2, 2, 2, 2, 2, 2, 2], [2, 2, 2, 2, 2, 2, 2, 3]],
             [[4, 5, -1, -1, -1, -1, -1, -1], [4, 10, 8, 5, -1, -1, -1, -1]]],
            [[-4.93284, -7.01261], [-5.87194, -7.03797], [-2.8132, -3.56495]]),
           ([[[8, 5, -1, -1, -1, -1, -1, -1], [8, 10, 10, 5, -1, -1, -1, -1], [8, 10, 8, 10, 5, -1, -1, -1],
              [6, 10, 8, 10, 5, -1, -1, -1]],
             [[2, 2, 2, 2, 2, 2, 2, 2], [2, 2, 2, 2, 5, -1, -1, -1], [2, 2, 2, 2, 2, 5, -1, -1],
              [2, 2, 2, 2, 2, 2, 2, 3]],
             [[4, 5, -1, -1, -1, -1, -1, -1], [4, 10, 8, 5, -1, -1, -1, -1], [6, 4, 10, 8, 5, -1, -1, -1],
              [6, 4, 10, 10, 2, 5, -1, -1]]],
            [[-2.83593, -4.7174, -4.93284, -5.33209], [-5.87194, -5.93757, -6.52342, -7.03797],
             [-2.8132, -3.56495, -5.51527, -6.53338]]),
           ([[[8, 10, 8, 10, 5, -1, -1, -1], [6, 1, 4, 10, 10, 2, 5, -1]],
             [[2, 2, 2, 2, 2, 2, 2, 2], [2, 2, 2, 2, 2, 2, 2, 3]],
             [[4, 10, 8, 5, -1, -1, -1, -1], [1, 4, 10, 10, 2, 5, -1, -1]]],
            [[-0.98657, -1.11104], [-0.73399, -0.87975], [-0.89124, -1.11207]]),
           ([[[8, 10, 8, 10, 5, -1, -1, -1], [6, 10, 8, 10, 5, -1, -1, -1], [6, 1, 4, 10, 10, 2, 5, -1],
              [8, 10, 8, 10, 10, 5, -1, -1]],
             [[2, 2, 2, 2, 2, 2, 2, 2], [2, 2, 2, 2, 2, 2, 2, 3], [2, 2, 2, 2, 2, 2, 6, 0], [2, 2, 2, 2, 2, 2, 2, 6]],
             [[4, 10, 8, 5, -1, -1, -1, -1], [6, 4, 10, 10, 2, 5, -1, -1], [6, 4, 10, 8, 5, -1, -1, -1],
              [1, 4, 10, 10, 2, 5, -1, -1]]],
            [[-0.98657, -1.06642, -1.11104, -1.16877], [-0.73399, -0.87975, -0.99465, -0.99736],
             [-0.89124, -1.0889, -1.10305, -1.11207]])],
 'greedy': [[6, 1, 4, 10, 10, 2, 5, 6, 4, 10, 8, 5, 8, 10, 5, 8, 10, 5, 6, 4],
            [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 8, 10, 6, 4, 10, 8, 10],
            [4, 10, 8, 5, 1, 5, 8, 10, 8, 10, 0, 5, 9, 5, 8, 10, 9, 5, 4, 5]],
 'warps': [[[0.012085, 0.878029, 0.0023101, 0.0589898, 0.0006387, 0.0006826, 0.0457264, 0.0015384],
            [0.3566444, 0.0854702, 0.0854702, 0.020483, 0.0854702, 0.0049088, 0.3566444, 0.0049088]],
           [[0.0, 0.782832, 0.0, 0.1182377, 0.0, 0.0, 0.0989303, 0.0],
            [0.3222025, 0.1185317, 0.1185317, 0.0, 0.1185317, 0.0, 0.3222025, 0.0]],
           [[0.0, 0.7790515, 0.0, 0.2209486, 0.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0]],
           [[0.0, 0.782832, 0.0, 0.1182377, 0.0, 0.0, 0.0989303, 0.0],
            [0.3222025, 0.1185317, 0.1185317, 0.0, 0.1185317, 0.0, 0.3222025, 0.0]],
           [[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0]],
           [[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.3222025, 0.1185317, 0.1185317, 0.0, 0.1185317, 0.0, 0.3222025, 0.0]],
           [[0.0374207, 0.7516133, 0.0117513, 0.0878735, 0.0047782, 0.0027373, 0.094985, 0.0088408],
            [0.3549576, 0.1036717, 0.1036717, 0.0480383, 0.1305816, 0.0176723, 0.2237345, 0.0176723]],
           [[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.4360691, 0.0, 0.1192837, 0.0, 0.1435509, 0.0, 0.3010963, 0.0]]]}
# fmt: on


if __name__ == "__main__":
    pprint(measure(), width=120, compact=True)
