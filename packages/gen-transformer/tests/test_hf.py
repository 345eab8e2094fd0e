"""The directories of Hugging Face: the same numbers, the same names, and one sentence for what cannot be read.

The checkpoints are small and their weights a formula; what transformers 5.23.0 computes from them is in hf_golden.json
(`hf_golden.py` made it), and `pytest -m peers` compares with transformers itself, as far as 64 tokens.
"""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import gen_transformer.model
from gen_core.testing import load as module
from gen_transformer.bert import Bert
from gen_transformer.config import Config, Rope
from gen_transformer.generate import complete
from gen_transformer.hf import ends, load, save
from gen_transformer.model import EncoderDecoder, Transformer
from gen_transformer.sampling import greedy

golden = module(Path(__file__).with_name("hf_golden.py"))
GOLDEN = golden.golden()
NAMES = list(golden.CASES)
DECODERS = [name for name in NAMES if "greedy" in GOLDEN[name]]
LLAMA = "llama, 2 of 8 key heads, biases"


def outputs(name, model):
    """What `golden.outputs` gives, of a model of ours."""
    x = golden.inputs(name)
    doc = x["attention_mask"] - 1
    if isinstance(model, Bert):
        both = model(x["input_ids"], x["token_type_ids"], doc)
    elif isinstance(model, EncoderDecoder):
        both = (model.logits(model(x["input_ids"], x["decoder_input_ids"], source_doc=doc)),)
    else:
        both = (model.logits(model(x["input_ids"], doc=doc)),)
    return golden.tokens(name, [y for y in both if y is not None])


def tensors(folder):
    return {k: x for file in sorted(folder.glob("*.safetensors")) for k, x in load_file(file).items()}


def slopes(name, model, folder):
    """Gradients of `golden.objective` by their names: a model whose weights they are, saved."""
    model.zero_grad()
    golden.objective(outputs(name, model)).backward()
    twin = copy.deepcopy(model)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.data = torch.zeros_like(p) if p.grad is None else p.grad
    save(twin, folder)
    return tensors(folder)


@pytest.mark.parametrize("name", NAMES)
def test_transformers_numbers(name, tmp_path):
    """Logits to 1e-5 and gradients to 1e-4, in every layout and with a padded row; what is 0 only by rounding is 0."""
    model = load(golden.write(name, tmp_path / "theirs"))
    for ours, theirs in zip(outputs(name, model), GOLDEN[name]["outputs"], strict=True):
        assert golden.some(ours) == pytest.approx(theirs, abs=1e-5, rel=0)
    ours = slopes(name, model, tmp_path / "slopes")
    for key, norm in GOLDEN[name]["slopes"].items():
        assert ours[key].norm().item() == pytest.approx(norm, rel=1e-4, abs=golden.ROUNDING)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_numbers_survive_a_round_trip(name, tmp_path):
    """The same names on disk, tied weights once, and the same bits, in one file and in several."""
    written = tensors(golden.write(name, tmp_path / "theirs"))
    save(load(tmp_path / "theirs"), tmp_path / "ours", shard="60KB")
    ours = tensors(tmp_path / "ours")
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 1
    assert ours.keys() == written.keys()
    assert all(torch.equal(ours[key], written[key]) for key in ours)
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    theirs = GOLDEN[name]["config"]
    assert config["architectures"] == theirs["architectures"] and config["model_type"] == theirs["model_type"]
    before, after = (outputs(name, load(tmp_path / where)) for where in ("theirs", "ours"))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", DECODERS)
def test_greedy_text_of_transformers(name, tmp_path):
    """Token for token, with the second prompt padded on its left."""
    model = load(golden.write(name, tmp_path))
    prompt = {k: x[:, :12] for k, x in golden.inputs(name).items()}
    tokens = complete(model, prompt["input_ids"], 20, doc=prompt["attention_mask"] - 1, warp=greedy)
    assert tokens.tolist() == GOLDEN[name]["greedy"]


