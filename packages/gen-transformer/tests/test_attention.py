"""Who may see whom, positions, and the cache: the rules against a brute force over all pairs of tokens."""

import math

import pytest
import torch

from gen_transformer.attention import attention, positions, rotary, rotate, sinusoids, visible
from gen_transformer.config import Config, Rope
from gen_transformer.model import Transformer


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [0, 1, 3, 7, 20])
@pytest.mark.parametrize("packed", [True, False])
def test_who_sees_whom(causal, window, packed):
    """Own document, at most `window` tokens with itself, nothing ahead; for any number of last queries."""
    t = 7
    doc = torch.tensor([[0, 0, 0, 1, 1, 1, -1], [-1, -1, 2, 2, 2, 2, 2]]) if packed else None
    for queries in (1, 3, t):
        mask = visible(queries, t, causal=causal, window=window, doc=doc)
        triangle = torch.ones(queries, t).tril(t - queries).bool() if causal else torch.ones(queries, t).bool()
        got = triangle.expand(2, -1, -1) if mask is None else mask[:, 0].expand(2, -1, -1)
        for b in range(2):
            for i in range(queries):
                q = t - queries + i
                for k in range(t):
                    ahead, far = k > q, window and abs(q - k) >= window
                    other = packed and doc[b, q] != doc[b, k]
                    assert bool(got[b, i, k]) == (not (causal and ahead) and not far and not other)


def test_the_kernel_draws_the_triangle_itself_where_it_can():
    """No mask where none is needed: masks cost memory t^2 and the fast kernel."""
    assert visible(9, 9, causal=True) is None and visible(1, 9, causal=True) is None
    assert visible(9, 9, causal=False, window=9) is None
    alone = torch.tensor([[0] * 9, [4] * 9])  # one document a row
    assert visible(9, 9, causal=True, doc=alone) is None
    for other in (torch.tensor([[0] * 8 + [1]]), torch.tensor([[-1] + [0] * 8]), torch.full((1, 9), -1)):
        assert visible(9, 9, causal=True, doc=other) is not None, "documents to keep apart, or padding"
    assert visible(4, 9, causal=True) is not None, "a chunk is aligned with the end of the keys, not with their start"


def test_positions_restart():
    assert positions(torch.tensor([[3, 3, 0, 0, 0, 3, -1, -1]])).tolist() == [[0, 1, 0, 1, 2, 0, 0, 1]]


