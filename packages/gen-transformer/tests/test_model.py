"""The block stack: packing that cannot leak, the switches, what torch's own layers compute, and counting."""

import subprocess
import sys
from copy import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gen_transformer.bert import BERT, Bert
from gen_transformer.config import Config, Rope
from gen_transformer.model import EncoderDecoder, Transformer, flops_per_token, parameters

SIZES = {"vocab": 31, "dim": 32, "layers": 2, "heads": 4, "context": 64}
CONFIGS = {
    "llama": Config(**SIZES, kv_heads=2),
    "dynamic": Config(**{**SIZES, "context": 16}, rope=Rope(scaling="dynamic", factor=2.0)),
    "windows": Config(**SIZES, window=(5, 0), qk_norm=True),
    "gpt2": Config(**SIZES, norm="layer", mlp="gelu_tanh", pos="learned", bias="all", tie=True),
    "falcon": Config(**SIZES, norm="layer", mlp="gelu", parallel="two_norms", kv_heads=1),
    "sinusoids": Config(**SIZES, norm="layer", mlp="relu2", pos="sinusoidal", post_norm=True, softcap=5.0),
    "encoder": Config(**SIZES, causal=False, window=(0, 6)),
}
EACH = pytest.mark.parametrize("name", CONFIGS)


def shaken(model):
    """Every parameter moved, gains and biases too."""
    g = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=g)
    return model


def build(cfg):
    return shaken(Transformer(cfg))


def tokens(rows, length, vocab=31, seed=0):
    return torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------- packing

LENGTHS = (12, 20, 9)
DOC = torch.repeat_interleave(torch.tensor([0, 1, 2]), torch.tensor(LENGTHS))[None]