def test_the_wrong_gelu_fails(tmp_path, monkeypatch):
    """The exact one in GPT-2 moves no greedy token, but a logit by more than the 1e-5 that are asked."""
    monkeypatch.setitem(gen_transformer.model.ACTIVATIONS, "gelu_tanh", nn.functional.gelu)
    model = load(golden.write("gpt2", tmp_path))
    ours, theirs = (torch.tensor(x) for x in (golden.some(*outputs("gpt2", model)), GOLDEN["gpt2"]["outputs"][0]))
    assert 1e-4 < (ours - theirs).abs().max() < 1e-2


# ---------------------------------------------------------------------- older files


def edit(folder, **fields):
    """Change fields of a config.json; None takes one away."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def rename(folder, change):
    old = load_file(folder / "model.safetensors")
    save_file({change(k): x for k, x in old.items()}, folder / "model.safetensors")


def same(name, folder):
    """Whether a changed directory still gives the numbers of transformers."""
    ours = [golden.some(x) for x in outputs(name, load(folder))]
    return torch.allclose(torch.tensor(ours[0]), torch.tensor(GOLDEN[name]["outputs"][0]), atol=1e-5, rtol=0)


def test_gpt2_of_the_hub(tmp_path):
    """Its files lack the prefix of the trunk and hold the triangle of each layer as a buffer."""
    golden.write("gpt2", tmp_path)
    rename(tmp_path, lambda name: name.removeprefix("transformer."))
    triangles = {f"h.{i}.attn.bias": torch.ones(1, 1, 64, 64).tril() for i in range(3)}
    save_file(load_file(tmp_path / "model.safetensors") | triangles, tmp_path / "model.safetensors")
    edit(tmp_path, tie_word_embeddings=None, n_inner=None, scale_attn_weights=None)
    assert same("gpt2", tmp_path)


def test_bert_of_the_hub(tmp_path):
    """gamma and beta, positions as a buffer, and the tied matrix and bias once more."""
    golden.write("bert", tmp_path)
    rename(
        tmp_path, lambda k: k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    )
    old = load_file(tmp_path / "model.safetensors")
    more = {
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "cls.predictions.decoder.weight": old["bert.embeddings.word_embeddings.weight"].clone(),
        "cls.predictions.decoder.bias": old["cls.predictions.bias"].clone(),
    }
    save_file(old | more, tmp_path / "model.safetensors")
    edit(tmp_path, architectures=["BertForMaskedLM"], position_embedding_type="absolute")
    assert same("bert", tmp_path)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "llama3", "yarn"])
def test_positions_of_version_4(kind, tmp_path):
    """`rope_theta` and `rope_scaling`, with `type` in place of `rope_type`, instead of `rope_parameters`."""
    name = f"llama, {kind} positions"
    golden.write(name, tmp_path)
    p = dict(GOLDEN[name]["config"]["rope_parameters"])
    theta, p["type"] = p.pop("rope_theta"), p.pop("rope_type")
    edit(tmp_path, rope_parameters=None, rope_theta=theta, rope_scaling=p)
    assert same(name, tmp_path)
    edit(tmp_path, rope_theta=2 * theta)
    assert not same(name, tmp_path), "the base of the wavelengths is not read"


def test_rope_scaling_goes_before_rope_parameters(tmp_path):
    """Where a file has both, transformers reads nothing of `rope_parameters`, not even the base."""
    name = "llama, linear positions"
    golden.write(name, tmp_path)
    other = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 2.0, "beta_fast": 16.0}
    edit(tmp_path, rope_parameters=other, rope_scaling={"type": "linear", "factor": 4.0})
    assert same(name, tmp_path)


@pytest.mark.parametrize("types", [None, ["sliding_attention", "full_attention", "sliding_attention"]])
def test_a_mistral_with_layer_types_is_a_ministral(types, tmp_path):
    """AutoModel takes it for one: the second layer sees everything. Without the list all layers slide."""
    golden.write("ministral", tmp_path)
    edit(tmp_path, model_type="mistral", layer_types=types)
    assert same("ministral", tmp_path) == bool(types)
    assert load(tmp_path).config.window == ((7, 0, 7) if types else (7, 7, 7))


def test_the_ends_of_a_text_are_those_of_generation_config(tmp_path):
    """One id, several, or none; config.json counts only where there is no generation_config.json."""
    golden.write("gpt2", tmp_path)
    for value, want in ((7, [7]), ([7, 9], [7, 9]), (None, [])):
        edit(tmp_path, eos_token_id=value)
        assert ends(tmp_path) == want
    edit(tmp_path, eos_token_id=3)
    for value, want in ((7, [7]), ([7, 9], [7, 9]), (None, [])):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        assert ends(tmp_path) == want


def test_key_heads_of_an_old_falcon_are_not_read(tmp_path):
    """`num_kv_heads` stands in the file of a multi-query Falcon and means nothing."""
    name = "falcon, multi-query"
    golden.write(name, tmp_path)
    edit(tmp_path, num_kv_heads=4)
    assert same(name, tmp_path) and load(tmp_path).config.kv == 1


def test_copies_of_tied_weights(tmp_path):
    """A second copy is dropped when it is one, and refused when it is not."""
    golden.write("gpt2", tmp_path)
    old = load_file(tmp_path / "model.safetensors")
    save_file(old | {"lm_head.weight": old["transformer.wte.weight"].clone()}, tmp_path / "model.safetensors")
    assert same("gpt2", tmp_path)
    save_file(old | {"lm_head.weight": old["transformer.wte.weight"] + 1}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lm_head\.weight of .* differs from transformer\.wte\.weight"):
        load(tmp_path)


# ---------------------------------------------------------------------- what cannot be read or written


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("gpt2", {"model_type": "bloom"}, "type 'bloom', supported are gpt2, llama"),
        ("gpt2", {"n_embd": None}, "config.json of a gpt2 has no 'n_embd'"),
        ("gpt2", {"activation_function": "mish"}, "activation 'mish' is not supported, only gelu_new"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "gpt2 with scale_attn_by_inverse_layer_idx=True"),
        (
            "gpt2",
            {"n_inner": 100},
            r"c_fc\.weight of .* is torch.float32 \(64, 256\), .* asks for floats \(64, 100\)",
        ),
        (LLAMA, {"quantization_config": {"bits": 4}}, "llama with quantization_config="),
        (LLAMA, {"hidden_act": "gelu"}, "llama with hidden_act='gelu' is not supported, only 'silu'"),
        (
            LLAMA,
            {"rope_parameters": {"rope_type": "longrope"}},
            "rotary positions of type 'longrope' are not",
        ),
        (LLAMA, {"rope_parameters": {"partial_rotary_factor": 0.5}}, "with partial_rotary_factor=0.5 are not"),
        (LLAMA, {"num_hidden_layers": 2}, r"has 16 \(model\.layers\.2"),
        (LLAMA, {"num_hidden_layers": 4}, r"it lacks 16 \(model\.layers\.3\.input_layernorm\.weight, .*, \.\.\.\)"),
        (
            "falcon, multi-query",
            {"alibi": True},
            "alibi=True: ALiBi is not implemented; load one with",
        ),
        ("ministral", {"layer_types": ["full_attention"]}, "layer_types=.* only 3 of full_attention, or"),
        ("qwen3", {"layer_types": ["chunked_attention"] * 3}, "qwen3 with layer_types=.* is not supported"),
        ("qwen3", {"use_sliding_window": False}, "qwen3 with layer_types=.* and sliding_window=0 is not supported"),
        ("bert", {"position_embedding_type": "relative_key"}, "bert with position_embedding_type='relative_key'"),
        ("marian", {"normalize_before": True}, "marian with normalize_before=True is not supported, only False"),
    ],
)
def test_what_cannot_be_read_is_named(name, fields, message, tmp_path):
    edit(golden.write(name, tmp_path), **fields)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_damaged_and_foreign_files(tmp_path):
    """Truncated, not safetensors at all, absent, pickled, broken JSON: one sentence each, and nothing is unpickled."""
    with pytest.raises(FileNotFoundError, match=r"has no config\.json; give the directory"):
        load(tmp_path)
    file = golden.write("gpt2", tmp_path) / "model.safetensors"
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], b"PK\x03\x04 a zip", b""):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match="is damaged or no safetensors"):
            load(tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is a pickle, which can run code"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        load(tmp_path)


def test_a_missing_shard_and_one_outside(tmp_path):
    golden.write("gpt2", tmp_path / "a")
    save(load(tmp_path / "a"), tmp_path / "b", shard="100KB")
    index = tmp_path / "b" / "model.safetensors.index.json"
    places = json.loads(index.read_text())
    first = sorted(set(places["weight_map"].values()))[0]
    (tmp_path / "b" / first).rename(tmp_path / first)
    with pytest.raises(FileNotFoundError, match=f"{first} is missing"):
        load(tmp_path / "b")
    places["weight_map"] = {k: f"../{v}" if v == first else v for k, v in places["weight_map"].items()}
    index.write_text(json.dumps(places))
    with pytest.raises(FileNotFoundError, match=f"{first} is missing"):
        load(tmp_path / "b")


@pytest.mark.parametrize(
    "change", [{"softcap": 15.0}, {"mlp": "relu2"}, {"post_norm": True}, {"pos": "none"}, {"window": (8, 4)}]
)
def test_a_model_of_no_family_is_not_saved(change, tmp_path):
    cfg = replace(Config(vocab=32, dim=16, layers=2, heads=2), **change)
    with pytest.raises(ValueError, match="none of gpt2, llama, mistral, ministral, qwen3, falcon has a model of this"):
        save(Transformer(cfg), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "cfg",
    [
        Config(vocab=32, dim=16, layers=2, heads=2, zero_init=True, rope=Rope(1e5, "yarn", 2.0, 64, 1.0, 32.0, 1.5)),
        Config(vocab=32, dim=16, layers=2, heads=2, window=(8,), tie=True),
        Config(vocab=32, dim=16, layers=2, heads=2, window=(8, 0), qk_norm=True, bias="attention"),
        Config(vocab=32, dim=16, layers=2, heads=2, window=(8, 0)),
        Config(vocab=32, dim=16, layers=2, heads=2, norm="layer", mlp="relu2", parallel="one_norm", kv_heads=1),
        Config(vocab=32, dim=16, layers=2, heads=2, norm="layer", mlp="relu", pos="learned", bias="all", ffn=24),
    ],
)
def test_a_model_of_our_own_goes_round(cfg, tmp_path):
    """Saved as the family it belongs to, read as the same computation."""
    torch.manual_seed(0)
    model = Transformer(cfg)
    save(model, tmp_path, eos_token_id=7)
    again = load(tmp_path)
    ids = golden.ids(2, 20) % 32
    assert torch.equal(again(ids), model(ids))
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 7


def test_saving_where_the_weights_are_mapped_from(tmp_path):
    """A model trained in place and saved over itself; shards of before go; the file of another process stays whole."""
    golden.write("gpt2", tmp_path)
    model = load(tmp_path)
    before = load_file(tmp_path / "model.safetensors")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    assert all(torch.equal(x, before[k]) for k, x in load_file(tmp_path / "model.safetensors").items())
    save(model, tmp_path, shard=100_000)
    save(model, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert torch.equal(load(tmp_path).tokens.weight, before["transformer.wte.weight"] + 1)


def test_precision(tmp_path):
    """As stored, or as asked; the file says which."""
    golden.write("gpt2", tmp_path / "a")
    half = load(tmp_path / "a", dtype=torch.bfloat16)
    save(half, tmp_path / "b")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == "bfloat16"
    assert {p.dtype for p in load(tmp_path / "b").parameters()} == {torch.bfloat16}
    with pytest.raises(ValueError, match="shard is a number of bytes such as 300KB or 5GB, got '5 apples'"):
        save(half, tmp_path / "b", shard="5 apples")