def test_attention_is_its_formula():
    """softmax(q k' / sqrt(w)) v with query heads 0, 1 on the first key head and 2, 3 on the second."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, h, 6, 8, generator=g, dtype=torch.float64) for h in (4, 2, 2))
    mask = torch.rand(2, 1, 6, 6, generator=g) < 0.5
    mask = mask | torch.eye(6, dtype=torch.bool)
    for h in range(4):
        scores = q[:, h] @ k[:, h // 2].mT / math.sqrt(8)
        weights = scores.masked_fill(~mask[:, 0], -math.inf).softmax(-1)
        torch.testing.assert_close(attention(q, k, v, mask)[:, h], weights @ v[:, h // 2], atol=1e-12, rtol=0)


def test_rotary_scores_depend_on_distance_alone():
    """<R_m q, R_n k> = <R_{m + s} q, R_{n + s} k> ([Su21] eq. 16), and R_0 is the identity."""
    cfg = Config(vocab=8, dim=32, layers=1, heads=2)
    q, k = torch.randn(2, 1, 2, 1, 16, generator=torch.Generator().manual_seed(0))
    turn = lambda m: rotary(cfg, torch.tensor([[m]]), torch.float64)
    score = lambda m, n: (rotate(q.double(), turn(m)) * rotate(k.double(), turn(n))).sum(-1)
    torch.testing.assert_close(score(3, 11), score(503, 511), atol=1e-4, rtol=0)
    assert (score(3, 11) - score(3, 12)).abs().min() > 1e-2
    torch.testing.assert_close(rotate(q.double(), turn(0)), q.double(), atol=0, rtol=0)


def test_rotary_angles_far_out():
    """Angles are float32 under autocast too: at position 5,000 they are right to 1e-3."""
    cfg = Config(vocab=8, dim=64, layers=1, heads=1, context=8192)
    place = torch.tensor([[5000]])
    exact = 5000 * 10_000 ** -(torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    cos, sin = rotary(cfg, place, torch.float32)
    torch.testing.assert_close(cos[0, 0, 0, :32].double(), exact.cos(), atol=1e-3, rtol=0)
    torch.testing.assert_close(sin[0, 0, 0, 32:].double(), exact.sin(), atol=1e-3, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rotary(cfg, place, torch.float32)[0], cos)


def test_scalings():
    """The slowest planes are divided by the factor, the fastest are not, and a short text keeps its base."""
    plain, _ = Rope().frequencies(64, 2048, 2048)
    linear, _ = Rope(scaling="linear", factor=4.0).frequencies(64, 2048, 2048)
    torch.testing.assert_close(linear, plain / 4)
    for kind, high in (("llama3", 4.0), ("yarn", 32.0)):
        got, scale = Rope(scaling=kind, factor=4.0, original=512, high=high).frequencies(64, 2048, 2048)
        assert got[0] == plain[0] and got[-1] == pytest.approx(plain[-1].item() / 4)
        assert ((got <= plain) & (got >= plain / 4 - 1e-9)).all()
        assert scale == pytest.approx(1.0 if kind == "llama3" else 0.1 * math.log(4) + 1)
        assert torch.equal(got, Rope(scaling=kind, factor=4.0, original=512).frequencies(64, 2048, 2048)[0])
    dynamic = Rope(scaling="dynamic", factor=2.0)
    assert torch.equal(dynamic.frequencies(64, 2048, 2048)[0], plain)
    longer, _ = dynamic.frequencies(64, 2048, 4096)
    torch.testing.assert_close(longer, 1 / (10_000 * 3 ** (64 / 62)) ** (torch.arange(0, 64, 2) / 64))


def test_sinusoids():
    """PE(pos, 2i) = sin(pos / 10000^(2i / d)), PE(pos, 2i + 1) = cos of the same ([Vaswani17] section 3.5)."""
    place = torch.tensor([[0, 1, 700]])
    x = sinusoids(place, 6)
    for row, p in enumerate((0, 1, 700)):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            assert x[0, row, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-7)
            assert x[0, row, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-7)
    assert torch.equal(sinusoids(place, 6, halves=True), torch.cat((x[..., 0::2], x[..., 1::2]), -1))


# ---------------------------------------------------------------------- cache

SIZES = {"vocab": 31, "dim": 32, "layers": 2, "heads": 4, "context": 64}
CONFIGS = {
    "llama": Config(**SIZES, kv_heads=2),
    "windows": Config(**SIZES, window=(5, 0), qk_norm=True),
    "gpt2": Config(**SIZES, norm="layer", mlp="gelu_tanh", pos="learned", bias="all", tie=True),
    "falcon": Config(**SIZES, norm="layer", mlp="gelu", parallel="one_norm", kv_heads=1),
    "sinusoids": Config(**SIZES, norm="layer", mlp="relu", pos="sinusoidal", post_norm=True),
}


def build(cfg):
    torch.manual_seed(0)
    model = Transformer(cfg).eval()
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model


def tokens(rows, length, seed=0):
    return torch.randint(31, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("doc", [None, "padded", "packed"])
@torch.no_grad()
def test_chunks_equal_the_whole(name, doc):
    """Prefill in chunks, then token by token, gives the hidden states of one pass."""
    model, ids = build(CONFIGS[name]), tokens(2, 20)
    docs = {
        None: None,
        "padded": torch.tensor([[0] * 20, [-1] * 6 + [0] * 14]),
        "packed": torch.tensor([[0] * 7 + [1] * 13, [-1] * 2 + [4] * 9 + [2] * 9]),
    }[doc]
    whole, cache, parts = model(ids, doc=docs), model.cache(2, 20), []
    for start, end in ((0, 8), (8, 13), *((i, i + 1) for i in range(13, 20))):
        part = None if docs is None or start >= 13 else docs[:, start:end]  # new tokens go on in the last document
        parts.append(model(ids[:, start:end], doc=part, cache=cache))
    assert cache.used == 20
    keep = torch.ones(2, 20).bool() if docs is None else docs >= 0
    torch.testing.assert_close(torch.cat(parts, 1)[keep], whole[keep], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_left_padding_changes_nothing(name):
    """A row of a batch with padding on its left equals the row alone, in a prefill and in what follows."""
    model, ids = build(CONFIGS[name]), tokens(2, 16)
    doc = torch.tensor([[0] * 12, [-1] * 5 + [0] * 7])
    cache, alone = model.cache(2, 16), model.cache(1, 11)
    batch = torch.cat((model(ids[:, :12], doc=doc, cache=cache), model(ids[:, 12:], cache=cache)), 1)
    single = torch.cat((model(ids[1:, 5:12], cache=alone), model(ids[1:, 12:], cache=alone)), 1)
    torch.testing.assert_close(batch[1:, 5:], single, atol=1e-5, rtol=0)
    assert batch.isfinite().all()


@torch.no_grad()
def test_crop_and_reorder():
    """Going back to a prefix forgets what came after; rows change places with their documents."""
    model, ids = build(CONFIGS["llama"]), tokens(2, 10)
    doc = torch.tensor([[0] * 6, [-1] * 2 + [0] * 4])
    cache = model.cache(2, 10)
    model(ids[:, :6], doc=doc, cache=cache)
    first = model(ids[:, 6:8], cache=cache)
    cache.crop(6)
    assert cache.used == 6
    torch.testing.assert_close(model(ids[:, 6:8], cache=cache), first, atol=0, rtol=0)
    cache.crop(6)
    cache.reorder(torch.tensor([1, 0]))
    torch.testing.assert_close(model(ids[[1, 0], 6:8], cache=cache), first[[1, 0]], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("kv", "dtype"), [(None, torch.float32), (2, torch.bfloat16), (1, torch.float64)])
def test_bytes_of_the_cache(kv, dtype):
    """2 layers kv_heads width batch length itemsize: fewer key heads shrink it by heads / kv_heads exactly."""
    model = Transformer(Config(vocab=8, dim=48, layers=3, heads=4, kv_heads=kv)).to(dtype)
    assert model.cache(5, 70).bytes == 2 * 3 * (kv or 4) * 12 * 5 * 70 * dtype.itemsize


def test_a_full_cache_says_so():
    model = build(CONFIGS["llama"])
    cache = model.cache(1, 4)
    with pytest.raises(ValueError, match="the cache holds 4 tokens and 5 are needed"):
        model(tokens(1, 5), cache=cache)
