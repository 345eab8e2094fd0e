"""Small checkpoints of transformers 5.23.0 whose weights are a formula, and what they compute.

`write(name, folder)` lays one down as transformers would, from the names and shapes in hf_golden.json; that file also
holds logits, gradients and greedy continuations, and comes from

    uv run --group peers python packages/gen-transformer/tests/hf_golden.py
"""

import json
import math
import re
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file

FILE = Path(__file__).with_name("hf_golden.json")
SIZES = {"vocab_size": 97, "max_position_embeddings": 64}
LLAMA = SIZES | {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 8, "intermediate_size": 96}
FALCON = SIZES | {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 8}
BERT = LLAMA | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16},
}
MARIAN = {
    "vocab_size": 97,
    "d_model": 64,
    "max_position_embeddings": 64,
    "scale_embedding": True,
    "pad_token_id": 96,
    "decoder_start_token_id": 96,
    "eos_token_id": 0,
    **{f"{part}_layers": 2 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 96 for part in ("encoder", "decoder")},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 97, "n_embd": 64, "n_layer": 3, "n_head": 8, "n_positions": 64}
        | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    ),
    "llama, 8 of 8 key heads": ("LlamaForCausalLM", LLAMA),
    "llama, 2 of 8 key heads, biases": (
        "LlamaForCausalLM",
        LLAMA | {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    ),
    "llama, 1 of 8 key heads, tied, wide heads": (
        "LlamaForCausalLM",
        LLAMA | {"num_key_value_heads": 1, "head_dim": 12, "tie_word_embeddings": True, "attention_bias": True},
    ),
    **{
        f"llama, {kind} positions": (
            "LlamaForCausalLM",
            LLAMA | {"rope_parameters": p, "max_position_embeddings": 24 if kind == "dynamic" else 64},
        )
        for kind, p in ROPES.items()
    },
    "mistral": ("MistralForCausalLM", LLAMA | {"num_key_value_heads": 2, "sliding_window": 7}),
    "ministral": (
        "MinistralForCausalLM",
        LLAMA
        | {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 7}
        | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "qwen3": (
        "Qwen3ForCausalLM",
        LLAMA
        | {"num_key_value_heads": 4, "head_dim": 16, "use_sliding_window": True, "sliding_window": 5}
        | {"max_window_layers": 1},
    ),
    "falcon, multi-query": ("FalconForCausalLM", FALCON | {"num_kv_heads": 8}),
    "falcon, grouped, two norms": (
        "FalconForCausalLM",
        FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
    ),
    "falcon, grouped, one norm": (
        "FalconForCausalLM",
        FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    "falcon, sequential": ("FalconForCausalLM", FALCON | {"multi_query": False, "parallel_attn": False, "bias": True}),
    "bert": ("BertForPreTraining", BERT),
    "bert, words only": ("BertForMaskedLM", BERT),
    "marian": ("MarianMTModel", MARIAN | {"activation_function": "swish", "dropout": 0.0}),
    "marian, two tables": (
        "MarianMTModel",
        MARIAN | {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 97, "dropout": 0.0},
    ),
}
PAD = 3
"""Padding tokens before the second row."""
ROUNDING = 1e-6
"""Norms of gradients below it are 0 but for the order of a sum in float32; the smallest other one is 0.018."""


def wave(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers like noise that are the same on every machine; gains about 1."""
    n = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    x = torch.sin(zlib.crc32(name.encode()) % 1000 + 0.7071 * n**2).reshape(shape)
    if len(shape) > 1:
        return (0.2 * x).float()
    return (0.4 * x + (1.0 if name.endswith(".weight") else 0.0)).float()


def ids(rows: int = 2, length: int = 33) -> torch.Tensor:
    """Tokens 1..95."""
    return (torch.arange(1, rows * length + 1) ** 2 * 7 % 95 + 1).reshape(rows, length)


def golden() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def write(name: str, folder: Path) -> Path:
    """A directory as transformers writes it."""
    case = golden()[name]
    folder.mkdir(parents=True, exist_ok=True)
    layers = range(max(case["config"].get(k, 0) for k in ("n_layer", "num_hidden_layers", "encoder_layers")))
    shapes = {key.replace("*", str(i)): shape for key, shape in case["shapes"].items() for i in layers}
    tensors = {key: wave(key, tuple(shape)) for key, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(case["config"]))
    return folder


def peer(name: str) -> Any:
    """The model in transformers, with weights by the formula."""
    import transformers

    cls, config = CASES[name]
    kind = getattr(transformers, cls)
    torch.manual_seed(0)
    model = kind(kind.config_class(**config)).eval()
    with torch.no_grad():
        state = model.state_dict()
        tied = {k.data_ptr(): n for n, k in reversed(list(state.items()))}
        for key, x in state.items():
            if "embed_positions" not in key:
                x.copy_(wave(tied[x.data_ptr()], tuple(x.shape)))
    return model


def inputs(name: str) -> dict[str, torch.Tensor]:
    """Two rows, the second one padded on the side of the family's custom."""
    x = ids()
    mask = torch.ones_like(x)
    if name.startswith("bert"):
        mask[1, -PAD:] = 0
        return {"input_ids": x, "attention_mask": mask, "token_type_ids": (torch.arange(33) > 20).long().expand(2, -1)}
    if name.startswith("marian"):
        mask[1, -PAD:] = 0
        return {"input_ids": x, "attention_mask": mask, "decoder_input_ids": ids(2, 9)}
    mask[1, :PAD] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": x, "attention_mask": mask, "position_ids": places}


def outputs(name: str, model: Any, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Logits, of a BERT for pre-training those of pairs too, each `(tokens, classes)`."""
    if "dynamic" in name:
        return tokens(name, [torch.cat([alone(model.to(dtype), i) for i in range(2)])])
    cache = {} if "bert" in name else {"use_cache": False}
    out = model.to(dtype)(**inputs(name), **cache)
    both = [out.prediction_logits, out.seq_relationship_logits] if "prediction_logits" in out else [out.logits]
    return tokens(name, both)


def alone(model: Any, row: int) -> torch.Tensor:
    """Logits of one row by itself: in a batch the base of dynamic positions is that of the longest row.

    The base also stays that of the longest text so far; a text of one token ends that.
    """
    x = {key: value[row : row + 1] for key, value in inputs("llama").items()}
    model(x["input_ids"][:, :1], use_cache=False)
    return model(**x, use_cache=False).logits


def tokens(name: str, outs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The rows of logits that are of no padding."""
    keep = inputs(name)["attention_mask"].bool()
    return [x[keep] if x.shape[:2] == keep.shape else x.flatten(0, -2) for x in outs]


def some(x: torch.Tensor) -> list[float]:
    """Seven numbers spread over a tensor."""
    flat = x.detach().flatten()
    return [round(v, 7) for v in flat[torch.linspace(0, len(flat) - 1, 7).long()].tolist()]


def objective(outs: list[torch.Tensor]) -> torch.Tensor:
    """A scalar that every weight moves."""
    return torch.stack([(x.logsumexp(-1) - x[:, 1]).mean() for x in outs]).sum()


def gradients(name: str, model: Any, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Of `objective`, by the name of the weight."""
    model.zero_grad()
    objective(outputs(name, model, dtype)).backward()
    return {key: p.grad for key, p in model.named_parameters() if p.grad is not None}


def size(slope: torch.Tensor) -> float:
    """The norm of a gradient; 0.0 below the rounding of float32, as for a bias of keys, which softmax does not see."""
    norm = slope.norm().item()
    return float(f"{norm:.7g}") if norm > ROUNDING else 0.0


def greedy(name: str, model: Any, n: int, use_cache: bool = True) -> torch.Tensor:
    """The n tokens that follow the first 12 of each row, the second one padded on its left."""
    given = {k: v[:, :12] for k, v in inputs(name).items() if k in ("input_ids", "attention_mask")}
    model.generation_config.eos_token_id = None
    model.float()
    if "dynamic" in name:
        return torch.cat([_greedy(model, {k: v[i : i + 1] for k, v in given.items()}, n, use_cache) for i in range(2)])
    return _greedy(model, given, n, use_cache)


def _greedy(model: Any, given: dict[str, torch.Tensor], n: int, use_cache: bool) -> torch.Tensor:
    return model.generate(**given, max_new_tokens=n, do_sample=False, use_cache=use_cache, pad_token_id=0)[:, 12:]


def make() -> dict[str, Any]:
    """What is in hf_golden.json."""
    cases = {}
    for name in CASES:
        model = peer(name)
        with TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            config = json.loads((Path(folder) / "config.json").read_text())
            shapes = {k: list(x.shape) for k, x in load_file(Path(folder) / "model.safetensors").items()}
        slopes = gradients(name, model)
        cases[name] = {
            "config": config,
            "shapes": {re.sub(r"\.\d+\.", ".*.", k): shape for k, shape in shapes.items()},
            "outputs": [some(x) for x in outputs(name, model)],
            "slopes": {k: size(slopes[k]) for k in list(slopes)[:: len(slopes) // 5]},
        }
        if not any(word in name for word in ("bert", "marian")):
            cases[name]["greedy"] = greedy(name, model, 20).tolist()
    return cases


if __name__ == "__main__":
    rows = (f"{json.dumps(name)}: {json.dumps(case)}" for name, case in make().items())
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
