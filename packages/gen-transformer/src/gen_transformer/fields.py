"""The fields of a `config.json` of Hugging Face, and the `Config` they stand for.

What both sides have is a row of a table, `ours=theirs`, used to read and to write. What would change the mathematics in
a way the model cannot follow is refused by name.
"""

from dataclasses import replace
from typing import Any

from gen_transformer.config import Config, Rope


class Fields(dict):
    """`config.json`; asking for a field that it lacks says so."""

    def __missing__(self, name: str) -> Any:
        raise ValueError(f"config.json of a {self.get('model_type')} has no {name!r}; is it cut, or of another family?")

    def need(self, **values: Any) -> None:
        """Refuse other values than these, and than none at all."""
        for name, value in values.items():
            if self.get(name) not in (value, None):
                raise ValueError(f"{self['model_type']} with {name}={self[name]!r} is not supported, only {value!r}")


def rows(text: str, ours: str = "", theirs: str = "") -> dict[str, str]:
    """The table of a text like "dim=n_embd layers=n_layer", each side with a prefix.

    >>> rows("q=query k=key", "attention.", "self.")
    {'attention.q': 'self.query', 'attention.k': 'self.key'}
    """
    pairs = (row.split("=") for row in text.split())
    return {ours + a: theirs + b for a, b in pairs}


ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu": "gelu", "relu": "relu", "relu2": "relu2", "silu": "silu"}
ACTIVATIONS |= {"gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}


def read_config(c: Fields, table: dict[str, str], **rest: Any) -> Config:
    """What stands in the table, and the `rest`."""
    known = {ours: c[theirs] for ours, theirs in table.items()}
    if "mlp" in known and known["mlp"] not in ACTIVATIONS:
        raise ValueError(f"activation {known['mlp']!r} is not supported, only {', '.join(ACTIVATIONS)}")
    known |= {"mlp": ACTIVATIONS[known["mlp"]]} if "mlp" in known else {}
    return Config(**known, **rest)


def write_config(cfg: Config, table: dict[str, str]) -> dict[str, Any]:
    """What stands in the table; an activation that they lack keeps our name, which reads back as an error."""
    cfg = explicit(cfg)
    values = {theirs: getattr(cfg, ours) for ours, theirs in table.items()}
    if "mlp" in table:
        values[table["mlp"]] = next((theirs for theirs, ours in ACTIVATIONS.items() if ours == cfg.mlp), cfg.mlp)
    return values


def explicit(cfg: Config) -> Config:
    """The same model with every size spelt out, and without what does not change a trained model."""
    rope = cfg.rope if cfg.pos == "rope" else Rope()
    rope = replace(rope, original=rope.original or cfg.context, high=rope.fastest)
    windows = tuple(cfg.sees(i) for i in range(cfg.layers))
    sizes = {"kv_heads": cfg.kv, "head_dim": cfg.width, "ffn": cfg.hidden, "rope": rope, "window": windows}
    return replace(cfg, **sizes, dropout=0.0, zero_init=False)


TURNS = {"llama3": ("low_freq_factor", "high_freq_factor", 1.0, 4.0), "yarn": ("beta_slow", "beta_fast", 1.0, 32.0)}


def read_rope(c: Fields) -> Rope:
    """Rotary positions of version 4 (`rope_theta`, `rope_scaling`) and of version 5 (`rope_parameters`).

    Where both are given, transformers reads `rope_scaling` and nothing of `rope_parameters`.
    """
    p = c.get("rope_scaling") or c.get("rope_parameters") or {}
    kind = p.get("rope_type", p.get("type", "default"))
    slow, fast, low, high = TURNS.get(kind, ("", "", 1.0, 4.0))
    known = {"type", "rope_type", "rope_theta", "factor", "original_max_position_embeddings", slow, fast}
    known |= {"attention_factor"} if kind == "yarn" else set()
    harmless = {"partial_rotary_factor": 1.0, "truncate": True}
    c.need(partial_rotary_factor=1.0)
    if kind not in ("default", "linear", "dynamic", *TURNS):
        raise ValueError(f"rotary positions of type {kind!r} are not supported, only linear, dynamic, llama3 and yarn")
    if kind != "default" and not p.get("factor"):
        raise ValueError(f"rotary positions of type {kind!r} need a factor, got {p.get('factor')}")
    for name, value in p.items():
        if name not in known and value != harmless.get(name):
            raise ValueError(f"rotary positions of type {kind!r} with {name}={value!r} are not supported")
    original = None
    if kind in TURNS:  # the others stretch the context itself
        original = c.get("original_max_position_embeddings") or p.get("original_max_position_embeddings")
    return Rope(
        theta=p.get("rope_theta") or c.get("rope_theta") or 10_000.0,
        scaling="none" if kind == "default" else kind,
        factor=p.get("factor") or 1.0,
        original=original,
        low=p.get(slow) or low,
        high=p.get(fast) or high,
        attention=p.get("attention_factor"),
    )


def write_rope(cfg: Config) -> dict[str, Any]:
    """For both versions."""
    rope, kind = cfg.rope, cfg.rope.scaling
    p: dict[str, Any] = {"rope_theta": rope.theta, "rope_type": "default" if kind == "none" else kind}
    if kind == "none":
        return {"rope_parameters": p, "rope_theta": rope.theta}
    p["factor"] = rope.factor
    if kind in TURNS:
        slow, fast, *_ = TURNS[kind]
        p |= {slow: rope.low, fast: rope.fastest, "original_max_position_embeddings": rope.original or cfg.context}
    if kind == "yarn" and rope.attention is not None:
        p["attention_factor"] = rope.attention
    return {"rope_parameters": p, "rope_theta": rope.theta, "rope_scaling": p}