@pytest.mark.parametrize("training", [True, False])
@EACH
def test_packed_documents_equal_documents_alone(name, training):
    """Documents of 12, 20 and 9 tokens in one row, as in a batch with padding on either side."""
    model, ids = build(CONFIGS[name]).train(training), tokens(1, sum(LENGTHS))
    packed = model(ids, doc=DOC).split(LENGTHS, dim=1)
    alone = [model(part) for part in ids.split(LENGTHS, dim=1)]
    for a, b in zip(packed, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    doc = torch.full((3, 25), -1)
    rows = torch.zeros(3, 25, dtype=torch.long)
    for i, (part, n) in enumerate(zip(ids.split(LENGTHS, dim=1), LENGTHS, strict=True)):
        start = 25 - n if i == 1 else 2
        rows[i, start : start + n], doc[i, start : start + n] = part[0], i
    padded = model(rows, doc=doc)
    torch.testing.assert_close(padded[doc >= 0], torch.cat(alone, 1)[0], atol=1e-5, rtol=0)
    assert padded.isfinite().all()


@pytest.mark.parametrize("name", [name for name, cfg in CONFIGS.items() if cfg.causal])
@torch.no_grad()
def test_packing_does_not_leak_in_a_prefill(name):
    """With a cache, all at once and in chunks that cut documents; cached keys keep the dynamic base of their chunk."""
    model, ids = build(CONFIGS[name]).eval(), tokens(1, sum(LENGTHS))
    alone = torch.cat([model(part) for part in ids.split(LENGTHS, dim=1)], 1)
    for chunks in ((41,), *[(5, 20, 16)] * (name != "dynamic")):
        cache = model.cache(1, 41)
        parts = zip(ids.split(chunks, 1), DOC.split(chunks, 1), strict=True)
        got = torch.cat([model(x, doc=d, cache=cache) for x, d in parts], 1)
        torch.testing.assert_close(got, alone, atol=1e-5, rtol=0)


@EACH
def test_another_document_changes_not_one_bit(name):
    """Other words in document 0 leave documents 1 and 2 and all their gradients exactly as they were."""
    model = build(CONFIGS[name])
    ids, other = tokens(1, 41), tokens(1, 41)
    other[:, :12] = tokens(1, 12, seed=1)
    embeds = model.embed(ids).detach().requires_grad_()
    assert torch.equal(model(ids, doc=DOC)[:, 12:], model(other, doc=DOC)[:, 12:])
    model(embeds=embeds, doc=DOC)[:, 12:32].square().sum().backward()
    assert embeds.grad[:, :12].eq(0).all() and embeds.grad[:, 32:].eq(0).all()
    assert embeds.grad[:, 12:32].ne(0).all()


@pytest.mark.parametrize("name", ["encoder", "llama"])
def test_order_matters_through_positions_alone(name):
    """Without positions, permuting the tokens of an encoder permutes its states; with them it does not."""
    cfg = replace(CONFIGS[name], causal=False, window=(0,))
    ids, order = tokens(1, 9), torch.randperm(9, generator=torch.Generator().manual_seed(1))
    for pos, equal in (("none", True), ("rope", False)):
        model = build(replace(cfg, pos=pos))
        assert torch.allclose(model(ids)[:, order], model(ids[:, order]), atol=1e-5) == equal


@EACH
def test_the_future_is_not_seen(name):
    """A later token moves no earlier state of a decoder, and every one of an encoder without windows."""
    model, ids = build(replace(CONFIGS[name], window=(0,))), tokens(1, 9)
    other = ids.clone()
    other[:, 6] = (ids[:, 6] + 1) % 31
    moved = (model(ids) != model(other)).any(-1)[0]
    assert moved.tolist() == [not CONFIGS[name].causal] * 6 + [True] * 3


def test_batch_as_wide_as_the_model():
    """Rows, tokens and width of the same size are not confused."""
    model = build(replace(CONFIGS["llama"], dim=8, heads=2, kv_heads=1, vocab=8))
    ids = tokens(8, 8, vocab=8)
    together = model.logits(model(ids))
    for i in range(8):
        torch.testing.assert_close(together[i : i + 1], model.logits(model(ids[i : i + 1])), atol=1e-5, rtol=0)


# ---------------------------------------------------------------------- switches


def test_blocks_are_their_equations():
    """Pre-norm x + f(n(x)), post-norm n(x + f(x)), parallel x + a(n1(x)) + m(n2(x)) with one n or two."""
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    base = Config(**SIZES, pos="none")
    run = lambda cfg: (model := build(replace(cfg, layers=1)), model.blocks[0], model(embeds=x))
    model, b, y = run(base)
    a = x + b.attention(b.norm1(x), causal=True)
    torch.testing.assert_close(y, model.norm(a + b.mlp(b.norm2(a))))
    model, b, y = run(replace(base, post_norm=True))
    a = b.norm1(x + b.attention(x, causal=True))
    torch.testing.assert_close(y, b.norm2(a + b.mlp(a)))
    assert model.norm is None
    model, b, y = run(replace(base, parallel="two_norms"))
    torch.testing.assert_close(y, model.norm(x + b.attention(b.norm1(x), causal=True) + b.mlp(b.norm2(x))))
    model, b, y = run(replace(base, parallel="one_norm"))
    assert b.norm2 is None
    torch.testing.assert_close(y, model.norm(x + b.attention(b.norm1(x), causal=True) + b.mlp(b.norm1(x))))


def test_zero_init_starts_as_the_identity():
    """Every block adds nothing, so the logits are those of the embeddings; the gradient reaches the zeros."""
    model, ids = Transformer(replace(CONFIGS["llama"], zero_init=True)), tokens(2, 7)
    torch.testing.assert_close(model(ids), model.norm(model.embed(ids)), atol=0, rtol=0)
    model(ids).sum().backward()
    assert model.blocks[0].mlp.down.weight.grad.ne(0).any() and model.blocks[0].attention.o.weight.grad.ne(0).any()


def test_initial_weights():
    """The table in `reset_parameters`, for every matrix; a head after tying is the table itself."""
    cfg = Config(vocab=512, dim=128, layers=8, heads=4, bias="all", norm="layer", pos="learned", tie=True)
    torch.manual_seed(0)
    model = Transformer(cfg)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert p.eq(0).all()
        elif p.ndim == 1:
            assert p.eq(1).all()
        else:
            assert p.std().item() == pytest.approx(0.02 / (4 if ".o." in name or ".down." in name else 1), rel=0.05)
    assert model.output is model.tokens.weight and model.head is None


def test_softcap_bounds_logits():
    model, ids = build(replace(CONFIGS["llama"], softcap=1.0)), tokens(2, 7)
    plain = F.linear(model(ids), model.output)
    torch.testing.assert_close(model.logits(model(ids)), torch.tanh(plain))
    assert plain.abs().max() > 1


@EACH
def test_recomputing_changes_no_gradient(name):
    """Activation checkpointing: the same loss and the same gradients."""
    model, ids = build(CONFIGS[name]), tokens(2, 13)
    slopes = []
    for model.recompute in (False, True):
        model.zero_grad()
        model.logits(model(ids)).logsumexp(-1).sum().backward()
        slopes.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*slopes, strict=True))


