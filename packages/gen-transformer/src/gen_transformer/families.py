"""The families of Hugging Face that the one block stack is: names of their weights, fields of their `config.json`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gen_transformer.bert import BERT, Bert
from gen_transformer.fields import Fields, explicit, read_config, read_rope, rows, write_config, write_rope
from gen_transformer.model import EncoderDecoder, Transformer


@dataclass(frozen=True)
class Family:
    """How a kind of model is laid out on disk."""

    model: str
    """Its class in transformers."""
    prefix: str
    """Of the names of the trunk; files of the trunk alone lack it."""
    names: Callable[[Any], dict[str, str]]
    """Model -> {our module: theirs}, `*` being the layer. Where q, k and v have one name, they are fused."""
    read: Callable[[Fields, set[str]], nn.Module]
    """`config.json` and the names in the files -> model."""
    write: Callable[[Any], dict[str, Any]]
    defaults: dict[str, Any] = field(default_factory=dict)
    """What transformers takes for a field that a file leaves out."""
    groups: Callable[[Any], int] = lambda model: 1
    """Fused rows hold q, k, v of the first group of heads, then of the next."""
    transposed: bool = False
    """Matrices of the blocks are stored as (in, out)."""
    row: str = ""
    """A vector that is stored as a matrix of one row."""
    tied: dict[str, str] = field(default_factory=dict)
    """Some files hold the first too, which then has to equal the second."""


# ---------------------------------------------------------------------- GPT-2

GPT2_NAMES = rows("tokens=transformer.wte places=transformer.wpe norm=transformer.ln_f head=lm_head") | rows(
    "norm1=ln_1 attention.q=attn.c_attn attention.k=attn.c_attn attention.v=attn.c_attn attention.o=attn.c_proj"
    " norm2=ln_2 mlp.up=mlp.c_fc mlp.down=mlp.c_proj",
    "blocks.*.",
    "transformer.h.*.",
)
GPT2_FIELDS = rows(
    "vocab=vocab_size dim=n_embd layers=n_layer heads=n_head ffn=n_inner context=n_positions"
    " norm_eps=layer_norm_epsilon mlp=activation_function tie=tie_word_embeddings"
)
GPT2_DEFAULTS = {"n_inner": None, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}


def _read_gpt2(c: Fields, names: set[str]) -> Transformer:
    c.need(scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return Transformer(read_config(c, GPT2_FIELDS, norm="layer", pos="learned", bias="all"))


def _write_gpt2(model: Transformer) -> dict[str, Any]:
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), model.config.dropout)
    return write_config(model.config, GPT2_FIELDS) | drops


# ---------------------------------------------------------------------- Llama, Mistral, Ministral, Qwen3

SLIDING, FULL = "sliding_attention", "full_attention"

LLAMA_NAMES = rows("tokens=model.embed_tokens norm=model.norm head=lm_head") | rows(
    "norm1=input_layernorm attention.q=self_attn.q_proj attention.k=self_attn.k_proj attention.v=self_attn.v_proj"
    " attention.o=self_attn.o_proj attention.q_norm=self_attn.q_norm attention.k_norm=self_attn.k_norm"
    " norm2=post_attention_layernorm mlp.gate=mlp.gate_proj mlp.up=mlp.up_proj mlp.down=mlp.down_proj",
    "blocks.*.",
    "model.layers.*.",
)
LLAMA_FIELDS = rows(
    "vocab=vocab_size dim=hidden_size layers=num_hidden_layers heads=num_attention_heads kv_heads=num_key_value_heads"
    " head_dim=head_dim ffn=intermediate_size context=max_position_embeddings norm_eps=rms_norm_eps"
    " tie=tie_word_embeddings"
)
LLAMA_DEFAULTS = {"num_key_value_heads": None, "head_dim": None, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
LLAMA_DEFAULTS |= {"sliding_window": 4096, "max_window_layers": 28}


def _read_llama(c: Fields, names: set[str]) -> Transformer:
    c.need(hidden_act="silu")
    biases = [["none", "mlp"], ["attention", "all"]]
    bias = biases[bool(c.get("attention_bias"))][bool(c.get("mlp_bias"))]
    qk_norm = c["model_type"] == "qwen3"
    return Transformer(read_config(c, LLAMA_FIELDS, rope=read_rope(c), bias=bias, window=_windows(c), qk_norm=qk_norm))


def _windows(c: Fields) -> tuple[int, ...]:
    """Tokens that each layer sees. As in AutoModel, a mistral with `layer_types` is a ministral."""
    kind, n = c["model_type"], c["num_hidden_layers"]
    slides = kind in ("mistral", "ministral") or (kind == "qwen3" and bool(c.get("use_sliding_window")))
    window = (c["sliding_window"] or 0) if slides else 0
    types = c.get("layer_types") if kind != "llama" else None
    if types is None:
        first = c["max_window_layers"] if kind == "qwen3" else 0
        types = [SLIDING if window and i >= first else FULL for i in range(n)]
    if len(types) != n or not {*types} <= ({SLIDING, FULL} if window else {FULL}):
        rule = f"{n} of {FULL}, or of {SLIDING} with a sliding_window"
        raise ValueError(f"{kind} with layer_types={types} and sliding_window={window} is not supported, only {rule}")
    return tuple(window if each == SLIDING else 0 for each in types)


def _write_llama(model: Transformer) -> dict[str, Any]:
    cfg = model.config
    bias = {"attention_bias": cfg.bias in ("attention", "all"), "mlp_bias": cfg.bias in ("mlp", "all")}
    fields = write_config(cfg, LLAMA_FIELDS) | write_rope(cfg) | bias
    return fields | {"hidden_act": "silu", "attention_dropout": cfg.dropout}


def _write_mistral(model: Transformer) -> dict[str, Any]:
    return _write_llama(model) | {"sliding_window": model.config.sees(0) or None}


def _write_ministral(model: Transformer) -> dict[str, Any]:
    windows = explicit(model.config).window
    types = [SLIDING if window else FULL for window in windows]
    return _write_llama(model) | {"sliding_window": max(windows) or None, "layer_types": types}


def _write_qwen3(model: Transformer) -> dict[str, Any]:
    return _write_ministral(model) | {"use_sliding_window": any(model.config.window)}


# ---------------------------------------------------------------------- Falcon

FALCON_FIELDS = rows(
    "vocab=vocab_size dim=hidden_size layers=num_hidden_layers heads=num_attention_heads ffn=ffn_hidden_size"
    " context=max_position_embeddings norm_eps=layer_norm_epsilon mlp=activation tie=tie_word_embeddings"
)
FALCON_DEFAULTS = {"ffn_hidden_size": None, "max_position_embeddings": 2048, "layer_norm_epsilon": 1e-5}
FALCON_DEFAULTS |= {"activation": "gelu", "tie_word_embeddings": True, "bias": False, "multi_query": True}
FALCON_DEFAULTS |= {"parallel_attn": True, "new_decoder_architecture": False}
FALCON_NORMS = {
    "none": "norm1=input_layernorm norm2=post_attention_layernorm",
    "one_norm": "norm1=input_layernorm",
    "two_norms": "norm1=ln_attn norm2=ln_mlp",
}


def _falcon_names(model: Transformer) -> dict[str, str]:
    qkv = " ".join(f"attention.{x}=self_attention.query_key_value" for x in "qkv")
    rest = "attention.o=self_attention.dense mlp.up=mlp.dense_h_to_4h mlp.down=mlp.dense_4h_to_h"
    layer = f"{FALCON_NORMS[model.config.parallel]} {qkv} {rest}"
    ends = rows("tokens=transformer.word_embeddings norm=transformer.ln_f head=lm_head")
    return ends | rows(layer, "blocks.*.", "transformer.h.*.")


def _read_falcon(c: Fields, names: set[str]) -> Transformer:
    """`num_kv_heads` counts in the new architecture only: in the old one there is 1 (`multi_query`) or one a head."""
    if c.get("alibi"):
        raise ValueError("this falcon has alibi=True: ALiBi is not implemented; load one with rotary positions")
    parallel = "one_norm" if c["parallel_attn"] else "none"
    kv = 1 if c["multi_query"] else c["num_attention_heads"]
    if c["new_decoder_architecture"]:
        c.need(parallel_attn=True)
        parallel = "one_norm" if c.get("num_ln_in_parallel_attn") == 1 else "two_norms"
        kv = c.get("num_kv_heads")
    bias = "all" if c["bias"] else "none"
    return Transformer(
        read_config(c, FALCON_FIELDS, kv_heads=kv, norm="layer", rope=read_rope(c), bias=bias, parallel=parallel)
    )


def _write_falcon(model: Transformer) -> dict[str, Any]:
    cfg = model.config
    two = cfg.parallel == "two_norms"
    new = two or (cfg.parallel == "one_norm" and cfg.kv not in (1, cfg.heads))
    heads = {"num_kv_heads": cfg.kv, "multi_query": cfg.kv == 1, "new_decoder_architecture": new}
    norms = {"num_ln_in_parallel_attn": (2 if two else 1) if new else None, "parallel_attn": cfg.parallel != "none"}
    drops = dict.fromkeys(("hidden_dropout", "attention_dropout"), cfg.dropout)
    rest = {"bias": cfg.bias == "all", "alibi": False}
    return write_config(cfg, FALCON_FIELDS) | write_rope(cfg) | heads | norms | drops | rest


# ---------------------------------------------------------------------- BERT

BERT_NAMES = {
    **rows("tokens=word_embeddings places=position_embeddings segments=token_type_embeddings", "", "bert.embeddings."),
    **rows("norm=bert.embeddings.LayerNorm pooler=bert.pooler.dense follows=cls.seq_relationship"),
    **rows("transform=transform.dense transform_norm=transform.LayerNorm bias=bias", "", "cls.predictions."),
    **rows(
        "attention.q=attention.self.query attention.k=attention.self.key attention.v=attention.self.value"
        " attention.o=attention.output.dense norm1=attention.output.LayerNorm mlp.up=intermediate.dense"
        " mlp.down=output.dense norm2=output.LayerNorm",
        "trunk.blocks.*.",
        "bert.encoder.layer.*.",
    ),
}
BERT_FIELDS = rows(
    "vocab=vocab_size dim=hidden_size layers=num_hidden_layers heads=num_attention_heads ffn=intermediate_size"
    " context=max_position_embeddings norm_eps=layer_norm_eps mlp=hidden_act"
)
BERT_DEFAULTS = {"layer_norm_eps": 1e-12, "hidden_act": "gelu", "type_vocab_size": 2}
BERT_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}


def _read_bert(c: Fields, names: set[str]) -> Bert:
    """Whether there is a head for pairs shows in the files: those of bert-base name a class without one."""
    c.need(position_embedding_type="absolute", is_decoder=False, add_cross_attention=False, tie_word_embeddings=True)
    rest = {name: value for name, value in BERT.items() if name not in BERT_FIELDS}
    pairs = "cls.seq_relationship.weight" in names
    return Bert(read_config(c, BERT_FIELDS, **rest), segments=c["type_vocab_size"], sentences=pairs)


def _write_bert(model: Bert) -> dict[str, Any]:
    drops = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), model.config.dropout)
    kind = {"architectures": ["BertForMaskedLM"]} if model.pooler is None else {}
    return write_config(model.config, BERT_FIELDS) | {"type_vocab_size": model.segments.num_embeddings} | drops | kind


# ---------------------------------------------------------------------- Marian

MARIAN_DEFAULTS = {"share_encoder_decoder_embeddings": True, "scale_embedding": False, "activation_function": "gelu"}


def _marian_names(model: EncoderDecoder) -> dict[str, str]:
    layer = (
        "attention.q=self_attn.q_proj attention.k=self_attn.k_proj attention.v=self_attn.v_proj"
        " attention.o=self_attn.out_proj norm1=self_attn_layer_norm mlp.up=fc1 mlp.down=fc2 norm2=final_layer_norm"
    )
    cross = (
        " cross.q=encoder_attn.q_proj cross.k=encoder_attn.k_proj cross.v=encoder_attn.v_proj"
        " cross.o=encoder_attn.out_proj norm_cross=encoder_attn_layer_norm"
    )
    shared = model.encoder.tokens is model.decoder.tokens
    tables = {f"{x}.tokens": "model.shared" if shared else f"model.{x}.embed_tokens" for x in ("encoder", "decoder")}
    stacks = rows(layer, "encoder.blocks.*.", "model.encoder.layers.*.")
    stacks |= rows(layer + cross, "decoder.blocks.*.", "model.decoder.layers.*.")
    return tables | stacks | {"bias": "final_logits_bias"}


def _marian_fields(part: str) -> dict[str, str]:
    vocab = "decoder_vocab_size" if part == "decoder" else "vocab_size"
    return rows(
        f"layers={part}_layers heads={part}_attention_heads ffn={part}_ffn_dim vocab={vocab} dim=d_model"
        " context=max_position_embeddings mlp=activation_function"
    )


def _read_marian(c: Fields, names: set[str]) -> EncoderDecoder:
    c.need(tie_word_embeddings=True, normalize_before=False, normalize_embedding=False, add_final_layer_norm=False)
    c["decoder_vocab_size"] = c.get("decoder_vocab_size") or c["vocab_size"]
    fixed = {"norm": "layer", "post_norm": True, "pos": "sinusoidal_halves", "bias": "all", "tie": True}
    encoder = read_config(c, _marian_fields("encoder"), **fixed, causal=False)
    decoder = read_config(c, _marian_fields("decoder"), **fixed)
    return EncoderDecoder(encoder, decoder, share=c["share_encoder_decoder_embeddings"], scale=c["scale_embedding"])


def _write_marian(model: EncoderDecoder) -> dict[str, Any]:
    last = model.config.vocab - 1  # by custom padding is the last id, and the decoder starts from it
    return {
        **write_config(model.encoder.config, _marian_fields("encoder")),
        **write_config(model.config, _marian_fields("decoder")),
        **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), model.config.dropout),
        **dict.fromkeys(("pad_token_id", "decoder_start_token_id"), last),
        "forced_eos_token_id": None,
        "is_encoder_decoder": True,
        "scale_embedding": model.scale,
        "share_encoder_decoder_embeddings": model.encoder.tokens is model.decoder.tokens,
    }


# ---------------------------------------------------------------------- all


def _llama(model: str, write: Callable[[Any], dict[str, Any]]) -> Family:
    tied = {"lm_head.weight": "model.embed_tokens.weight"}
    return Family(model, "model.", lambda model: LLAMA_NAMES, _read_llama, write, LLAMA_DEFAULTS, tied=tied)


FAMILIES = {
    "gpt2": Family(
        "GPT2LMHeadModel",
        "transformer.",
        lambda model: GPT2_NAMES,
        _read_gpt2,
        _write_gpt2,
        GPT2_DEFAULTS | {"tie_word_embeddings": True},
        transposed=True,
        tied={"lm_head.weight": "transformer.wte.weight"},
    ),
    "llama": _llama("LlamaForCausalLM", _write_llama),
    "mistral": _llama("MistralForCausalLM", _write_mistral),
    "ministral": _llama("MinistralForCausalLM", _write_ministral),
    "qwen3": _llama("Qwen3ForCausalLM", _write_qwen3),
    "falcon": Family(
        "FalconForCausalLM",
        "transformer.",
        _falcon_names,
        _read_falcon,
        _write_falcon,
        FALCON_DEFAULTS,
        groups=lambda model: model.config.kv,
        tied={"lm_head.weight": "transformer.word_embeddings.weight"},
    ),
    "bert": Family(
        "BertForPreTraining", "bert.", lambda model: BERT_NAMES, _read_bert, _write_bert, BERT_DEFAULTS, tied=BERT_TIED
    ),
    "marian": Family(
        "MarianMTModel",
        "model.",
        _marian_names,
        _read_marian,
        _write_marian,
        MARIAN_DEFAULTS,
        row="final_logits_bias",
        tied={
            "lm_head.weight": "model.shared.weight",
            "model.encoder.embed_tokens.weight": "model.shared.weight",
            "model.decoder.embed_tokens.weight": "model.shared.weight",
        },
    ),
}