def compile_and_compare():
    """Runs in a process of its own: the run-time checks of shapes in tests break graphs, and are no part of a model."""
    for name in ("windows", "gpt2"):
        model, ids = build(replace(CONFIGS[name], layers=1)), tokens(2, 13)
        doc = torch.tensor([[0] * 5 + [1] * 8, [-1] * 3 + [0] * 10])
        results = []
        for f in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
            model.zero_grad()
            x = f(ids, doc=doc)
            x.square().sum().backward()
            results.append([x.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
        torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_compiles_in_one_graph():
    """Packed documents, windows, rotary and learned positions: fullgraph, and the same states and gradients."""
    code = f"from gen_core.testing import load; load({__file__!r}).compile_and_compare()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_autocast_keeps_the_residual_stream_wide():
    """Under bf16 autocast hidden states are float32 and near the float32 ones, with a cache too."""
    model, ids = build(CONFIGS["llama"]).eval(), tokens(2, 12)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        cache = model.cache(2, 12)
        x = torch.cat((model(ids[:, :7], cache=cache), model(ids[:, 7:], cache=cache)), 1)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, model(ids), atol=0.1, rtol=0)


def test_what_does_not_fit_is_named():
    model = Transformer(CONFIGS["llama"])
    with pytest.raises(ValueError, match=r"id 31 is outside of the vocabulary 0\.\.30"):
        model(torch.tensor([[3, 31]]))
    with pytest.raises(ValueError, match="id -1 is outside"):
        model(torch.tensor([[3, -1]]))
    with pytest.raises(ValueError, match="65 tokens do not fit the context of 64; cut the text"):
        model(tokens(1, 65))
    with pytest.raises(ValueError, match="give ids or embeds"):
        model()
    with pytest.raises(ValueError, match=r"no vocabulary \(vocab=0\); give embeds"):
        Transformer(replace(CONFIGS["llama"], vocab=0))(tokens(1, 3))
    with pytest.raises(ValueError, match=r"no vocabulary \(vocab=0\), so it has no logits"):
        Transformer(replace(CONFIGS["llama"], vocab=0)).logits(torch.zeros(1, 32))
    with pytest.raises(ValueError, match="parallel='one_norm' leaves no place for cross-attention"):
        Transformer(replace(CONFIGS["llama"], parallel="one_norm"), source_dim=8)
    for change, message in [
        ({"heads": 5}, "dim 32 does not divide into 5 heads"),
        ({"kv_heads": 3}, "heads must be a multiple of kv_heads, got 4 and 3"),
        ({"head_dim": 7}, "heads need an even width, got 7"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"window": ()}, "window is tokens per layer"),
        ({"parallel": "one_norm", "post_norm": True}, "has its norms before; use post_norm=False"),
        ({"dim": 33, "heads": 3, "kv_heads": 3, "pos": "sinusoidal"}, "dim must be even, got 33"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(CONFIGS["llama"], **change)
    for settings, name, value in (
        (CONFIGS["llama"], "pos", "alibi"),
        (CONFIGS["llama"], "parallel", True),
        (Rope(), "scaling", "ntk"),
    ):
        wrong = copy(settings)
        object.__setattr__(wrong, name, value)  # the run-time checks of types in tests would be first
        with pytest.raises(ValueError, match=f"{name} is one of none, .*, got {value!r}|one of rope, .*, got 'alibi'"):
            wrong.__post_init__()


# ---------------------------------------------------------------------- torch's own layers


def copy_attention(ours, theirs):
    """Theirs, from ours: one matrix for q, k and v."""
    theirs.in_proj_weight.data = torch.cat([x.weight for x in (ours.q, ours.k, ours.v)])
    theirs.in_proj_bias.data = torch.cat([x.bias for x in (ours.q, ours.k, ours.v)])
    theirs.out_proj.load_state_dict(ours.o.state_dict())


def copy_block(ours, theirs):
    copy_attention(ours.attention, theirs.self_attn)
    pairs = {"norm1": ours.norm1, "linear1": ours.mlp.up, "linear2": ours.mlp.down, "norm2": ours.norm2}
    if hasattr(ours, "cross"):
        copy_attention(ours.cross, theirs.multihead_attn)
        pairs |= {"norm2": ours.norm_cross, "norm3": ours.norm2}
    for name, module in pairs.items():
        getattr(theirs, name).load_state_dict(module.state_dict())


@torch.no_grad()
def test_encoder_decoder_of_torch():
    """nn.TransformerEncoder and nn.TransformerDecoder, post-norm, without their final norm; padding in the source.

    A boolean mask there is True where one may NOT look.
    """
    fixed = {"norm": "layer", "post_norm": True, "mlp": "relu", "pos": "sinusoidal", "bias": "all", "tie": True}
    encoder, decoder = Config(**SIZES, **fixed, causal=False), Config(**SIZES, **fixed)
    ours = shaken(EncoderDecoder(encoder, decoder))
    sizes = {"d_model": 32, "nhead": 4, "dim_feedforward": 128, "dropout": 0.0, "batch_first": True}
    left = nn.TransformerEncoder(nn.TransformerEncoderLayer(**sizes), 2, enable_nested_tensor=False)
    right = nn.TransformerDecoder(nn.TransformerDecoderLayer(**sizes), 2)
    for a, b in zip([*ours.encoder.blocks, *ours.decoder.blocks], [*left.layers, *right.layers], strict=True):
        copy_block(a, b)
    source, target = tokens(3, 11), tokens(3, 7, seed=1)
    doc = torch.tensor([[0] * 11, [0] * 8 + [-1] * 3, [0] * 1 + [-1] * 10])
    place = lambda stack, ids: stack._placed(stack.embed(ids) * 32**0.5, torch.arange(ids.shape[1])[None])
    seen = left(place(ours.encoder, source), src_key_padding_mask=doc < 0)
    ahead = torch.ones(7, 7).triu(1).bool()
    hidden = right(place(ours.decoder, target), seen, tgt_mask=ahead, memory_key_padding_mask=doc < 0)
    torch.testing.assert_close(ours(source, target, source_doc=doc), hidden, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.encode(source, doc)[doc >= 0], seen[doc >= 0], atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_decoder_with_its_source_is_a_language_model():
    """`given` with a cache gives the states of one pass; several rows per source are a beam's."""
    fixed = {"norm": "layer", "bias": "all", "tie": True}
    ours = shaken(EncoderDecoder(Config(**SIZES, **fixed, causal=False), Config(**SIZES, **fixed)))
    source, target = tokens(2, 11), tokens(4, 7, seed=1)
    doc = torch.tensor([[0] * 11, [0] * 8 + [-1] * 3])
    model = ours.given(source, doc)
    cache = model.cache(4, 7)
    steps = torch.cat([model(target[:, i : i + 1], cache=cache) for i in range(7)], 1)
    whole = ours(source.repeat_interleave(2, 0), target, source_doc=doc.repeat_interleave(2, 0))
    torch.testing.assert_close(steps, whole, atol=1e-5, rtol=0)
    assert ours.encoder.tokens is ours.decoder.tokens
    assert model.logits(steps).shape == (4, 7, 31)


# ---------------------------------------------------------------------- counting


def on_meta(kind, *args, **kwargs):
    with torch.device("meta"):
        return kind(*args, **kwargs)


def test_parameters_of_known_models():
    """As their papers and files count them."""
    croissant = on_meta(Transformer, Config(vocab=32000, dim=2048, layers=24, heads=16, ffn=5504))
    assert parameters(croissant) == 1_345_423_360
    assert parameters(croissant, tables=False) == 1_214_351_360
    gpt2 = Config(50257, 768, 12, 12, context=1024, norm="layer", mlp="gelu_tanh", pos="learned", bias="all", tie=True)
    assert parameters(on_meta(Transformer, gpt2)) == 124_439_808
    falcon = Config(65024, 4544, 32, 71, kv_heads=1, norm="layer", mlp="gelu", parallel="one_norm", tie=True)
    assert parameters(on_meta(Transformer, falcon)) == 6_921_720_704
    bert = on_meta(Bert, Config(30522, 768, 12, 12, context=512, **BERT), sentences=False)
    assert parameters(bert) == 109_514_298


@pytest.mark.parametrize("cfg", [CONFIGS["llama"], CONFIGS["gpt2"], replace(CONFIGS["falcon"], head_dim=12)])
def test_flops_are_those_that_torch_counts(cfg):
    """Forward and backward with attention written out, where a profiler sees it; rotations are no matmul."""
    model, ids = Transformer(cfg), tokens(2, 48)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.logits(model(ids)).sum().backward()
    assert counter.get_total_flops() == ids.numel() * flops_per_token(cfg, 48)
    causal = flops_per_token(cfg, 48) - flops_per_token(cfg, 48, causal=True)
    assert causal == 6 * cfg.layers * cfg.heads * cfg.width * 48
    windowed = flops_per_token(replace(cfg, window=(16, 0)), 48)
    assert flops_per_token(cfg, 48) - windowed == 12 * cfg.heads * cfg.width * 32
